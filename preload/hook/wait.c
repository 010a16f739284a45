/* Waiting: poll, select and epoll families. A process with no meshed connection pays one load. */
#include <limits.h>
#include <string.h>
#include <sys/time.h>

#include "conduit/early.h"
#include "fd/life.h"
#include "fd/reg.h"
#include "fd/wait.h"
#include "hook/hook.h"
#include "sys/clock.h"
#include "sys/user.h"

static inline bool nothing_live(void)
{
	if (atomic_load_explicit(&conn_live, memory_order_relaxed) == 0)
		return true;
	conn_push();
	return false;
}

/* Is there a meshed socket in the set, or one elsewhere that needs this wait for its steps? Memory that cannot be touched is the kernel's to complain of. */
static bool any_conn(struct pollfd *fds, nfds_t n)
{
	return !nothing_live() && n <= INT_MAX / sizeof(*fds) &&
	       user_writes(fds, n * sizeof(*fds)) && (early_any() || wait_has_conn(fds, n));
}

static bool any_in_sets(int n, const fd_set *r, const fd_set *w, const fd_set *e)
{
	const fd_set *const sets[] = { r, w, e };
	int i;

	if (nothing_live() || n < 0)
		return false;
	for (i = 0; i < 3; i++)
		if (sets[i] && !user_writes(sets[i], (size_t)(n + 7) / 8))
			return false;
	return early_any() || wait_set_has_conn(n, r, w, e);
}

static int64_t after_ms(int timeout)
{
	return timeout < 0 ? WAIT_FOREVER : clock_now_ms() + timeout;
}

static int timeout_ms(const struct timespec *t)
{
	return !t || t->tv_sec >= INT_MAX / 1000
		       ? -1
		       : (int)(t->tv_sec * 1000 + (t->tv_nsec + 999999) / 1000000);
}

static int64_t after(const struct timespec *t)
{
	return after_ms(timeout_ms(t));
}

HOOK_EXPORT int poll(struct pollfd *fds, nfds_t n, int timeout)
{
	int saved = errno;

	if (!any_conn(fds, n))
		return sys.poll(fds, n, timeout);
	return (int)hook_result(wait_poll(fds, n, after_ms(timeout), NULL), saved);
}

HOOK_ALIAS(int, __poll, (struct pollfd * fds, nfds_t n, int timeout), poll);

HOOK_EXPORT int ppoll(struct pollfd *fds, nfds_t n, const struct timespec *timeout,
		      const sigset_t *mask)
{
	int saved = errno;

	if (!any_conn(fds, n) || !user_reads(timeout, timeout ? sizeof(*timeout) : 0))
		return sys.ppoll(fds, n, timeout, mask);
	return (int)hook_result(wait_poll(fds, n, after(timeout), mask), saved);
}

HOOK_EXPORT int __poll_chk(struct pollfd *fds, nfds_t n, int timeout, size_t size)
{
	return size / sizeof(*fds) < n ? sys.__poll_chk(fds, n, timeout, size)
				       : poll(fds, n, timeout);
}

HOOK_EXPORT int __ppoll_chk(struct pollfd *fds, nfds_t n, const struct timespec *timeout,
			    const sigset_t *mask, size_t size)
{
	return size / sizeof(*fds) < n ? sys.__ppoll_chk(fds, n, timeout, mask, size)
				       : ppoll(fds, n, timeout, mask);
}

/* Linux's select() leaves the time that was not slept; pselect() does not. */
static void time_not_slept(struct timeval *t, int64_t deadline_ms)
{
	int64_t left = deadline_ms - clock_now_ms();

	if (left < 0)
		left = 0;
	t->tv_sec = left / 1000;
	t->tv_usec = left % 1000 * 1000;
}

HOOK_EXPORT int select(int n, fd_set *r, fd_set *w, fd_set *e, struct timeval *timeout)
{
	struct timespec t;
	int saved = errno, got;
	int64_t deadline;

	if (!any_in_sets(n, r, w, e) || !user_writes(timeout, timeout ? sizeof(*timeout) : 0))
		return sys.select(n, r, w, e, timeout);
	if (timeout)
		t = (struct timespec){ .tv_sec = timeout->tv_sec,
				       .tv_nsec = timeout->tv_usec * 1000 };
	deadline = after(timeout ? &t : NULL);
	got = wait_select(n, r, w, e, deadline, NULL);
	if (timeout && deadline != WAIT_FOREVER)
		time_not_slept(timeout, deadline);
	return (int)hook_result(got, saved);
}

