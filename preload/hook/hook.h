/* What every hook is made of. A hook does four things: look the fd up, make the real call if it is nothing of ours,
 * else delegate, and turn -errno into errno. On success errno is as it was. */
#ifndef HOOK_HOOK_H
#define HOOK_HOOK_H

#include <errno.h>

#include "conduit/call.h"
#include "conduit/direct.h"
#include "fd/table.h"
#include "sys/sys.h"

#define HOOK_EXPORT __attribute__((visibility("default")))
/* Another name of libc's for the same. */
#define HOOK_ALIAS(ret, name, params, other) \
	ret name params;                     \
	HOOK_EXPORT ret name params __attribute__((alias(#other), copy(other)))

/* The way of most calls: nothing is known of the fd, and the real call is a jump away. What follows otherwise stands in a
 * function of its own, so that this way saves no registers. */
#define HOOK_MESHED static __attribute__((noinline))
static inline bool hook_passes(int fd)
{
	return __builtin_expect(table_word(fd) <= SLOT_MAX, 1);
}

/* Flags of preadv2(2) and pwritev2(2) that mean nothing for a stream, or RWF_NOWAIT. */
#define HOOK_RWF (RWF_HIPRI | RWF_DSYNC | RWF_SYNC | RWF_NOWAIT | RWF_APPEND)

/* glibc has it since 2.36. */
int pidfd_getfd(int pidfd, int fd, unsigned flags);

/* Fortified forms: glibc declares them only to itself. */
ssize_t __read_chk(int fd, void *buf, size_t n, size_t size);
ssize_t __recv_chk(int fd, void *buf, size_t n, size_t size, int flags);
ssize_t __recvfrom_chk(int fd, void *buf, size_t n, size_t size, int flags, struct sockaddr *addr,
		       socklen_t *len);
int __poll_chk(struct pollfd *fds, nfds_t n, int timeout, size_t size);
int __ppoll_chk(struct pollfd *fds, nfds_t n, const struct timespec *timeout, const sigset_t *mask,
		size_t size);
int __vdprintf_chk(int fd, int flag, const char *format, va_list ap);
int __dprintf_chk(int fd, int flag, const char *format, ...);

/* connect() of an Internet address, or CONDUIT_PASS: it is none of the mesh. */
int socket_connect(int fd, const struct sockaddr *addr, socklen_t len);

/* Result of a delegate: the value, or -1 and errno. `saved` is errno at entry. */
static inline long hook_result(long r, int saved)
{
	if (r < 0) {
		errno = (int)-r;
		return -1;
	}
	errno = saved;
	return r;
}

#endif
