#include "conduit/direct.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "conduit/admit.h"
#include "conduit/block.h"
#include "conduit/early.h"
#include "conduit/share.h"
#include "sys/clock.h"
#include "sys/confined.h"
#include "sys/quiet.h"
#include "sys/sys.h"

#define KEPT_FROM 768 /* out of the way of programs that count on the lowest number */

static void look_again(struct conn *c, int fd)
{
	quiet_hold();
	if (lock_try(&c->lock)) {
		admit_again(c, conn_fd(c, fd));
		lock_drop(&c->lock);
	}
	quiet_let();
}

/* A write is taken though the peer is not known yet. */
static bool takes_early(const struct conn *c)
{
	return early_is(c) && (early_has_room(c) || c->early_shut & 1 << SHUT_WR);
}

static int failed(const struct conn *c, bool writes)
{
	if (c->so_error)
		return -c->so_error;
	if (!writes)
		return CONDUIT_END;
	return c->gone ? CONDUIT_VOID : CONDUIT_PASS;
}

/* Steps until the connection is open, or the call may not wait any longer. 0: open; CONDUIT_PASS; -errno. */
static int enter(struct conn *c, int fd, int flags, bool writes)
{
	int64_t deadline = 0;
	int r;

	for (;; fd = conn_fd(c, fd)) {
		switch (conn_state(c)) {
		case CONN_OPEN:
			if (c->policy_seq != mesh_identity_seq())
				look_again(c, fd);
			return conn_state(c) == CONN_OPEN ? 0 : -ECONNRESET;
		case CONN_NEW:
		case CONN_PLAIN:
			return CONDUIT_PASS;
		case CONN_FAILED:
			return failed(c, writes);
		case CONN_CLOSED:
			return -EBADF;
		default:
			break;
		}
		if (conn_cookie(fd) != c->cookie)
			return -ENOTSOCK; /* the step would fail it for a reason that is none of its own */
		if (writes)
			conn_speaks_first(c);
		early_settle(c, fd);
		if (!conn_is_stepping(c))
			continue;
		if (writes && !block_may(fd, flags))
			early_accepted(c);
		if (writes && takes_early(c))
			return CONDUIT_EARLY;
		if (early_is(c) && !writes && c->early_shut & 1 << SHUT_RD)
			return CONDUIT_END;
		if (!block_may(fd, flags))
			return -EAGAIN;
		if (!deadline)
			deadline = block_deadline(fd, writes ? SO_SNDTIMEO : SO_RCVTIMEO);
		r = early_wait_step(c, fd, deadline, deadline != INT64_MAX);
		if (r < 0)
			return r == -ETIMEDOUT ? -EAGAIN : r;
	}
}

/* Waits as recv() itself would: in the kernel, until it holds `need` bytes or the stream ends. How many it holds, or
 * -errno. */
static ssize_t wait_for(int fd, size_t need)
{
	int saved = errno;
	ssize_t n = sys.recv(fd, NULL, need, MSG_PEEK | MSG_TRUNC | MSG_WAITALL);

	if (n < 0)
		n = -errno;
	errno = saved;
	return n;
}

/* The same for the next bytes of a record. To wait for all of it could be to wait for ever: a small receive buffer takes a
 * part only. */
static int wait_bytes(struct conn *c, int fd)
{
	int64_t until;
	ssize_t n = 0;

	if (early_any()) {
		until = block_deadline(fd, SO_RCVTIMEO);
		n = early_wait(fd, POLLIN, until, until != INT64_MAX);
	}
	if (!n)
		n = wait_for(fd, 1);
	else if (n == -ETIMEDOUT)
		n = -EAGAIN;
	if (n < 0 && n != -EAGAIN && n != -EINTR && n != -ENOTSOCK && n != -EBADF)
		c->session->rx_eof = true; /* the kernel tells an error once; then it is the end */
	return n < 0 ? (int)n : 0;
}

/* MSG_PEEK | MSG_WAITALL saw too little. Is there more to come? */
static bool wait_more(int fd)
{
	int have = session_wire(fd);

	return wait_for(fd, (size_t)have + 1) > have;
}

static size_t iov_length(const struct iovec *iov, int n)
{
	size_t total = 0;

	while (n-- > 0)
		total += iov++->iov_len;
	return total;
}

