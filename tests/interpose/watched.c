/* A server whose poller knows the socket before it listens, as Asio's acceptor does; one that accepts by a copy of it. */
#include "probe.h"

static int watch(int ep, int op, int fd, uint32_t events)
{
	struct epoll_event ev = { .events = events, .data.u64 = PROBE_TAG };

	return epoll_ctl(ep, op, fd, &ev);
}

static void bind_and_listen(int fd, struct sockaddr_in *addr)
{
	socklen_t len = sizeof(*addr);

	*addr = (struct sockaddr_in){ .sin_family = AF_INET,
				      .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	MUST(bind(fd, (struct sockaddr *)addr, sizeof(*addr)) == 0 && listen(fd, 8) == 0);
	MUST(getsockname(fd, (struct sockaddr *)addr, &len) == 0);
}

static void *say(void *arg)
{
	int fd = connect_to(arg);
	char b[8];

	send_all(fd, "hello", 5);
	recv_all(fd, b, 7);
	MUST(close(fd) == 0);
	return NULL;
}

/* One client, taken from `fd` once `ep` tells of it. */
static void serve(int ep, int fd, struct sockaddr_in *addr)
{
	char b[8] = "";
	pthread_t t;
	int c;

	MUST(pthread_create(&t, NULL, say, addr) == 0);
	printf("soon %#x\n", events_soon(ep));
	c = SHOW_FD(accept(fd, NULL, NULL));
	recv_all(c, b, 5);
	send_all(c, "welcome", 7);
	MUST(pthread_join(t, NULL) == 0);
	printf("%s\n", b);
	MUST(close(c) == 0);
}

static void watched(uint32_t flags)
{
	int ep = epoll_create1(0), fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
	struct sockaddr_in addr;

	printf("-- flags %#x\n", flags);
	MUST(watch(ep, EPOLL_CTL_ADD, fd, EPOLLIN | flags) == 0);
	printf("before %#x\n", events_now(ep));
	bind_and_listen(fd, &addr);
	if (flags & EPOLLONESHOT)
		SHOW(watch(ep, EPOLL_CTL_MOD, fd, EPOLLIN | flags));
	printf("listening %#x\n", events_now(ep));
	serve(ep, fd, &addr);
	SHOW(accept(fd, NULL, NULL));
	printf("taken %#x\n", events_now(ep));
	SHOW(watch(ep, EPOLL_CTL_MOD, fd, EPOLLIN | flags));
	serve(ep, fd, &addr);
	SHOW(epoll_ctl(ep, EPOLL_CTL_DEL, fd, NULL));
	SHOW(epoll_ctl(ep, EPOLL_CTL_DEL, fd, NULL));
	MUST(close(fd) == 0 && close(ep) == 0);
}

static void by_a_copy(void)
{
	int ep = epoll_create1(0), fd = socket(AF_INET, SOCK_STREAM, 0), copy;
	struct sockaddr_in addr;

	printf("-- by a copy\n");
	MUST(watch(ep, EPOLL_CTL_ADD, fd, EPOLLIN) == 0);
	copy = dup(fd);
	bind_and_listen(fd, &addr);
	serve(ep, copy, &addr);
	MUST(close(fd) == 0);
	serve(ep, copy, &addr);
	MUST(close(copy) == 0 && close(ep) == 0);
}

int main(void)
{
	probe_start();
	watched(0);
	watched(EPOLLET);
	watched(EPOLLONESHOT);
	watched(EPOLLEXCLUSIVE);
	by_a_copy();
	return 0;
}
