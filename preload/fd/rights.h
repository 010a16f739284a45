/* Descriptors that travel over Unix sockets (SCM_RIGHTS), both ways.
 *
 * Out: a connection whose session this process holds is useless to a receiver that knows nothing of the session. If whoever
 * receives carries the shim, the session goes along in memory (conduit/carry.h, and for those that are not begun
 * conduit/fresh.h). In every doubt the message goes out as a copy that names one end of a socket pair instead, and the relay
 * carries the session onward.
 * In: what was known of the received numbers is stale; sessions that came along are adopted. */
#ifndef FD_RIGHTS_H
#define FD_RIGHTS_H

#include <stdbool.h>
#include <sys/socket.h>
#include <sys/types.h>

#include "fd/table.h"

/* Is there a connection or listener of ours in the message? Looks at the control data and the table alone. */
bool rights_meshed(const struct msghdr *msg);
/* sendmsg(2) of such a message. The result, or -errno. */
ssize_t rights_send(int fd, const struct msghdr *msg, int flags);

/* recvmsg(2) of a message for which the program has room for control data. The result, or -errno. */
ssize_t rights_receive(int fd, struct msghdr *msg, int flags);
/* May a message on this socket bring descriptors? */
bool rights_may_come(int fd);

#endif
