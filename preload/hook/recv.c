/* Reading: read, readv, recv, recvfrom, recvmsg, recvmmsg and their fortified and positioned forms. */
#include <limits.h>

#include "fd/rights.h"
#include "hook/hook.h"
#include "hook/vector.h"
#include "sys/clock.h"
#include "sys/pool.h"
#include "sys/user.h"

/* MSG_TRUNC on TCP throws the bytes away: tcp(7). */
static ssize_t recv_discard(struct conn *c, int fd, size_t n, int flags)
{
	struct vector v = { .n = 1 };
	struct leave l;
	ssize_t r;

	v.one = (struct iovec){ pool_get(), n < POOL_BLOCK ? n : POOL_BLOCK };
	v.iov = &v.one;
	leave_push(&l, pool_put, v.one.iov_base);
	r = v.one.iov_base ? vector_recv(c, fd, &v, flags & ~MSG_TRUNC) : -ENOMEM;
	leave_pop(&l);
	pool_put(v.one.iov_base);
	return r;
}

static ssize_t recv_one(struct conn *c, int fd, void *buf, size_t n, int flags)
{
	struct vector v;
	ssize_t r = flags & MSG_TRUNC ? 0 : vector_one(&v, buf, n, true);

	if (!r)
		r = flags & MSG_TRUNC ? recv_discard(c, fd, n, flags)
				      : vector_recv(c, fd, &v, flags);
	return r;
}

HOOK_MESHED ssize_t read_meshed(int fd, void *buf, size_t n)
{
	TABLE_CALL(c, n ? fd : -1); /* read(2) of nothing never waits */
	int saved = errno;
	ssize_t r;

	if (!c || (r = recv_one(c, fd, buf, n, 0)) == CONDUIT_PASS)
		return sys.read(fd, buf, n);
	return hook_result(r, saved);
}

HOOK_EXPORT ssize_t read(int fd, void *buf, size_t n)
{
	return hook_passes(fd) ? sys.read(fd, buf, n) : read_meshed(fd, buf, n);
}

HOOK_ALIAS(ssize_t, __read, (int fd, void *buf, size_t n), read);

HOOK_MESHED ssize_t recv_meshed(int fd, void *buf, size_t n, int flags)
{
	TABLE_CALL(c, fd);
	int saved = errno;
	ssize_t r;

	if (!c || (r = recv_one(c, fd, buf, n, flags)) == CONDUIT_PASS)
		return sys.recv(fd, buf, n, flags);
	return hook_result(r, saved);
}

HOOK_EXPORT ssize_t recv(int fd, void *buf, size_t n, int flags)
{
	return hook_passes(fd) ? sys.recv(fd, buf, n, flags) : recv_meshed(fd, buf, n, flags);
}

HOOK_MESHED ssize_t recvfrom_meshed(int fd, void *buf, size_t n, int flags, struct sockaddr *addr,
				    socklen_t *len)
{
	TABLE_CALL(c, fd);
	int saved = errno;
	ssize_t r;

	if (!c || (r = recv_one(c, fd, buf, n, flags)) == CONDUIT_PASS)
		return sys.recvfrom(fd, buf, n, flags, addr, len);
	if (r >= 0 && addr) {
		if (!user_writes(len, sizeof(*len)))
			r = -EFAULT;
		else if ((int)*len < 0)
			r = -EINVAL;
		else
			*len = 0; /* a stream has no address for a part of it */
	}
	return hook_result(r, saved);
}

HOOK_EXPORT ssize_t recvfrom(int fd, void *buf, size_t n, int flags, struct sockaddr *addr,
			     socklen_t *len)
{
	return hook_passes(fd) ? sys.recvfrom(fd, buf, n, flags, addr, len)
			       : recvfrom_meshed(fd, buf, n, flags, addr, len);
}

HOOK_EXPORT ssize_t __read_chk(int fd, void *buf, size_t n, size_t size)
{
	return n > size ? sys.__read_chk(fd, buf, n, size) : read(fd, buf, n);
}

HOOK_EXPORT ssize_t __recv_chk(int fd, void *buf, size_t n, size_t size, int flags)
{
	return n > size ? sys.__recv_chk(fd, buf, n, size, flags) : recv(fd, buf, n, flags);
}

HOOK_EXPORT ssize_t __recvfrom_chk(int fd, void *buf, size_t n, size_t size, int flags,
				   struct sockaddr *addr, socklen_t *len)
{
	return n > size ? sys.__recvfrom_chk(fd, buf, n, size, flags, addr, len)
			: recvfrom(fd, buf, n, flags, addr, len);
}

static ssize_t recv_vector(struct conn *c, int fd, const struct iovec *iov, int n, int flags)
{
	struct vector v;
	ssize_t r = vector_many(&v, iov, n, true);
	int i = 0;

	while (!r && i < n && !iov[i].iov_len)
		i++;
	if (!r && i < n) /* readv(2) of nothing never waits */
		r = vector_recv(c, fd, &v, flags);
	return r;
}

HOOK_MESHED ssize_t readv_meshed(int fd, const struct iovec *iov, int n)
{
	TABLE_CALL(c, fd);
	int saved = errno;
	ssize_t r;

	if (!c || (r = recv_vector(c, fd, iov, n, 0)) == CONDUIT_PASS)
		return sys.readv(fd, iov, n);
	return hook_result(r, saved);
}

