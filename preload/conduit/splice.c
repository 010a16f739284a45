#include "conduit/splice.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "conduit/block.h"
#include "sys/leave.h"
#include "sys/pool.h"
#include "sys/ready.h"
#include "sys/sys.h"

static bool is_pipe(int fd)
{
	struct stat st;

	return fstat(fd, &st) == 0 && S_ISFIFO(st.st_mode);
}

/* poll() without waiting. */
static bool is_ready(int fd, short events)
{
	struct pollfd p = { .fd = fd, .events = events };
	struct timespec now = { 0 };

	return ready_poll(&p, 1, &now, NULL) == 1;
}

/* The flag is for the pipe; either end's own O_NONBLOCK is for that end. */
static int await_pipe(int pipe, short events, unsigned flags)
{
	if (is_ready(pipe, events))
		return 0;
	return flags & SPLICE_F_NONBLOCK || !block_may(pipe, 0)
		       ? -EAGAIN
		       : block_wait(pipe, events, INT64_MAX, false);
}

ssize_t splice_from(struct conn *c, int fd, int pipe, size_t n, unsigned flags)
{
	uint8_t *block = pool_get();
	struct iovec iov = { .iov_base = block,
			     .iov_len = n < WEFT_RECORD_MAX ? n : WEFT_RECORD_MAX };
	struct leave l;
	ssize_t r;

	leave_push(&l, pool_put, block);
	r = !block ? -ENOMEM : !is_pipe(pipe) ? -EINVAL : await_pipe(pipe, POLLOUT, flags);
	if (!r)
		r = direct_recv(c, fd, &iov, 1, MSG_PEEK);
	if (r > PIPE_BUF) /* a writable pipe has room for so much: the write will not wait */
		r = PIPE_BUF;
	if (r > 0)
		r = sys_call(SYS_write, pipe, (long)block, r, 0, 0, 0);
	if (r > 0) {
		iov.iov_len = (size_t)r;
		r = direct_recv(c, fd, &iov, 1, MSG_DONTWAIT);
	}
	leave_pop(&l);
	pool_put(block);
	return r;
}

ssize_t splice_to(struct conn *c, int pipe, int fd, size_t n, unsigned flags)
{
	uint8_t *block = pool_get();
	struct iovec iov = { .iov_base = block };
	ssize_t got, r, sent = 0;
	struct leave l;

	leave_push(&l, pool_put, block);
	r = !block ? -ENOMEM : !is_pipe(pipe) ? -EINVAL : await_pipe(pipe, POLLIN, flags);
	if (!r) /* of nothing: goes through the handshake, and says whether the socket is one to write to */
		r = direct_send(c, fd, &iov, 1, 0);
	if (!r && !is_ready(fd, POLLOUT))
		r = block_may(fd, 0) ? block_wait(fd, POLLOUT, INT64_MAX, false) : -EAGAIN;
	if (!r) {
		got = r = sys_call(SYS_read, pipe, (long)block,
				   (long)(n < WEFT_RECORD_MAX ? n : WEFT_RECORD_MAX), 0, 0, 0);
		for (; sent < got && (r >= 0 || r == -EAGAIN); sent += r > 0 ? r : 0) {
			iov = (struct iovec){ block + sent, (size_t)(got - sent) };
			r = direct_send(c, fd, &iov, 1, 0);
			if (r == -EAGAIN)
				block_wait(fd, POLLOUT, INT64_MAX, false);
		}
	}
	leave_pop(&l);
	pool_put(block);
	return sent ? sent : r;
}
