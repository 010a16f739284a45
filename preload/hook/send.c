/* Writing: write, writev, send, sendto, sendmsg, sendmmsg, sendfile, splice. */
#include <fcntl.h>
#include <limits.h>
#include <sys/sendfile.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "conduit/splice.h"
#include "fd/rights.h"
#include "hook/hook.h"
#include "hook/vector.h"
#include "sys/pool.h"
#include "sys/user.h"

#define SENDFILE_BLOCK (4u * WEFT_RECORD_MAX)
#define SPLICE_FLAGS (SPLICE_F_MOVE | SPLICE_F_NONBLOCK | SPLICE_F_MORE | SPLICE_F_GIFT)

static ssize_t send_one(struct conn *c, int fd, const void *buf, size_t n, int flags)
{
	struct vector v;
	ssize_t r = vector_one(&v, buf, n, false);

	return r ? r : vector_send(c, fd, &v, flags);
}

HOOK_MESHED ssize_t write_meshed(int fd, const void *buf, size_t n)
{
	TABLE_CALL(c, fd);
	int saved = errno;
	ssize_t r;

	if (!c || (r = send_one(c, fd, buf, n, 0)) == CONDUIT_PASS)
		return sys.write(fd, buf, n);
	return hook_result(r, saved);
}

HOOK_EXPORT ssize_t write(int fd, const void *buf, size_t n)
{
	return hook_passes(fd) ? sys.write(fd, buf, n) : write_meshed(fd, buf, n);
}

HOOK_ALIAS(ssize_t, __write, (int fd, const void *buf, size_t n), write);

HOOK_MESHED ssize_t send_meshed(int fd, const void *buf, size_t n, int flags)
{
	TABLE_CALL(c, fd);
	int saved = errno;
	ssize_t r;

	if (!c || (r = send_one(c, fd, buf, n, flags)) == CONDUIT_PASS)
		return sys.send(fd, buf, n, flags);
	return hook_result(r, saved);
}

HOOK_EXPORT ssize_t send(int fd, const void *buf, size_t n, int flags)
{
	return hook_passes(fd) ? sys.send(fd, buf, n, flags) : send_meshed(fd, buf, n, flags);
}

HOOK_ALIAS(ssize_t, __send, (int fd, const void *buf, size_t n, int flags), send);

/* What becomes of the address of a message. CONDUIT_PASS: nothing of ours, the real call. 0: the message goes out on a
 * connection. Or -errno. */
static int send_address(int fd, const struct sockaddr *addr, socklen_t len, int flags)
{
	bool meshed = table_word(fd) > SLOT_MAX;
	struct weft_addr a;

	if (!addr || len > sizeof(struct sockaddr_storage) || !user_reads(addr, len) ||
	    addr_from_sockaddr(&a, addr, len) < 0)
		return meshed ? 0 : CONDUIT_PASS;
	if (flags & MSG_FASTOPEN) /* connect() and send() in one */
		return socket_connect(fd, addr, len);
	if (!meshed && addr_is_vip(&a)) /* a datagram: it would leave as multicast */
		return -ENETUNREACH;
	return meshed ? 0 : CONDUIT_PASS;
}

HOOK_EXPORT ssize_t sendto(int fd, const void *buf, size_t n, int flags,
			   const struct sockaddr *addr, socklen_t len)
{
	int saved = errno;
	ssize_t r = send_address(fd, addr, len, flags);
	TABLE_CALL(c, r ? -1 : fd);

	if (c)
		r = send_one(c, fd, buf, n, flags & ~MSG_FASTOPEN);
	else if (!r)
		r = CONDUIT_PASS;
	if (r != CONDUIT_PASS)
		return hook_result(r, saved);
	errno = saved;
	return sys.sendto(fd, buf, n, flags, addr, len);
}

static ssize_t send_vector(struct conn *c, int fd, const struct iovec *iov, int n, int flags)
{
	struct vector v;
	ssize_t r = vector_many(&v, iov, n, false);
	int i = 0;

	while (!r && i < n && !iov[i].iov_len)
		i++;
	if (!r && i < n) /* writev(2) of nothing never asks the socket */
		r = vector_send(c, fd, &v, flags);
	return r;
}

