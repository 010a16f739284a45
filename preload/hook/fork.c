/* Children that get a copy of our memory past the handlers of pthread_atfork(): clone(2) by function and by number, _Fork.
 * They are prepared for as fork()'s are, or both sides would seal with the same keys and numbers. A child that shares our
 * memory (vfork, threads) needs nothing and gets nothing. */
#include <linux/sched.h>
#include <sched.h>
#include <stdarg.h>
#include <sys/syscall.h>

#include "fd/life.h"
#include "hook/hook.h"
#include "hook/fork.h"
#include "sys/user.h"

static long forked(long pid, int saved)
{
	if (pid == 0)
		life_fork_child();
	else
		life_fork_parent();
	errno = saved;
	return pid;
}

/* Where the child goes on with the stack that it has: on another one there is no frame of ours to return through. */
static bool copies_memory(long number, const long *a)
{
	switch (number) {
	case SYS_clone: /* flags, stack */
		return !(a[0] & CLONE_VM) && !a[1];
	case SYS_clone3: {
		const struct clone_args *args = (const struct clone_args *)a[0];

		return user_reads(args, CLONE_ARGS_SIZE_VER0) && !(args->flags & CLONE_VM) &&
		       !args->stack;
	}
#ifdef SYS_fork
	case SYS_fork:
		return true;
#endif
	default:
		return false;
	}
}

bool fork_by_number(long number, const long *a, long *pid)
{
	if (!copies_memory(number, a))
		return false;
	life_fork_prepare();
	*pid = sys.syscall(number, a[0], a[1], a[2], a[3], a[4], a[5]);
	*pid = forked(*pid, errno);
	return true;
}

HOOK_EXPORT pid_t _Fork(void)
{
	pid_t pid;

	if (!sys._Fork) {
		errno = ENOSYS;
		return -1;
	}
	life_fork_prepare();
	pid = sys._Fork();
	return (pid_t)forked(pid, errno);
}

struct birth {
	int (*fn)(void *);
	void *arg;
};

static int born(void *arg)
{
	struct birth b = *(struct birth *)arg; /* the parent's frame, copied */

	life_fork_child();
	return b.fn(b.arg);
}

HOOK_EXPORT int clone(int (*fn)(void *), void *stack, int flags, void *arg, ...)
{
	struct birth b = { fn, arg };
	void *more[3];
	va_list ap;
	int r, i;

	va_start(ap, arg);
	for (i = 0; i < 3; i++)
		more[i] = va_arg(ap, void *);
	va_end(ap);
	if (flags & CLONE_VM || !fn)
		return sys.clone(fn, stack, flags, arg, more[0], more[1], more[2]);
	life_fork_prepare();
	r = sys.clone(born, stack, flags, &b, more[0], more[1], more[2]);
	return (int)forked(r ? r : -1, errno);
}