HOOK_EXPORT ssize_t readv(int fd, const struct iovec *iov, int n)
{
	return hook_passes(fd) ? sys.readv(fd, iov, n) : readv_meshed(fd, iov, n);
}

/* On a stream the position is -1; others are ESPIPE, which the real call says. */
HOOK_EXPORT ssize_t preadv2(int fd, const struct iovec *iov, int n, off_t off, int flags)
{
	TABLE_CALL(c, off == -1 ? fd : -1);
	int saved = errno;
	ssize_t r;

	if (!c)
		return sys.preadv2(fd, iov, n, off, flags);
	if (flags & ~HOOK_RWF)
		return hook_result(-EOPNOTSUPP, saved);
	r = recv_vector(c, fd, iov, n, flags & RWF_NOWAIT ? MSG_DONTWAIT : 0);
	return r == CONDUIT_PASS ? sys.preadv2(fd, iov, n, off, flags) : hook_result(r, saved);
}

HOOK_EXPORT ssize_t preadv64v2(int fd, const struct iovec *iov, int n, off64_t off, int flags)
{
	return preadv2(fd, iov, n, off, flags);
}

static ssize_t recv_message(struct conn *c, int fd, struct msghdr *msg, int flags)
{
	struct vector v;
	size_t n = 0, i;
	ssize_t r;

	if (!user_writes(msg, sizeof(*msg)))
		return -EFAULT;
	r = msg->msg_iovlen > IOV_MAX ? -EMSGSIZE
				      : vector_many(&v, msg->msg_iov, (int)msg->msg_iovlen, true);
	if (r)
		return r;
	for (i = 0; i < msg->msg_iovlen; i++)
		n += msg->msg_iov[i].iov_len;
	r = flags & MSG_TRUNC ? recv_discard(c, fd, n, flags) : vector_recv(c, fd, &v, flags);
	if (r >= 0) {
		msg->msg_namelen = 0;
		msg->msg_controllen = 0;
		msg->msg_flags = flags & MSG_CMSG_CLOEXEC;
	}
	return r;
}

HOOK_MESHED ssize_t recvmsg_meshed(int fd, struct msghdr *msg, int flags)
{
	TABLE_CALL(c, fd);
	int saved = errno;
	ssize_t r = CONDUIT_PASS;

	if (c)
		r = recv_message(c, fd, msg, flags);
	return r == CONDUIT_PASS ? sys.recvmsg(fd, msg, flags) : hook_result(r, saved);
}

/* Descriptors may come along. */
HOOK_MESHED ssize_t recvmsg_control(int fd, struct msghdr *msg, int flags)
{
	int saved = errno;

	return hook_result(rights_receive(fd, msg, flags), saved);
}

HOOK_EXPORT ssize_t recvmsg(int fd, struct msghdr *msg, int flags)
{
	if (!hook_passes(fd))
		return recvmsg_meshed(fd, msg, flags);
	return user_writes(msg, sizeof(*msg)) && msg->msg_control && msg->msg_controllen
		       ? recvmsg_control(fd, msg, flags)
		       : sys.recvmsg(fd, msg, flags);
}

/* recvmmsg(2) is a loop in the kernel too: the timeout is looked at after each message. */
static int recvmmsg_unix(int fd, struct mmsghdr *v, unsigned n, int flags, struct timespec *timeout)
{
	int64_t end = timeout ? clock_now_ms() + timeout->tv_sec * 1000 + timeout->tv_nsec / 1000000
			      : INT64_MAX,
		left;
	unsigned i;
	ssize_t r = 0;

	for (i = 0; i < n; i++) {
		r = rights_receive(fd, &v[i].msg_hdr, flags & ~MSG_WAITFORONE);
		if (r < 0)
			break;
		v[i].msg_len = (unsigned)r;
		if (flags & MSG_WAITFORONE)
			flags |= MSG_DONTWAIT;
		left = end - clock_now_ms();
		if (timeout)
			*timeout = (struct timespec){ .tv_sec = left > 0 ? left / 1000 : 0,
						      .tv_nsec = left > 0 ? left % 1000 * 1000000
									  : 0 };
		if (left <= 0) {
			i++;
			break;
		}
	}
	return i ? (int)i : (int)r;
}

static int recv_messages(struct conn *c, int fd, struct mmsghdr *v, unsigned n, int flags)
{
	unsigned i;
	ssize_t r = -direct_error(c, fd); /* the kernel's own loop begins with that */

	if (r)
		return (int)r;
	for (i = 0; i < n; i++) {
		r = recv_message(c, fd, &v[i].msg_hdr, flags & ~MSG_WAITFORONE);
		if (r < 0)
			break;
		v[i].msg_len = (unsigned)r;
		if (flags & MSG_WAITFORONE)
			flags |= MSG_DONTWAIT;
	}
	return i ? (int)i : (int)r;
}

HOOK_EXPORT int recvmmsg(int fd, struct mmsghdr *v, unsigned n, int flags, struct timespec *timeout)
{
	TABLE_CALL(c, fd);
	int saved = errno, r;

	if (!c && n && user_writes(v, sizeof(*v)) && v->msg_hdr.msg_controllen &&
	    rights_may_come(fd))
		return (int)hook_result(recvmmsg_unix(fd, v, n, flags, timeout), saved);
	if (!c || (r = recv_messages(c, fd, v, n, flags)) == CONDUIT_PASS)
		return sys.recvmmsg(fd, v, n, flags, timeout);
	return (int)hook_result(r, saved);
}
