/* shutdown() in both directions, half-close, end of stream, SIGPIPE and EPIPE. */
#include "probe.h"

static volatile sig_atomic_t pipes;

static void on_pipe(int sig)
{
	(void)sig;
	pipes++;
}

static void half_close(bool client_first)
{
	struct pair p;
	int a, b;
	char x[32] = "";

	pair_open(&p);
	a = client_first ? p.client : p.server;
	b = client_first ? p.server : p.client;
	send_all(a, "request", 7);
	SHOW(shutdown(a, SHUT_WR));
	SHOW(recv(b, x, 7, MSG_WAITALL));
	SHOW(recv(b, x, sizeof(x), 0));
	SHOW(recv(b, x, sizeof(x), 0));
	printf("half closed: %s\n", events_text(ready_now(b)));
	SHOW(send(b, "answer after the end", 20, 0));
	SHOW(recv(a, x, 20, MSG_WAITALL));
	printf("%.20s\n", x);
	pipes = 0;
	SHOW(send(a, "x", 1, 0));
	SHOW(send(a, "x", 1, MSG_NOSIGNAL));
	SHOW(write(a, "x", 1));
	printf("SIGPIPE %d times\n", (int)pipes);
	SHOW(shutdown(b, SHUT_WR));
	SHOW(recv(a, x, sizeof(x), 0));
	SHOW(shutdown(a, SHUT_RDWR));
	SHOW(shutdown(a, 7));
	pair_close(&p);
}

static void read_side(void)
{
	struct pair p;
	char x[8];

	pair_open(&p);
	SHOW(shutdown(p.client, SHUT_RD));
	SHOW(recv(p.client, x, sizeof(x), 0));
	printf("after SHUT_RD: %s\n", events_text(ready_now(p.client)));
	SHOW(send(p.client, "still", 5, 0));
	SHOW(recv(p.server, x, 5, MSG_WAITALL));
	pair_close(&p);
}

static void both_sides(void)
{
	struct pair p;
	char x[8];

	pair_open(&p);
	send_all(p.client, "last", 4);
	SHOW(shutdown(p.client, SHUT_RDWR));
	SHOW(recv(p.server, x, 4, MSG_WAITALL));
	SHOW(recv(p.server, x, 4, 0));
	SHOW(recv(p.client, x, 4, 0));
	SHOW(send(p.client, x, 4, MSG_NOSIGNAL));
	pair_close(&p);
}

/* The other end is gone: the first write goes out, a later one fails. */
static void gone(void)
{
	struct pair p;
	int n = 0;
	ssize_t r = 0;

	pair_open(&p);
	MUST(close(p.server) == 0);
	MUST(wait_for(p.client, POLLRDHUP) & POLLRDHUP);
	SHOW(send(p.client, "x", 1, MSG_NOSIGNAL));
	wait_for(p.client, POLLERR);
	pipes = 0;
	while (n++ < 100 && r >= 0)
		r = send(p.client, "x", 1, 0);
	printf("in the end %s, SIGPIPE %d\n", strerrorname_np(errno), (int)pipes);
	MUST(close(p.client) == 0 && close(p.listener) == 0);
}

static void killed_by_pipe(void)
{
	int status;
	pid_t pid;

	fflush(stdout);
	pid = fork();
	MUST(pid >= 0);
	if (pid == 0) {
		struct pair p;

		signal(SIGPIPE, SIG_DFL);
		pair_open(&p);
		shutdown(p.client, SHUT_WR);
		send(p.client, "x", 1, 0);
		_exit(7);
	}
	MUST(waitpid(pid, &status, 0) == pid);
	printf("killed by signal %d\n", WIFSIGNALED(status) ? WTERMSIG(status) : 0);
}

static void unconnected(void)
{
	int fd = client_socket();
	char x;

	SHOW(shutdown(fd, SHUT_WR));
	SHOW(recv(fd, &x, 1, 0));
	SHOW(send(fd, "x", 1, MSG_NOSIGNAL));
	printf("unconnected: %s\n", events_text(ready_now(fd)));
	MUST(close(fd) == 0);
}

/* The peer has answered and closed; half-closing then is no error, and what it sent is read to its end. */
static void after_the_peer(void)
{
	int errors = 0, short_reads = 0;

	for (int i = 0; i < 100; i++) {
		struct pair p;
		char b[10];

		pair_open(&p);
		send_all(p.client, "ask", 3);
		recv_all(p.server, b, 3);
		send_all(p.server, "answer", 6);
		MUST(close(p.server) == 0);
		wait_for(p.client, POLLIN | POLLRDHUP);
		errors += shutdown(p.client, SHUT_WR) != 0;
		short_reads += recv(p.client, b, sizeof(b), MSG_WAITALL) != 6;
		short_reads += recv(p.client, b, sizeof(b), 0) != 0;
		MUST(close(p.client) == 0 && close(p.listener) == 0);
	}
	printf("after the peer: %d errors, %d short reads\n", errors, short_reads);
}

int main(void)
{
	struct sigaction sa = { .sa_handler = on_pipe, .sa_flags = SA_RESTART };

	probe_start();
	MUST(sigaction(SIGPIPE, &sa, NULL) == 0);
	half_close(true);
	half_close(false);
	read_side();
	both_sides();
	gone();
	after_the_peer();
	killed_by_pipe();
	unconnected();
	return 0;
}
