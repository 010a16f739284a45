/* Listening TCP sockets as the kernel lists them (sock_diag), per network namespace.
 * A full dump each time: an exact look-up misses sockets of one SO_REUSEPORT group. */
#ifndef HEALTH_DIAG_H
#define HEALTH_DIAG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "weft/addr.h"

#define DIAG_LISTENERS_MAX 65536

struct diag_listener {
	struct weft_addr address; /* all zero: wildcard */
	uint64_t cookie;
	uint64_t inode;
	uid_t uid;
	bool ipv6;
};
struct diag_list {
	struct diag_listener *v; /* sorted by cookie */
	size_t n;
};

/* A netlink socket in the caller's own network namespace, or in that of `pid` (needs CAP_SYS_ADMIN; the calling
 * thread is back in its own when this returns). It stays there: keep it, one per namespace. >= 0 or -errno. */
int diag_open(pid_t pid);

/* All TCP sockets in state LISTEN. Waits for the kernel at most a second. 0 or -errno; free with diag_list_free(). */
int diag_listeners(int fd, struct diag_list *out);
void diag_list_free(struct diag_list *l);
const struct diag_listener *diag_find(const struct diag_list *l, uint64_t cookie);

/* Takes one netlink datagram apart and adds to the list. 1: more to come, 0: end of the dump, -errno. Pure. */
int diag_parse(const void *bytes, size_t len, struct diag_list *out);

/* Runs fn in the network namespace of `pid`. Its value, or -errno where that is not permitted. */
int diag_in_netns(pid_t pid, int (*fn)(void *arg), void *arg);

#endif
