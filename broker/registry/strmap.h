/* A sorted array of pointers to structs whose first member is their key, a string. Pure. */
#ifndef REGISTRY_STRMAP_H
#define REGISTRY_STRMAP_H

#include <stddef.h>

struct strmap { /* zero-initialise */
	void **v;
	size_t n, size;
};

void *strmap_find(const struct strmap *t, const char *key); /* NULL: not there */
/* The item's key must not be there yet. 0 or -ENOMEM. The map does not own the item. */
int strmap_add(struct strmap *t, void *item);
void *strmap_remove(struct strmap *t, const char *key); /* the item, or NULL */
void strmap_clear(struct strmap *t, void (*free_item)(void *item));

#endif
