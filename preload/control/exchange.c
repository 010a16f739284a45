#include "control/exchange.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "control/internal.h"
#include "sys/clock.h"
#include "sys/confined.h"
#include "sys/stack.h"
#include "sys/sys.h"

#define INFLIGHT_MAX 64
#define REFUSED 1 /* among the results of the functions below */
#define CHILD_STACK (128u << 10)
#define FULL_STEP_MS 5 /* weftd's queue of connections is full: look again */

static _Atomic int64_t retry_at_ms;
/* Descriptors of exchanges in progress plus one; 0: free. Under the lock, which fork takes too: so a child finds here all
 * that it has to close. One too many is not kept, and stays open in a child born at that moment. */
static int inflight[INFLIGHT_MAX];

bool exchange_is_due(void)
{
	return clock_now_ms() >= atomic_load_explicit(&retry_at_ms, memory_order_relaxed);
}

void exchange_retry(void)
{
	atomic_store(&retry_at_ms, 0);
}

void exchange_forked(void)
{
	for (unsigned i = 0; i < INFLIGHT_MAX; i++) {
		if (inflight[i])
			sys_call(SYS_close, inflight[i] - 1, 0, 0, 0, 0, 0);
		inflight[i] = 0;
	}
}

/* Puts `to` where `from` is in the table. Under the lock. */
static void replace_fd(int from, int to)
{
	for (unsigned i = 0; i < INFLIGHT_MAX; i++) {
		if (inflight[i] == from) {
			inflight[i] = to;
			return;
		}
	}
}

static int open_socket(void)
{
	struct quiet q;
	int fd;

	control_lock(&q);
	fd = (int)sys_call(SYS_socket, AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, 0, 0,
			   0);
	if (fd >= 0)
		replace_fd(0, fd + 1);
	control_unlock(&q);
	return fd;
}

static void close_fd(int fd)
{
	struct quiet q;

	control_lock(&q);
	replace_fd(fd + 1, 0);
	sys_call(SYS_close, fd, 0, 0, 0, 0, 0);
	control_unlock(&q);
}

static int wait_for(int fd, short events, int64_t deadline)
{
	struct pollfd p = { .fd = fd, .events = events };
	int64_t left = deadline - clock_now_ms();
	struct timespec t = { .tv_sec = left / 1000, .tv_nsec = left % 1000 * 1000000 };
	long r;

	if (left <= 0)
		return -ETIMEDOUT;
	r = sys_call(SYS_ppoll, (long)&p, 1, (long)&t, 0, 0, 0);
	if (r == 0)
		return -ETIMEDOUT;
	return r < 0 && r != -EINTR ? (int)r : 0;
}

static int connect_to(const char *path, int64_t deadline)
{
	struct timespec step = { .tv_nsec = FULL_STEP_MS * 1000000L };
	struct sockaddr_un un = { .sun_family = AF_UNIX };
	int fd, r;

	memcpy(un.sun_path, path, strlen(path));
	fd = open_socket();
	if (fd < 0)
		return fd;
	for (;;) {
		r = (int)sys_call(SYS_connect, fd, (long)&un, sizeof(un), 0, 0, 0);
		if (!r || r == -EISCONN)
			return fd;
		if ((r != -EAGAIN && r != -EINTR) || clock_now_ms() >= deadline)
			break;
		sys_call(SYS_nanosleep, (long)&step, 0, 0, 0, 0, 0);
	}
	close_fd(fd);
	return r;
}

static int connect_any(int64_t deadline)
{
	int r = -ENOENT;

	if (confined())
		return -EPERM;
	for (unsigned i = 0; i < control_env.n_sockets; i++) {
		r = connect_to(control_env.socket[i], deadline);
		if (r >= 0)
			break;
	}
	return r;
}

static int send_all(int fd, const uint8_t *p, size_t n, int64_t deadline)
{
	while (n) {
		long r = sys_call(SYS_sendto, fd, (long)p, (long)n, MSG_NOSIGNAL | MSG_DONTWAIT, 0,
				  0);

		if (r == -EAGAIN)
			r = wait_for(fd, POLLOUT, deadline);
		if (r < 0)
			return (int)r;
		p += r;
		n -= (size_t)r;
	}
	return 0;
}

/* Descriptors into x->fds; those that are too many are closed. Under the lock. */
static void take_fds(struct exchange *x, struct msghdr *msg)
{
	for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c)) {
		size_t n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);

		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		for (size_t i = 0; i < n; i++) {
			unsigned slot = 0;
			int fd;

			memcpy(&fd, CMSG_DATA(c) + i * sizeof(fd), sizeof(fd));
			while (slot < EXCHANGE_FDS && x->fds[slot] >= 0)
				slot++;
			if (slot < EXCHANGE_FDS) {
				x->fds[slot] = fd;
				replace_fd(0, fd + 1);
			} else {
				sys_call(SYS_close, fd, 0, 0, 0, 0, 0);
			}
		}
	}
}

/* Bytes and descriptors that are there, without waiting. */
static long receive_some(struct exchange *x, int fd, void *buf, size_t n)
{
	union {
		char bytes[CMSG_SPACE(EXCHANGE_FDS * sizeof(int))];
		struct cmsghdr align;
	} control;
	struct iovec iov = { .iov_base = buf, .iov_len = n };
	struct msghdr msg = { .msg_iov = &iov,
			      .msg_iovlen = 1,
			      .msg_control = control.bytes,
			      .msg_controllen = sizeof(control.bytes) };
	struct quiet q;
	long r;

	control_lock(&q);
	r = sys_call(SYS_recvmsg, fd, (long)&msg, MSG_CMSG_CLOEXEC | MSG_DONTWAIT, 0, 0, 0);
	if (r > 0)
		take_fds(x, &msg);
	control_unlock(&q);
	return r;
}

