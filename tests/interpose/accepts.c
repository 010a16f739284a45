/* accept() and accept4(): at once, with flags and addresses; a server that speaks first; IPv6 and both families. */
#include "probe.h"

static char greeting[16]; /* printed by the main thread, after the other has ended */

static void greet(int fd)
{
	recv_all(fd, greeting, 7);
	send_all(fd, "thanks", 6);
}

static void *dial_and_greet(void *arg)
{
	int fd = connect_to(arg);

	greet(fd);
	close(fd);
	return NULL;
}

static void speaks_first(bool nonblock)
{
	struct sockaddr_in addr;
	int l = listen_on(&addr), fd;
	char b[8] = "";
	pthread_t t;

	MUST(pthread_create(&t, NULL, dial_and_greet, &addr) == 0);
	fd = accept4(l, NULL, NULL, nonblock ? SOCK_NONBLOCK : 0);
	MUST(fd >= 0);
	send_all(fd, "welcome", 7);
	recv_all(fd, b, 6);
	MUST(pthread_join(t, NULL) == 0);
	printf("greeting: %s, answer: %s\n", greeting, b);
	MUST(close(fd) == 0 && close(l) == 0);
}

static void *only_connect(void *arg)
{
	int fd = connect_to(arg);
	char x;

	MUST(recv(fd, &x, 1, 0) == 0);
	close(fd);
	return NULL;
}

static void flags(void)
{
	struct sockaddr_in addr, from = { 0 };
	socklen_t len = sizeof(from);
	int l = listen_on(&addr), fd;
	pthread_t t;

	set_nonblock(l, true);
	SHOW(accept(l, NULL, NULL));
	MUST(pthread_create(&t, NULL, only_connect, &addr) == 0);
	printf("listener: %s\n", events_text(wait_for(l, POLLIN)));
	fd = SHOW_FD(accept4(l, (struct sockaddr *)&from, &len, SOCK_NONBLOCK | SOCK_CLOEXEC));
	printf("flags %d %d, family %d, length %u\n", !!(fcntl(fd, F_GETFL) & O_NONBLOCK),
	       fcntl(fd, F_GETFD), from.sin_family, len);
	wait_for(fd, POLLOUT);
	MUST(close(fd) == 0 && pthread_join(t, NULL) == 0);
	MUST(pthread_create(&t, NULL, only_connect, &addr) == 0);
	wait_for(l, POLLIN);
	len = 2;
	fd = SHOW_FD(accept(l, (struct sockaddr *)&from, &len));
	printf("not inherited: %d %d, length %u\n", !!(fcntl(fd, F_GETFL) & O_NONBLOCK),
	       fcntl(fd, F_GETFD), len);
	wait_for(fd, POLLOUT);
	MUST(close(fd) == 0 && pthread_join(t, NULL) == 0);
	SHOW(accept4(l, NULL, NULL, 0x7777));
	SHOW(accept(-1, NULL, NULL));
	SHOW(accept(0, NULL, NULL));
	SHOW(listen(0, 1));
	SHOW(listen(-1, 1));
	SHOW(listen(l, 7));
	MUST(close(l) == 0);
}

/* The listening socket may be shared: several threads accept from it. */
static void *serve(void *arg)
{
	int l = *(int *)arg;

	for (int i = 0; i < 10; i++) {
		char b[4];
		int fd = accept(l, NULL, NULL);

		MUST(fd >= 0);
		recv_all(fd, b, 4);
		send_all(fd, b, 4);
		close(fd);
	}
	return NULL;
}

static void *ask(void *arg)
{
	for (int i = 0; i < 10; i++) {
		int fd = connect_to(arg);
		char b[4];

		send_all(fd, "ping", 4);
		recv_all(fd, b, 4);
		MUST(!memcmp(b, "ping", 4) && recv(fd, b, 1, 0) == 0);
		close(fd);
	}
	return NULL;
}

static void threads(void)
{
	struct sockaddr_in addr;
	int l = listen_on(&addr);
	pthread_t t[8];

	for (int i = 0; i < 8; i++)
		MUST(pthread_create(&t[i], NULL, i < 4 ? serve : ask,
				    i < 4 ? (void *)&l : (void *)&addr) == 0);
	for (int i = 0; i < 8; i++)
		MUST(pthread_join(t[i], NULL) == 0);
	printf("threads served 40\n");
	MUST(close(l) == 0);
}

struct dial6 {
	struct sockaddr_storage addr;
	socklen_t len;
	char seen[40];
};

static void *dial6(void *arg)
{
	struct dial6 *d = arg;
	int fd = socket(d->addr.ss_family, SOCK_STREAM, 0);
	struct sockaddr_storage peer;
	socklen_t len = sizeof(peer);

	MUST(connect(fd, (struct sockaddr *)&d->addr, d->len) == 0);
	MUST(getpeername(fd, (struct sockaddr *)&peer, &len) == 0);
	snprintf(d->seen, sizeof(d->seen), "family %d, length %u", peer.ss_family, len);
	greet(fd);
	close(fd);
	return NULL;
}

/* A dual-stack listener, asked over IPv6, over a mapped address and over IPv4. */
static void both_families(void)
{
	struct sockaddr_in6 any = { .sin6_family = AF_INET6, .sin6_addr = in6addr_any }, from;
	socklen_t len = sizeof(any);
	int l = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);

	set_int(l, IPPROTO_IPV6, IPV6_V6ONLY, 0);
	MUST(bind(l, (struct sockaddr *)&any, sizeof(any)) == 0 && listen(l, 5) == 0);
	MUST(getsockname(l, (struct sockaddr *)&any, &len) == 0);
	for (int i = 0; i < 3; i++) {
		struct sockaddr_in6 a6 = { .sin6_family = AF_INET6, .sin6_port = any.sin6_port };
		struct sockaddr_in a4 = { .sin_family = AF_INET,
					  .sin_port = any.sin6_port,
					  .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
		struct dial6 d = { .len = i == 2 ? sizeof(a4) : sizeof(a6) };
		char b[8] = "", text[INET6_ADDRSTRLEN];
		pthread_t t;
		int fd;

		MUST(inet_pton(AF_INET6, i == 0 ? "::1" : "::ffff:127.0.0.1", &a6.sin6_addr) == 1);
		memcpy(&d.addr, i == 2 ? (void *)&a4 : (void *)&a6, d.len);
		MUST(pthread_create(&t, NULL, dial6, &d) == 0);
		len = sizeof(from);
		fd = accept(l, (struct sockaddr *)&from, &len);
		MUST(fd >= 0);
		send_all(fd, "welcome", 7);
		recv_all(fd, b, 6);
		MUST(pthread_join(t, NULL) == 0 && close(fd) == 0);
		printf("from %s: %s, %s, %s\n",
		       inet_ntop(AF_INET6, &from.sin6_addr, text, sizeof(text)), d.seen, greeting,
		       b);
	}
	MUST(close(l) == 0);
}

int main(void)
{
	probe_start();
	MUST(close(0) == 0 && open("/dev/null", O_RDONLY) == 0);
	speaks_first(false);
	speaks_first(true);
	flags();
	threads();
	both_families();
	return 0;
}
