/* MSG_PEEK, MSG_WAITALL, MSG_DONTWAIT, MSG_TRUNC, and FIONREAD beside them. */
#include "probe.h"

#include <sys/ioctl.h>

static int waiting(int fd)
{
	int n = -1;

	MUST(ioctl(fd, FIONREAD, &n) == 0);
	return n;
}

static void peek(struct pair *p)
{
	char b[32];
	struct iovec v[2] = { { b, 3 }, { b + 3, 20 } };
	struct msghdr m = { .msg_iov = v, .msg_iovlen = 2 };

	SHOW(recv(p->server, b, sizeof(b), MSG_PEEK | MSG_DONTWAIT));
	SHOW(waiting(p->server));
	send_all(p->client, "peekaboo", 8);
	wait_for(p->server, POLLIN);
	SHOW(waiting(p->server));
	SHOW(recv(p->server, b, 4, MSG_PEEK));
	printf("%.4s\n", b);
	SHOW(recv(p->server, b, sizeof(b), MSG_PEEK));
	printf("%.8s\n", b);
	SHOW(recvmsg(p->server, &m, MSG_PEEK));
	printf("%.8s\n", b);
	SHOW(waiting(p->server));
	printf("still %s\n", events_text(ready_now(p->server)));
	SHOW(read(p->server, b, 4));
	SHOW(waiting(p->server));
	SHOW(recv(p->server, b, sizeof(b), MSG_PEEK | MSG_DONTWAIT));
	printf("%.4s\n", b);
	SHOW(read(p->server, b, sizeof(b)));
	SHOW(waiting(p->server));
	printf("then %s\n", events_text(ready_now(p->server)));
	SHOW(recv(p->server, b, sizeof(b), MSG_DONTWAIT));
}

/* A peek into a large write sees all of it as it comes. */
static void peek_large(struct pair *p)
{
	static char sent[40000], seen[40000];
	ssize_t n = 0;

	fill(sent, sizeof(sent), 1);
	send_all(p->client, sent, sizeof(sent));
	for (int64_t end = now_ms() + PROBE_WAIT_MS; n < (ssize_t)sizeof(seen) && now_ms() < end;) {
		n = recv(p->server, seen, sizeof(seen), MSG_PEEK);
		MUST(n > 0);
	}
	printf("peeked %zd, same %d\n", n, !memcmp(sent, seen, sizeof(sent)));
	SHOW(waiting(p->server));
	memset(seen, 0, sizeof(seen));
	recv_all(p->server, seen, sizeof(seen));
	printf("read the same %d, waiting %d\n", !memcmp(sent, seen, sizeof(sent)),
	       waiting(p->server));
}

static void *in_pieces(void *arg)
{
	struct pair *p = arg;

	for (int i = 0; i < 10; i++) {
		sleep_ms(5);
		send_all(p->client, "0123456789", 10);
	}
	return NULL;
}

static void waitall(struct pair *p)
{
	char b[100];
	struct iovec v[2] = { { b, 50 }, { b + 50, 50 } };
	struct msghdr m = { .msg_iov = v, .msg_iovlen = 2 };
	pthread_t t;

	MUST(pthread_create(&t, NULL, in_pieces, p) == 0);
	SHOW(recv(p->server, b, 100, MSG_WAITALL));
	MUST(pthread_join(t, NULL) == 0);
	MUST(pthread_create(&t, NULL, in_pieces, p) == 0);
	SHOW(recvmsg(p->server, &m, MSG_WAITALL));
	MUST(pthread_join(t, NULL) == 0);
	printf("%.100s\n", b);
	send_all(p->client, "abc", 3);
	wait_for(p->server, POLLIN);
	SHOW(recv(p->server, b, 10, MSG_WAITALL | MSG_DONTWAIT));
	set_nonblock(p->server, true);
	send_all(p->client, "abcd", 4);
	wait_for(p->server, POLLIN);
	SHOW(recv(p->server, b, 10, MSG_WAITALL));
	set_nonblock(p->server, false);
}

static void discard(struct pair *p)
{
	char b[10] = "";

	send_all(p->client, "discard this", 12);
	wait_for(p->server, POLLIN);
	SHOW(recv(p->server, NULL, 8, MSG_TRUNC));
	SHOW(recv(p->server, b, sizeof(b), 0));
	printf("%.4s\n", b);
}

static void waitall_and_end(struct pair *p)
{
	char b[100];

	send_all(p->client, "the end", 7);
	SHOW(shutdown(p->client, SHUT_WR));
	SHOW(recv(p->server, b, sizeof(b), MSG_WAITALL));
	SHOW(recv(p->server, b, sizeof(b), MSG_WAITALL));
	SHOW(recv(p->server, b, sizeof(b), MSG_PEEK));
	SHOW(waiting(p->server));
}

int main(void)
{
	struct pair p;

	probe_start();
	pair_open(&p);
	peek(&p);
	peek_large(&p);
	waitall(&p);
	discard(&p);
	waitall_and_end(&p);
	pair_close(&p);
	return 0;
}
