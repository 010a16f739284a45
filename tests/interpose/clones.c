/* Children that copy this memory past the handlers of pthread_atfork: clone by number and by function, _Fork. The child of
 * each serves the connection that its parent accepted, as vsftpd's does; then both sides write to one connection. */
#include "probe.h"

#include <linux/sched.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/syscall.h>

enum way { BY_CLONE, BY_CLONE3, BY_FUNCTION, BY_FORK, WAYS };

static void serve(int fd)
{
	char b[64] = "";

	send_all(fd, "hello\n", 6);
	recv_all(fd, b, 5);
	MUST(strcmp(b, "there") == 0);
	send_all(fd, "bye\n", 4);
}

static int serve_and_end(void *arg)
{
	serve(*(int *)arg);
	_exit(7);
}

static pid_t child_by(enum way way, int *fd)
{
	struct clone_args args = { .exit_signal = SIGCHLD };
	size_t size = 256 << 10;
	char *stack;
	pid_t pid;

	switch (way) {
	case BY_CLONE:
		return (pid_t)syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, NULL);
	case BY_CLONE3:
		return (pid_t)syscall(SYS_clone3, &args, sizeof(args));
	case BY_FORK:
		return _Fork();
	default:
		stack = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
			     0);
		MUST(stack != MAP_FAILED);
		pid = clone(serve_and_end, stack + size, SIGCHLD, fd);
		MUST(munmap(stack, size) == 0);
		return pid;
	}
}

static void *client(void *arg)
{
	static char text[WAYS][64];
	static int n;
	char *b = text[n++];
	int fd = connect_to(arg);

	recv_all(fd, b, 6);
	send_all(fd, "there", 5);
	recv_all(fd, b + 6, 4);
	MUST(recv(fd, b + 10, 1, 0) == 0);
	MUST(close(fd) == 0);
	return b;
}

static void accepted(enum way way)
{
	struct sockaddr_in addr;
	int l = listen_on(&addr), fd, status = 0;
	pthread_t t;
	void *said;
	pid_t pid;

	MUST(pthread_create(&t, NULL, client, &addr) == 0);
	fd = accept(l, NULL, NULL);
	MUST(fd >= 0);
	pid = child_by(way, &fd);
	MUST(pid >= 0);
	if (pid == 0)
		serve_and_end(&fd);
	MUST(close(fd) == 0);
	MUST(waitpid(pid, &status, 0) == pid && WEXITSTATUS(status) == 7);
	MUST(pthread_join(t, &said) == 0);
	printf("%d: %s", way, (char *)said);
	MUST(close(l) == 0);
}

/* An open connection; parent and child take turns on it. */
static void both(enum way way)
{
	int status = 0, turn[2];
	struct pair p;
	char b[200];
	pid_t pid;

	pair_open(&p);
	send_all(p.client, "before", 6);
	recv_all(p.server, b, 6);
	MUST(pipe(turn) == 0);
	pid = child_by(way, &p.server);
	MUST(pid >= 0);
	if (pid == 0) {
		for (int i = 0; i < 8; i++)
			send_all(p.client, "child", 5);
		recv_all(p.client, b, 6);
		_exit(memcmp(b, "answer", 6) == 0 ? 5 : 6);
	}
	for (int i = 0; i < 8; i++)
		send_all(p.client, "paren", 5);
	recv_all(p.server, b, 80);
	send_all(p.server, "answer", 6);
	MUST(waitpid(pid, &status, 0) == pid);
	printf("both: child %d\n", WEXITSTATUS(status));
	send_all(p.client, "after", 5);
	recv_all(p.server, b, 5);
	pair_close(&p);
}

int main(void)
{
	static const enum way ways[] = { BY_CLONE, BY_CLONE3, BY_FUNCTION, BY_FORK };

	probe_start();
	for (int i = 0; i < WAYS; i++)
		accepted(ways[i]);
	both(BY_CLONE);
	both(BY_CLONE3);
	both(BY_FORK);
	SHOW(syscall(SYS_clone3, NULL, sizeof(struct clone_args)));
	SHOW(syscall(SYS_clone3, (void *)8, sizeof(struct clone_args)));
	return 0;
}
