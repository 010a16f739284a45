#include "conduit/block.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/time.h>

#include "conduit/conn.h"
#include "sys/clock.h"
#include "sys/ready.h"
#include "sys/sys.h"

struct kernel_sigaction {
	void *handler;
	unsigned long flags;
	void *restorer;
	unsigned long mask;
};

bool block_may(int fd, int flags)
{
	return !(flags & MSG_DONTWAIT) &&
	       !(sys_call(SYS_fcntl, fd, F_GETFL, 0, 0, 0, 0) & O_NONBLOCK);
}

int64_t block_deadline(int fd, int option)
{
	struct timeval tv = { 0 };
	socklen_t len = sizeof(tv);

	sys_call(SYS_getsockopt, fd, SOL_SOCKET, option, (long)&tv, (long)&len, 0);
	if (!tv.tv_sec && !tv.tv_usec)
		return INT64_MAX;
	return clock_now_ms() + (int64_t)tv.tv_sec * 1000 + tv.tv_usec / 1000;
}

/* Signals of faults, which no wait in the kernel raises: their handlers, which crash reporters, Java and sanitizers have, are not
 * the one that ran. */
static bool is_fault(int sig)
{
	return sig == SIGSEGV || sig == SIGBUS || sig == SIGFPE || sig == SIGILL ||
	       sig == SIGTRAP || sig == SIGSYS;
}

/* poll() ends at any signal; the call that it stands for would go on after a handler with SA_RESTART. Which handler ran is
 * not known, so the call goes on only if all of them asked for it. */
bool block_restarts(void)
{
	struct kernel_sigaction sa;
	int sig;

	for (sig = 1; sig < _NSIG; sig++)
		if (!is_fault(sig) && sys_call(SYS_rt_sigaction, sig, 0, (long)&sa, 8, 0, 0) == 0 &&
		    (unsigned long)sa.handler > 1 && !(sa.flags & SA_RESTART))
			return false;
	return true;
}

static int wait_any(struct pollfd *fds, unsigned n, int64_t deadline_ms)
{
	int64_t left = deadline_ms == INT64_MAX ? 0 : deadline_ms - clock_now_ms();
	struct timespec t = { .tv_sec = left / 1000, .tv_nsec = left % 1000 * 1000000 };
	int saved = errno;
	int r;

	if (left < 0)
		return -ETIMEDOUT;
	conn_push();
	r = sys.ppoll(fds, n, deadline_ms == INT64_MAX ? NULL : &t, NULL);
	r = r < 0 ? -errno : r;
	if (r == -EINVAL)
		r = ready_by_select(fds, n, deadline_ms == INT64_MAX ? NULL : &t, NULL);
	r = r > 0 ? 0 : r == 0 ? -ETIMEDOUT : r;
	errno = saved;
	return r;
}

int block_wait_any(struct pollfd *fds, unsigned n, int64_t deadline_ms, bool once)
{
	int r;

	do
		r = wait_any(fds, n, deadline_ms);
	while (r == -EINTR && !once && block_restarts());
	return r;
}

int block_wait(int fd, short events, int64_t deadline_ms, bool once)
{
	struct pollfd p = { .fd = fd, .events = events };

	return block_wait_any(&p, 1, deadline_ms, once);
}
