#include "fd/wait.h"

#include <errno.h>
#include <limits.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "conduit/call.h"
#include "conduit/direct.h"
#include "conduit/early.h"
#include "fd/reg.h"
#include "fd/table.h"
#include "sys/clock.h"
#include "sys/quiet.h"
#include "sys/leave.h"
#include "sys/pool.h"
#include "sys/quiet.h"
#include "sys/ready.h"
#include "sys/sys.h"

#define WAIT_STACK 32 /* descriptors of a set that need no memory of the kernel's */

/* Time left until the program's own deadline, or the first of ours. */
static struct timespec *time_left(int64_t deadline_ms, struct timespec *t)
{
	int64_t ours = conn_deadline_all(), until = deadline_ms < ours ? deadline_ms : ours, left;

	if (until == WAIT_FOREVER)
		return NULL;
	left = until - clock_now_ms();
	if (left < 0)
		left = 0;
	*t = (struct timespec){ .tv_sec = left / 1000, .tv_nsec = left % 1000 * 1000000 };
	return t;
}

/* Before a wait: early connections go as far as they can. */
static void settle(void)
{
	if (early_any())
		early_settle(NULL, -1);
}

static void expire(void)
{
	if (!atomic_load_explicit(&conn_stepping, memory_order_relaxed))
		return;
	if (conn_deadline_all() <= clock_now_ms())
		conn_expire_all();
}

/* Waits until the instance, or an early connection, has something to say. */
static int wait_early(int ep, const struct timespec *left, const sigset_t *mask)
{
	struct pollfd p[1 + EARLY_FDS] = { { .fd = ep, .events = POLLIN } };

	return sys.ppoll(p, 1 + (nfds_t)early_poll(p + 1), left, mask);
}

int wait_epoll(int ep, struct epoll_event *ev, int n, int64_t deadline_ms, const sigset_t *mask)
{
	struct timespec t;
	const struct timespec *left;
	int r;

	for (;;) {
		settle();
		left = time_left(deadline_ms, &t);
		if (early_any() && n > 0) {
			if (wait_early(ep, left, mask) < 0)
				return -errno;
			t = (struct timespec){ 0 };
			left = &t;
		}
		r = sys.epoll_pwait(ep, ev, n,
				    left ? (int)(t.tv_sec * 1000 + t.tv_nsec / 1000000) : -1, mask);
		if (r < 0)
			return -errno;
		r = reg_filter(ev, r);
		expire();
		if (r || (deadline_ms != WAIT_FOREVER && clock_now_ms() >= deadline_ms))
			return r;
	}
}

bool wait_has_conn(struct pollfd *fds, nfds_t n)
{
	nfds_t i;

	for (i = 0; i < n; i++)
		if (table_word(fds[i].fd) > SLOT_MAX)
			return true;
	return false;
}

/* Memory for as long as a call lasts, which may be left by cancellation or a jump. */
struct room {
	void *p;
	size_t mapped; /* 0: of the pool */
	struct leave leave;
};

static void room_give(void *arg)
{
	struct room *r = arg;

	if (r->mapped)
		sys_call(SYS_munmap, (long)r->p, (long)r->mapped, 0, 0, 0, 0);
	else
		pool_put(r->p);
}

