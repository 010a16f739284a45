/* Filters that the program puts on its own system calls: prctl(PR_SET_SECCOMP) and seccomp(2). One that lets read and write
 * through and ends the process for recvfrom (sshd's) would end it at its next read of a meshed connection. So what the data
 * calls of an open connection need stands in front of the program's filter, each by its arguments: they send and receive on
 * descriptors that are open, and look at them. Nothing that opens, connects, executes or changes another process. */
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/futex.h>
#include <linux/seccomp.h>
#include <linux/sockios.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stddef.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include "control/control.h"
#include "hook/filter.h"
#include "hook/hook.h"
#include "sys/confined.h"
#include "telemetry/log.h"

#if defined(__x86_64__)
#define OUR_ARCH AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define OUR_ARCH AUDIT_ARCH_AARCH64
#endif

#define FRONT_MAX 512 /* instructions */

/* A call is let through if `n` of its arguments have these values. */
static const struct allowance {
	uint16_t number, n;
	struct {
		uint32_t arg, value;
	} is[2];
} allowances[] = {
	{ SYS_recvfrom, 1, { { 4, 0 } } }, /* no address is asked for or given */
	{ SYS_sendto, 1, { { 4, 0 } } },
	{ SYS_getsockopt, 1, { { 1, SOL_SOCKET } } },
	{ SYS_getsockopt, 1, { { 1, IPPROTO_TCP } } },
	{ SYS_setsockopt, 2, { { 1, SOL_SOCKET }, { 2, SO_RCVLOWAT } } },
	{ SYS_setsockopt, 2, { { 1, SOL_SOCKET }, { 2, SO_SNDBUF } } },
	{ SYS_setsockopt, 2, { { 1, IPPROTO_TCP }, { 2, TCP_NODELAY } } },
	{ SYS_ioctl, 1, { { 1, FIONREAD } } },
	{ SYS_ioctl, 1, { { 1, SIOCOUTQ } } },
	{ SYS_fcntl, 1, { { 1, F_GETFL } } },
	{ SYS_shutdown, 0, { { 0, 0 } } },
	{ SYS_close, 0, { { 0, 0 } } },
	{ SYS_ppoll, 0, { { 0, 0 } } },
	{ SYS_pselect6, 0, { { 0, 0 } } },
	{ SYS_getpid, 0, { { 0, 0 } } },
	{ SYS_gettid, 0, { { 0, 0 } } },
	{ SYS_kill, 1, { { 1, 0 } } }, /* does it live? */
	{ SYS_futex, 0, { { 0, 0 } } },
	{ SYS_clock_gettime, 0, { { 0, 0 } } },
	{ SYS_nanosleep, 0, { { 0, 0 } } },
	{ SYS_getrandom, 0, { { 0, 0 } } },
	{ SYS_rt_sigprocmask, 0, { { 0, 0 } } },
	{ SYS_rt_sigaction, 1, { { 1, 0 } } }, /* asks, changes nothing */
	{ SYS_mmap, 2, { { 2, PROT_READ | PROT_WRITE }, { 3, MAP_PRIVATE | MAP_ANONYMOUS } } },
	{ SYS_munmap, 0, { { 0, 0 } } },
	{ SYS_shmdt, 0, { { 0, 0 } } },
};

static size_t load(struct sock_filter *out, size_t offset)
{
	*out = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (uint32_t)offset);
	return 1;
}

static size_t jump_unless(struct sock_filter *out, uint32_t value, size_t over)
{
	*out = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, value, 0, (uint8_t)over);
	return 1;
}

/* [is it the number?] [the argument's lower half, its upper half]... ALLOW, and the number again for who comes next. */
static size_t allow(struct sock_filter *out, const struct allowance *a)
{
	const size_t end = 4u * a->n + 1; /* where the number is loaded again */
	size_t n = jump_unless(out, a->number, end);

	for (size_t i = 0; i < a->n; i++) {
		size_t arg = offsetof(struct seccomp_data, args) + a->is[i].arg * sizeof(uint64_t);

		n += load(out + n, arg);
		n += jump_unless(out + n, a->is[i].value, end - n);
		n += load(out + n, arg + sizeof(uint32_t)); /* both machines are little-endian */
		n += jump_unless(out + n, 0, end - n);
	}
	out[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
	n += load(out + n, offsetof(struct seccomp_data, nr));
	return n;
}

static size_t front(struct sock_filter *out)
{
	const size_t rules = sizeof(allowances) / sizeof(*allowances);
	size_t n = 0, arch;

	n += load(out + n, offsetof(struct seccomp_data, arch));
	arch = n;
	n += 2;
	n += load(out + n, offsetof(struct seccomp_data, nr));
	for (size_t i = 0; i < rules; i++)
		n += allow(out + n, &allowances[i]);
	out[arch] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, OUR_ARCH, 1, 0);
	out[arch + 1] = (struct sock_filter)BPF_STMT(BPF_JMP | BPF_JA, (uint32_t)(n - arch - 2));
	out[n++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_IMM, 0); /* as a filter finds it */
	return n;
}

/* Memory with ours and then the program's. NULL: its own must do. */
static struct sock_filter *join(const struct sock_fprog *given, struct sock_fprog *both)
{
	size_t size = (FRONT_MAX + (size_t)given->len) * sizeof(struct sock_filter), n;
	struct sock_filter *v;
	long p;

	p = sys_call(SYS_mmap, 0, (long)size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
		     -1, 0);
	if (p < 0 && p > -4096)
		return NULL;
	v = (struct sock_filter *)p;
	n = front(v);
	for (size_t i = 0; i < given->len; i++)
		v[n + i] = given->filter[i];
	both->len = (unsigned short)(n + given->len);
	both->filter = v;
	return v;
}

long filter_set(long number, const long *a, unsigned program)
{
	const struct sock_fprog *given = (const struct sock_fprog *)a[program];
	struct sock_fprog both;
	struct sock_filter *v = NULL;
	long b[6] = { a[0], a[1], a[2], a[3], a[4], a[5] }, r;

	/* One that is too long for ours besides, or wrong, goes as it is. */
	if (given && given->len && given->filter && given->len <= BPF_MAXINSNS - FRONT_MAX)
		v = join(given, &both);
	if (v)
		b[program] = (long)&both;
	else
		log_warn("a seccomp filter that weft cannot make room in: a meshed connection may "
			 "end this process");
	r = sys.syscall(number, b[0], b[1], b[2], b[3], b[4], b[5]);
	if (v) {
		int saved = errno;

		sys_call(SYS_munmap, (long)v, (long)((FRONT_MAX + (size_t)given->len) * sizeof(*v)),
			 0, 0, 0, 0);
		errno = saved;
	}
	if (r >= 0)
		atomic_store_explicit(&confined_set, true, memory_order_relaxed);
	return r;
}

HOOK_EXPORT int prctl(int option, ...)
{
	long a[6] = { option };
	va_list ap;

	va_start(ap, option);
	for (int i = 1; i < 5; i++)
		a[i] = va_arg(ap, long);
	va_end(ap);
	if (option == PR_SET_SECCOMP && a[1] == SECCOMP_MODE_FILTER && mesh_present())
		return (int)filter_set(SYS_prctl, a, 2);
	return sys.prctl(option, a[1], a[2], a[3], a[4]);
}
