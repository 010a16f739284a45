/* epoll sets in sets, a connection in two sets at once, EPOLLEXCLUSIVE: who is told what. */
#include "probe.h"

#include <sys/epoll.h>
#include <sys/select.h>

static void ctl(int ep, int op, int fd, uint32_t events)
{
	struct epoll_event ev = { .events = events, .data.u64 = 7 };

	MUST(epoll_ctl(ep, op, fd, &ev) == 0);
}

/* What a set has to say within `ms`. */
static const char *told(int ep, int ms)
{
	struct epoll_event ev = { 0 };

	if (epoll_wait(ep, &ev, 1, ms) != 1)
		return "nothing";
	MUST(ev.data.u64 == 7);
	return events_text((int)ev.events);
}

static void sets_in_sets(uint32_t flags)
{
	int inner = epoll_create1(0), outer = epoll_create1(0);
	struct pair p;
	fd_set set;
	char b[8];

	printf("-- in a set, %#x\n", flags);
	pair_open(&p);
	ctl(outer, EPOLL_CTL_ADD, inner, EPOLLIN | flags);
	ctl(inner, EPOLL_CTL_ADD, p.server, EPOLLIN | EPOLLRDHUP);
	printf("%s\n", told(outer, 0));
	send_all(p.client, "one", 3);
	printf("%s\n", told(outer, PROBE_WAIT_MS));
	printf("%s\n", told(outer, 0)); /* once more by level, not by edge */
	printf("%s\n", told(inner, 0));
	FD_ZERO(&set);
	FD_SET(outer, &set);
	SHOW(select(outer + 1, &set, NULL, NULL, &(struct timeval){ 0 }));
	printf("%s\n", events_text(ready_now(inner)));
	recv_all(p.server, b, 3);
	printf("%s\n", told(inner, 0));
	printf("%s\n", told(outer, 0));
	ctl(inner, EPOLL_CTL_MOD, p.server, EPOLLOUT);
	printf("%s\n", told(outer, PROBE_WAIT_MS));
	ctl(inner, EPOLL_CTL_DEL, p.server, 0);
	printf("%s\n", told(outer, 0));
	ctl(inner, EPOLL_CTL_ADD, p.server, EPOLLIN | EPOLLRDHUP);
	MUST(shutdown(p.client, SHUT_WR) == 0);
	printf("%s\n", told(outer, PROBE_WAIT_MS));
	printf("%s\n", told(inner, 0));
	pair_close(&p);
	printf("%s\n", told(outer, 0));
	MUST(close(inner) == 0 && close(outer) == 0);
}

static void in_two_sets(void)
{
	int level = epoll_create1(0), edge = epoll_create1(0);
	struct pair p;
	char b[8];

	pair_open(&p);
	ctl(level, EPOLL_CTL_ADD, p.server, EPOLLIN);
	ctl(edge, EPOLL_CTL_ADD, p.server, EPOLLIN | EPOLLET);
	send_all(p.client, "one", 3);
	printf("%s\n", told(level, PROBE_WAIT_MS));
	printf("%s\n", told(edge, PROBE_WAIT_MS));
	printf("%s\n", told(edge, 0));
	recv_all(p.server, b, 2);
	printf("%s\n", told(level, 0));
	printf("%s\n", told(edge, 0));
	send_all(p.client, "two", 3);
	printf("%s\n", told(edge, PROBE_WAIT_MS));
	recv_all(p.server, b, 4);
	ctl(level, EPOLL_CTL_DEL, p.server, 0);
	MUST(close(p.client) == 0);
	printf("%s\n", told(edge, PROBE_WAIT_MS));
	printf("%s\n", told(level, 0));
	MUST(close(p.server) == 0 && close(p.listener) == 0);
	MUST(close(level) == 0 && close(edge) == 0);
}

static void exclusive(void)
{
	int ep = epoll_create1(0);
	struct epoll_event ev = { .events = EPOLLIN | EPOLLEXCLUSIVE, .data.u64 = 7 };
	struct pair p;

	pair_open(&p);
	SHOW(epoll_ctl(ep, EPOLL_CTL_ADD, p.server, &ev));
	SHOW(epoll_ctl(ep, EPOLL_CTL_MOD, p.server, &ev));
	ev.events = EPOLLIN;
	SHOW(epoll_ctl(ep, EPOLL_CTL_MOD, p.server, &ev));
	ev.events = EPOLLIN | EPOLLRDHUP | EPOLLEXCLUSIVE;
	SHOW(epoll_ctl(ep, EPOLL_CTL_ADD, p.client, &ev));
	ev.events = EPOLLIN | EPOLLONESHOT | EPOLLEXCLUSIVE;
	SHOW(epoll_ctl(ep, EPOLL_CTL_ADD, p.client, &ev));
	send_all(p.client, "x", 1);
	printf("%s\n", told(ep, PROBE_WAIT_MS));
	SHOW(epoll_ctl(ep, EPOLL_CTL_ADD, ep, &ev));
	pair_close(&p);
	MUST(close(ep) == 0);
}

int main(void)
{
	probe_start();
	sets_in_sets(0);
	sets_in_sets(EPOLLET);
	in_two_sets();
	exclusive();
	return 0;
}
