/* A futex lock that knows its owner: usable in memory shared by processes, by a fork's child, and in signal handlers
 * (an owner who asks again is told so instead of waiting for itself). Zero is unlocked. */
#ifndef SYS_LOCK_H
#define SYS_LOCK_H

#include <stdatomic.h>
#include <stdbool.h>

struct lock {
	_Atomic int
		word; /* thread id of the owner; LOCK_WAITERS is or-ed in while somebody sleeps */
};

/* 0; -EDEADLK: this thread holds it already; -EOWNERDEAD: taken over from a thread that died holding it. */
int lock_take(struct lock *l);
bool lock_try(struct lock *l);
void lock_drop(struct lock *l);
bool lock_is_mine(struct lock *l);

/* Thread id of the caller, cached. */
int lock_self(void);
/* The only thread of a fork's child has another id. */
void lock_forked(void);

#endif
