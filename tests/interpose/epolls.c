/* epoll: level, edge, oneshot; MOD and DEL; several threads on one set; duplicates of one connection. */
#include "probe.h"

static void add(int ep, int op, int fd, uint32_t events)
{
	struct epoll_event ev = { .events = events, .data.u64 = PROBE_TAG };

	MUST(epoll_ctl(ep, op, fd, &ev) == 0);
}

static void level(struct pair *p)
{
	int ep = epoll_create1(0);
	char b[10];

	add(ep, EPOLL_CTL_ADD, p->server, EPOLLIN | EPOLLRDHUP);
	printf("level: quiet %#x\n", events_now(ep));
	send_all(p->client, "abcdef", 6);
	printf("soon %#x\n", events_soon(ep));
	printf("again %#x\n", events_now(ep));
	MUST(recv(p->server, b, 3, 0) == 3);
	printf("half read %#x\n", events_now(ep));
	MUST(recv(p->server, b, 10, 0) == 3);
	printf("read %#x\n", events_now(ep));
	add(ep, EPOLL_CTL_MOD, p->server, EPOLLIN | EPOLLOUT);
	printf("in and out %#x\n", events_now(ep));
	MUST(close(ep) == 0);
}

static void edge(struct pair *p)
{
	int ep = epoll_create1(0);
	char b[10];

	add(ep, EPOLL_CTL_ADD, p->server, EPOLLIN | EPOLLET);
	printf("edge: quiet %#x\n", events_now(ep));
	send_all(p->client, "abcdef", 6);
	printf("soon %#x\n", events_soon(ep));
	printf("again %#x\n", events_now(ep));
	MUST(recv(p->server, b, 3, 0) == 3);
	printf("half read %#x\n", events_now(ep));
	send_all(p->client, "ghi", 3);
	printf("more came %#x\n", events_soon(ep));
	MUST(recv(p->server, b, 10, 0) == 6);
	printf("read %#x\n", events_now(ep));
	MUST(recv(p->server, b, 10, MSG_DONTWAIT) == -1 && errno == EAGAIN);
	send_all(p->client, "jkl", 3);
	printf("next %#x\n", events_soon(ep));
	add(ep, EPOLL_CTL_MOD, p->server, EPOLLIN | EPOLLET);
	printf("modified %#x\n", events_now(ep));
	printf("again %#x\n", events_now(ep));
	MUST(recv(p->server, b, 10, 0) == 3);
	MUST(close(ep) == 0);
}

static void oneshot(struct pair *p)
{
	int ep = epoll_create1(0);
	char b[10];

	add(ep, EPOLL_CTL_ADD, p->server, EPOLLIN | EPOLLONESHOT);
	send_all(p->client, "abc", 3);
	printf("oneshot: soon %#x\n", events_soon(ep));
	printf("again %#x\n", events_now(ep));
	send_all(p->client, "def", 3);
	sleep_ms(20);
	printf("spent %#x\n", events_now(ep));
	add(ep, EPOLL_CTL_MOD, p->server, EPOLLIN | EPOLLONESHOT);
	printf("armed %#x\n", events_soon(ep));
	recv_all(p->server, b, 6);
	add(ep, EPOLL_CTL_MOD, p->server, EPOLLIN | EPOLLONESHOT);
	printf("empty %#x\n", events_now(ep));
	MUST(close(ep) == 0);
}

static void members(struct pair *p)
{
	struct epoll_event ev = { .events = EPOLLIN, .data.fd = 1 }, got[4];
	int ep = epoll_create1(0), copy;
	char b[4];

	SHOW(epoll_ctl(ep, EPOLL_CTL_MOD, p->server, &ev));
	SHOW(epoll_ctl(ep, EPOLL_CTL_DEL, p->server, &ev));
	SHOW(epoll_ctl(ep, EPOLL_CTL_ADD, p->server, &ev));
	SHOW(epoll_ctl(ep, EPOLL_CTL_ADD, p->server, &ev));
	SHOW(epoll_ctl(ep, EPOLL_CTL_ADD, -1, &ev));
	SHOW(epoll_ctl(p->client, EPOLL_CTL_ADD, p->server, &ev));
	SHOW(epoll_ctl(ep, EPOLL_CTL_ADD, ep, &ev));
	copy = dup(p->server);
	ev.data.fd = 2;
	SHOW(epoll_ctl(ep, EPOLL_CTL_ADD, copy, &ev));
	send_all(p->client, "abc", 3);
	MUST(wait_for(p->server, POLLIN));
	SHOW(epoll_wait(ep, got, 4, 0));
	printf("data %d %d\n", got[0].data.fd + got[1].data.fd, got[0].data.fd * got[1].data.fd);
	SHOW(epoll_ctl(ep, EPOLL_CTL_DEL, p->server, NULL));
	SHOW(epoll_wait(ep, got, 4, 0));
	printf("data %d\n", got[0].data.fd);
	SHOW(epoll_wait(ep, got, 0, 0));
	SHOW(epoll_wait(-1, got, 4, 0));
	SHOW(epoll_wait(p->client, got, 4, 0));
	MUST(close(copy) == 0);
	SHOW(epoll_wait(ep, got, 4, 0));
	recv_all(p->server, b, 3);
	MUST(close(ep) == 0);
}

