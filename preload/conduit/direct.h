/* The direct conduit: what the program's calls do on a meshed socket. Each returns what the system call would, or -errno;
 * CONDUIT_PASS means "not meshed after all, make the real call". Blocking calls wait in the kernel on the program's own
 * socket, with no lock held, so that signals, timeouts, cancellation, shutdown() and dup2() act as they do bare. */
#ifndef CONDUIT_DIRECT_H
#define CONDUIT_DIRECT_H

#include "conduit/conn.h"

#define CONDUIT_PASS (-4096)
#define CONDUIT_END (-4097) /* of enter(): a read says 0 */
#define CONDUIT_WAIT (-4098)
#define CONDUIT_EARLY (-4099) /* of enter(): a write is kept until the peer is known */
#define CONDUIT_VOID (-4100)  /* of enter(): a write is taken, and nobody is there to have it */

/* connect(2) for a TCP socket, up to where it may have to wait. *c is the connection that the fd leads to, or NULL; a new one
 * may be stored there. CONDUIT_WAIT: direct_connect_wait() has the result. */
int direct_connect(struct conn **c, int fd, int family, const struct sockaddr *addr, socklen_t len);
int direct_connect_wait(struct conn *c, int fd);
/* recv(2) and send(2) with all their flags. */
ssize_t direct_recv(struct conn *c, int fd, const struct iovec *iov, int n_iov, int flags);
ssize_t direct_send(struct conn *c, int fd, const struct iovec *iov, int n_iov, int flags);
/* The program takes the cork out: what is held back is sent, here and in the kernel. -errno of the latter. */
int direct_push(struct conn *c, int fd);
int direct_shutdown(struct conn *c, int fd, int how);
/* FIONREAD. */
ssize_t direct_unread(struct conn *c, int fd);
/* Of `events` that the kernel reports for the socket, those that the program may see; the rest was swallowed and the
 * kernel told to wait for more. */
short direct_events(struct conn *c, int fd, short events);
/* What a poller of a stepping connection asks the kernel for, when the program asked for `events`. */
short direct_wants(const struct conn *c, short events);
/* SO_ERROR: reads and clears, as the kernel does. */
int direct_error(struct conn *c, int fd);
bool direct_aborts(int fd); /* SO_LINGER is 0: close() sends RST */
/* Before the last descriptor of this process is closed while calls are in progress: the socket gets a number of ours, and is
 * closed with the last of them. false: it did not. */
bool direct_keep(struct conn *c, int fd);
/* Before the kernel closes the socket of an open connection, whose last holder is this process: close_notify. The peer's, which
 * the program had no need to read, is taken, or the kernel would send RST for it as for data. false: it will send RST, as it
 * would bare. Step lock held. */
bool direct_goodbye(struct conn *c, int fd);
/* Before the last descriptor of this process is closed: what was written goes out, close_notify, FIN. */
void direct_close(struct conn *c, int fd);

#endif