HOOK_MESHED ssize_t writev_meshed(int fd, const struct iovec *iov, int n)
{
	TABLE_CALL(c, fd);
	int saved = errno;
	ssize_t r;

	if (!c || (r = send_vector(c, fd, iov, n, 0)) == CONDUIT_PASS)
		return sys.writev(fd, iov, n);
	return hook_result(r, saved);
}

HOOK_EXPORT ssize_t writev(int fd, const struct iovec *iov, int n)
{
	return hook_passes(fd) ? sys.writev(fd, iov, n) : writev_meshed(fd, iov, n);
}

HOOK_EXPORT ssize_t pwritev2(int fd, const struct iovec *iov, int n, off_t off, int flags)
{
	TABLE_CALL(c, off == -1 ? fd : -1);
	int saved = errno;
	ssize_t r;

	if (!c)
		return sys.pwritev2(fd, iov, n, off, flags);
	if (flags & ~HOOK_RWF)
		return hook_result(-EOPNOTSUPP, saved);
	r = send_vector(c, fd, iov, n, flags & RWF_NOWAIT ? MSG_DONTWAIT : 0);
	return r == CONDUIT_PASS ? sys.pwritev2(fd, iov, n, off, flags) : hook_result(r, saved);
}

HOOK_EXPORT ssize_t pwritev64v2(int fd, const struct iovec *iov, int n, off64_t off, int flags)
{
	return pwritev2(fd, iov, n, off, flags);
}

static ssize_t send_message(struct conn *c, int fd, const struct msghdr *msg, int flags)
{
	struct vector v;
	ssize_t r;

	if (!user_reads(msg, sizeof(*msg)))
		return -EFAULT;
	r = msg->msg_iovlen > IOV_MAX ? -EMSGSIZE
				      : vector_many(&v, msg->msg_iov, (int)msg->msg_iovlen, false);

	return r ? r : vector_send(c, fd, &v, flags);
}

/* Of a message that does not go out on a connection of ours: does it take one along? */
static inline bool sends_meshed(const struct msghdr *msg)
{
	return msg->msg_controllen && user_reads(msg->msg_control, msg->msg_controllen) &&
	       rights_meshed(msg);
}

HOOK_EXPORT ssize_t sendmsg(int fd, const struct msghdr *msg, int flags)
{
	int saved = errno;
	ssize_t r;

	if (!user_reads(msg, sizeof(*msg)))
		return sys.sendmsg(fd, msg, flags);
	r = send_address(fd, msg->msg_name, msg->msg_namelen, flags);
	TABLE_CALL(c, r ? -1 : fd);
	if (c) {
		r = send_message(c, fd, msg, flags & ~MSG_FASTOPEN);
	} else if (r == CONDUIT_PASS && sends_meshed(msg)) {
		r = rights_send(fd, msg, flags);
	} else if (!r) {
		r = CONDUIT_PASS;
	}
	if (r != CONDUIT_PASS)
		return hook_result(r, saved);
	errno = saved;
	return sys.sendmsg(fd, msg, flags);
}

static int sendmmsg_rights(int fd, struct mmsghdr *v, unsigned n, int flags)
{
	unsigned i;
	ssize_t r = 0;

	for (i = 0; i < n; i++) {
		r = sendmsg(fd, &v[i].msg_hdr, flags);
		if (r < 0)
			break;
		v[i].msg_len = (unsigned)r;
	}
	return i ? (int)i : (int)r;
}

static int send_messages(struct conn *c, int fd, struct mmsghdr *v, unsigned n, int flags)
{
	unsigned i;
	ssize_t r = 0;

	for (i = 0; i < n; i++) {
		r = user_writes(&v[i], sizeof(v[i])) ? send_message(c, fd, &v[i].msg_hdr, flags)
						     : -EFAULT;
		if (r < 0)
			break;
		v[i].msg_len = (unsigned)r;
	}
	return i ? (int)i : (int)r;
}

