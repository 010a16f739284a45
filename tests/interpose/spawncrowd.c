/* Threads talk on their connections while others start programs that inherit all of them, by every way of starting one; a
 * program that was started outlives the parent's own descriptor and has the last word. */
#include "probe.h"

#include <spawn.h>

extern char **environ;

enum { TALKERS = 3, STARTERS = 2, PROGRAMS = 8 };

static struct pair pairs[TALKERS];
static volatile bool over;

/* A message of some size there and back, until the others are done. */
static void *talk(void *arg)
{
	struct pair *p = arg;
	char out[9000], in[9000];
	uint32_t n = 0;

	while (!over || n < 50) {
		size_t size = 1 + n * 7919 % sizeof(out);

		fill(out, size, n++);
		send_all(p->client, out, size);
		recv_all(p->server, in, size);
		MUST(memcmp(in, out, size) == 0);
		send_all(p->server, in, size);
		recv_all(p->client, out, size);
		MUST(memcmp(in, out, size) == 0);
	}
	return NULL;
}

static void wait_for_it(pid_t pid)
{
	int status;

	MUST(waitpid(pid, &status, 0) == pid);
	MUST(status == 0);
}

static pid_t by_vfork(char **argv)
{
	pid_t pid = vfork();

	if (pid == 0) {
		execv("/bin/true", argv);
		_exit(127);
	}
	return pid;
}

static void *start(void *arg)
{
	char *argv[] = { (char *)"true", NULL };
	pid_t pid;
	FILE *f;

	(void)arg;
	for (int i = 0; i < PROGRAMS; i++) {
		switch (i % 4) {
		case 0:
			MUST(posix_spawn(&pid, "/bin/true", NULL, NULL, argv, environ) == 0);
			wait_for_it(pid);
			break;
		case 1:
			wait_for_it(by_vfork(argv));
			break;
		case 2:
			MUST(system("true") == 0);
			break;
		default:
			f = popen("true", "r");
			MUST(f && fgetc(f) == EOF && pclose(f) == 0);
		}
	}
	return NULL;
}

static void last_word(void)
{
	char line[128], b[16], *argv[] = { (char *)"sh", (char *)"-c", line, NULL };
	struct pair p;
	int gate[2], status;
	pid_t pid;

	pair_open(&p);
	MUST(pipe(gate) == 0);
	MUST(fcntl(p.server, F_SETFD, 0) == 0 && fcntl(gate[1], F_SETFD, FD_CLOEXEC) == 0);
	snprintf(line, sizeof(line), "read x <&%d; echo last word >&%d", gate[0], p.server);
	MUST(posix_spawn(&pid, "/bin/sh", NULL, NULL, argv, environ) == 0);
	MUST(close(p.server) == 0);
	SHOW(recv(p.client, b, sizeof(b), MSG_DONTWAIT));
	MUST(close(gate[1]) == 0);
	recv_all(p.client, b, 10);
	printf("%.9s\n", b);
	SHOW(recv(p.client, b, sizeof(b), 0));
	MUST(waitpid(pid, &status, 0) == pid);
	printf("status %d\n", status);
	MUST(close(p.client) == 0 && close(p.listener) == 0 && close(gate[0]) == 0);
}

int main(void)
{
	pthread_t talker[TALKERS], starter[STARTERS];
	char b[8];

	probe_start();
	for (int i = 0; i < TALKERS; i++) {
		pair_open(&pairs[i]);
		MUST(fcntl(pairs[i].client, F_SETFD, 0) == 0 &&
		     fcntl(pairs[i].server, F_SETFD, 0) == 0);
		MUST(pthread_create(&talker[i], NULL, talk, &pairs[i]) == 0);
	}
	for (int i = 0; i < STARTERS; i++)
		MUST(pthread_create(&starter[i], NULL, start, NULL) == 0);
	for (int i = 0; i < STARTERS; i++)
		MUST(pthread_join(starter[i], NULL) == 0);
	over = true;
	for (int i = 0; i < TALKERS; i++) {
		MUST(pthread_join(talker[i], NULL) == 0);
		MUST(close(pairs[i].client) == 0);
		SHOW(recv(pairs[i].server, b, sizeof(b), 0));
		MUST(close(pairs[i].server) == 0 && close(pairs[i].listener) == 0);
	}
	last_word();
	return 0;
}
