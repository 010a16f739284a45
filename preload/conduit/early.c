#include "conduit/early.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>

#include "conduit/block.h"
#include "conduit/direct.h"
#include "conduit/share.h"
#include "sys/clock.h"
#include "sys/quiet.h"
#include "sys/sys.h"

#define EARLY_BYTES (64u << 10) /* that one connection may hold back */
#define EARLY_ROUNDS 16         /* a handshake between two ends of one process takes four */
#define EARLY_EXIT_MS 2000
#define EARLY_TURN_MS 10 /* of a wait, where there are more than EARLY_FDS */

void early_client(struct conn *c, int fd)
{
	union conn_name to;
	socklen_t len = sizeof(to);
	struct weft_addr a;
	bool own = sys_call(SYS_getpeername, fd, (long)&to, (long)&len, 0, 0, 0) == 0 &&
		   addr_from_sockaddr(&a, &to.sa, len) == 0 && mesh_listens(&a);

	if (!c->grace_ms)
		c->grace_ms = clock_now_ms() + (own ? 0 : WEFT_GRACE_MS);
}

void early_server(struct conn *c)
{
	c->grace_ms = clock_now_ms() + WEFT_GRACE_MS;
	c->deadline_ms = clock_now_ms() + WEFT_ANSWERED_MS;
}

static void early_now(struct conn *c)
{
	if (!atomic_exchange(&c->early, true))
		atomic_fetch_add(&conn_early, 1);
	atomic_fetch_add_explicit(&c->phase, 1, memory_order_release); /* it is writable */
}

void early_check(struct conn *c)
{
	if (conn_state(c) == CONN_HANDSHAKE && !c->early && c->grace_ms &&
	    clock_now_ms() >= c->grace_ms)
		early_now(c);
}

void early_accepted(struct conn *c)
{
	if (!c->server || c->share || early_is(c))
		return;
	quiet_hold();
	lock_take(&c->lock);
	if (conn_state(c) == CONN_SNIFFING || conn_state(c) == CONN_HANDSHAKE)
		early_now(c);
	lock_drop(&c->lock);
	quiet_let();
}

/* --- what is written --- */

bool early_has_room(const struct conn *c)
{
	return !c->share && c->early_len < EARLY_BYTES;
}

static ssize_t refuse_after_shutdown(int flags)
{
	int pid = (int)sys_call(SYS_getpid, 0, 0, 0, 0, 0, 0);

	if (!(flags & MSG_NOSIGNAL))
		sys_call(SYS_tgkill, pid, sys_call(SYS_gettid, 0, 0, 0, 0, 0, 0), SIGPIPE, 0, 0, 0);
	return -EPIPE;
}

static size_t copy_out(uint8_t *to, const struct iovec *iov, size_t skip, size_t n)
{
	size_t done = 0;

	for (; done < n; iov++) {
		size_t part = iov->iov_len;

		if (skip >= part) {
			skip -= part;
			continue;
		}
		part = part - skip < n - done ? part - skip : n - done;
		memcpy(to + done, (const uint8_t *)iov->iov_base + skip, part);
		done += part;
		skip = 0;
	}
	return done;
}

static ssize_t hold(struct conn *c, const struct iovec *iov, size_t skip, size_t n)
{
	size_t room = EARLY_BYTES - c->early_len;

	if (!c->early_bytes)
		c->early_bytes = malloc(EARLY_BYTES);
	if (!c->early_bytes)
		return -ENOMEM;
	n = n < room ? n : room;
	c->early_len += (uint32_t)copy_out(c->early_bytes + c->early_len, iov, skip, n);
	return (ssize_t)n;
}

ssize_t early_send(struct conn *c, const struct iovec *iov, size_t skip, size_t n, int flags)
{
	ssize_t r;

	quiet_hold();
	lock_take(&c->lock);
	if (!early_is(c))
		r = -ESTALE;
	else if (c->early_shut & 1 << SHUT_WR)
		r = refuse_after_shutdown(flags);
	else if (!early_has_room(c) && n)
		r = -EAGAIN;
	else
		r = n ? hold(c, iov, skip, n) : 0;
	lock_drop(&c->lock);
	quiet_let();
	return r;
}

