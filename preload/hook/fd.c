/* Descriptors: close, dup, fcntl; the end of the process. */
#include <fcntl.h>
#include <stdarg.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "fd/life.h"
#include "hook/hook.h"

HOOK_EXPORT int close(int fd)
{
	int saved = errno;

	if (table_word(fd) == SLOT_UNKNOWN)
		return sys.close(fd);
	return (int)hook_result(life_close(fd), saved);
}

HOOK_ALIAS(int, __close, (int fd), close);

HOOK_EXPORT int close_range(unsigned first, unsigned last, int flags)
{
	bool closes = first <= last && !(flags & CLOSE_RANGE_CLOEXEC);
	int saved = errno, r;

	if (closes)
		life_close_range(first, last);
	errno = saved;
	if (sys.close_range)
		r = sys.close_range(first, last, flags);
	else
		r = (int)hook_result(sys_call(SYS_close_range, first, last, flags, 0, 0, 0), saved);
	saved = errno;
	if (closes)
		life_closed_range(first, last);
	errno = saved;
	return r;
}

HOOK_EXPORT void closefrom(int first)
{
	int saved = errno;
	unsigned from = first < 0 ? 0 : (unsigned)first;

	life_close_range(from, ~0u);
	errno = saved;
	if (sys.closefrom)
		sys.closefrom(first);
	else
		sys_call(SYS_close_range, from, ~0u, 0, 0, 0, 0);
	saved = errno;
	life_closed_range(from, ~0u);
	errno = saved;
}

HOOK_EXPORT int dup(int fd)
{
	int to = sys.dup(fd), saved = errno;

	if (to >= 0)
		life_duped(fd, to);
	errno = saved;
	return to;
}

HOOK_EXPORT int dup2(int fd, int to)
{
	int saved = errno, r, err;

	life_before_dup2(fd, to);
	errno = saved;
	r = sys.dup2(fd, to);
	err = r < 0 ? errno : saved;
	life_after_dup2(fd, to, r >= 0);
	errno = err;
	return r;
}

HOOK_ALIAS(int, __dup2, (int fd, int to), dup2);

HOOK_EXPORT int dup3(int fd, int to, int flags)
{
	int saved = errno, r, err;

	life_before_dup2(fd, to);
	errno = saved;
	r = sys.dup3(fd, to, flags);
	err = r < 0 ? errno : saved;
	life_after_dup2(fd, to, r >= 0);
	errno = err;
	return r;
}

static int fcntl_done(int fd, int cmd, int r)
{
	int saved = errno;

	if (r >= 0 && (cmd == F_DUPFD || cmd == F_DUPFD_CLOEXEC))
		life_duped(fd, r);
	errno = saved;
	return r;
}

HOOK_EXPORT int fcntl(int fd, int cmd, ...)
{
	va_list ap;
	void *arg;

	va_start(ap, cmd);
	arg = va_arg(ap, void *);
	va_end(ap);
	return fcntl_done(fd, cmd, sys.fcntl(fd, cmd, arg));
}

HOOK_ALIAS(int, __fcntl, (int fd, int cmd, ...), fcntl);

HOOK_EXPORT int fcntl64(int fd, int cmd, ...)
{
	va_list ap;
	void *arg;

	va_start(ap, cmd);
	arg = va_arg(ap, void *);
	va_end(ap);
	return fcntl_done(fd, cmd, sys.fcntl64(fd, cmd, arg));
}

/* Of this or another process; glibc 2.36 is the first to have it as a function. */
HOOK_EXPORT int pidfd_getfd(int pidfd, int fd, unsigned flags)
{
	int got = sys.pidfd_getfd ? sys.pidfd_getfd(pidfd, fd, flags)
				  : (int)sys.syscall(SYS_pidfd_getfd, pidfd, fd, flags, 0, 0, 0);

	if (got >= 0)
		life_received(got);
	return got;
}

/* Destructors do not run here. */
HOOK_EXPORT void _exit(int status)
{
	life_exit();
	sys._exit(status);
	__builtin_unreachable();
}

HOOK_EXPORT void _Exit(int status)
{
	_exit(status);
}
