/* Connections that a fork shares: from then on session, state and the list of holders lie in memory that parent and child
 * both map, so that either may read and write, and the last to close says goodbye. */
#ifndef CONDUIT_SHARE_H
#define CONDUIT_SHARE_H

#include "conduit/conn.h"

/* Around fork(), in the thread that forks. prepare takes every lock of every live connection, and moves those that no
 * fork shared before; a connection that the caller itself is in the middle of (a signal handler forks) stays unshared. */
void share_prepare(void);
void share_parent(void);
void share_child(void);

/* May this process take handshake steps? One does; the others follow when it is open. Step lock held. */
bool share_may_step(struct conn *c);
void share_opened(struct conn *c);  /* the handshake is done in this process */
bool share_is_last(struct conn *c); /* no other process still holds the connection */
void share_leave(struct conn *c);   /* this process holds it no more */
void share_release(struct conn *c); /* unmaps */

#endif
