/* One thread waits in a call on a connection; another closes the descriptor, puts another file in its place, or shuts the
 * connection down. The kernel's call holds the file: it goes on waiting after close(), and still gets what comes. */
#include "probe.h"

#include <sys/epoll.h>
#include <sys/select.h>

static struct pair pair;
static int ep;

/* What the waiting thread does, and what it got. */
struct wait {
	const char *name;
	long (*call)(void);
	long r;
	int err;
	_Atomic bool done;
	_Atomic pid_t tid;
};

static char got[64];

static long in_recv(void)
{
	return recv(pair.server, got, sizeof(got), 0);
}

static long in_read(void)
{
	return read(pair.server, got, sizeof(got));
}

static long in_recvmsg(void)
{
	struct iovec iov = { got, sizeof(got) };
	struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1 };

	return recvmsg(pair.server, &m, 0);
}

static long in_waitall(void)
{
	return recv(pair.server, got, 8, MSG_WAITALL);
}

static long in_poll(void)
{
	struct pollfd p = { .fd = pair.server, .events = POLLIN };

	return poll(&p, 1, -1) == 1 ? p.revents : -1;
}

static long in_select(void)
{
	fd_set r;

	FD_ZERO(&r);
	FD_SET(pair.server, &r);
	return select(pair.server + 1, &r, NULL, NULL, NULL);
}

static long in_epoll(void)
{
	struct epoll_event ev = { .events = 0 };

	return epoll_wait(ep, &ev, 1, -1) == 1 ? (long)ev.events : -1;
}

static void *run(void *arg)
{
	struct wait *w = arg;

	memset(got, 0, sizeof(got));
	w->tid = gettid();
	errno = 0;
	w->r = w->call();
	w->err = errno;
	w->done = true;
	return NULL;
}

static pthread_t begin(struct wait *w)
{
	pthread_t t;

	w->done = false;
	w->tid = 0;
	MUST(pthread_create(&t, NULL, run, w) == 0);
	while (!w->tid)
		sleep_ms(1);
	until_asleep(w->tid);
	MUST(!w->done);
	return t;
}

static void end(struct wait *w, pthread_t t)
{
	MUST(pthread_join(t, NULL) == 0);
	printf("%s: %ld %s '%s'\n", w->name, w->r, w->r < 0 ? strerrorname_np(w->err) : "", got);
}

static void still(const struct wait *w)
{
	sleep_ms(30);
	printf("%s still waits: %d\n", w->name, !w->done);
}

static struct wait readers[] = {
	{ .name = "recv", .call = in_recv },
	{ .name = "read", .call = in_read },
	{ .name = "recvmsg", .call = in_recvmsg },
	{ .name = "recv MSG_WAITALL", .call = in_waitall },
	{ .name = "poll", .call = in_poll },
	{ .name = "select", .call = in_select },
	{ .name = "epoll_wait", .call = in_epoll },
};
#define READERS (sizeof(readers) / sizeof(readers[0]))

static void open_all(void)
{
	struct epoll_event ev = { .events = EPOLLIN };

	pair_open(&pair);
	ep = epoll_create1(EPOLL_CLOEXEC);
	MUST(epoll_ctl(ep, EPOLL_CTL_ADD, pair.server, &ev) == 0);
}

static void shut(struct wait *w)
{
	pthread_t t;

	open_all();
	t = begin(w);
	MUST(shutdown(pair.server, SHUT_RDWR) == 0);
	end(w, t);
	pair_close(&pair);
	close(ep);
}

/* After close() the reader still gets what the peer sends, and the peer sees no end before it has left the call. */
static void closed(struct wait *w)
{
	pthread_t t;
	char b[8];

	open_all();
	t = begin(w);
	SHOW(close(pair.server));
	still(w);
	SHOW(recv(pair.client, b, 1, MSG_DONTWAIT));
	send_all(pair.client, "later..!", 8);
	end(w, t);
	wait_for(pair.client, POLLIN);
	/* poll() and select() leave the bytes unread, so that close() becomes a reset. */
	printf("then the peer has: %zd\n", recv(pair.client, b, 1, 0));
	MUST(close(pair.client) == 0 && close(pair.listener) == 0);
	close(ep);
}

