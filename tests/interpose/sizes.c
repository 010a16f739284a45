/* Large writes read in small pieces and small writes read in large ones: the stream is the same. */
#include "probe.h"

enum { TOTAL = 300000 };

struct flow {
	int fd;
	size_t total;
	const size_t *sizes;
	size_t n;
};

static void *writer(void *arg)
{
	const struct flow *f = arg;
	static uint8_t data[TOTAL];
	size_t done = 0;

	fill(data, TOTAL, 7);
	for (size_t i = 0; done < f->total; i++) {
		size_t n = f->sizes[i % f->n];

		if (n > f->total - done)
			n = f->total - done;
		send_all(f->fd, data + done, n);
		done += n;
	}
	return NULL;
}

static void flow(struct pair *p, const char *name, const size_t *out, size_t n_out,
		 const size_t *in, size_t n_in)
{
	struct flow f = { p->client, out[0] == 1 && n_out == 1 ? TOTAL / 10 : TOTAL, out, n_out };
	uint64_t h = HASH_START;
	size_t done = 0;
	pthread_t t;
	uint8_t *buf = malloc(TOTAL);

	MUST(buf);
	MUST(pthread_create(&t, NULL, writer, &f) == 0);
	for (size_t i = 0; done < f.total; i++) {
		size_t want = in[i % n_in];
		ssize_t r = read(p->server, buf, want < f.total - done ? want : f.total - done);

		MUST(r > 0 && (size_t)r <= want);
		h = hash(h, buf, (size_t)r);
		done += (size_t)r;
	}
	MUST(pthread_join(t, NULL) == 0);
	free(buf);
	printf("%s: %zu bytes, hash %016llx, left %zd\n", name, done, (unsigned long long)h,
	       recv(p->server, &h, 1, MSG_DONTWAIT));
}

int main(void)
{
	static const size_t one[] = { 1 }, whole[] = { TOTAL }, record[] = { 16384 },
			    above[] = { 16385 },
			    mixed[] = { 1, 1000, 16384, 3, 70000, 16383, 5, 16385, 21, 22, 23 },
			    pages[] = { 4096 }, odd[] = { 4095, 17, 65537 };
	struct pair p;

	probe_start();
	pair_open(&p);
#define FLOW(out, in) \
	flow(&p, #out " to " #in, out, sizeof(out) / sizeof(*out), in, sizeof(in) / sizeof(*in))
	FLOW(whole, one);
	FLOW(one, whole);
	FLOW(record, pages);
	FLOW(above, record);
	FLOW(record, above);
	FLOW(mixed, odd);
	FLOW(odd, mixed);
	FLOW(pages, mixed);
	FLOW(whole, whole);
	pair_close(&p);
	return 0;
}
