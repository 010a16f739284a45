/* Calls by number. libuv closes every descriptor so, netty accepts and waits so. What a number means is what its function
 * means; all that are not named here are the kernel's. */
#include <fcntl.h>
#include <limits.h>
#include <linux/seccomp.h>
#include <stdarg.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/sendfile.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "control/control.h"
#include "hook/filter.h"
#include "hook/fork.h"
#include "hook/hook.h"
#include "telemetry/log.h"

#define NUMBER_OTHER LONG_MIN /* none of the family; no call returns it */
#define CALL(number, call) \
	case SYS_##number: \
		return call;

/* Arguments as the function has them. */
#define INT(i) ((int)a[i])
#define UINT(i) ((unsigned)a[i])
#define SIZE(i) ((size_t)a[i])
#define PTR(i) ((void *)a[i])

static long descriptor_call(long number, const long *a)
{
	switch (number) {
		CALL(close, close(INT(0)))
		CALL(close_range, close_range(UINT(0), UINT(1), INT(2)))
		CALL(dup, dup(INT(0)))
		CALL(dup3, dup3(INT(0), INT(1), INT(2)))
		CALL(pidfd_getfd, pidfd_getfd(INT(0), INT(1), UINT(2)))
		CALL(socket, socket(INT(0), INT(1), INT(2)))
		CALL(socketpair, socketpair(INT(0), INT(1), INT(2), PTR(3)))
		CALL(connect, connect(INT(0), PTR(1), (socklen_t)a[2]))
		CALL(listen, listen(INT(0), INT(1)))
		CALL(accept, accept(INT(0), PTR(1), PTR(2)))
		CALL(accept4, accept4(INT(0), PTR(1), PTR(2), INT(3)))
		CALL(shutdown, shutdown(INT(0), INT(1)))
		CALL(getpeername, getpeername(INT(0), PTR(1), PTR(2)))
		CALL(getsockopt, getsockopt(INT(0), INT(1), INT(2), PTR(3), PTR(4)))
		CALL(setsockopt, setsockopt(INT(0), INT(1), INT(2), PTR(3), (socklen_t)a[4]))
		CALL(ioctl, ioctl(INT(0), SIZE(1), PTR(2)))
#ifdef SYS_dup2
		CALL(dup2, dup2(INT(0), INT(1)))
#endif
		CALL(execve, execve(PTR(0), PTR(1), PTR(2)))
		CALL(execveat, execveat(INT(0), PTR(1), PTR(2), PTR(3), INT(4)))
	case SYS_fcntl:
		if (INT(1) == F_DUPFD || INT(1) == F_DUPFD_CLOEXEC)
			return fcntl(INT(0), INT(1), PTR(2));
		return NUMBER_OTHER;
	default:
		return NUMBER_OTHER;
	}
}

static long data_call(long number, const long *a)
{
	switch (number) {
		CALL(read, read(INT(0), PTR(1), SIZE(2)))
		CALL(write, write(INT(0), PTR(1), SIZE(2)))
		CALL(readv, readv(INT(0), PTR(1), INT(2)))
		CALL(writev, writev(INT(0), PTR(1), INT(2)))
		CALL(recvfrom, recvfrom(INT(0), PTR(1), SIZE(2), INT(3), PTR(4), PTR(5)))
		CALL(sendto, sendto(INT(0), PTR(1), SIZE(2), INT(3), PTR(4), (socklen_t)a[5]))
		CALL(recvmsg, recvmsg(INT(0), PTR(1), INT(2)))
		CALL(sendmsg, sendmsg(INT(0), PTR(1), INT(2)))
		CALL(recvmmsg, recvmmsg(INT(0), PTR(1), UINT(2), INT(3), PTR(4)))
		CALL(sendmmsg, sendmmsg(INT(0), PTR(1), UINT(2), INT(3)))
		CALL(splice, splice(INT(0), PTR(1), INT(2), PTR(3), SIZE(4), UINT(5)))
	case SYS_sendfile:
		return sendfile(INT(0), INT(1), PTR(2), SIZE(3));
	case SYS_preadv2: /* a[4] is the upper half of a position on 32-bit machines */
		if (hook_passes(INT(0)))
			return NUMBER_OTHER;
		return preadv2(INT(0), PTR(1), INT(2), a[3], INT(5));
	case SYS_pwritev2:
		if (hook_passes(INT(0)))
			return NUMBER_OTHER;
		return pwritev2(INT(0), PTR(1), INT(2), a[3], INT(5));
	default:
		return NUMBER_OTHER;
	}
}

/* Where nothing is meshed these are the kernel's: their functions differ from them, ppoll() in leaving its timeout alone. */
static long wait_call(long number, const long *a)
{
	if (!atomic_load_explicit(&conn_live, memory_order_relaxed) && number != SYS_epoll_ctl)
		return NUMBER_OTHER;
	switch (number) {
		CALL(epoll_ctl, epoll_ctl(INT(0), INT(1), INT(2), PTR(3)))
		CALL(epoll_pwait, epoll_pwait(INT(0), PTR(1), INT(2), INT(3), PTR(4)))
		CALL(ppoll, ppoll(PTR(0), SIZE(1), PTR(2), PTR(3)))
	case SYS_pselect6: /* the mask comes with its size, in a struct */
		return pselect(INT(0), PTR(1), PTR(2), PTR(3), PTR(4),
			       a[5] ? *(sigset_t **)PTR(5) : NULL);
#ifdef SYS_epoll_pwait2
		CALL(epoll_pwait2, epoll_pwait2(INT(0), PTR(1), INT(2), PTR(3), PTR(4)))
#endif
#ifdef SYS_poll
		CALL(poll, poll(PTR(0), SIZE(1), INT(2)))
		CALL(select, select(INT(0), PTR(1), PTR(2), PTR(3), PTR(4)))
		CALL(epoll_wait, epoll_wait(INT(0), PTR(1), INT(2), INT(3)))
#endif
	default:
		return NUMBER_OTHER;
	}
}

/* A ring reads, writes, accepts and connects by itself. Programs that use one go on without where the kernel has none. */
static long ring_call(long number)
{
	static atomic_flag told = ATOMIC_FLAG_INIT;

	if (number != SYS_io_uring_setup || !mesh_present())
		return NUMBER_OTHER;
	if (!atomic_flag_test_and_set(&told))
		log_info("io_uring_setup answers ENOSYS: a ring would pass the mesh by");
	errno = ENOSYS;
	return -1;
}

HOOK_EXPORT long syscall(long number, ...)
{
	long a[6], r;
	va_list ap;
	int i;

	va_start(ap, number);
	for (i = 0; i < 6; i++)
		a[i] = va_arg(ap, long);
	va_end(ap);
	if (number == SYS_futex) /* Rust's locks: the one number that is called often */
		return sys.syscall(number, a[0], a[1], a[2], a[3], a[4], a[5]);
	if (number == SYS_exit_group)
		_exit(INT(0));
	if (number == SYS_seccomp && a[0] == SECCOMP_SET_MODE_FILTER && mesh_present())
		return filter_set(number, a, 2);
	if (number == SYS_prctl)
		return prctl(INT(0), a[1], a[2], a[3], a[4]);
	if (fork_by_number(number, a, &r))
		return r;
	if ((r = descriptor_call(number, a)) != NUMBER_OTHER ||
	    (r = data_call(number, a)) != NUMBER_OTHER ||
	    (r = wait_call(number, a)) != NUMBER_OTHER || (r = ring_call(number)) != NUMBER_OTHER)
		return r;
	return sys.syscall(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}