static int receive_all(struct exchange *x, int fd, void *buf, size_t n, int64_t deadline)
{
	char *p = buf;

	while (n) {
		long r = receive_some(x, fd, p, n);

		if (r == 0)
			return -ECONNRESET;
		if (r == -EAGAIN)
			r = wait_for(fd, POLLIN, deadline);
		if (r < 0)
			return (int)r;
		p += r;
		n -= (size_t)r;
	}
	return 0;
}

static int decode_refusal(struct exchange *x, const uint8_t *body, uint32_t n)
{
	struct wire_refused refused;
	const char *why;
	void *block;
	int r = wire_decode(&wire_schema_refused, body, n, &refused, &block, &why);

	if (r)
		return r;
	x->code = refused.code > 0 && refused.code < 4096 ? (int)refused.code : EACCES;
	snprintf(x->text, sizeof(x->text), "%s", refused.text.p);
	free(block);
	if (x->code == EAGAIN || x->code == ENOMEM)
		return -x->code; /* too busy to answer, which is no answer */
	return REFUSED;
}

static int receive(struct exchange *x, int fd, int64_t deadline)
{
	struct wire_frame frame;
	const char *why;
	uint8_t *body, type;
	uint32_t n;
	int r = receive_all(x, fd, &frame, sizeof(frame), deadline);

	if (!r)
		r = wire_frame_parse(&frame, WEFT_REPLY_MAX, &type, &n);
	if (r)
		return r;
	body = malloc((size_t)n + 1);
	if (!body)
		return -ENOMEM;
	r = receive_all(x, fd, body, n, deadline);
	if (!r && type == WIRE_REFUSED)
		r = decode_refusal(x, body, n);
	else if (!r && type != (x->type | WIRE_ANSWER))
		r = -EPROTO;
	else if (!r)
		r = wire_decode(x->answer, body, n, x->out, &x->block, &why);
	free(body);
	return r;
}

/* Frame and body as one piece of memory, so that they leave in one packet. */
static int make_request(const struct exchange *x, uint8_t **out, size_t *len)
{
	struct wire_frame frame;
	uint8_t *body;
	size_t n;
	int r = wire_encode(x->ask, x->in, WEFT_REQUEST_MAX, &body, &n);

	if (r)
		return r;
	*len = sizeof(frame) + n;
	*out = malloc(*len);
	if (*out) {
		wire_frame_make(&frame, (uint8_t)x->type, (uint32_t)n);
		memcpy(*out, &frame, sizeof(frame));
		memcpy(*out + sizeof(frame), body, n);
	}
	free(body);
	return *out ? 0 : -ENOMEM;
}

static int run(struct exchange *x)
{
	int64_t deadline = clock_now_ms() + x->timeout_ms;
	uint8_t *request;
	size_t n;
	int fd, r = make_request(x, &request, &n);

	if (r)
		return r;
	fd = connect_any(deadline);
	r = fd;
	if (fd >= 0) {
		r = send_all(fd, request, n, deadline);
		/* A weftd that refuses may close before it has read all: what it said still is there. */
		if (!r || r == -EPIPE || r == -ECONNRESET)
			r = receive(x, fd, deadline);
		close_fd(fd);
	}
	free(request);
	return r;
}

/* --- a program that has no descriptor to spare --- */

struct beside {
	struct exchange *x;
	int result;
};

/* In a child that shares our memory but has a copy of the descriptors, of which it gives one up. */
static int run_in_child(void *arg)
{
	struct beside *b = arg;

	sys_call(SYS_close, STDIN_FILENO, 0, 0, 0, 0, 0);
	b->result = run(b->x);
	sys_call(SYS_exit, 0, 0, 0, 0, 0, 0);
	return 0;
}

/* As run(), for answers without descriptors. The caller waits until the child is gone; its end signals nobody. */
static int run_beside(struct exchange *x)
{
	struct beside b = { .x = x, .result = -EMFILE };
	long stack = sys_call(SYS_mmap, 0, CHILD_STACK, PROT_READ | PROT_WRITE,
			      MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
	int saved = errno, pid;

	if (stack < 0 && stack > -4096)
		return -EMFILE;
	pid = sys.clone(run_in_child, (char *)stack + CHILD_STACK, CLONE_VM | CLONE_VFORK, &b, NULL,
			NULL, NULL);
	while (pid > 0 && sys_call(SYS_wait4, pid, 0, __WALL, 0, 0, 0) == -EINTR)
		;
	sys_call(SYS_munmap, stack, CHILD_STACK, 0, 0, 0, 0);
	errno = saved;
	return b.result;
}

static void run_on_stack(void *arg)
{
	struct exchange *x = arg;

	x->result = run(x);
	if (x->result == -EMFILE && !x->brings_fds)
		x->result = run_beside(x);
}

int exchange(struct exchange *x)
{
	struct quiet q;
	int r;

	x->block = NULL;
	for (unsigned i = 0; i < EXCHANGE_FDS; i++)
		x->fds[i] = -1;
	if (!exchange_is_due())
		return -ECONNREFUSED;
	quiet_begin(&q);
	stack_run(run_on_stack, x);
	r = x->result;
	quiet_end(&q);
	if (r >= 0) {
		patience_restored();
		return r == REFUSED ? -EACCES : 0;
	}
	exchange_close(x);
	if (!x->aside)
		atomic_store(&retry_at_ms, clock_now_ms() + RETRY_MS);
	return -ECONNREFUSED;
}

void exchange_close(struct exchange *x)
{
	for (unsigned i = 0; i < EXCHANGE_FDS; i++) {
		if (x->fds[i] >= 0)
			close_fd(x->fds[i]);
		x->fds[i] = -1;
	}
	free(x->block);
	x->block = NULL;
}