/* The number belongs to another connection at once; both are themselves. */
static void reused(struct wait *w)
{
	struct pair other;
	char b[8] = "";
	pthread_t t;
	int copy;

	open_all();
	pair_open(&other);
	t = begin(w);
	SHOW(dup2(other.server, pair.server) == pair.server);
	copy = pair.server;
	still(w);
	send_all(other.client, "other", 5);
	still(w);
	SHOW(recv(copy, b, 5, 0));
	printf("%s\n", b);
	send_all(pair.client, "mine....", 8);
	end(w, t);
	SHOW(send(copy, "x", 1, 0));
	SHOW(recv(other.client, b, 1, 0));
	MUST(close(copy) == 0 && close(pair.client) == 0 && close(pair.listener) == 0);
	pair_close(&other);
	close(ep);
}

static void on_wake(int sig)
{
	(void)sig;
}

/* Java closes so: dup2() of a socket at its end over the number, then a signal to each thread in a call on it. */
static void marked(struct wait *w)
{
	struct sigaction sa = { .sa_handler = on_wake };
	pthread_t t;
	int ends[2];
	char b[8];

	MUST(sigaction(SIGUSR2, &sa, NULL) == 0);
	MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0);
	MUST(shutdown(ends[0], SHUT_RDWR) == 0);
	open_all();
	t = begin(w);
	SHOW(dup2(ends[0], pair.server) == pair.server);
	still(w);
	MUST(pthread_kill(t, SIGUSR2) == 0);
	end(w, t);
	SHOW(recv(pair.client, b, 1, 0));
	SHOW(recv(pair.server, b, 1, 0));
	pair_close(&pair);
	MUST(close(ends[0]) == 0 && close(ends[1]) == 0);
	close(ep);
}

static char block[16 << 20], other[1 << 20];

static long in_send(void)
{
	return send(pair.server, block, sizeof(block), MSG_NOSIGNAL) > 0;
}

/* A writer that waits for room. */
static void writer(void)
{
	struct wait w = { .name = "send", .call = in_send };
	uint64_t total = 0;
	pthread_t t;
	ssize_t r;

	pair_open_sized(&pair, 65536);
	t = begin(&w);
	MUST(shutdown(pair.server, SHUT_RDWR) == 0);
	end(&w, t);
	pair_close(&pair);

	pair_open_sized(&pair, 65536);
	t = begin(&w);
	SHOW(close(pair.server));
	still(&w);
	while ((r = recv(pair.client, other, sizeof(other), 0)) > 0)
		total += (uint64_t)r;
	end(&w, t);
	printf("all of it came: %d\n", total == sizeof(block));
	MUST(close(pair.client) == 0 && close(pair.listener) == 0);
}

static long in_accept(void)
{
	return accept(pair.listener, NULL, NULL);
}

static void accepting(void)
{
	struct wait w = { .name = "accept", .call = in_accept };
	pthread_t t;

	pair.listener = listen_on(&pair.addr);
	t = begin(&w);
	MUST(shutdown(pair.listener, SHUT_RDWR) == 0);
	end(&w, t);
	MUST(close(pair.listener) == 0);
}

static struct sockaddr_in full;

static long in_connect(void)
{
	return connect(pair.client, (struct sockaddr *)&full, sizeof(full));
}

/* A connect() that nobody answers, to a listener whose queue is full. */
static void connecting(void)
{
	struct wait w = { .name = "connect", .call = in_connect };
	int l = listen_on(&full), fill[4];
	pthread_t t;

	MUST(listen(l, 0) == 0);
	for (int i = 0; i < 4; i++) {
		fill[i] = client_socket();
		set_nonblock(fill[i], true);
		MUST(connect(fill[i], (struct sockaddr *)&full, sizeof(full)) == 0 ||
		     errno == EINPROGRESS);
	}
	pair.client = client_socket();
	t = begin(&w);
	SHOW(shutdown(pair.client, SHUT_RDWR));
	end(&w, t);
	MUST(close(pair.client) == 0);
	for (int i = 0; i < 4; i++)
		MUST(close(fill[i]) == 0);
	MUST(close(l) == 0);
}

int main(void)
{
	probe_start();
	for (size_t i = 0; i < READERS; i++)
		shut(&readers[i]);
	for (size_t i = 0; i < READERS - 1; i++) /* epoll_wait() does not hold the file */
		closed(&readers[i]);
	for (size_t i = 0; i < READERS - 3; i++) /* poll() and select() look the number up again */
		reused(&readers[i]);
	for (size_t i = 0; i < READERS - 1; i++)
		marked(&readers[i]);
	writer();
	accepting();
	connecting();
	return 0;
}
