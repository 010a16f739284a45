/* Connections across fork(): used by the child, by both, closed by either; prefork servers. */
#include "probe.h"

static pid_t start(void)
{
	pid_t pid;

	fflush(stdout);
	pid = fork();
	MUST(pid >= 0);
	return pid;
}

static int status_of(pid_t pid)
{
	int status;

	MUST(waitpid(pid, &status, 0) == pid);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

/* The classic server: accept, fork, the parent closes, the child talks. Nothing was read before the fork. */
static void *client_of_fork(void *arg)
{
	int fd = connect_to(arg);
	char b[32] = "";

	send_all(fd, "hello", 5);
	recv_all(fd, b, 12);
	printf("client got %s\n", b);
	printf("then %zd\n", recv(fd, b, sizeof(b), 0));
	close(fd);
	return NULL;
}

static void accept_then_fork(void)
{
	struct sockaddr_in addr;
	int l = listen_on(&addr), fd;
	pthread_t t;
	pid_t pid;

	MUST(pthread_create(&t, NULL, client_of_fork, &addr) == 0);
	fd = accept(l, NULL, NULL);
	MUST(fd >= 0);
	pid = start();
	if (pid == 0) {
		char b[16];

		close(l);
		recv_all(fd, b, 5);
		send_all(fd, "from a child", 12);
		_exit(memcmp(b, "hello", 5) != 0);
	}
	MUST(close(fd) == 0);
	MUST(pthread_join(t, NULL) == 0);
	printf("child %d\n", status_of(pid));
	MUST(close(l) == 0);
}

/* Parent and child take turns on one connection that was open before. */
static void shared(void)
{
	struct pair p;
	char b[32] = "";
	pid_t pid;

	pair_open(&p);
	send_all(p.client, "before ", 7);
	recv_all(p.server, b, 7);
	pid = start();
	if (pid == 0) {
		send_all(p.client, "child ", 6);
		recv_all(p.client, b, 2);
		send_all(p.client, memcmp(b, "ok", 2) ? "bad " : "good ", 5 - !!memcmp(b, "ok", 2));
		_exit(0);
	}
	recv_all(p.server, b, 6);
	printf("%.6s\n", b);
	send_all(p.server, "ok", 2);
	recv_all(p.server, b, 5);
	printf("%.5s, child %d\n", b, status_of(pid));
	send_all(p.client, "parent", 6);
	recv_all(p.server, b, 6);
	printf("%.6s\n", b);
	send_all(p.server, "and back", 8);
	recv_all(p.client, b, 8);
	printf("%.8s\n", b);
	MUST(close(p.client) == 0);
	SHOW(recv(p.server, b, 1, 0));
	MUST(close(p.server) == 0 && close(p.listener) == 0);
}

/* The end of the stream comes when the last holder closes, not before. */
static void last_holder(void)
{
	struct pair p;
	char b[8];
	int gate[2];
	pid_t pid;

	pair_open(&p);
	MUST(pipe(gate) == 0);
	pid = start();
	if (pid == 0) {
		char go;

		close(p.server);
		MUST(read(gate[0], &go, 1) == 1);
		send_all(p.client, "late", 4);
		close(p.client);
		_exit(0);
	}
	MUST(close(p.client) == 0);
	SHOW(recv(p.server, b, 4, MSG_DONTWAIT));
	MUST(write(gate[1], "g", 1) == 1);
	SHOW(recv(p.server, b, 4, MSG_WAITALL));
	SHOW(recv(p.server, b, 4, 0));
	printf("child %d\n", status_of(pid));
	MUST(close(p.server) == 0 && close(p.listener) == 0);
	MUST(close(gate[0]) == 0 && close(gate[1]) == 0);
}

/* Many messages from parent and child at once, each whole: every write is one message of 64 bytes. */
static void both_write(void)
{
	enum { EACH = 500, SIZE = 64 };
	struct pair p;
	char m[SIZE];
	int seen[2] = { 0 }, torn = 0;
	pid_t pid;

	pair_open(&p);
	pid = start();
	memset(m, pid == 0 ? 'c' : 'p', SIZE);
	if (pid == 0) {
		close(p.server);
		for (int i = 0; i < EACH; i++)
			send_all(p.client, m, SIZE);
		_exit(0);
	}
	for (int i = 0; i < EACH; i++)
		send_all(p.client, m, SIZE);
	for (int i = 0; i < 2 * EACH; i++) {
		recv_all(p.server, m, SIZE);
		torn += m[0] != m[SIZE - 1];
		seen[m[0] == 'c']++;
	}
	printf("parent %d, child %d, torn %d, status %d\n", seen[0], seen[1], torn, status_of(pid));
	pair_close(&p);
}

/* Workers that inherit the listener; each connection is served by one of them. */
static void *one_request(void *arg)
{
	int fd = connect_to(arg);
	char b[16] = "";

	send_all(fd, "request", 7);
	recv_all(fd, b, 8);
	MUST(!memcmp(b, "response", 8));
	MUST(recv(fd, b, 1, 0) == 0);
	close(fd);
	return NULL;
}

static void prefork(void)
{
	enum { WORKERS = 3, REQUESTS = 30 };
	struct sockaddr_in addr;
	int l = listen_on(&addr);
	pid_t pid[WORKERS];

	for (int w = 0; w < WORKERS; w++) {
		pid[w] = start();
		if (pid[w] == 0) {
			for (;;) {
				char b[16];
				int fd = accept(l, NULL, NULL);

				MUST(fd >= 0);
				recv_all(fd, b, 7);
				send_all(fd, "response", 8);
				close(fd);
			}
		}
	}
	for (int r = 0; r < REQUESTS; r += 3) {
		pthread_t t[3];

		for (int i = 0; i < 3; i++)
			MUST(pthread_create(&t[i], NULL, one_request, &addr) == 0);
		for (int i = 0; i < 3; i++)
			MUST(pthread_join(t[i], NULL) == 0);
	}
	printf("prefork served %d\n", REQUESTS);
	for (int w = 0; w < WORKERS; w++) {
		MUST(kill(pid[w], SIGTERM) == 0);
		printf("worker %d\n", status_of(pid[w]));
	}
	MUST(close(l) == 0);
}

/* A child that closes what it inherited and goes does not disturb the parent. */
static void bystander(void)
{
	struct pair p;
	char b[8] = "";
	pid_t pid;

	pair_open(&p);
	pid = start();
	if (pid == 0) {
		close(p.client);
		close(p.server);
		close(p.listener);
		exit(3);
	}
	printf("child %d\n", status_of(pid));
	send_all(p.client, "intact", 6);
	recv_all(p.server, b, 6);
	printf("%s\n", b);
	pair_close(&p);
}

int main(void)
{
	probe_start();
	accept_then_fork();
	shared();
	last_holder();
	both_write();
	bystander();
	prefork();
	return 0;
}
