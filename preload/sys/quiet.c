#include "sys/quiet.h"

#include <signal.h>
#include <sys/syscall.h>

#include "sys/raw.h"

#define BIT(sig) (UINT64_C(1) << ((sig)-1))
/* Faults must arrive where they happen; 33 is how glibc changes the uid of all threads. */
#define NEVER_BLOCKED \
	(BIT(SIGSEGV) | BIT(SIGBUS) | BIT(SIGFPE) | BIT(SIGILL) | BIT(SIGTRAP) | BIT(33))

atomic_bool quiet_guest;

static __thread struct {
	unsigned depth;
	struct quiet outside;
} held;

void quiet_begin(struct quiet *q)
{
	uint64_t all = ~NEVER_BLOCKED;

	raw_syscall(SYS_rt_sigprocmask, SIG_BLOCK, (long)&all, (long)&q->mask, sizeof(all), 0, 0);
}

void quiet_end(const struct quiet *q)
{
	raw_syscall(SYS_rt_sigprocmask, SIG_SETMASK, (long)&q->mask, 0, sizeof(q->mask), 0, 0);
}

void quiet_hold(void)
{
	struct quiet q;

	if (!held.depth) {
		quiet_begin(&q);
		held.outside = q;
	}
	held.depth++;
}

void quiet_let(void)
{
	if (held.depth && !--held.depth)
		quiet_end(&held.outside);
}
