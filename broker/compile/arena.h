/* Memory that is given out piece by piece and freed at once. Pure. */
#ifndef COMPILE_ARENA_H
#define COMPILE_ARENA_H

#include <stdbool.h>
#include <stddef.h>

struct arena_block;
struct arena { /* zero-initialise */
	struct arena_block *block;
	bool failed; /* an allocation failed since the last arena_free() */
};

/* Zeroed, aligned for any type; NULL when out of memory. size 0 is fine. */
void *arena_alloc(struct arena *a, size_t size);
void *arena_array(struct arena *a, size_t n, size_t size); /* n * size, checked for overflow */
char *arena_strdup(struct arena *a, const char *s);
char *arena_strndup(struct arena *a, const char *s, size_t n);
char *arena_printf(struct arena *a, const char *format, ...) __attribute__((format(printf, 2, 3)));
void arena_free(struct arena *a); /* all of it; the arena can be used again */

#endif
