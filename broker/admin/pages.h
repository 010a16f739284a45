/* What each page of the admin address says. Reads the registry only. */
#ifndef ADMIN_PAGES_H
#define ADMIN_PAGES_H

#include <stddef.h>

struct registry;

struct pages_query { /* of the URL; NULL where not given */
	const char *service, *kind, *after;
	size_t limit; /* 0: not given */
};

struct page {
	const char *path;
	/* JSON with a newline at its end, malloc'ed; NULL when out of memory. */
	char *(*render)(const struct registry *r, const struct pages_query *q, size_t *len);
};
const struct page *pages_find(const char *path); /* NULL: there is none */

#endif
