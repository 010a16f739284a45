/* What of this host's traffic weft does not protect, and why: what weftd heard from processes, and what the kernel shows to
 * the user who asks. */
#ifndef CLI_COVERAGE_H
#define CLI_COVERAGE_H

#include <jansson.h>

#include "cli/client.h"

/* {"processes": [...], "passed": [...], "observed": [...], "outside": [...]}; each of the last three has "why" and "help".
 * json_decref() it. NULL with `why` where weftd does not answer. */
json_t *coverage_collect(char why[static CLIENT_WHY]);
void coverage_print(const json_t *coverage);

#endif
