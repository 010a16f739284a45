/* A connection that the program holds for connected while hands are still shaken.
 *
 * TCP's connect() is over when the kernels have shaken hands, though nobody may have called accept(); programs rely on it: one
 * thread connects and then accepts, or a client tells the server over another channel that it may come. So connect() waits
 * for the peer's handshake WEFT_GRACE_MS, or not at all where the listener is this process' own, and then reports success.
 * What the program writes meanwhile stays in this process' memory until the peer is authenticated: it is never sent in the
 * clear, but to a client that policy admits so. An accepted connection is early in the same way: once its peer was answered, or
 * at the first write of a program that may not wait.
 *
 * Early connections make their steps in any wait of this process; one that the program closes goes on under a descriptor of
 * ours until what was written is sent. */
#ifndef CONDUIT_EARLY_H
#define CONDUIT_EARLY_H

#include <poll.h>

#include "conduit/conn.h"

#define EARLY_FDS 32 /* connections looked at in one wait */

static inline bool early_is(const struct conn *c)
{
	return conn_is_stepping(c) && atomic_load_explicit(&c->early, memory_order_acquire);
}

static inline bool early_any(void)
{
	return atomic_load_explicit(&conn_early, memory_order_relaxed) != 0;
}

/* Step lock held, or nobody else knows of the connection: */
void early_client(struct conn *c, int fd); /* the first handshake of a client begins */
void early_server(struct conn *c);         /* a client was answered */
void early_check(struct conn *c);          /* is the grace over? */
/* No lock held: a call that may not wait is about to write. What was accepted has room for a greeting, and many programs never
 * look whether it was taken. */
void early_accepted(struct conn *c);
/* After the handshake, before the connection is open: sends what was written early. 0; -EAGAIN; -errno. */
int early_flush(struct conn *c, int fd);
/* The same where the peer turned out not to be of the mesh, and policy admits it. */
int early_flush_plain(struct conn *c, int fd);
/* The connection is open: shutdown() calls that came early are made. */
void early_opened(struct conn *c, int fd);
void early_release(struct conn *c);

/* As send(2). -ESTALE: not early any more; -EAGAIN: no room. */
ssize_t early_send(struct conn *c, const struct iovec *iov, size_t skip, size_t n, int flags);
bool early_has_room(const struct conn *c);
/* shutdown(2). -ESTALE: not early any more. */
int early_shutdown(struct conn *c, int how);
/* The program closes its last descriptor of it. True: it goes on by a reference of its own, if the caller keeps the socket. No
 * lock held. */
bool early_orphan(struct conn *c, int fd);
void early_disown(struct conn *c); /* gives that reference back */

/* Steps `c` (NULL: none) and, if there are any early ones, all others that can go on, until none can. No lock held. */
void early_settle(struct conn *c, int fd);
/* What else a wait is to look at, so that early connections go on: up to EARLY_FDS, in turn. */
int early_poll(struct pollfd p[static EARLY_FDS]);
int64_t early_turn_ms(
	void); /* when such a wait must end, for others to have theirs; INT64_MAX: there are none */
/* block_wait() meanwhile. */
int early_wait(int fd, short events, int64_t deadline_ms, bool once);
/* The same for the next step of `c`. 0: look at its state again. */
int early_wait_step(struct conn *c, int fd, int64_t deadline_ms, bool once);
/* The process ends: waits a little until what was written early is sent. */
void early_exit(void);
void early_forked(void); /* in a fork's child: orphans are the parent's */

#endif
