/* Calls that are left by a jump out of a signal handler, as the classic time-outs with alarm() do, and handlers that use
 * connections themselves. Afterwards the connection works, and its close is seen. */
#include "probe.h"

#include <setjmp.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/time.h>

static struct pair pair;
static sigjmp_buf out;
static int ep;
static char block[8 << 20];

static void jump(int sig)
{
	(void)sig;
	siglongjmp(out, 1);
}

static void timer(int first_us, int every_us)
{
	struct itimerval it = { .it_value.tv_usec = first_us, .it_interval.tv_usec = every_us };

	MUST(setitimer(ITIMER_REAL, &it, NULL) == 0);
	if (!first_us)
		alarm(PROBE_SECONDS);
}

static void handle(void (*fn)(int), int flags)
{
	struct sigaction sa = { .sa_handler = fn, .sa_flags = flags };

	MUST(sigaction(SIGALRM, &sa, NULL) == 0);
}

static void works(void)
{
	char b[8] = "";

	send_all(pair.client, "there", 5);
	recv_all(pair.server, b, 5);
	send_all(pair.server, b, 5);
	recv_all(pair.client, b, 5);
	printf("works: %s\n", b);
}

static void in_recv(void)
{
	recv(pair.server, block, 8, 0);
}

static void in_waitall(void)
{
	send_all(pair.client, "part", 4);
	recv(pair.server, block, 8, MSG_WAITALL | MSG_PEEK);
}

static void in_read(void)
{
	MUST(read(pair.server, block, 8) >= 0);
}

static void in_poll(void)
{
	struct pollfd p[64];

	for (int i = 0; i < 64; i++)
		p[i] = (struct pollfd){ .fd = pair.server, .events = POLLIN };
	poll(p, 64, -1);
}

static void in_select(void)
{
	fd_set r;

	FD_ZERO(&r);
	FD_SET(pair.server, &r);
	select(pair.server + 1, &r, NULL, NULL, NULL);
}

static void in_epoll(void)
{
	struct epoll_event ev;

	epoll_wait(ep, &ev, 1, -1);
}

static void in_accept(void)
{
	accept(pair.listener, NULL, NULL);
}

static void left(const char *name, void (*call)(void))
{
	handle(jump, 0);
	if (sigsetjmp(out, 1) == 0) {
		timer(30000, 0);
		call();
		printf("%s came back\n", name);
	} else {
		printf("%s: timed out\n", name);
	}
	timer(0, 0);
}

static void timeouts(void)
{
	struct epoll_event ev = { .events = EPOLLIN };
	char b[4];

	pair_open(&pair);
	ep = epoll_create1(EPOLL_CLOEXEC);
	MUST(epoll_ctl(ep, EPOLL_CTL_ADD, pair.server, &ev) == 0);
	left("recv", in_recv);
	works();
	left("read", in_read);
	works();
	left("poll", in_poll);
	works();
	left("select", in_select);
	works();
	left("epoll_wait", in_epoll);
	works();
	left("accept", in_accept);
	works();
	left("recv MSG_WAITALL", in_waitall);
	recv_all(pair.server, b, 4);
	works();
	/* Nothing of the calls that were left holds on to the connection. */
	MUST(close(pair.server) == 0);
	SHOW(recv(pair.client, b, 1, 0));
	MUST(close(pair.client) == 0 && close(pair.listener) == 0 && close(ep) == 0);
}

static void in_send(void)
{
	send(pair.client, block, sizeof(block), 0);
}

/* The peer sees some of it, whole and in order, then the end. */
static void sending(void)
{
	static char got[1 << 16];
	uint64_t n = 0;
	ssize_t r;

	fill(block, sizeof(block), 7);
	pair_open_sized(&pair, 65536);
	left("send", in_send);
	MUST(close(pair.client) == 0);
	while ((r = recv(pair.server, got, sizeof(got), 0)) > 0) {
		MUST(memcmp(got, block + n, (size_t)r) == 0);
		n += (uint64_t)r;
	}
	printf("send: %d, end %zd\n", n > 0 && n < sizeof(block), r);
	MUST(close(pair.server) == 0 && close(pair.listener) == 0);
}

static struct sockaddr_in full;

static void in_connect(void)
{
	connect(pair.client, (struct sockaddr *)&full, sizeof(full));
}

static void dialling(void)
{
	int l = listen_on(&full), more[4];

	MUST(listen(l, 0) == 0);
	for (int i = 0; i < 4; i++) {
		more[i] = client_socket();
		set_nonblock(more[i], true);
		MUST(connect(more[i], (struct sockaddr *)&full, sizeof(full)) < 0);
	}
	pair.client = client_socket();
	left("connect", in_connect);
	MUST(close(pair.client) == 0 && close(l) == 0);
	for (int i = 0; i < 4; i++)
		MUST(close(more[i]) == 0);
}

