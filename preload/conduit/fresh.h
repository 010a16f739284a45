/* Accepted connections from which nothing was read yet, given to another process that carries the shim: there is no session
 * to carry, but the receiver has to know that they are to be admitted. A sealed memfd with their cookies says so. */
#ifndef CONDUIT_FRESH_H
#define CONDUIT_FRESH_H

#include "conduit/carry.h"

/* Is it one? The kernel's counts say whether anybody has read. */
bool fresh_is(struct conn *c, int fd);
/* A close-on-exec memfd that lists these sockets, or -errno. */
int fresh_list(const int *fds, int n);
/* Options of the socket are as the program set them while it is under way, or ours again where it stays after all. */
void fresh_options(struct conn *c, int fd, bool leaves);
/* It has left: the receiver shakes hands. What this process still does with it fails with ECONNRESET, and its close does
 * not disturb the receiver; but it may be given once more, to another receiver. */
void fresh_given(int fd);

bool fresh_list_is(int fd); /* by its looks */
/* Admits those of `fds` that are listed, through `attach`. -EPROTO: it is no such list. */
int fresh_admit(int memfd, const int *fds, int n, carry_attach *attach);

#endif
