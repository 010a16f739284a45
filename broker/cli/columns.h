/* Plain text tables: every column as wide as its widest cell, the last one as it comes. */
#ifndef CLI_COLUMNS_H
#define CLI_COLUMNS_H

#include <stdio.h>

#define COLUMNS_MAX 10

struct columns; /* opaque; cells are copied */
/* Headings separated by '|'. Aborts when out of memory, as everything here. */
struct columns *columns_new(const char *headings);
void columns_cell(struct columns *c, const char *format, ...) __attribute__((format(printf, 2, 3)));
void columns_print(struct columns *c, FILE *f); /* and frees it; nothing is printed without a row */

/* Replaces control bytes in place: nothing from outside speaks to the terminal. Returns `text`. */
char *columns_plain(char *text);

/* "3m", "2h", "5d" for a span of seconds; static buffers, two in turn. */
const char *columns_span(long long seconds);

#endif
