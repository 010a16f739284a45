/* Connections that processes share: from then on session, state and the list of holders lie in memory that all of them
 * map, so that each may read and write, and the last to close says goodbye. */
#ifndef CONDUIT_SHARE_H
#define CONDUIT_SHARE_H

#include "conduit/conn.h"
#include "conduit/holder.h"

void share_start(void); /* once, by the constructor */

/* Around fork(), in the thread that forks. prepare takes every lock of every live connection, and moves those that no
 * fork shared before; a connection that the caller itself is in the middle of (a signal handler forks) stays unshared. */
void share_prepare(void);
void share_parent(void);
void share_child(void);

/* All the locks of a connection, step lock first. -EDEADLK where the calling thread is in the middle of it. */
int share_lock(struct conn *c);
void share_unlock(struct conn *c);

/* Where a process that is no fork of this one finds the session. */
struct share_place {
	int segment; /* -1: nowhere */
	uint64_t offset, nonce;
};
/* Moves the session of an open connection into shared memory if it is not there. 0; -ENOTSUP: no memory that another
 * program could attach to; -EDEADLK. */
int share_now(struct conn *c);
bool share_is_within_reach(const struct conn *c); /* another program of this uid could attach */
struct share_place share_place(const struct conn *c);
/* The connection follows a session that another process shares. 0; -EIDRM: its last holder is gone; -errno. */
int share_attach(struct conn *c, const struct share_place *at);
struct holders *share_holders(struct conn *c); /* NULL: not shared */

/* May this process take handshake steps? One does; the others follow when it is open. Step lock held. */
bool share_may_step(struct conn *c);
/* Not shared, or the steps are this process' already. */
bool share_steps_here(const struct conn *c);
void share_opened(struct conn *c);  /* the handshake is done in this process */
bool share_is_last(struct conn *c); /* no other process still holds the connection */
bool share_leave(
	struct
	conn *c); /* this process holds it no more; true: nobody does. Of several at once, one is told so */
void share_release(struct conn *c); /* unmaps */

#endif