HOOK_ALIAS(int, __select, (int n, fd_set *r, fd_set *w, fd_set *e, struct timeval *timeout),
	   select);

HOOK_EXPORT int pselect(int n, fd_set *r, fd_set *w, fd_set *e, const struct timespec *timeout,
			const sigset_t *mask)
{
	int saved = errno;

	if (!any_in_sets(n, r, w, e) || !user_reads(timeout, timeout ? sizeof(*timeout) : 0))
		return sys.pselect(n, r, w, e, timeout, mask);
	return (int)hook_result(wait_select(n, r, w, e, after(timeout), mask), saved);
}

HOOK_EXPORT int epoll_ctl(int ep, int op, int fd, struct epoll_event *ev)
{
	uintptr_t word = table_word(fd);
	struct conn *c = NULL;
	int saved = errno, r;

	if (word > SLOT_MAX)
		c = op == EPOLL_CTL_ADD ? life_conn(fd) : table_conn_of(fd, word);
	else if ((word == SLOT_FRESH4 || word == SLOT_FRESH6) && op == EPOLL_CTL_ADD)
		c = life_adopt(fd);
	if (!c || (op != EPOLL_CTL_DEL && !user_reads(ev, sizeof(*ev)))) {
		conn_put(c);
		return sys.epoll_ctl(ep, op, fd, ev);
	}
	if (op != EPOLL_CTL_DEL && ev->events & EPOLLOUT && !(ev->events & EPOLLIN))
		conn_speaks_first(c);
	reg_settle(c);
	r = reg_ctl(c, ep, op, fd, ev);
	conn_put(c);
	return (int)hook_result(r, saved);
}

/* Is there a registered connection, or one elsewhere that needs this wait for its steps? */
static inline bool epoll_ours(void)
{
	conn_push();
	return reg_used() || early_any();
}

/* What the kernel gave a thread that began to wait while no connection was registered. Another thread may have registered
 * one since: then the tags are translated, and if nothing is left for the program the wait begins anew. */
static int epoll_waited(int ep, struct epoll_event *ev, int n, int timeout, const sigset_t *mask,
			int got)
{
	int saved = errno;

	if (got <= 0 || !reg_used())
		return got;
	got = reg_filter(ev, got);
	if (got)
		return got;
	return (int)hook_result(wait_epoll(ep, ev, n, after_ms(timeout), mask), saved);
}

HOOK_EXPORT int epoll_pwait(int ep, struct epoll_event *ev, int n, int timeout,
			    const sigset_t *mask)
{
	int saved = errno;

	if (!epoll_ours())
		return epoll_waited(ep, ev, n, timeout, mask,
				    sys.epoll_pwait(ep, ev, n, timeout, mask));
	return (int)hook_result(wait_epoll(ep, ev, n, after_ms(timeout), mask), saved);
}

HOOK_EXPORT int epoll_wait(int ep, struct epoll_event *ev, int n, int timeout)
{
	return epoll_ours()
		       ? epoll_pwait(ep, ev, n, timeout, NULL)
		       : epoll_waited(ep, ev, n, timeout, NULL, sys.epoll_wait(ep, ev, n, timeout));
}

HOOK_EXPORT int epoll_pwait2(int ep, struct epoll_event *ev, int n, const struct timespec *timeout,
			     const sigset_t *mask)
{
	int saved = errno;

	if (sys.epoll_pwait2 && timeout && !user_reads(timeout, sizeof(*timeout)))
		return sys.epoll_pwait2(ep, ev, n, timeout, mask);
	if (!epoll_ours() && sys.epoll_pwait2)
		return epoll_waited(ep, ev, n, timeout_ms(timeout), mask,
				    sys.epoll_pwait2(ep, ev, n, timeout, mask));
	return (int)hook_result(wait_epoll(ep, ev, n, after(timeout), mask), saved);
}
