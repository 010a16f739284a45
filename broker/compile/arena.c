#include "compile/arena.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BLOCK_SIZE 4096

struct arena_block {
	struct arena_block *next;
	size_t size, used; /* of bytes */
	max_align_t bytes[];
};

static struct arena_block *block_new(struct arena *a, size_t size)
{
	size_t room = size > BLOCK_SIZE - sizeof(struct arena_block)
			      ? size
			      : BLOCK_SIZE - sizeof(struct arena_block);
	struct arena_block *b;

	if (room > SIZE_MAX - sizeof(*b))
		return NULL;
	b = calloc(1, sizeof(*b) + room);
	if (!b)
		return NULL;
	b->size = room;
	/* A large piece goes behind the block in use, which still has room for small ones. */
	if (a->block && room > BLOCK_SIZE) {
		b->next = a->block->next;
		a->block->next = b;
	} else {
		b->next = a->block;
		a->block = b;
	}
	return b;
}

void *arena_alloc(struct arena *a, size_t size)
{
	struct arena_block *b = a->block;
	void *p;

	if (size > SIZE_MAX / 2)
		goto fail;
	size = (size + sizeof(max_align_t) - 1) / sizeof(max_align_t) * sizeof(max_align_t);
	if (!b || b->size - b->used < size)
		b = block_new(a, size);
	if (!b)
		goto fail;
	p = (char *)b->bytes + b->used;
	b->used += size;
	return p;
fail:
	a->failed = true;
	return NULL;
}

void *arena_array(struct arena *a, size_t n, size_t size)
{
	if (size && n > SIZE_MAX / size) {
		a->failed = true;
		return NULL;
	}
	return arena_alloc(a, n * size);
}

char *arena_strndup(struct arena *a, const char *s, size_t n)
{
	char *p = arena_alloc(a, n + 1);

	if (p)
		memcpy(p, s, n);
	return p;
}

char *arena_strdup(struct arena *a, const char *s)
{
	return arena_strndup(a, s, strlen(s));
}

char *arena_printf(struct arena *a, const char *format, ...)
{
	va_list list;
	char *p;
	int n;

	va_start(list, format);
	n = vsnprintf(NULL, 0, format, list);
	va_end(list);
	p = n < 0 ? NULL : arena_alloc(a, (size_t)n + 1);
	if (!p)
		return NULL;
	va_start(list, format);
	vsnprintf(p, (size_t)n + 1, format, list);
	va_end(list);
	return p;
}

void arena_free(struct arena *a)
{
	while (a->block) {
		struct arena_block *b = a->block;

		a->block = b->next;
		free(b);
	}
	a->failed = false;
}
