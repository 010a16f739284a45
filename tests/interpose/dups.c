/* dup(), dup2(), dup3(), F_DUPFD: copies are one connection; it ends with the last of them, in any order. */
#include "probe.h"

static void relay_word(int from, int to, const char *word)
{
	char b[32] = "";

	send_all(from, word, strlen(word));
	recv_all(to, b, strlen(word));
	printf("%s\n", b);
}

static void copies(void)
{
	struct pair p;
	int a, b, c, d;
	char x;

	pair_open(&p);
	a = SHOW_FD(dup(p.client));
	b = SHOW_FD(fcntl(p.client, F_DUPFD, 100));
	printf("at least 100: %d\n", b >= 100);
	c = SHOW_FD(fcntl(p.client, F_DUPFD_CLOEXEC, 100));
	printf("cloexec %d %d\n", fcntl(b, F_GETFD), fcntl(c, F_GETFD));
	d = dup3(p.client, 300, O_CLOEXEC);
	printf("dup3 gave 300: %d, cloexec %d\n", d == 300, fcntl(d, F_GETFD));
	relay_word(a, p.server, "by dup");
	relay_word(b, p.server, "by F_DUPFD");
	relay_word(p.server, c, "to F_DUPFD_CLOEXEC");
	relay_word(p.server, d, "to dup3");
	SHOW(close(p.client));
	relay_word(a, p.server, "first closed");
	SHOW(close(c));
	SHOW(close(a));
	relay_word(b, p.server, "one and another");
	SHOW(recv(p.server, &x, 1, MSG_DONTWAIT));
	SHOW(close(b));
	relay_word(d, p.server, "last one");
	SHOW(close(d));
	SHOW(recv(p.server, &x, 1, 0));
	MUST(close(p.server) == 0 && close(p.listener) == 0);
}

/* dup2 over a connection closes it; the number is another thing then. */
static void replaced(void)
{
	struct pair p, q;
	int ends[2], null = open("/dev/null", O_RDWR | O_CLOEXEC);
	char x = 0;

	pair_open(&p);
	pair_open(&q);
	MUST(pipe(ends) == 0);
	printf("dup2 to the same: %d\n", dup2(p.client, p.client) == p.client);
	SHOW(dup3(p.client, p.client, 0));
	relay_word(p.client, p.server, "same");
	MUST(dup2(null, p.client) == p.client);
	SHOW(recv(p.server, &x, 1, 0));
	SHOW(write(p.client, "to null", 7));
	MUST(dup2(q.client, ends[0]) == ends[0]);
	relay_word(ends[0], q.server, "over a pipe");
	MUST(dup2(q.client, p.client) == p.client);
	relay_word(p.client, q.server, "over null");
	MUST(dup2(ends[1], q.client) == q.client);
	relay_word(q.server, p.client, "copy stays");
	SHOW(dup2(p.client, -1));
	SHOW(dup2(-1, p.client));
	relay_word(q.server, p.client, "unharmed");
	MUST(close(ends[0]) == 0);
	SHOW(close(p.client));
	SHOW(recv(q.server, &x, 1, 0));
	SHOW(dup(-1));
	SHOW(fcntl(p.server, F_DUPFD, -1));
}

/* O_NONBLOCK belongs to the connection, FD_CLOEXEC to the number. */
static void flags(void)
{
	struct pair p;
	int a;
	char x;

	pair_open(&p);
	a = dup(p.server);
	set_nonblock(a, true);
	printf("both non-blocking: %d %d\n", !!(fcntl(a, F_GETFL) & O_NONBLOCK),
	       !!(fcntl(p.server, F_GETFL) & O_NONBLOCK));
	SHOW(recv(p.server, &x, 1, 0));
	SHOW(fcntl(a, F_SETFD, FD_CLOEXEC));
	printf("cloexec %d %d\n", fcntl(a, F_GETFD), fcntl(p.server, F_GETFD));
	SHOW(shutdown(a, SHUT_WR));
	SHOW(recv(p.client, &x, 1, 0));
	MUST(close(a) == 0);
	pair_close(&p);
}

/* The same numbers, used again and again, start clean. */
static void reused(void)
{
	uint64_t h = HASH_START;

	for (int i = 0; i < 60; i++) {
		struct pair p;
		char b[8] = "";

		pair_open(&p);
		snprintf(b, sizeof(b), "%d", i);
		send_all(p.client, b, sizeof(b));
		recv_all(p.server, b, sizeof(b));
		h = hash(h, b, sizeof(b));
		pair_close(&p);
	}
	printf("reused: %016llx\n", (unsigned long long)h);
}

int main(void)
{
	probe_start();
	copies();
	replaced();
	flags();
	reused();
	return 0;
}