ssize_t direct_recv(struct conn *c, int fd, const struct iovec *iov, int n_iov, int flags)
{
	size_t n = iov_length(iov, n_iov), done = 0;
	ssize_t r;
	int w;

	if (flags & (MSG_OOB | MSG_ERRQUEUE))
		return flags & MSG_OOB ? -EINVAL : CONDUIT_PASS;
	conn_push();
	for (;;) {
		fd = conn_fd(c, fd);
		r = enter(c, fd, flags, false);
		if (r)
			return done ? (ssize_t)done : r == CONDUIT_END ? 0 : r;
		/* recv(2) of nothing waits for something all the same, and is told an error */
		if (!n) {
			r = session_recv(c->session, &c->aead, fd, iov, 0, 0, flags);
			if (r || session_ready(c->session, &c->aead, fd))
				return r;
		}
		if (c->waits && !done && !(flags & MSG_DONTWAIT) && session_is_dry(c->session)) {
			r = wait_bytes(c, fd);
			if (r < 0)
				break;
		}
		r = session_recv(c->session, &c->aead, fd, iov, done, n - done, flags);
		if (r == -ESTALE)
			continue;
		if (r > 0)
			done += (size_t)r;
		if (flags & MSG_PEEK && flags & MSG_WAITALL && r > 0 && done < n &&
		    block_may(fd, flags) && wait_more(fd)) {
			done = 0;
			continue;
		}
		if ((r == 0 && n) || (n && done == n) || (r > 0 && !(flags & MSG_WAITALL)) ||
		    (flags & MSG_PEEK && done))
			break;
		if (r < 0 && r != -EAGAIN)
			break;
		if (!n)
			r = -EAGAIN;
		c->waits = block_may(fd, flags);
		if (!c->waits)
			break;
		w = done ? block_wait(fd, POLLIN, block_deadline(fd, SO_RCVTIMEO), true)
			 : wait_bytes(c, fd);
		if (w < 0 || (done && session_wire(conn_fd(c, fd)) <= 0)) {
			r = w;
			break;
		}
	}
	return done ? (ssize_t)done : r;
}

/* The kernel takes what is written to a peer that has closed, and learns from its reset that nobody had it. */
static void into_void(struct conn *c, int fd, size_t n)
{
	if (n && atomic_exchange(&c->gone, false))
		sys_call(SYS_shutdown, fd, SHUT_RDWR, 0, 0, 0, 0);
}

ssize_t direct_send(struct conn *c, int fd, const struct iovec *iov, int n_iov, int flags)
{
	size_t n = iov_length(iov, n_iov), done = 0;
	uint64_t who = (uint64_t)lock_self() << 32 | (uint32_t)(uintptr_t)&n;
	int64_t deadline = 0;
	ssize_t r;
	int w;

	if (flags & MSG_OOB)
		return -EOPNOTSUPP;
	if (c->app_cork)
		flags |= MSG_MORE;
	for (;;) {
		fd = conn_fd(c, fd);
		r = enter(c, fd, flags, true);
		if (r == CONDUIT_VOID) {
			into_void(c, fd, n - done);
			return (ssize_t)n;
		}
		if (r && r != CONDUIT_EARLY)
			break;
		if (done) /* an error that follows bytes is for the next call */
			flags |= MSG_NOSIGNAL;
		r = r ? early_send(c, iov, done, n - done, flags)
		      : session_send_as(c->session, &c->aead, fd, iov, done, n - done, flags, who);
		if (r == -ESTALE)
			continue;
		if (r > 0)
			done += (size_t)r;
		if (early_is(c) && (r > 0 || r == -EAGAIN) && done < n && block_may(fd, flags))
			continue;
		if ((r < 0 && r != -EAGAIN) || done == n || !block_may(fd, flags))
			break;
		if (!deadline)
			deadline = block_deadline(fd, SO_SNDTIMEO);
		w = early_wait(fd, POLLOUT, deadline, done || deadline != INT64_MAX);
		if (w < 0) {
			r = w == -ETIMEDOUT ? -EAGAIN : w;
			break;
		}
	}
	session_sent(c->session, who);
	return done ? (ssize_t)done : r;
}

int direct_push(struct conn *c, int fd)
{
	int off = 0;

	if (session_push(c->session, &c->aead, fd, 0) > 0)
		return 0;
	return (int)sys_call(SYS_setsockopt, conn_fd(c, fd), IPPROTO_TCP, TCP_CORK, (long)&off,
			     sizeof(off), 0);
}

int direct_shutdown(struct conn *c, int fd, int how)
{
	bool open, goodbye;
	int r, state;

	if (how != SHUT_RD && how != SHUT_WR && how != SHUT_RDWR)
		return -EINVAL;
	if (conn_is_stepping(c)) {
		early_settle(c, fd);
		if (early_is(c) && early_shutdown(c, how) != -ESTALE)
			return 0;
	}
	open = conn_state(c) == CONN_OPEN;
	goodbye = open && how != SHUT_RD && !c->session->tx_closed;
	state = goodbye ? session_tcp_state(fd) : 0;
	goodbye = goodbye && state != TCP_CLOSE;
	/* A peer that has closed answers our goodbye with a reset, where a bare FIN would have met silence. */
	if (goodbye && state == TCP_CLOSE_WAIT)
		c->session->over = true;
	if (open)
		c->told = true; /* connect() says so from now on */
	if (goodbye)
		session_alert(c->session, &c->aead, fd, 0);
	if (open && how != SHUT_WR)
		c->session->rx_over = true;
	if (how != SHUT_RD)
		goodbye |= atomic_exchange(&c->gone, false);
	r = (int)sys_call(SYS_shutdown, fd, how, 0, 0, 0, 0);
	return r == -ENOTCONN && goodbye && !c->session->error ? 0 : r;
}

