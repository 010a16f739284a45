/* A number is given up by close() or dup2() while another thread reads and writes on it without a pause: what comes in is what
 * the peer sent, what the peer gets is what was sent and then an end of file, and nothing of the wire shows. */
#include "probe.h"

#define ROUNDS 100

static const char *const way_name[] = { "dup2", "close", "close_range" };

struct side {
	int fd;
	bool writes;
	_Atomic bool ready;
};

static void *use(void *arg)
{
	struct side *s = arg;
	char byte = 's';
	ssize_t n;

	for (int i = 0; i < 5000; i++) {
		s->ready = true;
		n = s->writes ? send(s->fd, "s", 1, MSG_DONTWAIT | MSG_NOSIGNAL)
			      : recv(s->fd, &byte, 1, MSG_DONTWAIT);
		MUST(n <= 0 || byte == 's');
		if (n == 0 || (n < 0 && errno != EAGAIN))
			break;
	}
	return NULL;
}

/* It reads what was written, to the end. */
static void peer(struct pair *p, bool writes)
{
	char in[4096];
	ssize_t n;

	if (!writes)
		return;
	while ((n = recv(p->server, in, sizeof(in), 0)) > 0)
		for (ssize_t i = 0; i < n; i++)
			MUST(in[i] == 's');
	MUST(n == 0);
}

static void round_of(int way, bool writes)
{
	struct side s = { .writes = writes };
	int marker[2];
	struct pair p;
	pthread_t t;

	pair_open(&p);
	MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, marker) == 0 && close(marker[1]) == 0);
	s.fd = p.client;
	MUST(pthread_create(&t, NULL, use, &s) == 0);
	while (!s.ready)
		sched_yield();
	if (!writes)
		send_all(p.server, "ssssssss", 8);
	if (way == 0)
		MUST(dup2(marker[0], p.client) == p.client);
	else if (way == 1)
		MUST(close(p.client) == 0);
	else
		MUST(close_range((unsigned)p.client, (unsigned)p.client, 0) == 0);
	MUST(pthread_join(t, NULL) == 0);
	peer(&p, writes);
	if (way == 0)
		close(p.client);
	MUST(close(p.server) == 0 && close(p.listener) == 0 && close(marker[0]) == 0);
}

int main(void)
{
	probe_start();
	for (int way = 0; way < 3; way++)
		for (int writes = 0; writes < 2; writes++) {
			for (int i = 0; i < ROUNDS; i++)
				round_of(way, writes);
			printf("%s: %s\n", way_name[way], writes ? "written" : "read");
		}
	return 0;
}
