/* RLIMIT_NOFILE lowered to 0 with connections open, as sandboxes do: what needs no new descriptor goes on. */
#include "probe.h"

#include <sys/resource.h>
#include <sys/select.h>

static void *talks_late(void *arg)
{
	struct pair *p = arg;

	sleep_ms(30);
	send_all(p->client, "late", 4);
	return NULL;
}

static void *shakes_late(void *arg)
{
	struct sockaddr_in *addr = arg;
	int fd = connect_to(addr);
	static char b[5];

	recv_all(fd, b, 4);
	MUST(close(fd) == 0);
	return b;
}

int main(void)
{
	struct rlimit none = { 0, 1024 }, back = { 1024, 1024 };
	struct timeval tv = { .tv_sec = 5 }, now = { 0 };
	struct sockaddr_in addr;
	struct pair p;
	pthread_t t;
	fd_set r;
	char b[64];
	void *said;
	int l, fd;

	probe_start();
	pair_open(&p);
	MUST(setrlimit(RLIMIT_NOFILE, &none) == 0);
	MUST(pthread_create(&t, NULL, talks_late, &p) == 0);
	SHOW(recv(p.server, b, 4, 0));
	MUST(pthread_join(t, NULL) == 0);
	MUST(pthread_create(&t, NULL, talks_late, &p) == 0);
	FD_ZERO(&r);
	FD_SET(p.server, &r);
	SHOW(select(p.server + 1, &r, NULL, NULL, &tv));
	SHOW(recv(p.server, b, sizeof(b), 0));
	FD_SET(p.server, &r);
	SHOW(select(p.server + 1, &r, NULL, NULL, &now));
	MUST(pthread_join(t, NULL) == 0);
	SHOW(poll(&(struct pollfd){ .fd = p.server, .events = POLLIN }, 1, 0));
	tv = (struct timeval){ .tv_usec = 20000 };
	SHOW(setsockopt(p.server, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv)));
	SHOW(recv(p.server, b, sizeof(b), 0));
	MUST(setrlimit(RLIMIT_NOFILE, &back) == 0);
	pair_close(&p);

	l = listen_on(&addr);
	MUST(pthread_create(&t, NULL, shakes_late, &addr) == 0);
	fd = accept(l, NULL, NULL);
	MUST(fd >= 0);
	none.rlim_max = 0;
	MUST(setrlimit(RLIMIT_NOFILE, &none) == 0);
	SHOW(send(fd, "four", 4, 0));
	SHOW(shutdown(fd, SHUT_WR));
	SHOW(recv(fd, b, sizeof(b), 0));
	MUST(pthread_join(t, &said) == 0);
	printf("client read %s\n", (char *)said);
	SHOW(close(fd));
	return 0;
}
