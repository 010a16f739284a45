/* Threads that are cancelled while they wait; the connection lives on. */
#include "probe.h"

#include <sys/epoll.h>
#include <sys/select.h>

static struct pair pair;
static int ep;

static void *in_recv(void *arg)
{
	char b[8];

	recv(pair.server, b, sizeof(b), 0);
	return arg;
}

static void *in_read(void *arg)
{
	char b[8];

	return read(pair.server, b, sizeof(b)) < 0 ? NULL : arg;
}

static void *in_poll(void *arg)
{
	struct pollfd v = { .fd = pair.server, .events = POLLIN };

	poll(&v, 1, -1);
	return arg;
}

static void *in_select(void *arg)
{
	fd_set r;

	FD_ZERO(&r);
	FD_SET(pair.server, &r);
	select(pair.server + 1, &r, NULL, NULL, NULL);
	return arg;
}

static void *in_epoll(void *arg)
{
	struct epoll_event ev;

	epoll_wait(ep, &ev, 1, -1);
	return arg;
}

static void *in_accept(void *arg)
{
	accept(pair.listener, NULL, NULL);
	return arg;
}

static void *in_send(void *arg)
{
	static char block[16 << 20];

	send(pair.client, block, sizeof(block), 0);
	return arg;
}

static void cancel(const char *name, void *(*fn)(void *))
{
	pthread_t t;
	void *ret;

	MUST(pthread_create(&t, NULL, fn, NULL) == 0);
	sleep_ms(30);
	MUST(pthread_cancel(t) == 0 && pthread_join(t, &ret) == 0);
	printf("%s: cancelled %d\n", name, ret == PTHREAD_CANCELED);
}

static void works(void)
{
	char b[4] = "";

	send_all(pair.client, "yes", 3);
	recv_all(pair.server, b, 3);
	printf("works %s\n", b);
}

int main(void)
{
	struct epoll_event ev = { .events = EPOLLIN };

	probe_start();
	pair_open(&pair);
	ep = epoll_create1(0);
	MUST(epoll_ctl(ep, EPOLL_CTL_ADD, pair.server, &ev) == 0);
	cancel("recv", in_recv);
	works();
	cancel("read", in_read);
	works();
	cancel("poll", in_poll);
	works();
	cancel("select", in_select);
	works();
	cancel("epoll_wait", in_epoll);
	works();
	cancel("accept", in_accept);
	works();
	cancel("send", in_send);
	pair_close(&pair);
	return 0;
}
