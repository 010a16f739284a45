/* Asks the admin page of a weftd. Blocks, at most 5 s per answer. */
#ifndef CLI_CLIENT_H
#define CLI_CLIENT_H

#include <jansson.h>
#include <stddef.h>

#define CLIENT_WHY 256

/* Fetches one page. address: as admin.h has it. *out to json_decref(). 0, or -errno with `why` in words. */
int client_get(const char *address, const char *page, json_t **out, char why[static CLIENT_WHY]);

/* Fetches a whole list, part by part: its entries, at most CLIENT_ENTRIES. `query` without '?', may be "". */
#define CLIENT_ENTRIES 1000000u
int client_list(const char *address, const char *page, const char *query, json_t **out,
		char why[static CLIENT_WHY]);

/* Says on stderr that weftd does not answer, and what to do. */
void client_complain(const char *address, const char *why);

#endif