static int room_open(struct room *r, size_t size)
{
	long p;

	r->mapped = size <= POOL_BLOCK ? 0 : size;
	if (r->mapped) {
		p = sys_call(SYS_mmap, 0, (long)size, PROT_READ | PROT_WRITE,
			     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		r->p = p < 0 && p > -4096 ? NULL : (void *)p;
	} else {
		r->p = size ? pool_get() : NULL;
	}
	if (size && !r->p)
		return -ENOMEM;
	leave_push(&r->leave, room_give, r);
	return 0;
}

static void room_close(struct room *r)
{
	leave_pop(&r->leave);
	room_give(r);
}

struct wait_set {
	nfds_t n;
	struct pollfd *fds;    /* the program's */
	struct pollfd *kernel; /* what the kernel is asked */
	struct conn **conn;
	struct call call; /* on all of them */
	bool claims;      /* the steps of those that are stepping */
	int64_t look_ms;  /* when to look again at those whose step is another's */
	struct leave leave;
	struct room room; /* for more than a few */
	struct pollfd few_fds[WAIT_STACK + EARLY_FDS];
	struct conn *few_conn[WAIT_STACK];
};

static int set_open(struct wait_set *s, struct pollfd *fds, nfds_t n)
{
	size_t each = sizeof(*s->kernel) + sizeof(*s->conn);
	nfds_t i;

	s->n = n;
	s->fds = fds;
	s->kernel = s->few_fds;
	s->conn = s->few_conn;
	if (room_open(&s->room, n > WAIT_STACK ? n * each + sizeof(s->few_fds) : 0) < 0)
		return -ENOMEM;
	if (n > WAIT_STACK) {
		s->conn = s->room.p;
		s->kernel = (struct pollfd *)(s->conn + n);
	}
	quiet_data_hold();
	for (i = 0; i < n; i++)
		s->conn[i] = table_conn(fds[i].fd);
	call_begin_all(&s->call, s->conn, n);
	quiet_data_let();
	return 0;
}

static void set_close(struct wait_set *s)
{
	call_end(&s->call);
	room_close(&s->room);
}

/* While the kernel slept another thread may have closed a number, or given it away; like the kernel's own look, ours is at what
 * it is now. */
static struct conn *set_conn(struct wait_set *s, nfds_t i)
{
	struct conn *had = s->conn[i];

	if (had && table_word(s->fds[i].fd) != (uintptr_t)had) {
		quiet_data_hold();
		s->conn[i] = table_conn(s->fds[i].fd);
		conn_put(had);
		quiet_data_let();
	}
	return s->conn[i];
}

static void set_stop(void *arg)
{
	struct wait_set *s = arg;
	nfds_t i;

	for (i = 0; i < s->n; i++)
		if (s->conn[i])
			conn_let(s->conn[i], s);
}

/* Other threads leave the steps of stepping connections to us while we wait for what they need. */
static void set_begin(struct wait_set *s)
{
	nfds_t i;

	s->look_ms = WAIT_FOREVER;
	s->claims = atomic_load_explicit(&conn_stepping, memory_order_relaxed) != 0;
	if (!s->claims)
		return;
	leave_push(&s->leave, set_stop, s);
	for (i = 0; i < s->n; i++)
		if (s->conn[i] && conn_is_stepping(s->conn[i]) && !conn_claim(s->conn[i], s) &&
		    conn_is_stepping(s->conn[i]))
			s->look_ms = conn_look_ms(s->conn[i]);
}

static void set_end(struct wait_set *s)
{
	if (!s->claims)
		return;
	leave_pop(&s->leave);
	set_stop(s);
}

/* What the kernel is asked of a stepping connection. */
static short step_events(const struct conn *c, short events)
{
	short wants = direct_wants(c, events);

	return conn_is_mine(c) ? wants : wants & (short)~conn_wants(c);
}

static void set_arm(struct wait_set *s)
{
	nfds_t i;

	for (i = 0; i < s->n; i++) {
		s->kernel[i] = s->fds[i];
		if (!s->conn[i])
			continue;
		if (conn_is_stepping(s->conn[i]) && s->fds[i].events & (POLLOUT | POLLWRNORM))
			conn_speaks_first(s->conn[i]);
		if (conn_is_stepping(s->conn[i]))
			s->kernel[i].events = step_events(s->conn[i], s->fds[i].events);
	}
}

/* What the program may see of what the kernel said. *again: something was done that the kernel can tell more about. */
static int set_take(struct wait_set *s, bool *again)
{
	int count = 0;
	nfds_t i;

	*again = false;
	for (i = 0; i < s->n; i++) {
		struct conn *c = set_conn(s, i);
		short seen = s->kernel[i].revents;

		if (c && seen && !(seen & POLLNVAL)) {
			if (conn_is_stepping(c) && conn_step(c, s->fds[i].fd) == 0) {
				*again = true;
				seen = 0;
			} else {
				seen = direct_events(c, s->fds[i].fd, seen);
				seen &= s->fds[i].events | POLLERR | POLLHUP;
			}
			reg_settle(c);
		}
		s->fds[i].revents = seen;
		count += seen != 0;
	}
	return count;
}

/* select: RLIMIT_NOFILE does not bound the set. */
static int wait_set(struct pollfd *fds, nfds_t n, int64_t deadline_ms, const sigset_t *mask,
		    bool select)
{
	struct wait_set s;
	struct timespec t, *left;
	nfds_t all;
	bool again;
	int r = set_open(&s, fds, n);

	if (r)
		return r;
	for (;;) {
		settle();
		set_begin(&s);
		set_arm(&s);
		left = time_left(deadline_ms < s.look_ms ? deadline_ms : s.look_ms, &t);
		all = n + (nfds_t)early_poll(s.kernel + n);
		r = sys.ppoll(s.kernel, all, left, mask);
		r = r < 0 ? -errno : r;
		if (r == -EINVAL && select)
			r = ready_by_select(s.kernel, all, left, mask);
		set_end(&s);
		if (r < 0)
			break;
		r = set_take(&s, &again);
		expire();
		if (r || (!again && deadline_ms != WAIT_FOREVER && clock_now_ms() >= deadline_ms))
			break;
	}
	set_close(&s);
	return r;
}

int wait_poll(struct pollfd *fds, nfds_t n, int64_t deadline_ms, const sigset_t *mask)
{
	return wait_set(fds, n, deadline_ms, mask, false);
}

bool wait_set_has_conn(int n, const fd_set *r, const fd_set *w, const fd_set *e)
{
	int fd;

	for (fd = 0; fd < n; fd++)
		if (table_word(fd) > SLOT_MAX &&
		    ((r && FD_ISSET(fd, r)) || (w && FD_ISSET(fd, w)) || (e && FD_ISSET(fd, e))))
			return true;
	return false;
}

static bool in_set(int fd, const fd_set *s)
{
	return s && FD_ISSET(fd, s);
}

/* The kernel's own mapping between select() and poll(), fs/select.c. */
static nfds_t from_sets(int n, const fd_set *r, const fd_set *w, const fd_set *e,
			struct pollfd *fds)
{
	nfds_t k = 0;
	int fd;

	for (fd = 0; fd < n; fd++) {
		short events = 0;

		if (in_set(fd, r))
			events |= POLLIN | POLLRDNORM | POLLRDBAND;
		if (in_set(fd, w))
			events |= POLLOUT | POLLWRNORM | POLLWRBAND;
		if (in_set(fd, e))
			events |= POLLPRI;
		if (events && table_word(fd) > SLOT_MAX)
			events |= POLLNVAL; /* the kernel's poll() does not look at it here */
		if (events)
			fds[k++] = (struct pollfd){ .fd = fd, .events = events };
	}
	return k;
}

static int keep(fd_set *s, int fd, bool on)
{
	if (!in_set(fd, s))
		return 0;
	if (!on)
		FD_CLR(fd, s);
	return on;
}

static int to_sets(fd_set *r, fd_set *w, fd_set *e, const struct pollfd *fds, nfds_t k)
{
	int count = 0;
	nfds_t i;

	for (i = 0; i < k; i++) {
		short seen = fds[i].revents;

		count += keep(
			r, fds[i].fd,
			seen & (POLLIN | POLLRDNORM | POLLRDBAND | POLLHUP | POLLERR | POLLNVAL));
		count += keep(w, fds[i].fd,
			      seen & (POLLOUT | POLLWRNORM | POLLWRBAND | POLLERR | POLLNVAL));
		count += keep(e, fds[i].fd, seen & (POLLPRI | POLLNVAL));
	}
	return count;
}

int wait_select(int n, fd_set *r, fd_set *w, fd_set *e, int64_t deadline_ms, const sigset_t *mask)
{
	size_t size = ((size_t)n + 1) * sizeof(struct pollfd);
	struct pollfd *fds;
	struct room room;
	nfds_t k, i;
	int got;

	if (room_open(&room, size) < 0)
		return -ENOMEM;
	fds = room.p;
	k = from_sets(n, r, w, e, fds);
	got = wait_set(fds, k, deadline_ms, mask, true);
	for (i = 0; got > 0 && i < k; i++)
		if (fds[i].revents & POLLNVAL & ~fds[i].events)
			got = -EBADF; /* a number closed only meanwhile is ready, as in fs/select.c */
	if (got >= 0)
		got = to_sets(r, w, e, fds, k);
	room_close(&room);
	return got;
}
