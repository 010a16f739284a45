/* The program has put a filter on its system calls (seccomp). From then on the shim makes none but those that
 * hook/filter.c stands up for: it asks nobody, opens nothing and says nothing. */
#ifndef SYS_CONFINED_H
#define SYS_CONFINED_H

#include <stdatomic.h>
#include <stdbool.h>

extern atomic_bool confined_set;

static inline bool confined(void)
{
	return atomic_load_explicit(&confined_set, memory_order_relaxed);
}

#endif
