/* connect() as connect(2) says: blocking, non-blocking with poll, select and epoll, refused, twice. */
#include "probe.h"

#include <sys/epoll.h>
#include <sys/select.h>

/* Accepts for ever and answers each byte with itself. */
static void *echo(void *arg)
{
	int l = *(int *)arg, fd;
	char b[64];
	ssize_t r;

	while ((fd = accept(l, NULL, NULL)) >= 0) {
		while ((r = recv(fd, b, sizeof(b), 0)) > 0)
			send_all(fd, b, (size_t)r);
		close(fd);
	}
	return NULL;
}

static void use(int fd)
{
	char b[5] = "";

	set_nonblock(fd, false);
	send_all(fd, "echo", 4);
	recv_all(fd, b, 4);
	printf("used: %s, SO_ERROR %d\n", b, error_of(fd));
	MUST(close(fd) == 0);
}

static int begin(const struct sockaddr_in *addr)
{
	int fd = client_socket();

	set_nonblock(fd, true);
	errno = 0;
	MUST(connect(fd, (const struct sockaddr *)addr, sizeof(*addr)) == -1);
	printf("begun: %s\n", strerrorname_np(errno));
	return fd;
}

static void by_poll(const struct sockaddr_in *addr)
{
	int fd = begin(addr);

	printf("poll: %s\n", events_text(wait_for(fd, POLLOUT | POLLIN)));
	SHOW(error_of(fd));
	SHOW(connect(fd, (const struct sockaddr *)addr, sizeof(*addr)));
	use(fd);
}

/* The second connect() is how some programs ask whether the first is done. */
static void by_connect(const struct sockaddr_in *addr)
{
	int fd = begin(addr);

	wait_for(fd, POLLOUT);
	errno = 0;
	if (connect(fd, (const struct sockaddr *)addr, sizeof(*addr)) == 0)
		errno = 0;
	printf("first again: %s\n", errno ? strerrorname_np(errno) : "0");
	SHOW(connect(fd, (const struct sockaddr *)addr, sizeof(*addr)));
	use(fd);
}

static void by_select(const struct sockaddr_in *addr)
{
	int fd = begin(addr);
	struct timeval t = { 8, 0 };
	fd_set r, w, e;

	FD_ZERO(&r);
	FD_ZERO(&w);
	FD_ZERO(&e);
	FD_SET(fd, &r);
	FD_SET(fd, &w);
	FD_SET(fd, &e);
	SHOW(select(fd + 1, &r, &w, &e, &t));
	printf("read %d write %d except %d, time left %d\n", !!FD_ISSET(fd, &r), !!FD_ISSET(fd, &w),
	       !!FD_ISSET(fd, &e), t.tv_sec >= 5);
	SHOW(error_of(fd));
	use(fd);
}

static void by_epoll(const struct sockaddr_in *addr, uint32_t mode, bool add_first)
{
	int ep = epoll_create1(EPOLL_CLOEXEC), fd;
	struct epoll_event ev = { .events = EPOLLIN | EPOLLOUT | mode,
				  .data.u64 = UINT64_C(0x1122334455667788) },
			   got;

	if (add_first) {
		fd = client_socket();
		set_nonblock(fd, true);
		SHOW(epoll_ctl(ep, EPOLL_CTL_ADD, fd, &ev));
		SHOW(epoll_wait(ep, &got, 1, 0));
		printf("unconnected %#x\n", got.events);
		SHOW(connect(fd, (const struct sockaddr *)addr, sizeof(*addr)));
		if (mode & EPOLLONESHOT)
			SHOW(epoll_ctl(ep, EPOLL_CTL_MOD, fd, &ev));
	} else {
		fd = begin(addr);
		SHOW(epoll_ctl(ep, EPOLL_CTL_ADD, fd, &ev));
	}
	SHOW(epoll_wait(ep, &got, 1, PROBE_WAIT_MS));
	printf("connected %#x, data %d\n", got.events, got.data.u64 == ev.data.u64);
	SHOW(error_of(fd));
	use(fd);
	MUST(close(ep) == 0);
}

static void blocking(const struct sockaddr_in *addr)
{
	int fd = client_socket();

	SHOW(connect(fd, (const struct sockaddr *)addr, sizeof(*addr)));
	SHOW(connect(fd, (const struct sockaddr *)addr, sizeof(*addr)));
	use(fd);
}

static void refused(void)
{
	struct sockaddr_in addr;
	int l = listen_on(&addr), fd = client_socket();
	char x;

	MUST(close(l) == 0);
	SHOW(connect(fd, (struct sockaddr *)&addr, sizeof(addr)));
	SHOW(error_of(fd));
	SHOW(send(fd, "x", 1, MSG_NOSIGNAL));
	MUST(close(fd) == 0);
	fd = client_socket();
	set_nonblock(fd, true);
	if (connect(fd, (struct sockaddr *)&addr, sizeof(addr)) == -1 && errno == EINPROGRESS)
		printf("refused later: %s\n", events_text(wait_for(fd, POLLIN | POLLOUT)));
	SHOW(error_of(fd));
	SHOW(error_of(fd));
	SHOW(recv(fd, &x, 1, 0));
	MUST(close(fd) == 0);
	fd = client_socket();
	set_nonblock(fd, true);
	if (connect(fd, (struct sockaddr *)&addr, sizeof(addr)) == -1 && errno == EINPROGRESS)
		wait_for(fd, POLLOUT);
	SHOW(connect(fd, (struct sockaddr *)&addr, sizeof(addr)));
	MUST(close(fd) == 0);
}

