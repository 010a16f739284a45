/* One socket in every role, in whatever order: refused, connected, disconnected, connected again, listening, shut as a listener
 * and listening again, a client at last. With and without epoll watching it from the start. */
#include "probe.h"

#include <sys/epoll.h>

static const struct sockaddr_in nobody = { .sin_family = AF_UNSPEC };
static int ep;

static struct sockaddr_in loopback(int port)
{
	return (struct sockaddr_in){ .sin_family = AF_INET,
				     .sin_port = htons((uint16_t)port),
				     .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
}

static void events(const char *when, int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLIN | POLLOUT | POLLRDHUP };
	struct epoll_event e = { 0 };

	poll(&p, 1, 0);
	epoll_wait(ep, &e, 1, 0);
	printf("%s: %s%#x\n", when, events_text(p.revents), e.events);
}

static struct sockaddr_in name_of(int fd)
{
	struct sockaddr_in a;
	socklen_t len = sizeof(a);

	MUST(getsockname(fd, (struct sockaddr *)&a, &len) == 0);
	return a;
}

static int dial(int fd, const struct sockaddr_in *to)
{
	return connect(fd, (const struct sockaddr *)to, sizeof(*to));
}

/* Says back what one client says. */
static void *answer(void *listener)
{
	int fd = accept(*(int *)listener, NULL, NULL);
	char b[2];

	MUST(fd >= 0);
	recv_all(fd, b, 2);
	send_all(fd, b, 2);
	MUST(recv(fd, b, 1, 0) <= 0 && close(fd) == 0);
	return NULL;
}

static void talk(int fd)
{
	int flags = fcntl(fd, F_GETFL);
	char b[2];

	set_nonblock(fd, false);
	SHOW(send(fd, "ab", 2, 0));
	SHOW(recv(fd, b, 2, MSG_WAITALL));
	MUST(fcntl(fd, F_SETFL, flags) == 0);
}

/* A whole connection to `listener`, which is left by disconnecting. The first try may tell what became of the last one. */
static void client(int fd, int listener)
{
	struct sockaddr_in to = name_of(listener);
	pthread_t t;
	int r;

	MUST(pthread_create(&t, NULL, answer, &listener) == 0);
	r = dial(fd, &to);
	if (r < 0 && errno == ECONNABORTED)
		r = dial(fd, &to);
	MUST(r == 0 || errno == EINPROGRESS);
	wait_for(fd, POLLOUT);
	SHOW(error_of(fd));
	events("connected", fd);
	talk(fd);
	SHOW(dial(fd, &to));
	SHOW(listen(fd, 1));
	SHOW(dial(fd, &nobody));
	MUST(pthread_join(t, NULL) == 0);
	events("disconnected", fd);
	SHOW(send(fd, "x", 1, MSG_NOSIGNAL));
	SHOW(recv(fd, &(char){ 0 }, 1, 0));
}

static void server(int fd)
{
	struct sockaddr_in at;
	char b[2];
	int c, s;

	SHOW(listen(fd, 4));
	at = name_of(fd);
	c = connect_to(&at);
	wait_for(fd, POLLIN);
	events("asked", fd);
	s = SHOW_FD(accept(fd, NULL, NULL));
	send_all(c, "hi", 2);
	recv_all(s, b, 2);
	MUST(close(c) == 0 && recv(s, b, 1, 0) == 0 && close(s) == 0);
	SHOW(shutdown(fd, SHUT_RD));
	events("shut", fd);
	SHOW(accept(fd, NULL, NULL));
}

static void in_every_role(bool nonblock, bool watched)
{
	struct sockaddr_in addr, port1 = loopback(1);
	int l = listen_on(&addr), fd = socket(AF_INET, SOCK_STREAM, 0);
	struct epoll_event e = { .events = EPOLLIN | EPOLLOUT | EPOLLET };

	printf("-- nonblock %d, watched %d\n", nonblock, watched);
	ep = epoll_create1(0);
	set_nonblock(fd, nonblock);
	if (watched)
		SHOW(epoll_ctl(ep, EPOLL_CTL_ADD, fd, &e));
	events("new", fd);
	SHOW(recv(fd, &(char){ 0 }, 1, 0));
	SHOW(send(fd, "x", 1, MSG_NOSIGNAL));
	SHOW(shutdown(fd, SHUT_WR));
	SHOW(dial(fd, &port1));
	wait_for(fd, POLLOUT);
	events("refused", fd);
	error_of(fd);
	client(fd, l);
	client(fd, l);
	server(fd);
	server(fd);
	SHOW(dial(fd, &nobody));
	client(fd, l);
	MUST(close(fd) == 0 && close(l) == 0 && close(ep) == 0);
}

int main(void)
{
	probe_start();
	for (int i = 0; i < 4; i++)
		in_every_role(i & 1, i & 2);
	return 0;
}
