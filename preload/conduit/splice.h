/* splice(2) with a meshed socket at one end: the kernel cannot seal, so the bytes take the way through a buffer. */
#ifndef CONDUIT_SPLICE_H
#define CONDUIT_SPLICE_H

#include "conduit/direct.h"

/* Socket to pipe. What the pipe does not take stays in the socket. */
ssize_t splice_from(struct conn *c, int fd, int pipe, size_t n, unsigned flags);
/* Pipe to socket. Nothing is taken from the pipe before the socket has room; then it is sent to the last byte. */
ssize_t splice_to(struct conn *c, int pipe, int fd, size_t n, unsigned flags);

#endif