int early_flush(struct conn *c, int fd)
{
	struct iovec iov = { .iov_base = c->early_bytes, .iov_len = c->early_len };

	while (c->early_sent < c->early_len) {
		ssize_t r = session_send(c->session, &c->aead, fd, &iov, c->early_sent,
					 c->early_len - c->early_sent, MSG_NOSIGNAL);

		if (r < 0)
			return (int)r;
		c->early_sent += (uint32_t)r;
	}
	early_release(c);
	return 0;
}

int early_flush_plain(struct conn *c, int fd)
{
	long r = 0;

	while (c->early_sent < c->early_len && (r >= 0 || r == -EINTR)) {
		r = sys_call(SYS_sendto, fd, (long)(c->early_bytes + c->early_sent),
			     c->early_len - c->early_sent, MSG_NOSIGNAL | MSG_DONTWAIT, 0, 0);
		c->early_sent += r > 0 ? (uint32_t)r : 0;
	}
	if (r != -EAGAIN)
		early_release(c); /* an error of the socket shows at the program's next call */
	return r < 0 ? (int)r : 0;
}

void early_release(struct conn *c)
{
	if (c->early_bytes)
		explicit_bzero(c->early_bytes, c->early_len);
	free(c->early_bytes);
	c->early_bytes = NULL;
	c->early_len = c->early_sent = 0;
}

int early_shutdown(struct conn *c, int how)
{
	int r = 0;

	if (how < SHUT_RD || how > SHUT_RDWR)
		return -EINVAL;
	quiet_hold();
	lock_take(&c->lock);
	if (early_is(c))
		c->early_shut |= how == SHUT_RDWR ? 1 << SHUT_RD | 1 << SHUT_WR : 1 << how;
	else
		r = -ESTALE;
	lock_drop(&c->lock);
	quiet_let();
	return r;
}

void early_opened(struct conn *c, int fd)
{
	if (c->early_shut & 1 << SHUT_WR)
		direct_shutdown(c, fd, SHUT_WR);
	if (c->early_shut & 1 << SHUT_RD)
		direct_shutdown(c, fd, SHUT_RD);
	c->early_shut = 0;
}

/* --- after the program closed it --- */

/* The wait of a close(): as connect() waits, so that nothing of it is left for later. What this process does next may be
 * a wait that is not ours to take steps in, as for a child. */
static void outstay(struct conn *c, int fd)
{
	int64_t until = (c->sniff_ms ? c->sniff_ms : clock_now_ms()) + WEFT_GRACE_MS, left;
	struct pollfd p[1 + EARLY_FDS];
	struct timespec t;

	while (conn_is_stepping(c) && clock_now_ms() < until) {
		left = (conn_deadline(c) < until ? conn_deadline(c) : until) - clock_now_ms();
		left = left > 0 ? left : 0;
		t = (struct timespec){ .tv_sec = left / 1000, .tv_nsec = left % 1000 * 1000000 };
		p[0] = (struct pollfd){ .fd = fd, .events = conn_wants(c) };
		sys_call(SYS_ppoll, (long)p, 1 + early_poll(p + 1), (long)&t, 0, 0, 0);
		conn_expire_all();
		early_settle(c, fd);
	}
}

static bool may_go_on(const struct conn *c)
{
	int state = conn_state(c);

	return state == CONN_SNIFFING || (state == CONN_HANDSHAKE && (c->early_len || c->server));
}

bool early_orphan(struct conn *c, int fd)
{
	if (!conn_is_stepping(c) || !share_steps_here(c))
		return false;
	conn_speaks_first(c);
	early_settle(c, fd);
	quiet_hold();
	if (may_go_on(c) && c->server && !c->share && block_may(fd, 0) && !direct_aborts(fd))
		outstay(c, fd);
	lock_take(&c->lock);
	if (may_go_on(c) && !c->share && !direct_aborts(fd) && conn_get(c)) {
		early_now(c);
		c->early_shut = 0;
		c->orphan = true;
	}
	lock_drop(&c->lock);
	quiet_let();
	return c->orphan;
}

void early_disown(struct conn *c)
{
	if (atomic_exchange(&c->orphan, false))
		conn_put(c);
}

/* A closefrom() of the program's may have taken the number. */
static bool is_there(struct conn *c)
{
	return conn_cookie(conn_fd(c, c->fd)) == c->cookie;
}

static void abandon(struct conn *c)
{
	atomic_store(&c->aead.kept, 0);
	conn_move(c, CONN_CLOSED);
	early_disown(c);
}

