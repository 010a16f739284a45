#include "registry/strmap.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

static const char *key_of(const void *item)
{
	return *(const char *const *)item;
}

/* Index of the key, or of the first that is greater. */
static size_t place(const struct strmap *t, const char *key, bool *found)
{
	size_t low = 0, high = t->n;

	*found = false;
	while (low < high) {
		size_t mid = low + (high - low) / 2;
		int c = strcmp(key_of(t->v[mid]), key);
		if (c == 0) {
			*found = true;
			return mid;
		}
		if (c < 0)
			low = mid + 1;
		else
			high = mid;
	}
	return low;
}

void *strmap_find(const struct strmap *t, const char *key)
{
	bool found;
	size_t i = place(t, key, &found);

	return found ? t->v[i] : NULL;
}

int strmap_add(struct strmap *t, void *item)
{
	bool found;
	size_t i = place(t, key_of(item), &found);

	if (t->n == t->size) {
		size_t size = t->size ? t->size * 2 : 16;
		void **v = realloc(t->v, size * sizeof(*v));
		if (!v)
			return -ENOMEM;
		t->v = v;
		t->size = size;
	}
	memmove(t->v + i + 1, t->v + i, (t->n - i) * sizeof(*t->v));
	t->v[i] = item;
	t->n++;
	return 0;
}

void *strmap_remove(struct strmap *t, const char *key)
{
	bool found;
	size_t i = place(t, key, &found);

	if (!found)
		return NULL;
	void *item = t->v[i];
	memmove(t->v + i, t->v + i + 1, (t->n - i - 1) * sizeof(*t->v));
	t->n--;
	return item;
}

void strmap_clear(struct strmap *t, void (*free_item)(void *item))
{
	for (size_t i = 0; i < t->n; i++)
		free_item(t->v[i]);
	free(t->v);
	*t = (struct strmap){ 0 };
}
