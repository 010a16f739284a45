/* Ways to close that are not close(): syscall(), close_range(), closefrom(), exec with FD_CLOEXEC, number reuse. */
#include "probe.h"

#include <sys/syscall.h>

static void by_syscall(void)
{
	struct pair p;
	char x;

	pair_open(&p);
	SHOW(syscall(SYS_close, p.client));
	SHOW(recv(p.server, &x, 1, 0));
	SHOW(syscall(SYS_close, p.client));
	SHOW(write(p.client, "x", 1));
	MUST(close(p.server) == 0 && close(p.listener) == 0);
}

static void by_range(bool from)
{
	struct pair p;
	int a, b;
	char x;

	pair_open(&p);
	a = fcntl(p.client, F_DUPFD, 500);
	b = fcntl(p.server, F_DUPFD, 400);
	MUST(close(p.client) == 0 && close(p.server) == 0);
	if (from)
		closefrom(500);
	else
		SHOW(close_range(500, 600, 0));
	SHOW(recv(b, &x, 1, 0));
	SHOW(fcntl(a, F_GETFD));
	MUST(close(b) == 0 && close(p.listener) == 0);
}

static void by_cloexec_range(void)
{
	struct pair p;
	char b[4] = "";

	pair_open(&p);
	SHOW(fcntl(p.client, F_SETFD, 0));
	SHOW(close_range((unsigned)p.client, (unsigned)p.client, CLOSE_RANGE_CLOEXEC));
	SHOW(fcntl(p.client, F_GETFD));
	send_all(p.client, "yes", 3);
	recv_all(p.server, b, 3);
	printf("%s\n", b);
	SHOW(close_range(10, 5, 0));
	pair_close(&p);
}

/* A child that execs leaves the connection to its parent: FD_CLOEXEC closes its copy without a word on the wire. */
static void by_exec(void)
{
	struct pair p;
	char b[8] = "";
	int status;
	pid_t pid;

	pair_open(&p);
	fflush(stdout);
	pid = fork();
	MUST(pid >= 0);
	if (pid == 0) {
		execl("/bin/true", "true", (char *)NULL);
		_exit(99);
	}
	MUST(waitpid(pid, &status, 0) == pid);
	printf("exec'ed %d\n", status);
	send_all(p.server, "parent", 6);
	recv_all(p.client, b, 6);
	printf("%s\n", b);
	pair_close(&p);
}

/* The number of a closed connection becomes a pipe, a file, a UDP socket: each is itself. */
static void reuse(void)
{
	struct pair p;
	int ends[2], fd;
	char b[8] = "";

	pair_open(&p);
	fd = p.client;
	MUST(close(p.client) == 0);
	MUST(pipe(ends) == 0);
	printf("number came back: %d\n", ends[0] == fd || ends[1] == fd);
	SHOW(write(ends[1], "pipe", 4));
	SHOW(read(ends[0], b, 4));
	SHOW(recv(ends[0], b, 4, 0));
	SHOW(shutdown(ends[0], SHUT_RD));
	MUST(close(ends[0]) == 0 && close(ends[1]) == 0);
	MUST(close(p.server) == 0 && close(p.listener) == 0);
	fd = open("/dev/zero", O_RDONLY);
	SHOW(read(fd, b, 4));
	MUST(close(fd) == 0);
}

int main(void)
{
	probe_start();
	by_syscall();
	by_range(false);
	by_range(true);
	by_cloexec_range();
	by_exec();
	reuse();
	return 0;
}
