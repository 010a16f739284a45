/* Big transfers through small buffers, without blocking, both ways at once. */
#include "probe.h"

enum { TOTAL = 4 << 20, CHUNK = 50000 };

struct half {
	int fd;
	uint32_t seed;
	uint64_t hash;
	bool short_write, would_block;
};

/* Writes as a server with a non-blocking socket does: what was taken is gone, the rest comes back after POLLOUT. */
static void *pour(void *arg)
{
	struct half *h = arg;
	uint8_t *data = malloc(TOTAL);
	size_t done = 0;

	MUST(data);
	fill(data, TOTAL, h->seed);
	while (done < TOTAL) {
		size_t n = TOTAL - done < CHUNK ? TOTAL - done : CHUNK;
		ssize_t r = write(h->fd, data + done, n);

		if (r < 0) {
			MUST(errno == EAGAIN);
			h->would_block = true;
			wait_for(h->fd, POLLOUT);
			continue;
		}
		MUST(r > 0);
		h->short_write |= (size_t)r < n;
		done += (size_t)r;
	}
	free(data);
	return NULL;
}

static void *drain(void *arg)
{
	struct half *h = arg;
	uint8_t buf[8192];
	size_t done = 0;

	h->hash = HASH_START;
	while (done < TOTAL) {
		ssize_t r = read(h->fd, buf, sizeof(buf));

		if (r < 0) {
			MUST(errno == EAGAIN);
			wait_for(h->fd, POLLIN);
			continue;
		}
		MUST(r > 0);
		h->hash = hash(h->hash, buf, (size_t)r);
		done += (size_t)r;
	}
	return NULL;
}

static void run(const char *name, int buffers, bool nonblock, bool both)
{
	struct pair p;
	struct half out = { .seed = 1 }, in = { .seed = 1 }, back_out = { .seed = 2 },
		    back_in = { .seed = 2 };
	pthread_t t[4];

	pair_open_sized(&p, buffers);
	set_nonblock(p.client, nonblock);
	set_nonblock(p.server, nonblock);
	out.fd = back_in.fd = p.client;
	in.fd = back_out.fd = p.server;
	MUST(pthread_create(&t[0], NULL, pour, &out) == 0);
	MUST(pthread_create(&t[1], NULL, drain, &in) == 0);
	if (both) {
		MUST(pthread_create(&t[2], NULL, pour, &back_out) == 0);
		MUST(pthread_create(&t[3], NULL, drain, &back_in) == 0);
	}
	for (int i = 0; i < (both ? 4 : 2); i++)
		MUST(pthread_join(t[i], NULL) == 0);
	printf("%s: %016llx %016llx\n", name, (unsigned long long)in.hash,
	       (unsigned long long)back_in.hash);
	if (nonblock && buffers)
		printf("%s: blocked at least once: %d\n", name, out.would_block);
	pair_close(&p);
}

int main(void)
{
	probe_start();
	run("plain sockets", 0, false, false);
	run("small buffers", 8192, false, false);
	run("tiny buffers", 2304, false, false);
	run("non-blocking", 0, true, false);
	run("non-blocking, small buffers", 8192, true, false);
	run("full duplex", 0, false, true);
	run("full duplex, small buffers", 8192, false, true);
	run("full duplex, non-blocking, small buffers", 8192, true, true);
	return 0;
}
