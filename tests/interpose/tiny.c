/* Socket buffers that are smaller than a record, at either end: nothing stands still, and "readable" is true. */
#include "probe.h"

enum { TOTAL = 20000 };

struct end {
	int fd;
	size_t chunk;
};

static void *writes(void *arg)
{
	static uint8_t data[TOTAL];
	struct end *e = arg;

	fill(data, TOTAL, 9);
	for (size_t done = 0; done < TOTAL;) {
		size_t n = TOTAL - done < e->chunk ? TOTAL - done : e->chunk;
		ssize_t r = send(e->fd, data + done, n, 0);

		if (r < 0) {
			MUST(errno == EAGAIN);
			MUST(wait_for(e->fd, POLLOUT) & POLLOUT);
			continue;
		}
		done += (size_t)r;
	}
	MUST(shutdown(e->fd, SHUT_WR) == 0);
	return NULL;
}

static void run(int rcvbuf, int sndbuf, size_t chunk, size_t take, bool nonblocking)
{
	struct end e = { .chunk = chunk };
	uint64_t h = HASH_START;
	size_t total = 0, empty = 0;
	static char b[TOTAL];
	struct pair p;
	pthread_t t;
	ssize_t r;

	pair_open(&p);
	set_int(p.server, SOL_SOCKET, SO_RCVBUF, rcvbuf);
	set_int(p.client, SOL_SOCKET, SO_SNDBUF, sndbuf);
	set_nonblock(p.server, nonblocking);
	set_nonblock(p.client, nonblocking);
	e.fd = p.client;
	MUST(pthread_create(&t, NULL, writes, &e) == 0);
	for (;;) {
		if (nonblocking)
			MUST(wait_for(p.server, POLLIN) & POLLIN);
		r = recv(p.server, b, take, 0);
		if (r < 0 && errno == EAGAIN)
			empty++;
		else if (r <= 0)
			break;
		else {
			h = hash(h, b, (size_t)r);
			total += (size_t)r;
		}
	}
	MUST(pthread_join(t, NULL) == 0);
	printf("buffers %d and %d, %zu by %zu: %zu bytes, %016lx, readable and empty %zu\n", rcvbuf,
	       sndbuf, chunk, take, total, (unsigned long)h, empty);
	SHOW(r);
	pair_close(&p);
}

int main(void)
{
	probe_start();
	run(4096, 4096, 50000, 4096, false);
	run(4096, 4096, 50000, 50000, true);
	run(4096, 20000, 16384, 50000, true);
	run(20000, 4096, 50000, 3000, true);
	run(1, 20000, 5000, 5000, true);
	run(20000, 1, 50000, 5000, true);
	return 0;
}
