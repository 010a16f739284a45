/* EINTR and SA_RESTART of each call that waits, with and without a time-out of the socket (signal(7)). */
#include "probe.h"

#include <sys/epoll.h>
#include <sys/select.h>

static struct pair pair;
static char block[4 << 20];
static volatile sig_atomic_t signals;

static void on_signal(int sig)
{
	(void)sig;
	signals++;
}

static void handle(bool restart)
{
	struct sigaction sa = { .sa_handler = on_signal, .sa_flags = restart ? SA_RESTART : 0 };

	MUST(sigaction(SIGUSR1, &sa, NULL) == 0);
	signals = 0;
}

struct plan {
	pthread_t thread;
	pid_t tid;
	void (*then)(void);
	_Atomic bool go;
};

/* A signal to the thread that sleeps in its call, and when it sleeps again, or after a moment, what lets it go on. */
static void *disturb(void *arg)
{
	struct plan *p = arg;

	while (!p->go)
		sleep_ms(1);
	until_asleep(p->tid);
	pthread_kill(p->thread, SIGUSR1);
	sleep_ms(60);
	if (p->then)
		p->then();
	return NULL;
}

static void data_comes(void)
{
	send_all(pair.client, "12345678", 8);
}

static void room_comes(void)
{
	static char sink[1 << 16];
	ssize_t r;

	while ((r = recv(pair.client, sink, sizeof(sink), MSG_DONTWAIT)) > 0 || errno == EAGAIN)
		if (r < 0 &&
		    poll(&(struct pollfd){ .fd = pair.client, .events = POLLIN }, 1, 300) == 0)
			break;
}

static long in_read(void)
{
	return read(pair.server, block, 8);
}

static long in_readv(void)
{
	struct iovec v = { block, 8 };

	return readv(pair.server, &v, 1);
}

static long in_recv(void)
{
	return recv(pair.server, block, 8, 0);
}

static long in_waitall(void)
{
	return recv(pair.server, block, 8, MSG_WAITALL);
}

static long in_recvmsg(void)
{
	struct iovec v = { block, 8 };
	struct msghdr m = { .msg_iov = &v, .msg_iovlen = 1 };

	return recvmsg(pair.server, &m, 0);
}

static long in_send(void)
{
	ssize_t r = send(pair.server, block, sizeof(block), MSG_NOSIGNAL);

	return r < 0 ? r : r == sizeof(block) ? 2 : 1;
}

static long in_write_full(void)
{
	ssize_t r = write(pair.server, block, 100000);

	return r < 0 ? r : 1;
}

static long in_poll(void)
{
	return poll(&(struct pollfd){ .fd = pair.server, .events = POLLIN }, 1, 1000);
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
	struct epoll_event ev = { .events = EPOLLIN };
	int ep = epoll_create1(EPOLL_CLOEXEC), r, e;

	MUST(epoll_ctl(ep, EPOLL_CTL_ADD, pair.server, &ev) == 0);
	r = epoll_wait(ep, &ev, 1, 1000);
	e = errno;
	MUST(close(ep) == 0);
	errno = e;
	return r;
}

static void run(const char *name, long (*call)(void), void (*then)(void), bool restart)
{
	struct plan p = { .thread = pthread_self(), .tid = gettid(), .then = then };
	pthread_t t;
	long r;
	int e;

	handle(restart);
	MUST(pthread_create(&t, NULL, disturb, &p) == 0);
	p.go = true;
	r = call();
	e = errno;
	MUST(pthread_join(t, NULL) == 0);
	printf("%s%s: %ld %s, %d signal\n", name, restart ? ", SA_RESTART" : "", r,
	       r < 0 ? strerrorname_np(e) : "", (int)signals);
}

/* What is left of the data that came after the call. */
static void empty(void)
{
	while (recv(pair.server, block, 8, MSG_DONTWAIT) > 0)
		;
	while (recv(pair.client, block, sizeof(block), MSG_DONTWAIT) > 0)
		;
}

static void reading(bool restart)
{
	static const struct {
		const char *name;
		long (*call)(void);
	} calls[] = { { "read", in_read },       { "readv", in_readv },     { "recv", in_recv },
		      { "waitall", in_waitall }, { "recvmsg", in_recvmsg }, { "poll", in_poll },
		      { "select", in_select },   { "epoll_wait", in_epoll } };

	for (size_t i = 0; i < sizeof(calls) / sizeof(calls[0]); i++) {
		run(calls[i].name, calls[i].call, data_comes, restart);
		empty();
	}
	/* A part has come: it is the answer, whatever the handler says. */
	send_all(pair.client, "1234", 4);
	wait_for(pair.server, POLLIN);
	run("waitall with a part", in_waitall, NULL, restart);
	empty();
}

static void timeout(int option, int ms)
{
	struct timeval tv = { .tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000 };

	MUST(setsockopt(pair.server, SOL_SOCKET, option, &tv, sizeof(tv)) == 0);
}

static void fill_up(void)
{
	while (send(pair.server, block, 1000, MSG_DONTWAIT | MSG_NOSIGNAL) > 0)
		;
	sleep_ms(50);
	while (send(pair.server, block, 2, MSG_DONTWAIT | MSG_NOSIGNAL) > 0)
		;
}

static void writing(bool restart)
{
	pair_open_sized(&pair, 32768);
	run("send, a part went", in_send, NULL, restart);
	pair_close(&pair);
	pair_open_sized(&pair, 32768);
	fill_up();
	run("write, full", in_write_full, room_comes, restart);
	pair_close(&pair);
	pair_open_sized(&pair, 32768);
	fill_up();
	timeout(SO_SNDTIMEO, 2000);
	run("write, full, SO_SNDTIMEO", in_write_full, room_comes, restart);
	pair_close(&pair);
}

static struct sockaddr_in full;

static long in_connect(void)
{
	return connect(pair.server, (struct sockaddr *)&full, sizeof(full));
}

/* A listener whose queue is full does not answer. */
static void dialling(bool timed)
{
	int l = listen_on(&full), more[4];

	MUST(listen(l, 0) == 0);
	for (int i = 0; i < 4; i++) {
		more[i] = client_socket();
		set_nonblock(more[i], true);
		MUST(connect(more[i], (struct sockaddr *)&full, sizeof(full)) < 0);
	}
	pair.server = client_socket();
	if (timed)
		timeout(SO_SNDTIMEO, 5000);
	run(timed ? "connect, SO_SNDTIMEO" : "connect", in_connect, NULL, timed);
	MUST(close(pair.server) == 0 && close(l) == 0);
	for (int i = 0; i < 4; i++)
		MUST(close(more[i]) == 0);
}

/* As crash reporters, Java and sanitizers have it, without SA_RESTART: no wait ever ends by it. */
static void on_fault(int sig)
{
	_exit(sig);
}

int main(void)
{
	struct sigaction fault = { .sa_handler = on_fault };

	probe_start();
	MUST(sigaction(SIGSEGV, &fault, NULL) == 0);
	pair_open(&pair);
	reading(false);
	reading(true);
	timeout(SO_RCVTIMEO, 3000);
	run("recv, SO_RCVTIMEO", in_recv, data_comes, true);
	empty();
	pair_close(&pair);
	writing(false);
	writing(true);
	dialling(false);
	dialling(true);
	return 0;
}
