/* Registrations of meshed sockets with epoll instances. A socket is registered with a tag of ours for the whole life of its
 * connection; the wait hooks translate it back, so that they know whose event they see and can hold it back. */
#ifndef FD_REG_H
#define FD_REG_H

#include <sys/epoll.h>

#include "conduit/conn.h"

/* epoll_ctl(2) for the fd of a connection. 0 or -errno. */
int reg_ctl(struct conn *c, int ep, int op, int fd, const struct epoll_event *ev);
/* Of the `n` events that an epoll instance returned, keeps those that the program may see, with its own data. Takes the
 * steps of handshakes that were due. Returns how many are left. */
int reg_filter(struct epoll_event *ev, int n);
/* This process has registered a connection at some time: an event may carry a tag from then on, also in a thread that began
 * to wait before. */
bool reg_used(void);
/* After the state of a connection may have changed: its registrations follow. One load if it has not. */
void reg_settle(struct conn *c);
/* The last descriptor of the process is about to be closed. */
void reg_drop(struct conn *c);
/* Around fork. */
void reg_lock(void);
void reg_unlock(void);
void reg_forked(void);

#endif