void early_forked(void)
{
	struct conn *c, *next;

	for (c = conn_list_first(); c; c = next) {
		next = c->next;
		if (!c->orphan)
			continue;
		if (is_there(c))
			sys_call(SYS_close, conn_fd(c, -1), 0, 0, 0, 0, 0);
		share_leave(c);
		abandon(c);
	}
}

/* --- steps --- */

struct ready {
	int n;
	struct conn *conn[EARLY_FDS];
	struct pollfd p[EARLY_FDS];
};

static _Atomic unsigned turn; /* whose it is, where there are more than EARLY_FDS */

/* How many early connections come before those whose turn it is. */
static unsigned passed_over(void)
{
	unsigned turns = ((unsigned)atomic_load(&conn_early) + EARLY_FDS - 1) / EARLY_FDS;

	return turns > 1 ? turn % turns * EARLY_FDS : 0;
}

static bool may_step(const struct conn *c)
{
	return conn_is_stepping(c) && conn_is_mine(c) && share_steps_here(c);
}

/* References to connections that are stepping, early ones first. */
static void collect(struct ready *r)
{
	unsigned skip = passed_over();
	struct conn *c;
	int pass;

	r->n = 0;
	conn_list_lock();
	for (pass = 0; pass < 2; pass++)
		for (c = conn_list_first(); c && r->n < EARLY_FDS; c = c->next) {
			if (c->early != (pass == 0) || !may_step(c))
				continue;
			if (!pass && skip && skip--)
				continue;
			if (!conn_get(c))
				continue;
			r->conn[r->n] = c;
			r->p[r->n++] =
				(struct pollfd){ .fd = conn_fd(c, c->fd), .events = conn_wants(c) };
		}
	conn_list_unlock();
}

static void step_one(struct conn *c)
{
	if (c->orphan && !is_there(c)) {
		abandon(c);
		return;
	}
	conn_step(c, c->fd);
	if (!conn_is_stepping(c))
		early_disown(c);
}

/* One step of each that can make one. Returns whether there was any. */
static bool step_ready(struct ready *r)
{
	struct timespec now = { 0 };
	bool any;
	int i;

	any = r->n && sys_call(SYS_ppoll, (long)r->p, r->n, (long)&now, 0, 0, 0) > 0;
	for (i = 0; i < r->n; i++) {
		if (any && r->p[i].revents)
			step_one(r->conn[i]);
		conn_put(r->conn[i]);
	}
	return any;
}

void early_settle(struct conn *c, int fd)
{
	struct ready r;
	int round;

	if (c)
		conn_step(c, fd);
	if (!early_any())
		return;
	for (round = 0; round < EARLY_ROUNDS; round++) {
		collect(&r);
		if (!step_ready(&r))
			break;
	}
	atomic_fetch_add_explicit(&turn, 1, memory_order_relaxed);
}

int early_poll(struct pollfd p[static EARLY_FDS])
{
	unsigned skip = passed_over();
	struct conn *c;
	int n = 0;

	if (!early_any())
		return 0;
	conn_list_lock();
	for (c = conn_list_first(); c && n < EARLY_FDS; c = c->next) {
		if (!early_is(c) || !may_step(c) || (skip && skip--))
			continue;
		p[n++] = (struct pollfd){ .fd = conn_fd(c, c->fd), .events = conn_wants(c) };
	}
	conn_list_unlock();
	return n;
}

int64_t early_turn_ms(void)
{
	return atomic_load(&conn_early) > EARLY_FDS ? clock_now_ms() + EARLY_TURN_MS : INT64_MAX;
}

static bool has_unsent(void)
{
	bool found = false;
	struct conn *c;

	conn_list_lock();
	for (c = conn_list_first(); c && !found; c = c->next)
		found = early_is(c) && (c->early_len || c->orphan);
	conn_list_unlock();
	return found;
}

void early_exit(void)
{
	int64_t until = clock_now_ms() + EARLY_EXIT_MS;
	struct pollfd p[EARLY_FDS];
	int n;

	while (early_any() && has_unsent() && clock_now_ms() < until) {
		struct timespec t = { .tv_nsec = 50000000 };

		early_settle(NULL, -1);
		conn_expire_all();
		n = early_poll(p);
		if (n && has_unsent())
			sys_call(SYS_ppoll, (long)p, n, (long)&t, 0, 0, 0);
	}
}