ssize_t direct_unread(struct conn *c, int fd)
{
	ssize_t r;

	if (conn_is_stepping(c))
		early_settle(c, fd);
	switch (conn_state(c)) {
	case CONN_OPEN:
		do
			r = session_unread(c->session, &c->aead, fd);
		while (r == -ESTALE);
		return r;
	case CONN_NEW:
	case CONN_PLAIN:
		return CONDUIT_PASS;
	default:
		return 0;
	}
}

/* SO_RCVLOWAT of the program's own, in plaintext. */
static bool reaches_mark(struct conn *c, int fd)
{
	if (c->app_lowat <= 1 || session_unread(c->session, &c->aead, fd) >= c->app_lowat ||
	    !session_is_dry(c->session) || session_peer_ended(fd))
		return true;
	session_set_lowat(c->session, fd, (uint32_t)session_wire(fd) + 1);
	return false;
}

short direct_wants(const struct conn *c, short events)
{
	short wants = conn_wants(c);

	if (takes_early(c))
		wants |= events & (POLLOUT | POLLWRNORM);
	return wants;
}

short direct_events(struct conn *c, int fd, short events)
{
	if (conn_is_stepping(c))
		return takes_early(c) ? events & (POLLOUT | POLLWRNORM) : 0;
	if (conn_state(c) == CONN_FAILED && !c->server &&
	    c->so_error) /* as a socket whose connect() failed */
		return events | POLLIN | POLLRDNORM | POLLOUT | POLLWRNORM | POLLERR | POLLHUP |
		       POLLRDHUP;
	/* Its reset answers our part of the handshake. */
	if (c->gone && events & ~(POLLERR | POLLHUP))
		events &= (short)~(POLLERR | POLLHUP);
	if (conn_state(c) != CONN_OPEN)
		return events;
	if (c->session->over)
		events &= (short)~POLLERR;
	if (events & POLLOUT && session_flush(c->session, &c->aead, fd) == -EAGAIN)
		events &= (short)~(POLLOUT | POLLWRNORM);
	if (events & (POLLIN | POLLRDNORM) && !(events & (POLLERR | POLLHUP | POLLRDHUP)) &&
	    (!session_ready(c->session, &c->aead, fd) || !reaches_mark(c, fd)))
		events &= (short)~(POLLIN | POLLRDNORM);
	return events;
}

int direct_error(struct conn *c, int fd)
{
	int err = 0;
	socklen_t len = sizeof(err);

	if (conn_is_stepping(c))
		conn_step(c, fd);
	if (conn_is_stepping(c))
		return 0;
	if (conn_state(c) == CONN_FAILED) {
		err = c->so_error;
		if (!c->server)
			c->so_error = 0;
		return err;
	}
	sys_call(SYS_getsockopt, fd, SOL_SOCKET, SO_ERROR, (long)&err, (long)&len, 0);
	if (err)
		c->session->rx_over = true;
	return c->session->over ? 0 : err;
}

bool direct_aborts(int fd)
{
	struct linger l = { 0 };
	socklen_t len = sizeof(l);

	sys_call(SYS_getsockopt, fd, SOL_SOCKET, SO_LINGER, (long)&l, (long)&len, 0);
	return l.l_onoff && !l.l_linger;
}

bool direct_goodbye(struct conn *c, int fd)
{
	if (session_drain_end(c->session, &c->aead, fd) > 0 || direct_aborts(fd))
		return false;
	if (!c->session->error)
		session_alert(c->session, &c->aead, fd, 0);
	return true;
}

bool direct_keep(struct conn *c, int fd)
{
	long kept;
	int r;

	if ((conn_state(c) != CONN_OPEN && !conn_is_stepping(c)) || confined())
		return false;
	kept = sys_call(SYS_fcntl, fd, F_DUPFD_CLOEXEC, KEPT_FROM, 0, 0, 0);
	if (kept == -EINVAL || kept == -EMFILE)
		kept = sys_call(SYS_fcntl, fd, F_DUPFD_CLOEXEC, STDERR_FILENO + 1, 0, 0, 0);
	if (kept < 0)
		return false;
	quiet_hold();
	r = share_lock(
		c); /* fails in a handler on top of a section: that goes on with the old number */
	atomic_store(&c->aead.kept, (int)kept + 1);
	if (!r)
		share_unlock(c);
	quiet_let();
	return true;
}

void direct_close(struct conn *c, int fd)
{
	bool last;

	quiet_hold();
	lock_take(&c->lock);
	last = share_leave(c);
	if (conn_state(c) == CONN_OPEN && last) {
		if (direct_goodbye(c, fd))
			sys_call(SYS_shutdown, fd, SHUT_WR, 0, 0, 0, 0);
	} else if (conn_is_stepping(c) && last) {
		sys_call(SYS_shutdown, fd, SHUT_RDWR, 0, 0, 0, 0);
	}
	conn_move(c, CONN_CLOSED);
	lock_drop(&c->lock);
	quiet_let();
}