/* A closed fd leaves the set; its number may come back as another connection. */
static void closed(void)
{
	struct epoll_event got[4];
	int ep = epoll_create1(0);
	struct pair p, q;

	pair_open(&p);
	add(ep, EPOLL_CTL_ADD, p.server, EPOLLIN | EPOLLRDHUP);
	pair_close(&p);
	printf("closed: %d\n", epoll_wait(ep, got, 4, 0));
	pair_open(&q);
	send_all(q.client, "x", 1);
	wait_for(q.server, POLLIN);
	printf("not added: %d\n", epoll_wait(ep, got, 4, 0));
	add(ep, EPOLL_CTL_ADD, q.server, EPOLLIN | EPOLLRDHUP);
	printf("added: %d %#x\n", epoll_wait(ep, got, 4, 0), got[0].events);
	MUST(close(q.client) == 0);
	wait_for(q.server, POLLRDHUP);
	printf("end: %d %#x\n", epoll_wait(ep, got, 4, 0), got[0].events);
	MUST(close(q.server) == 0 && close(q.listener) == 0 && close(ep) == 0);
}

enum { CONNECTIONS = 8, MESSAGES = 300, WORKERS = 4 };

struct crowd {
	int ep, fds[CONNECTIONS];
	size_t got[CONNECTIONS];
	uint64_t sum[CONNECTIONS];
	_Atomic int left;
};

/* Several threads wait on one set; ONESHOT gives a connection to one of them at a time. */
static void *worker(void *arg)
{
	struct crowd *c = arg;
	struct epoll_event ev;

	while (c->left > 0) {
		uint8_t b[777];
		ssize_t r;
		int i;

		if (epoll_wait(c->ep, &ev, 1, 50) != 1)
			continue;
		i = (int)ev.data.u32;
		while ((r = recv(c->fds[i], b, sizeof(b), 0)) > 0) {
			c->got[i] += (size_t)r;
			c->sum[i] = hash(c->sum[i], b, (size_t)r);
		}
		if (r == 0) {
			c->left--;
			continue;
		}
		MUST(errno == EAGAIN);
		ev.events = EPOLLIN | EPOLLET | EPOLLONESHOT;
		MUST(epoll_ctl(c->ep, EPOLL_CTL_MOD, c->fds[i], &ev) == 0);
	}
	return NULL;
}

static void crowd(void)
{
	struct crowd c = { .ep = epoll_create1(0), .left = CONNECTIONS };
	struct pair p[CONNECTIONS];
	pthread_t t[WORKERS];
	uint8_t block[1500];

	fill(block, sizeof(block), 9);
	for (int i = 0; i < CONNECTIONS; i++) {
		struct epoll_event ev = { .events = EPOLLIN | EPOLLET | EPOLLONESHOT,
					  .data.u32 = (uint32_t)i };

		pair_open(&p[i]);
		c.fds[i] = p[i].server;
		c.sum[i] = HASH_START;
		set_nonblock(p[i].server, true);
		MUST(epoll_ctl(c.ep, EPOLL_CTL_ADD, p[i].server, &ev) == 0);
	}
	for (int i = 0; i < WORKERS; i++)
		MUST(pthread_create(&t[i], NULL, worker, &c) == 0);
	for (int m = 0; m < MESSAGES; m++) {
		for (int i = 0; i < CONNECTIONS; i++)
			send_all(p[i].client, block, (size_t)((m * 37 + i * 11) % 1500 + 1));
	}
	for (int i = 0; i < CONNECTIONS; i++)
		MUST(shutdown(p[i].client, SHUT_WR) == 0);
	for (int i = 0; i < WORKERS; i++)
		MUST(pthread_join(t[i], NULL) == 0);
	for (int i = 0; i < CONNECTIONS; i++) {
		printf("connection %d: %zu bytes, %016llx\n", i, c.got[i],
		       (unsigned long long)c.sum[i]);
		pair_close(&p[i]);
	}
	MUST(close(c.ep) == 0);
}

