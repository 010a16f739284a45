/* libwefttrace.so, for `weft try` alone: stacked before libweft.so it sees what the program sees, and counts it in the file
 * that WEFT_TRY_TRACE names. It changes nothing, keeps no descriptor, and asks the kernel itself what a descriptor is at
 * each call: slow, and right whatever dup, fork or exec did. */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/sockios.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#include "sys/raw.h"
#include "weft/trace.h"

#define EXPORT __attribute__((visibility("default")))
#define HANDSHAKE_LEAST 300 /* bytes; no TLS 1.3 handshake with certificates is smaller */
#define PROBES 64           /* of the table of connections */

/* --- the next definition of each, in link order --- */

#define IN(ret, name, params, args, call, fd, len, flags) \
	ret name params;                                  \
	static ret(*next_##name) params;
#define OUT IN
#define CALL(name, params, args, call, fd) \
	int name params;                   \
	static int(*next_##name) params;
#define ANY(name, params, args, call) \
	int name params;              \
	static int(*next_##name) params;
#define OWN(ret, name, params) \
	ret name params;       \
	static ret(*next_##name) params;
#include "trace/hooks.def"
#undef IN
#undef OUT
#undef CALL
#undef ANY
#undef OWN

static struct weft_trace *_Atomic map;

static void resolve(void)
{
#define IN(ret, name, params, args, call, fd, len, flags) \
	*(void **)(void *)&next_##name = dlsym(RTLD_NEXT, #name);
#define OUT IN
#define CALL(name, params, args, call, fd) *(void **)(void *)&next_##name = dlsym(RTLD_NEXT, #name);
#define ANY(name, params, args, call) *(void **)(void *)&next_##name = dlsym(RTLD_NEXT, #name);
#define OWN(ret, name, params) *(void **)(void *)&next_##name = dlsym(RTLD_NEXT, #name);
#include "trace/hooks.def"
#undef IN
#undef OUT
#undef CALL
#undef ANY
#undef OWN
}

__attribute__((constructor)) static void start(void)
{
	const char *path = secure_getenv(WEFT_ENV_TRACE);
	struct weft_trace *m;
	long fd, at;

	resolve();
	if (!path)
		return;
	fd = raw_syscall(SYS_openat, AT_FDCWD, (long)path, O_RDWR | O_CLOEXEC, 0, 0, 0);
	if (fd < 0)
		return;
	at = raw_syscall(SYS_mmap, 0, sizeof(*m), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	raw_syscall(SYS_close, fd, 0, 0, 0, 0, 0);
	m = (struct weft_trace *)at;
	if (at > 0 && m->magic == WEFT_TRACE_MAGIC && m->size == sizeof(*m))
		atomic_store(&map, m);
}

/* A hook that is called before start(): other libraries' constructors may come first. */
#define NEXT(name) (next_##name ? next_##name : (resolve(), next_##name))

/* --- what is counted --- */

/* 1: a TCP socket, with its cookie; 0: none; -EBADF. */
static int tcp_socket(int fd, uint64_t *cookie)
{
	socklen_t len = sizeof(int), cookie_len = sizeof(*cookie);
	int protocol = 0;
	long r = raw_syscall(SYS_getsockopt, fd, SOL_SOCKET, SO_PROTOCOL, (long)&protocol,
			     (long)&len, 0);

	if (r == -EBADF)
		return -EBADF;
	if (r < 0 || protocol != IPPROTO_TCP)
		return 0;
	r = raw_syscall(SYS_getsockopt, fd, SOL_SOCKET, SO_COOKIE, (long)cookie, (long)&cookie_len,
			0);
	return r == 0 && *cookie;
}

static void count(struct weft_trace *m, enum weft_trace_call call, long result, int error)
{
	unsigned e = result < 0 ? (unsigned)error : 0;

	if (e < WEFT_TRACE_ERRNOS)
		atomic_fetch_add_explicit(&m->calls[call][e], 1, memory_order_relaxed);
}

static struct weft_trace_conn *conn(struct weft_trace *m, uint64_t cookie, bool make)
{
	uint64_t at = cookie * UINT64_C(0x9e3779b97f4a7c15) >> 32;

	for (unsigned i = 0; i < PROBES; i++) {
		struct weft_trace_conn *c = &m->conns[(at + i) % WEFT_TRACE_CONNS];
		uint64_t was = atomic_load(&c->cookie);

		if (!was && !make)
			return NULL;
		if (was == cookie ||
		    (!was && atomic_compare_exchange_strong(&c->cookie, &was, cookie)) ||
		    was == cookie)
			return c;
	}
	if (make)
		atomic_fetch_add(&m->lost, 1);
	return NULL;
}

/* Whether the kernel has received what no program ever read. */
static void look_for_tls(struct weft_trace_conn *c, int fd)
{
	struct tcp_info info = { 0 };
	socklen_t len = sizeof(info);
	int unread = 0;

	if (atomic_load(&c->flags) & WEFT_TRACE_TLS ||
	    raw_syscall(SYS_getsockopt, fd, IPPROTO_TCP, TCP_INFO, (long)&info, (long)&len, 0) <
		    0 ||
	    raw_syscall(SYS_ioctl, fd, SIOCINQ, (long)&unread, 0, 0, 0) < 0)
		return;
	if (info.tcpi_bytes_received >= atomic_load(&c->in) + (unsigned)unread + HANDSHAKE_LEAST)
		atomic_fetch_or(&c->flags, WEFT_TRACE_TLS);
}

enum direction { NONE, READ, WRITE, PEEK };

/* The end of every hook: `errno` is the call's, and stays so. */
static void note(enum weft_trace_call call, int fd, enum direction d, size_t len, long result)
{
	struct weft_trace *m = atomic_load_explicit(&map, memory_order_relaxed);
	struct weft_trace_conn *c;
	int saved = errno, tcp;
	uint64_t cookie = 0;

	if (!m)
		return;
	tcp = tcp_socket(fd, &cookie);
	if (tcp == 1 || (tcp == -EBADF && result < 0 && saved == EBADF))
		count(m, call, result, saved);
	c = tcp == 1 ? conn(m, cookie, d != NONE && result > 0) : NULL;
	if (!c)
		return;
	if (d == READ && result > 0)
		atomic_fetch_add(&c->in, (uint64_t)result);
	else if (d == WRITE && result > 0)
		atomic_fetch_add(&c->out, (uint64_t)result);
	else if (d == READ && result == 0 && len)
		atomic_fetch_or(&c->flags, WEFT_TRACE_EOF);
	else if (d != NONE && result < 0 && saved == ECONNRESET)
		atomic_fetch_or(&c->flags, WEFT_TRACE_RESET);
	look_for_tls(c, fd);
}

static void note_birth(int fd, enum weft_trace_flag role)
{
	struct weft_trace *m = atomic_load_explicit(&map, memory_order_relaxed);
	struct weft_trace_conn *c;
	uint64_t cookie;

	if (m && tcp_socket(fd, &cookie) == 1 && (c = conn(m, cookie, true)))
		atomic_fetch_or(&c->flags, role);
}

static void note_any(enum weft_trace_call call, long result)
{
	struct weft_trace *m = atomic_load_explicit(&map, memory_order_relaxed);

	if (m)
		count(m, call, result, errno);
}

/* --- the hooks --- */

#define IN(ret, name, params, args, call, fd, len, flags)                                  \
	EXPORT ret name params                                                             \
	{                                                                                  \
		ret result = NEXT(name) args;                                              \
                                                                                           \
		note(WEFT_TRACE_##call, fd, (flags)&MSG_PEEK ? PEEK : READ, (size_t)(len), \
		     result);                                                              \
		return result;                                                             \
	}
#define OUT(ret, name, params, args, call, fd, len, flags)                 \
	EXPORT ret name params                                             \
	{                                                                  \
		ret result = NEXT(name) args;                              \
                                                                           \
		(void)(flags);                                             \
		note(WEFT_TRACE_##call, fd, WRITE, (size_t)(len), result); \
		return result;                                             \
	}
#define CALL(name, params, args, call, fd)                    \
	EXPORT int name params                                \
	{                                                     \
		int result = NEXT(name) args;                 \
                                                              \
		note(WEFT_TRACE_##call, fd, NONE, 0, result); \
		return result;                                \
	}
#define ANY(name, params, args, call)                \
	EXPORT int name params                       \
	{                                            \
		int result = NEXT(name) args;        \
                                                     \
		note_any(WEFT_TRACE_##call, result); \
		return result;                       \
	}
#define OWN(ret, name, params)
#include "trace/hooks.def"

/* Looked at while the descriptor still is what it was. */
EXPORT int close(int fd)
{
	struct weft_trace *m = atomic_load_explicit(&map, memory_order_relaxed);
	struct weft_trace_conn *c;
	uint64_t cookie = 0;
	int tcp = m ? tcp_socket(fd, &cookie) : 0, result;

	c = tcp == 1 ? conn(m, cookie, false) : NULL;
	if (c)
		look_for_tls(c, fd);
	result = NEXT(close)(fd);
	if (m && tcp)
		count(m, WEFT_TRACE_close, result, errno);
	return result;
}

EXPORT int accept(int fd, struct sockaddr *addr, socklen_t *len)
{
	int result = NEXT(accept)(fd, addr, len);

	note(WEFT_TRACE_accept, fd, NONE, 0, result);
	if (result >= 0)
		note_birth(result, WEFT_TRACE_SERVER);
	return result;
}

EXPORT int accept4(int fd, struct sockaddr *addr, socklen_t *len, int flags)
{
	int result = NEXT(accept4)(fd, addr, len, flags);

	note(WEFT_TRACE_accept, fd, NONE, 0, result);
	if (result >= 0)
		note_birth(result, WEFT_TRACE_SERVER);
	return result;
}

EXPORT int connect(int fd, const struct sockaddr *addr, socklen_t len)
{
	int result = NEXT(connect)(fd, addr, len);

	note(WEFT_TRACE_connect, fd, NONE, 0, result);
	if (result == 0 || errno == EINPROGRESS)
		note_birth(fd, WEFT_TRACE_CLIENT);
	return result;
}

EXPORT int getsockopt(int fd, int level, int name, void *val, socklen_t *len)
{
	int result = NEXT(getsockopt)(fd, level, name, val, len), saved = errno;

	note(WEFT_TRACE_getsockopt, fd, NONE, 0, result);
	if (result == 0 && level == SOL_SOCKET && name == SO_ERROR && *(int *)val) {
		errno = *(int *)val;
		note(WEFT_TRACE_SO_ERROR, fd, NONE, 0, -1);
		errno = saved;
	}
	return result;
}

static ssize_t bytes_of(const struct mmsghdr *v, int n)
{
	ssize_t bytes = n < 0 ? -1 : 0;

	for (int i = 0; i < n; i++)
		bytes += v[i].msg_len;
	return bytes;
}

EXPORT int recvmmsg(int fd, struct mmsghdr *v, unsigned n, int flags, struct timespec *timeout)
{
	int result = NEXT(recvmmsg)(fd, v, n, flags, timeout);

	note(WEFT_TRACE_recvmmsg, fd, flags & MSG_PEEK ? PEEK : READ, n, bytes_of(v, result));
	return result;
}

EXPORT int sendmmsg(int fd, struct mmsghdr *v, unsigned n, int flags)
{
	int result = NEXT(sendmmsg)(fd, v, n, flags);

	note(WEFT_TRACE_sendmmsg, fd, WRITE, n, bytes_of(v, result));
	return result;
}

EXPORT ssize_t splice(int in, off64_t *off_in, int out, off64_t *off_out, size_t n, unsigned flags)
{
	ssize_t result = NEXT(splice)(in, off_in, out, off_out, n, flags);

	note(WEFT_TRACE_splice, in, READ, n, result);
	note(WEFT_TRACE_splice, out, WRITE, n, result);
	return result;
}