static void wrong(const struct sockaddr_in *addr)
{
	struct sockaddr_in bad = *addr;
	int fd = client_socket();

	SHOW(connect(-1, (const struct sockaddr *)addr, sizeof(*addr)));
	SHOW(connect(0, (const struct sockaddr *)addr, sizeof(*addr)));
	SHOW(connect(fd, (const struct sockaddr *)addr, 3));
	bad.sin_family = 77;
	SHOW(connect(fd, (struct sockaddr *)&bad, sizeof(bad)));
	SHOW(connect(fd, (const struct sockaddr *)addr, sizeof(*addr)));
	use(fd);
}

/* A socket bound first keeps its name. */
static void bound(const struct sockaddr_in *addr)
{
	struct sockaddr_in mine = { .sin_family = AF_INET,
				    .sin_addr.s_addr = htonl(INADDR_LOOPBACK) },
			   after;
	socklen_t len = sizeof(mine);
	int fd = client_socket();

	MUST(bind(fd, (struct sockaddr *)&mine, sizeof(mine)) == 0);
	MUST(getsockname(fd, (struct sockaddr *)&mine, &len) == 0);
	SHOW(connect(fd, (const struct sockaddr *)addr, sizeof(*addr)));
	MUST(getsockname(fd, (struct sockaddr *)&after, &len) == 0);
	printf("same port %d\n", mine.sin_port == after.sin_port);
	use(fd);
}

static void *accept_one(void *arg)
{
	int fd = accept(*(int *)arg, NULL, NULL);

	MUST(fd >= 0);
	send_all(fd, "here", 4);
	MUST(close(fd) == 0);
	return NULL;
}

/* The address of nobody is this host. */
static void to_nobody(const char *server, const char *client, const char *bound)
{
	struct sockaddr_in6 a = { .sin6_family = AF_INET6 };
	socklen_t len = sizeof(a);
	int l = socket(AF_INET6, SOCK_STREAM, 0), c = socket(AF_INET6, SOCK_STREAM, 0);
	char text[INET6_ADDRSTRLEN], b[4];
	pthread_t t;

	MUST(inet_pton(AF_INET6, server, &a.sin6_addr) == 1);
	MUST(bind(l, (struct sockaddr *)&a, sizeof(a)) == 0 && listen(l, 1) == 0);
	MUST(getsockname(l, (struct sockaddr *)&a, &len) == 0);
	MUST(pthread_create(&t, NULL, accept_one, &l) == 0);
	if (bound) {
		struct sockaddr_in6 own = { .sin6_family = AF_INET6 };

		MUST(inet_pton(AF_INET6, bound, &own.sin6_addr) == 1);
		MUST(bind(c, (struct sockaddr *)&own, sizeof(own)) == 0);
	}
	MUST(inet_pton(AF_INET6, client, &a.sin6_addr) == 1);
	SHOW(connect(c, (struct sockaddr *)&a, sizeof(a)));
	recv_all(c, b, 4);
	len = sizeof(a);
	MUST(getpeername(c, (struct sockaddr *)&a, &len) == 0);
	printf("%s is %s\n", client, inet_ntop(AF_INET6, &a.sin6_addr, text, sizeof(text)));
	MUST(pthread_join(t, NULL) == 0);
	MUST(close(c) == 0 && close(l) == 0);
}

static void to_nobody_v4(bool nonblock)
{
	struct sockaddr_in addr, to;
	socklen_t len = sizeof(to);
	int l = listen_on(&addr), c = client_socket();
	pthread_t t;
	char b[4];

	to = addr;
	to.sin_addr.s_addr = htonl(INADDR_ANY);
	set_nonblock(c, nonblock);
	MUST(pthread_create(&t, NULL, accept_one, &l) == 0);
	SHOW(connect(c, (struct sockaddr *)&to, sizeof(to)));
	recv_all(c, b, 4);
	MUST(getpeername(c, (struct sockaddr *)&to, &len) == 0);
	printf("0.0.0.0 is %s\n", inet_ntoa(to.sin_addr));
	MUST(pthread_join(t, NULL) == 0);
	MUST(close(c) == 0 && close(l) == 0);
}

int main(void)
{
	struct sockaddr_in addr;
	pthread_t t[4];
	int l;

	probe_start();
	MUST(close(0) == 0 && open("/dev/null", O_RDONLY) == 0);
	l = listen_on(&addr);
	for (int i = 0; i < 4; i++)
		MUST(pthread_create(&t[i], NULL, echo, &l) == 0);
	blocking(&addr);
	by_poll(&addr);
	by_connect(&addr);
	by_select(&addr);
	by_epoll(&addr, 0, false);
	by_epoll(&addr, EPOLLET, false);
	by_epoll(&addr, EPOLLONESHOT, false);
	by_epoll(&addr, 0, true);
	by_epoll(&addr, EPOLLET, true);
	by_epoll(&addr, EPOLLONESHOT, true);
	refused();
	wrong(&addr);
	bound(&addr);
	to_nobody_v4(false);
	to_nobody_v4(true);
	to_nobody("::1", "::", NULL);
	to_nobody("::", "::ffff:0.0.0.0", NULL);
	to_nobody("::", "::", "::ffff:127.0.0.1");
	return 0;
}
