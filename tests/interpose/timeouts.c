/* SO_RCVTIMEO and SO_SNDTIMEO. */
#include "probe.h"

static void set_timeout(int fd, int name, int ms)
{
	struct timeval t = { ms / 1000, ms % 1000 * 1000 };

	MUST(setsockopt(fd, SOL_SOCKET, name, &t, sizeof(t)) == 0);
}

static void took(int64_t from, int ms)
{
	int64_t t = now_ms() - from;

	printf("after about %d ms: %d\n", ms, t >= ms - 10 && t < ms + 1500);
}

static void receive(struct pair *p)
{
	struct timeval t;
	socklen_t len = sizeof(t);
	char b[100];
	int64_t from;

	set_timeout(p->server, SO_RCVTIMEO, 120);
	MUST(getsockopt(p->server, SOL_SOCKET, SO_RCVTIMEO, &t, &len) == 0);
	printf("set to %lld s, more than 100 ms: %d, length %u\n", (long long)t.tv_sec,
	       t.tv_usec > 100000, len);
	from = now_ms();
	SHOW(recv(p->server, b, sizeof(b), 0));
	took(from, 120);
	from = now_ms();
	SHOW(read(p->server, b, sizeof(b)));
	took(from, 120);
	send_all(p->client, "abc", 3);
	wait_for(p->server, POLLIN);
	from = now_ms();
	SHOW(recv(p->server, b, sizeof(b), MSG_WAITALL));
	took(from, 120);
	SHOW(recv(p->server, b, sizeof(b), MSG_PEEK));
	send_all(p->client, "abc", 3);
	SHOW(recv(p->server, b, sizeof(b), 0));
	set_timeout(p->server, SO_RCVTIMEO, 0);
}

static void transmit(void)
{
	static char block[1 << 20];
	struct pair p;
	ssize_t r, all = 0;
	int64_t from;

	pair_open_sized(&p, 8192);
	set_timeout(p.client, SO_SNDTIMEO, 150);
	r = send(p.client, block, sizeof(block), 0);
	printf("cut short: %d\n", r > 0 && r < (ssize_t)sizeof(block));
	all += r;
	from = now_ms();
	do {
		errno = 0;
		r = send(p.client, block, sizeof(block), 0);
		all += r > 0 ? r : 0;
	} while (r > 0);
	printf("then %s\n", strerrorname_np(errno));
	printf("not before its time: %d\n", now_ms() - from >= 140);
	MUST(shutdown(p.client, SHUT_WR) == 0);
	while ((r = recv(p.server, block, sizeof(block), 0)) > 0)
		all -= r;
	printf("end %zd, all came: %d\n", r, all == 0);
	pair_close(&p);
}

static void accepting(void)
{
	struct sockaddr_in addr;
	int l = listen_on(&addr);
	int64_t from = now_ms();

	set_timeout(l, SO_RCVTIMEO, 120);
	SHOW(accept(l, NULL, NULL));
	took(from, 120);
	close(l);
}

int main(void)
{
	struct pair p;

	probe_start();
	pair_open(&p);
	receive(&p);
	pair_close(&p);
	transmit();
	accepting();
	return 0;
}
