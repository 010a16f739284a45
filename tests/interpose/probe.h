/* Helpers of the interpose programs. Each program makes its own server and client on 127.0.0.1, and prints what its calls
 * return. It is run bare, preloaded without a weftd, and preloaded as a service that meshes with itself: the output must be
 * the same byte for byte, so nothing is printed that may differ between two bare runs (fd numbers, ports, times). */
#ifndef PROBE_H
#define PROBE_H

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PROBE_ERRNO \
	4242 /* no call sets it: still there afterwards means that errno was left alone */
#define PROBE_SECONDS 40 /* a program that hangs is ended by SIGALRM */
#define PROBE_WAIT_MS 8000

#define MUST(cond)                                            \
	do {                                                  \
		if (!(cond))                                  \
			probe_die(__FILE__, __LINE__, #cond); \
	} while (0)

/* Prints the call and what it returned. SHOW_FD hides the number of a descriptor. */
#define SHOW(call)                                   \
	({                                           \
		errno = PROBE_ERRNO;                 \
		long r_ = (long)(call);              \
		probe_show(#call, r_, errno, false); \
		r_;                                  \
	})
#define SHOW_FD(call)                               \
	({                                          \
		errno = PROBE_ERRNO;                \
		int r_ = (call);                    \
		probe_show(#call, r_, errno, true); \
		r_;                                 \
	})

__attribute__((noreturn)) static inline void probe_die(const char *file, int line, const char *what)
{
	int e = errno;

	printf("%s:%d: %s failed, errno %s\n", file, line, what, e ? strerrorname_np(e) : "0");
	fflush(stdout);
	_exit(99);
}

static inline void probe_show(const char *what, long r, int e, bool fd)
{
	if (r < 0)
		printf("%s = %ld %s\n", what, r,
		       e == PROBE_ERRNO ? "and errno unset" : strerrorname_np(e));
	else if (fd)
		printf("%s = fd%s\n", what, e == PROBE_ERRNO ? "" : ", errno touched");
	else
		printf("%s = %ld%s\n", what, r, e == PROBE_ERRNO ? "" : ", errno touched");
}

static inline void probe_start(void)
{
	setvbuf(stdout, NULL, _IOLBF, 0);
	alarm(PROBE_SECONDS);
}

static inline int64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static inline void sleep_ms(int ms)
{
	struct timespec t = { ms / 1000, ms % 1000 * 1000000L };

	nanosleep(&t, NULL);
}

/* Waits until the thread sleeps, and goes on sleeping: in the call that it was to make. */
static inline void until_asleep(pid_t tid)
{
	char path[64], line[256];
	int in_a_row = 0;
	int64_t end = now_ms() + PROBE_WAIT_MS;

	snprintf(path, sizeof(path), "/proc/self/task/%d/stat", (int)tid);
	while (in_a_row < 4) {
		FILE *f = fopen(path, "r");

		MUST(f && fgets(line, sizeof(line), f) && now_ms() < end);
		MUST(fclose(f) == 0);
		in_a_row = strstr(line, ") S ") ? in_a_row + 1 : 0;
		sleep_ms(8);
	}
}

/* Waits for `events`; dies after PROBE_WAIT_MS. Returns revents. */
static inline int wait_for(int fd, short events)
{
	struct pollfd p = { .fd = fd, .events = events };

	MUST(poll(&p, 1, PROBE_WAIT_MS) == 1);
	return p.revents;
}

/* --- data that can be checked --- */

static inline void fill(void *buf, size_t n, uint32_t seed)
{
	uint8_t *p = buf;

	for (size_t i = 0; i < n; i++) {
		seed = seed * 1664525u + 1013904223u;
		p[i] = (uint8_t)(seed >> 24);
	}
}

#define HASH_START UINT64_C(0xcbf29ce484222325)
static inline uint64_t hash(uint64_t h, const void *buf, size_t n)
{
	const uint8_t *p = buf;

	for (size_t i = 0; i < n; i++)
		h = (h ^ p[i]) * UINT64_C(0x100000001b3);
	return h;
}

static inline void send_all(int fd, const void *buf, size_t n)
{
	for (size_t done = 0; done < n;) {
		ssize_t r = send(fd, (const char *)buf + done, n - done, MSG_NOSIGNAL);

		if (r < 0 && errno == EAGAIN) {
			wait_for(fd, POLLOUT);
			continue;
		}
		MUST(r > 0);
		done += (size_t)r;
	}
}

static inline void recv_all(int fd, void *buf, size_t n)
{
	for (size_t done = 0; done < n;) {
		ssize_t r = recv(fd, (char *)buf + done, n - done, 0);

		if (r < 0 && errno == EAGAIN) {
			wait_for(fd, POLLIN);
			continue;
		}
		MUST(r > 0);
		done += (size_t)r;
	}
}

/* --- sockets --- */

static inline int listen_on(struct sockaddr_in *addr)
{
	socklen_t len = sizeof(*addr);
	int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	MUST(fd >= 0);
	*addr = (struct sockaddr_in){ .sin_family = AF_INET,
				      .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	MUST(setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) == 0);
	MUST(bind(fd, (struct sockaddr *)addr, sizeof(*addr)) == 0);
	MUST(getsockname(fd, (struct sockaddr *)addr, &len) == 0);
	MUST(listen(fd, 64) == 0);
	return fd;
}

static inline int client_socket(void)
{
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	MUST(fd >= 0);
	return fd;
}

static inline int connect_to(const struct sockaddr_in *addr)
{
	int fd = client_socket();

	MUST(connect(fd, (const struct sockaddr *)addr, sizeof(*addr)) == 0);
	return fd;
}

static inline void set_int(int fd, int level, int name, int value)
{
	MUST(setsockopt(fd, level, name, &value, sizeof(value)) == 0);
}

static inline int error_of(int fd)
{
	int e = -1;
	socklen_t len = sizeof(e);

	MUST(getsockopt(fd, SOL_SOCKET, SO_ERROR, &e, &len) == 0);
	return e;
}

static inline void set_nonblock(int fd, bool on)
{
	int fl = fcntl(fd, F_GETFL);

	MUST(fl >= 0);
	MUST(fcntl(fd, F_SETFL, on ? fl | O_NONBLOCK : fl & ~O_NONBLOCK) == 0);
}

/* A connection whose two ends are both open for data. The server's end is taken by a thread, as a server would: a client's
 * connect() may wait for it. */
struct pair {
	int client, server, listener;
	struct sockaddr_in addr;
};

static inline void *pair_accept(void *arg)
{
	struct pair *p = arg;

	p->server = accept(p->listener, NULL, NULL);
	MUST(p->server >= 0);
	MUST(wait_for(p->server, POLLOUT) & POLLOUT);
	return NULL;
}

/* buffers: SO_SNDBUF and SO_RCVBUF of both ends, 0 for the kernel's own */
static inline void pair_open_sized(struct pair *p, int buffers)
{
	pthread_t t;

	p->listener = listen_on(&p->addr);
	p->client = client_socket();
	if (buffers) {
		set_int(p->listener, SOL_SOCKET, SO_RCVBUF, buffers);
		set_int(p->listener, SOL_SOCKET, SO_SNDBUF, buffers);
		set_int(p->client, SOL_SOCKET, SO_RCVBUF, buffers);
		set_int(p->client, SOL_SOCKET, SO_SNDBUF, buffers);
	}
	MUST(pthread_create(&t, NULL, pair_accept, p) == 0);
	MUST(connect(p->client, (struct sockaddr *)&p->addr, sizeof(p->addr)) == 0);
	MUST(pthread_join(t, NULL) == 0);
}

static inline void pair_open(struct pair *p)
{
	pair_open_sized(p, 0);
}

static inline void pair_close(struct pair *p)
{
	MUST(close(p->client) == 0);
	MUST(close(p->server) == 0);
	MUST(close(p->listener) == 0);
}

/* Has something been readable on `fd` by now? */
static inline int ready_now(int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLIN | POLLOUT | POLLRDHUP };

	MUST(poll(&p, 1, 0) >= 0);
	return p.revents;
}

/* What an epoll instance tells of the one registration in it: at once, 0 for nothing; or within PROBE_WAIT_MS. */
#define PROBE_TAG (UINT64_MAX - 5)
static inline int events_now(int ep)
{
	struct epoll_event ev = { 0 };

	return epoll_wait(ep, &ev, 1, 0) == 1 ? (int)ev.events : 0;
}

static inline int events_soon(int ep)
{
	struct epoll_event ev = { 0 };

	MUST(epoll_wait(ep, &ev, 1, PROBE_WAIT_MS) == 1);
	MUST(ev.data.u64 == PROBE_TAG);
	return (int)ev.events;
}

static inline const char *events_text(int ev)
{
	static char text[64];

	snprintf(text, sizeof(text), "%s%s%s%s%s%s", ev & POLLIN ? "IN " : "",
		 ev & POLLOUT ? "OUT " : "", ev & POLLERR ? "ERR " : "", ev & POLLHUP ? "HUP " : "",
		 ev & POLLRDHUP ? "RDHUP " : "", ev & POLLNVAL ? "NVAL " : "");
	return text;
}

#endif
