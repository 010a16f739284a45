/* May the kernel touch this memory of the program's? Where a call is served here instead of there, a bad pointer must still
 * be EFAULT. Pages that were once found good are remembered, so that buffers in use cost no system call; a page that a
 * program unmaps and then passes all the same may be taken for good. Async-signal-safe. */
#ifndef SYS_USER_H
#define SYS_USER_H

#include <stdbool.h>
#include <stddef.h>

/* How many of the n bytes at p can be read, or written. The pages between a good first and a good last one are not asked. */
size_t user_span(const void *p, size_t n, bool write);

static inline bool user_reads(const void *p, size_t n)
{
	return user_span(p, n, false) == n;
}

static inline bool user_writes(const void *p, size_t n)
{
	return user_span(p, n, true) == n;
}

#endif
