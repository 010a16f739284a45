/* Waiting for descriptors without libc: neither a hook nor a cancellation point. */
#ifndef SYS_READY_H
#define SYS_READY_H

#include <poll.h>
#include <signal.h>
#include <time.h>

/* As ppoll(2), but for more descriptors than RLIMIT_NOFILE allows too, which ppoll(2) refuses: a program may have set that
 * to 0 after it opened what it needs, and goes on with select(2), recv(2) and the like. revents then tells POLLIN, POLLOUT and
 * POLLPRI alone. The count, or -errno. */
int ready_poll(struct pollfd *fds, nfds_t n, const struct timespec *timeout, const sigset_t *mask);
/* What follows when ppoll(2) itself has answered EINVAL. */
int ready_by_select(struct pollfd *fds, nfds_t n, const struct timespec *timeout,
		    const sigset_t *mask);

#endif