/* Never "readable" and then nothing to read: an edge-triggered reader of a slow, bursty stream. */
static void *bursts(void *arg)
{
	int fd = *(int *)arg;
	static uint8_t b[40000];

	fill(b, sizeof(b), 5);
	for (int i = 0; i < 60; i++) {
		send_all(fd, b, (size_t)(i * 653 % 40000) + 1);
		if (i % 7 == 0)
			sleep_ms(1);
	}
	MUST(shutdown(fd, SHUT_WR) == 0);
	return NULL;
}

static void spurious(uint32_t mode)
{
	int ep = epoll_create1(0), empty = 0;
	uint64_t h = HASH_START;
	size_t all = 0;
	struct pair p;
	pthread_t t;
	bool end = false;

	pair_open_sized(&p, 16384);
	set_nonblock(p.server, true);
	add(ep, EPOLL_CTL_ADD, p.server, EPOLLIN | EPOLLRDHUP | mode);
	MUST(pthread_create(&t, NULL, bursts, &p.client) == 0);
	while (!end) {
		uint8_t b[5000];
		ssize_t r;
		int reads = 0;

		MUST(events_soon(ep) & EPOLLIN);
		while ((r = recv(p.server, b, sizeof(b), 0)) > 0) {
			h = hash(h, b, (size_t)r);
			all += (size_t)r;
			reads++;
			if (!mode)
				break;
		}
		empty += r < 0 && reads == 0 && !mode;
		end = r == 0;
	}
	MUST(pthread_join(t, NULL) == 0);
	printf("bursts %#x: %zu bytes, %016llx, readable but empty %d\n", mode, all,
	       (unsigned long long)h, empty);
	pair_close(&p);
	MUST(close(ep) == 0);
}

/* A thread waits on a set before the process has any connection; the first one is registered meanwhile. */
static void *early_waiter(void *arg)
{
	struct epoll_event ev[4];
	int ep = *(int *)arg, n;

	do
		n = epoll_wait(ep, ev, 4, PROBE_WAIT_MS);
	while (n < 0 && errno == EINTR);
	printf("early: %d %#x %s\n", n, ev[0].events, ev[0].data.u64 == 77 ? "77" : "other data");
	return NULL;
}

static void early(void)
{
	struct epoll_event ev = { .events = EPOLLIN, .data.u64 = 77 };
	int ep = epoll_create1(0);
	struct pair p;
	pthread_t t;

	MUST(pthread_create(&t, NULL, early_waiter, &ep) == 0);
	sleep_ms(50);
	pair_open(&p);
	MUST(epoll_ctl(ep, EPOLL_CTL_ADD, p.server, &ev) == 0);
	send_all(p.client, "x", 1);
	MUST(pthread_join(t, NULL) == 0);
	pair_close(&p);
	MUST(close(ep) == 0);
}

/* The number that was registered is another connection's by now; a copy keeps the registration, and its events are those of
 * the connection that was meant. */
static void outlived(void)
{
	struct pair p, q;
	int ep = epoll_create1(0), copy, number;
	char b[8];

	pair_open(&p);
	pair_open(&q);
	add(ep, EPOLL_CTL_ADD, p.server, EPOLLIN);
	copy = dup(p.server);
	number = p.server;
	MUST(dup2(q.server, number) == number);
	printf("nothing: %s\n", events_text(events_now(ep)));
	send_all(p.client, "copy", 4);
	printf("for the copy: %s\n", events_text(events_soon(ep)));
	recv_all(copy, b, 4);
	printf("nothing: %s\n", events_text(events_now(ep)));
	send_all(q.client, "other", 5);
	wait_for(number, POLLIN);
	printf("nothing: %s\n", events_text(events_now(ep)));
	MUST(close(copy) == 0);
	printf("nothing: %s\n", events_text(events_now(ep)));
	p.server = number;
	pair_close(&p);
	pair_close(&q);
	MUST(close(ep) == 0);
}

int main(void)
{
	struct pair p;

	probe_start();
	early();
	pair_open(&p);
	level(&p);
	edge(&p);
	oneshot(&p);
	members(&p);
	pair_close(&p);
	closed();
	crowd();
	spurious(0);
	spurious(EPOLLET);
	outlived();
	return 0;
}
