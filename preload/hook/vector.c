#include "hook/vector.h"

#include <errno.h>
#include <limits.h>
#include <sys/socket.h>

#include "fd/life.h"
#include "sys/user.h"

#define USER_MAX 0x7ffffffff000u /* of x86-64 with four levels; what lies above is never a buffer */

static bool is_beyond(const void *p, size_t n)
{
	return n > USER_MAX || (uintptr_t)p > USER_MAX - n;
}

int vector_one(struct vector *v, const void *buf, size_t n, bool write)
{
	size_t span;

	if (is_beyond(buf, n))
		return -EFAULT;
	span = user_span(buf, n, write);
	v->one = (struct iovec){ .iov_base = (void *)(uintptr_t)buf, .iov_len = span };
	v->iov = &v->one;
	v->n = 1;
	v->cut = span < n;
	return 0;
}

int vector_many(struct vector *v, const struct iovec *iov, int n, bool write)
{
	size_t total = 0, span;
	int i;

	if (n < 0 || n > IOV_MAX)
		return -EINVAL;
	if (!user_reads(iov, (size_t)n * sizeof(*iov)))
		return -EFAULT;
	for (i = 0; i < n; i++)
		if (iov[i].iov_len > SSIZE_MAX)
			return -EINVAL;
	for (i = 0; i < n; i++)
		if (iov[i].iov_len && is_beyond(iov[i].iov_base, iov[i].iov_len))
			return -EFAULT;
	*v = (struct vector){ .iov = iov, .n = n };
	for (i = 0; i < n; i++) {
		span = user_span(iov[i].iov_base, iov[i].iov_len, write);
		if (span < iov[i].iov_len) {
			v->cut = true;
			v->n = i;
			if (!total)
				vector_one(v, iov[i].iov_base, iov[i].iov_len, write);
			break;
		}
		total += span;
	}
	return 0;
}

/* Too little can be touched for the call to do a part of its work: the kernel copies what it sends in blocks, all or
 * nothing, and what it received byte by byte. */
static bool is_nowhere(const struct vector *v, size_t block)
{
	size_t n = 0;
	int i;

	for (i = 0; v->cut && i < v->n; i++)
		n += v->iov[i].iov_len;
	return v->cut && n < block;
}

/* The connection's descriptor was closed where no hook saw it, and another file has the number now: the kernel says that this is
 * no socket, or nothing, where an end or an error is the session's own answer. */
static ssize_t look(struct conn *c, int fd, ssize_t r)
{
	if (r > 0 || r == -EAGAIN || r == CONDUIT_PASS)
		return r;
	if (r != -ENOTSOCK && r != -EBADF && conn_cookie(conn_fd(c, fd)) == c->cookie)
		return r;
	life_lost(fd, c);
	return CONDUIT_PASS;
}

ssize_t vector_recv(struct conn *c, int fd, const struct vector *v, int flags)
{
	uint8_t byte;
	struct iovec iov = { .iov_base = &byte, .iov_len = 1 };
	ssize_t r;

	if (!is_nowhere(v, 1))
		return look(c, fd, direct_recv(c, fd, v->iov, v->n, flags));
	r = direct_recv(c, fd, &iov, 1, (flags | MSG_PEEK) & ~MSG_WAITALL);
	return r > 0 ? -EFAULT : look(c, fd, r);
}

ssize_t vector_send(struct conn *c, int fd, const struct vector *v, int flags)
{
	bool nowhere = is_nowhere(v, WEFT_RECORD_MAX);
	ssize_t r = look(c, fd, direct_send(c, fd, v->iov, nowhere ? 0 : v->n, flags));

	return r == 0 && nowhere ? -EFAULT : r;
}