HOOK_EXPORT int sendmmsg(int fd, struct mmsghdr *v, unsigned n, int flags)
{
	TABLE_CALL(c, fd);
	int saved = errno, r;
	unsigned i;

	for (i = 0; !c && i < n && user_reads(&v[i], sizeof(v[i])); i++)
		if (sends_meshed(&v[i].msg_hdr))
			return sendmmsg_rights(fd, v, n, flags);
	if (!c || (r = send_messages(c, fd, v, n, flags)) == CONDUIT_PASS)
		return sys.sendmmsg(fd, v, n, flags);
	return (int)hook_result(r, saved);
}

/* One block of the file, from `at`. Returns bytes sent; 0 at the end of the file. */
static ssize_t send_block(struct conn *c, int out, int in, off64_t at, size_t n, uint8_t *block)
{
	struct iovec iov = { .iov_base = block };
	long got = sys_call(SYS_pread64, in, (long)block, (long)n, at, 0, 0);

	if (got <= 0)
		return got;
	iov.iov_len = (size_t)got;
	return direct_send(c, out, &iov, 1, 0);
}

/* sendfile(2): the file's position moves by what was sent, or stays and *off moves. */
static ssize_t send_file(struct conn *c, int out, int in, off64_t *off, size_t n)
{
	off64_t at = off ? *off : sys_call(SYS_lseek, in, 0, SEEK_CUR, 0, 0, 0);
	uint8_t *block = pool_get();
	size_t done = 0;
	ssize_t r = block ? 0 : -ENOMEM;
	struct leave l;

	leave_push(&l, pool_put, block);
	if (at < 0)
		r = at == -ESPIPE || off ? -EINVAL : at;
	while (!r && done < n) {
		size_t want = n - done < SENDFILE_BLOCK ? n - done : SENDFILE_BLOCK;
		ssize_t sent = send_block(c, out, in, at + (off64_t)done, want, block);

		if (sent <= 0) {
			r = sent;
			break;
		}
		done += (size_t)sent;
		if ((size_t)sent < want)
			break; /* the file ended, or the socket is full */
	}
	leave_pop(&l);
	pool_put(block);
	if (done && off)
		*off = at + (off64_t)done;
	else if (done)
		sys_call(SYS_lseek, in, at + (long)done, SEEK_SET, 0, 0, 0);
	return done ? (ssize_t)done : r;
}

/* Into a pipe it is splice(2), and may come from a connection. */
static ssize_t sendfile_meshed(int out, int in, off64_t *off, size_t n)
{
	TABLE_CALL(to, out);
	TABLE_CALL(from, in);

	if (!to && !from)
		return CONDUIT_PASS;
	if (off && !user_writes(off, sizeof(*off)))
		return -EFAULT;
	if (from)
		return off ? -ESPIPE : splice_from(from, in, out, n, 0);
	return n ? send_file(to, out, in, off, n) : 0;
}

HOOK_EXPORT ssize_t sendfile64(int out, int in, off64_t *off, size_t n)
{
	int saved = errno;
	ssize_t r = CONDUIT_PASS;

	if (n && !(hook_passes(out) && hook_passes(in)))
		r = sendfile_meshed(out, in, off, n);
	return r == CONDUIT_PASS ? sys.sendfile64(out, in, off, n) : hook_result(r, saved);
}

HOOK_EXPORT ssize_t sendfile(int out, int in, off_t *off, size_t n)
{
	return sendfile64(out, in, off, n);
}

static ssize_t splice_meshed(int in, const off64_t *off_in, int out, const off64_t *off_out,
			     size_t n, unsigned flags)
{
	TABLE_CALL(from, in);
	TABLE_CALL(to, out);

	if (!from && !to)
		return CONDUIT_PASS;
	if (flags & ~SPLICE_FLAGS || (from && off_in) || (to && off_out))
		return -EINVAL;
	return from ? splice_from(from, in, out, n, flags) : splice_to(to, in, out, n, flags);
}

HOOK_EXPORT ssize_t splice(int in, off64_t *off_in, int out, off64_t *off_out, size_t n,
			   unsigned flags)
{
	int saved = errno;
	ssize_t r = CONDUIT_PASS;

	if (n && !(hook_passes(in) && hook_passes(out)))
		r = splice_meshed(in, off_in, out, off_out, n, flags);
	return r == CONDUIT_PASS ? sys.splice(in, off_in, out, off_out, n, flags)
				 : hook_result(r, saved);
}
