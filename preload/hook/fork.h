/* fork by the number of a call. */
#ifndef HOOK_FORK_H
#define HOOK_FORK_H

#include <stdbool.h>

/* The call `number` with arguments `a` makes a child with a copy of our memory: it has been made, *pid is its result. */
bool fork_by_number(long number, const long *a, long *pid);

#endif