/* Jumps at any place, a thousand a second, while the connection is only looked at. */
static void storm(void)
{
	static volatile int jumps;
	struct pollfd p;
	char b[4];

	pair_open(&pair);
	p = (struct pollfd){ .fd = pair.server, .events = POLLIN | POLLOUT };
	handle(jump, 0);
	jumps = 0;
	timer(1000, 1000);
	if (sigsetjmp(out, 1))
		jumps++;
	while (jumps < 300) {
		MUST(poll(&p, 1, jumps % 2 ? 0 : 3) >= 0);
		MUST(poll(&p, 1, 0) == 1 && p.revents == POLLOUT);
	}
	timer(0, 0);
	works();
	MUST(close(pair.server) == 0);
	SHOW(recv(pair.client, b, 1, 0));
	MUST(close(pair.client) == 0 && close(pair.listener) == 0);
}

static volatile sig_atomic_t written, refused;

static void write_one(int sig)
{
	ssize_t r = send(pair.client, "!", 1, MSG_DONTWAIT);

	(void)sig;
	if (r == 1)
		written++;
	else
		refused++;
}

static void *drain(void *arg)
{
	static char got[1 << 16];
	uint64_t *n = arg;
	ssize_t r;

	while ((r = recv(pair.server, got, sizeof(got), 0)) > 0)
		for (ssize_t i = 0; i < r; i++)
			n[got[i] == '!']++;
	MUST(r == 0);
	return NULL;
}

/* A handler sends on the connection that its thread sends on: each byte that was taken arrives. */
static void bulk(void)
{
	uint64_t got[2] = { 0 };
	pthread_t t;
	sigset_t alarm_only;

	memset(block, 'x', sizeof(block));
	pair_open_sized(&pair, 65536);
	sigemptyset(&alarm_only);
	sigaddset(&alarm_only, SIGALRM);
	MUST(pthread_sigmask(SIG_BLOCK, &alarm_only, NULL) == 0);
	MUST(pthread_create(&t, NULL, drain, got) == 0);
	MUST(pthread_sigmask(SIG_UNBLOCK, &alarm_only, NULL) == 0);
	handle(write_one, SA_RESTART);
	timer(1000, 1000);
	for (int i = 0; i < 6; i++)
		send_all(pair.client, block, sizeof(block));
	timer(0, 0);
	MUST(close(pair.client) == 0 && pthread_join(t, NULL) == 0);
	printf("sent %d, from the handler %d, some %d\n", got[0] == 6 * sizeof(block),
	       got[1] == (uint64_t)written, written > 0);
	MUST(close(pair.server) == 0 && close(pair.listener) == 0);
}

static int victim;

static void close_it(int sig)
{
	(void)sig;
	MUST(close(victim) == 0);
}

/* close() in a handler, of the connection that the thread waits on, and of another. */
static void closing(void)
{
	struct pair other;
	char b[4];

	pair_open(&pair);
	pair_open(&other);
	handle(close_it, 0);
	victim = other.server;
	timer(30000, 0);
	SHOW(recv(pair.server, b, 1, 0));
	timer(0, 0);
	SHOW(recv(other.client, b, 1, 0));
	victim = pair.server;
	timer(30000, 0);
	SHOW(recv(pair.server, b, 1, 0));
	timer(0, 0);
	SHOW(recv(pair.client, b, 1, 0));
	MUST(close(pair.client) == 0 && close(other.client) == 0);
	MUST(close(pair.listener) == 0 && close(other.listener) == 0);
}

static void *in_thread(void *arg)
{
	void (*call)(void) = *(void (**)(void))arg;

	call();
	return NULL;
}

static void async(void)
{
	MUST(pthread_setcanceltype(PTHREAD_CANCEL_ASYNCHRONOUS, NULL) == 0);
	in_recv();
}

static void cancelled(const char *name, void (*call)(void))
{
	pthread_t t;
	void *ret;

	MUST(pthread_create(&t, NULL, in_thread, &call) == 0);
	sleep_ms(50);
	MUST(pthread_cancel(t) == 0 && pthread_join(t, &ret) == 0);
	printf("%s: cancelled %d\n", name, ret == PTHREAD_CANCELED);
}

static void cancelling(void)
{
	struct sockaddr_in addr;
	int l = listen_on(&addr);
	char b[4];

	pair_open(&pair);
	cancelled("recv", in_recv);
	cancelled("poll", in_poll);
	cancelled("recv, asynchronous", async);
	works();
	MUST(close(pair.server) == 0);
	SHOW(recv(pair.client, b, 1, 0));
	MUST(close(pair.client) == 0 && close(pair.listener) == 0);
	pair.client = client_socket();
	full = addr;
	MUST(close(l) == 0);
}

int main(void)
{
	probe_start();
	timeouts();
	sending();
	dialling();
	storm();
	bulk();
	closing();
	cancelling();
	return 0;
}
