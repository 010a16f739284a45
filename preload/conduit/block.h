/* Blocking calls: may they wait, and the wait itself. */
#ifndef CONDUIT_BLOCK_H
#define CONDUIT_BLOCK_H

#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* The call waits: the file is blocking and `flags` has no MSG_DONTWAIT. */
bool block_may(int fd, int flags);
/* SO_RCVTIMEO or SO_SNDTIMEO as a deadline from now, INT64_MAX if none is set. */
int64_t block_deadline(int fd, int option);
/* Waits for `events` until `deadline_ms` (CLOCK_MONOTONIC). 0; -ETIMEDOUT; -EINTR unless every handler of the process
 * asked for SA_RESTART. `once`: any handler ends it, as it does where the call has taken a part already, or the socket has a
 * time-out of the program's (signal(7)). A cancellation point; no lock may be held. */
int block_wait(int fd, short events, int64_t deadline_ms, bool once);
/* The same for several files: fds[i].revents tell. */
int block_wait_any(struct pollfd *fds, unsigned n, int64_t deadline_ms, bool once);
bool block_restarts(void); /* every handler that may have ended a wait asked for SA_RESTART */

#endif
