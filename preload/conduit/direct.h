/* The direct conduit: what the program's calls do on a meshed socket. Each returns what the system call would, or -errno;
 * CONDUIT_PASS means "not meshed after all, make the real call". Blocking calls wait in the kernel on the program's own
 * socket, with no lock held, so that signals, timeouts, cancellation, shutdown() and dup2() act as they do bare. */
#ifndef CONDUIT_DIRECT_H
#define CONDUIT_DIRECT_H

#include "conduit/conn.h"

#define CONDUIT_PASS (-4096)
#define CONDUIT_END (-4097) /* of enter(): a read says 0 */

/* connect(2) for a TCP socket. *c is the connection that the fd leads to, or NULL; a new one may be stored there. */
int direct_connect(struct conn **c, int fd, int family, const struct sockaddr *addr, socklen_t len);
/* recv(2) and send(2) with all their flags. */
ssize_t direct_recv(struct conn *c, int fd, const struct iovec *iov, int n_iov, int flags);
ssize_t direct_send(struct conn *c, int fd, const struct iovec *iov, int n_iov, int flags);
int direct_shutdown(struct conn *c, int fd, int how);
/* FIONREAD. */
ssize_t direct_unread(struct conn *c, int fd);
/* Of `events` that the kernel reports for the socket, those that the program may see; the rest was swallowed and the
 * kernel told to wait for more. Not for stepping connections. */
short direct_events(struct conn *c, int fd, short events);
/* SO_ERROR: reads and clears, as the kernel does. */
int direct_error(struct conn *c, int fd);
/* Before the last descriptor of this process is closed: what was written goes out, close_notify, FIN. */
void direct_close(struct conn *c, int fd);

#endif
