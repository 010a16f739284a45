/* sendfile() from a file: offsets, whole files, non-blocking, wrong arguments; splice() with a pipe. */
#include "probe.h"

#include <sys/sendfile.h>

enum { SIZE = 500000 };

static int make_file(uint8_t *data)
{
	char path[] = "/tmp/interpose-XXXXXX";
	int fd = mkstemp(path);

	MUST(fd >= 0);
	MUST(unlink(path) == 0);
	fill(data, SIZE, 11);
	MUST(write(fd, data, SIZE) == SIZE);
	return fd;
}

struct sink {
	int fd;
	size_t want;
	uint64_t hash;
};

static void *sink(void *arg)
{
	struct sink *s = arg;
	uint8_t buf[10000];

	s->hash = HASH_START;
	for (size_t done = 0; done < s->want;) {
		size_t n = s->want - done < sizeof(buf) ? s->want - done : sizeof(buf);
		ssize_t r = read(s->fd, buf, n);

		MUST(r > 0);
		s->hash = hash(s->hash, buf, (size_t)r);
		done += (size_t)r;
	}
	return NULL;
}

static void whole(struct pair *p, int file, const uint8_t *data, bool nonblock)
{
	struct sink s = { p->server, SIZE, 0 };
	off_t off = 0;
	pthread_t t;

	set_nonblock(p->client, nonblock);
	MUST(pthread_create(&t, NULL, sink, &s) == 0);
	while (off < SIZE) {
		off_t before = off;
		ssize_t r = sendfile(p->client, file, &off, (size_t)(SIZE - off));

		if (r < 0) {
			MUST(errno == EAGAIN && off == before);
			wait_for(p->client, POLLOUT);
			continue;
		}
		MUST(r > 0 && off == before + r);
	}
	MUST(pthread_join(t, NULL) == 0);
	printf("whole file: the same %d, at %lld\n", s.hash == hash(HASH_START, data, SIZE),
	       (long long)lseek(file, 0, SEEK_CUR));
	set_nonblock(p->client, false);
}

static void parts(struct pair *p, int file)
{
	off_t off = 100;
	char buf[2000];

	MUST(lseek(file, 5, SEEK_SET) == 5);
	SHOW(sendfile(p->client, file, NULL, 10));
	printf("file at %lld\n", (long long)lseek(file, 0, SEEK_CUR));
	recv_all(p->server, buf, 10);
	SHOW(sendfile(p->client, file, &off, 1000));
	printf("offset %lld, file at %lld\n", (long long)off, (long long)lseek(file, 0, SEEK_CUR));
	recv_all(p->server, buf, 1000);
	off = SIZE - 50;
	SHOW(sendfile(p->client, file, &off, 1000));
	printf("offset %lld\n", (long long)off);
	recv_all(p->server, buf, 50);
	SHOW(sendfile(p->client, file, &off, 1000));
	SHOW(sendfile(p->client, file, &off, 0));
}

static void wrong(struct pair *p, int file)
{
	off_t off = -1;

	SHOW(sendfile(p->client, file, &off, 10));
	SHOW(sendfile(p->client, -1, NULL, 10));
	SHOW(sendfile(-1, file, NULL, 10));
	SHOW(sendfile(p->client, p->server, NULL, 10));
}

static void pipes(struct pair *p)
{
	int ends[2];
	char buf[100] = "";

	MUST(pipe(ends) == 0);
	MUST(write(ends[1], "through a pipe", 14) == 14);
	SHOW(splice(ends[0], NULL, p->client, NULL, 14, 0));
	recv_all(p->server, buf, 14);
	printf("%s\n", buf);
	send_all(p->server, "and back again", 14);
	wait_for(p->client, POLLIN);
	SHOW(splice(p->client, NULL, ends[1], NULL, 100, 0));
	MUST(read(ends[0], buf, sizeof(buf)) == 14);
	printf("%s\n", buf);
	send_all(p->server, "into a pipe", 11); /* where sendfile() is splice() */
	wait_for(p->client, POLLIN);
	SHOW(sendfile(ends[1], p->client, &(off_t){ 0 }, 100));
	SHOW(sendfile(ends[1], p->client, NULL, 100));
	MUST(read(ends[0], buf, sizeof(buf)) == 11);
	printf("%.11s\n", buf);
	set_nonblock(p->client, true);
	SHOW(splice(p->client, NULL, ends[1], NULL, 100, 0));
	SHOW(sendfile(ends[1], p->client, NULL, 100));
	set_nonblock(p->client, false);
	MUST(close(ends[0]) == 0 && close(ends[1]) == 0);
}

int main(void)
{
	static uint8_t data[SIZE];
	struct pair p;
	int file;

	probe_start();
	file = make_file(data);
	pair_open(&p);
	parts(&p, file);
	wrong(&p, file);
	whole(&p, file, data, false);
	whole(&p, file, data, true);
	pipes(&p);
	pair_close(&p);
	pair_open_sized(&p, 8192);
	whole(&p, file, data, true);
	SHOW(shutdown(p.client, SHUT_WR));
	signal(SIGPIPE, SIG_IGN);
	SHOW(sendfile(p.client, file, (off_t[]){ 0 }, 10));
	pair_close(&p);
	return 0;
}
