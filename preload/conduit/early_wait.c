/* Waits of blocking calls, which early connections use for their steps. */
#include <errno.h>
#include <limits.h>
#include <sys/syscall.h>

#include "conduit/block.h"
#include "conduit/early.h"
#include "sys/clock.h"
#include "sys/leave.h"
#include "sys/sys.h"

/* block_wait_any() for the first of `p` until the deadline, or what early connections need. 0: look again. */
static int wait_any(struct pollfd p[static 1 + EARLY_FDS], int64_t deadline_ms, bool once)
{
	int64_t until = early_any() ? conn_deadline_all() : INT64_MAX;
	int r;

	until = deadline_ms < until ? deadline_ms : until;
	r = block_wait_any(p, 1 + (unsigned)early_poll(p + 1), until, once);
	if (r != -ETIMEDOUT || clock_now_ms() >= deadline_ms)
		return r;
	conn_expire_all();
	return 0;
}

int early_wait(int fd, short events, int64_t deadline_ms, bool once)
{
	struct pollfd p[1 + EARLY_FDS] = { { .fd = fd, .events = events } };
	int r;

	for (;;) {
		p[0].revents = 0;
		r = wait_any(p, deadline_ms, once);
		if (r < 0 || p[0].revents)
			return r;
		early_settle(NULL, -1);
	}
}

/* close() or dup2() of another thread gave our number to another file while we waited, and then a signal came, as Java does it
 * to end a call: ppoll() looks at the descriptors once more before it says EINTR, and so told of the other file instead. */
static bool lost_signal(const struct conn *c, const struct pollfd *was)
{
	struct pollfd p = { .fd = conn_fd(c, was->fd), .events = was->events };
	struct timespec now = { 0 };

	return was->revents && p.fd != was->fd &&
	       sys_call(SYS_ppoll, (long)&p, 1, (long)&now, 0, 0, 0) == 0;
}

struct step_wait {
	struct conn *c;
	struct pollfd p[1 + EARLY_FDS];
	struct leave leave;
};

static void stop_waiting(void *arg)
{
	struct step_wait *w = arg;

	conn_let(w->c, w);
}

/* A handler of signals may have taken the step: whether the call goes on is asked here, and not in block_wait_any(). */
static int wait_once(struct step_wait *w, int64_t deadline_ms, bool once)
{
	bool mine = conn_claim(w->c, w);
	int64_t until = conn_deadline(w->c), look = mine ? INT64_MAX : conn_look_ms(w->c);
	int r;

	if (!conn_is_stepping(w->c))
		return 0;
	until = until < look ? until : look;
	w->p[0].events = mine ? conn_wants(w->c) : 0;
	r = wait_any(w->p, deadline_ms < until ? deadline_ms : until, true);
	return r == -EINTR && !once && block_restarts() ? 0 : r;
}

int early_wait_step(struct conn *c, int fd, int64_t deadline_ms, bool once)
{
	struct step_wait w = { .c = c, .p = { { .fd = fd } } };
	int r;

	leave_push(&w.leave, stop_waiting, &w);
	r = wait_once(&w, deadline_ms, once);
	leave_pop(&w.leave);
	stop_waiting(&w);
	if (!r && lost_signal(c, &w.p[0]))
		return -EINTR;
	if (r == -ETIMEDOUT && clock_now_ms() < deadline_ms) {
		conn_expire_all();
		r = 0;
	}
	if (!r && !w.p[0].revents)
		early_settle(NULL, -1);
	return r;
}
