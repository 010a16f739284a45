/* Many threads: writers and readers of one connection in both directions, numbers that are closed and born again while others
 * use theirs, forks while all of them are busy. */
#include "probe.h"

#define WRITERS 4
#define MESSAGES 200

struct message {
	uint32_t from, n;
	uint8_t body[92];
};

static struct pair pair;

struct side {
	int fd;
	uint32_t id;
};

static void *write_messages(void *arg)
{
	struct side *s = arg;
	struct message m = { .from = s->id };

	for (m.n = 0; m.n < MESSAGES; m.n++) {
		fill(m.body, sizeof(m.body), s->id * 1000 + m.n);
		MUST(send(s->fd, &m, sizeof(m), 0) == sizeof(m));
	}
	return NULL;
}

static void *read_messages(void *arg)
{
	int fd = *(int *)arg;
	uint32_t next[WRITERS] = { 0 };
	struct message m, want;

	for (int i = 0; i < WRITERS * MESSAGES; i++) {
		recv_all(fd, &m, sizeof(m));
		MUST(m.from < WRITERS && m.n == next[m.from]++);
		fill(want.body, sizeof(want.body), m.from * 1000 + m.n);
		MUST(memcmp(m.body, want.body, sizeof(m.body)) == 0);
	}
	return NULL;
}

/* Small writes stay whole, in the order of each thread, both ways at once. */
static void writers(void)
{
	struct side side[2 * WRITERS];
	pthread_t t[2 * WRITERS + 2];

	pair_open(&pair);
	for (uint32_t i = 0; i < 2 * WRITERS; i++) {
		side[i] = (struct side){ i % 2 ? pair.client : pair.server, i / 2 };
		MUST(pthread_create(&t[i], NULL, write_messages, &side[i]) == 0);
	}
	MUST(pthread_create(&t[2 * WRITERS], NULL, read_messages, &pair.client) == 0);
	MUST(pthread_create(&t[2 * WRITERS + 1], NULL, read_messages, &pair.server) == 0);
	for (int i = 0; i < 2 * WRITERS + 2; i++)
		MUST(pthread_join(t[i], NULL) == 0);
	pair_close(&pair);
	printf("writers: whole and in order\n");
}

static _Atomic uint64_t sum, count;

static void *add_up(void *arg)
{
	uint8_t b[1000];
	ssize_t r;

	(void)arg;
	while ((r = recv(pair.server, b, sizeof(b), 0)) > 0) {
		for (ssize_t i = 0; i < r; i++)
			sum += b[i];
		count += (uint64_t)r;
	}
	MUST(r == 0);
	return NULL;
}

/* Each byte goes to one reader, and all of them see the end. */
static void readers(void)
{
	static uint8_t block[1 << 20];
	uint64_t want = 0;
	pthread_t t[3];

	fill(block, sizeof(block), 3);
	for (size_t i = 0; i < sizeof(block); i++)
		want += block[i];
	pair_open(&pair);
	for (int i = 0; i < 3; i++)
		MUST(pthread_create(&t[i], NULL, add_up, NULL) == 0);
	for (size_t i = 0; i < sizeof(block); i += 4096)
		send_all(pair.client, block + i, 4096);
	MUST(shutdown(pair.client, SHUT_WR) == 0);
	for (int i = 0; i < 3; i++)
		MUST(pthread_join(t[i], NULL) == 0);
	printf("readers: %d\n", sum == want && count == sizeof(block));
	pair_close(&pair);
}

static _Atomic bool over;

/* Connections that come and go, each with its own word. */
static void *come_and_go(void *arg)
{
	uint32_t id = *(uint32_t *)arg, back[2], word[2];

	for (uint32_t i = 0; i < 12; i++) {
		struct pair p;
		int copy;

		pair_open(&p);
		word[0] = id;
		word[1] = i;
		send_all(p.client, word, sizeof(word));
		copy = dup(p.client);
		MUST(copy >= 0 && close(p.client) == 0);
		recv_all(p.server, back, sizeof(back));
		MUST(back[0] == id && back[1] == i);
		send_all(p.server, back, sizeof(back));
		recv_all(copy, back, sizeof(back));
		MUST(back[0] == id && back[1] == i);
		MUST(close(copy) == 0 && recv(p.server, back, 1, 0) == 0);
		MUST(close(p.server) == 0 && close(p.listener) == 0);
	}
	return NULL;
}

static void *open_files(void *arg)
{
	while (!over) {
		int ends[2];
		char b;

		MUST(pipe(ends) == 0 && write(ends[1], "p", 1) == 1);
		MUST(read(ends[0], &b, 1) == 1 && b == 'p');
		MUST(close(ends[0]) == 0 && close(ends[1]) == 0);
	}
	return arg;
}

static void numbers(void)
{
	uint32_t id[4] = { 1, 2, 3, 4 };
	pthread_t t[4], files;

	MUST(pthread_create(&files, NULL, open_files, NULL) == 0);
	for (int i = 0; i < 4; i++)
		MUST(pthread_create(&t[i], NULL, come_and_go, &id[i]) == 0);
	for (int i = 0; i < 4; i++)
		MUST(pthread_join(t[i], NULL) == 0);
	over = true;
	MUST(pthread_join(files, NULL) == 0);
	printf("numbers: each its own\n");
}

static void *echo(void *arg)
{
	struct pair *p = arg;
	char b[512];

	for (int i = 0; i < 300; i++) {
		fill(b, sizeof(b), (uint32_t)i);
		send_all(p->client, b, sizeof(b));
		recv_all(p->server, b, sizeof(b));
		send_all(p->server, b, sizeof(b));
		recv_all(p->client, b, sizeof(b));
	}
	return NULL;
}

static void forks(void)
{
	struct pair p[3];
	pthread_t t[3];
	int status;
	char b;

	for (int i = 0; i < 3; i++) {
		pair_open(&p[i]);
		MUST(pthread_create(&t[i], NULL, echo, &p[i]) == 0);
	}
	fflush(stdout);
	for (int i = 0; i < 20; i++) {
		pid_t pid = fork();

		MUST(pid >= 0);
		if (!pid) {
			for (int k = 0; k < 3; k++)
				pair_close(&p[k]);
			_exit(0);
		}
		MUST(waitpid(pid, &status, 0) == pid && status == 0);
	}
	for (int i = 0; i < 3; i++) {
		MUST(pthread_join(t[i], NULL) == 0);
		MUST(close(p[i].client) == 0 && recv(p[i].server, &b, 1, 0) == 0);
		MUST(close(p[i].server) == 0 && close(p[i].listener) == 0);
	}
	printf("forks: nobody was disturbed\n");
}

int main(void)
{
	probe_start();
	writers();
	readers();
	numbers();
	forks();
	return 0;
}
