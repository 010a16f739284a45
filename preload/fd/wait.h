/* The wait calls for sets with meshed sockets in them. Each waits in the kernel with the program's own call; an event that
 * the program could do nothing with is held back and the wait goes on with the time that is left. Deadlines of dials and
 * handshakes shorten a wait. Results as the system calls', or -errno. */
#ifndef FD_WAIT_H
#define FD_WAIT_H

#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <time.h>

#define WAIT_FOREVER INT64_MAX

/* `deadline_ms` on CLOCK_MONOTONIC; WAIT_FOREVER. At least one pass is made. */
int wait_poll(struct pollfd *fds, nfds_t n, int64_t deadline_ms, const sigset_t *mask);
int wait_select(int n, fd_set *r, fd_set *w, fd_set *e, int64_t deadline_ms, const sigset_t *mask);
int wait_epoll(int ep, struct epoll_event *ev, int n, int64_t deadline_ms, const sigset_t *mask);

bool wait_has_conn(struct pollfd *fds, nfds_t n);
bool wait_set_has_conn(int n, const fd_set *r, const fd_set *w, const fd_set *e);

#endif
