/* A call of the program's on a connection, from entry to return. While it lasts the connection lives, and if its last
 * descriptor is closed meanwhile, by another thread or a signal handler, the call goes on: the kernel's own calls hold the
 * file just so, and the peer sees the end only when they are done. A call that is left by cancellation or a jump gives
 * back what it holds. */
#ifndef CONDUIT_CALL_H
#define CONDUIT_CALL_H

#include "conduit/conn.h"
#include "sys/leave.h"

struct call {
	struct conn *const *v; /* entries may be NULL */
	size_t n;
	struct conn *one;
	struct call *outer; /* of this thread, which a signal handler interrupted */
	struct leave leave;
};

/* Begins a call on `conn`, whose reference it takes over; it ends with the block. NULL: nothing. */
#define CALL_ON(k, conn)                                  \
	struct call k __attribute__((cleanup(call_end))); \
	call_begin(&k, conn)

void call_begin(struct call *k, struct conn *c);
/* The same on many, whose array outlives the call. */
void call_begin_all(struct call *k, struct conn *const *v, size_t n);
void call_leave(struct call *k);
static inline void call_end(struct call *k)
{
	if (k->n)
		call_leave(k);
}
/* How many calls the calling thread is in on `c`. */
unsigned call_depth(const struct conn *c);

#endif
