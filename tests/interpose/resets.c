/* How a connection ends that is not closed in order: unread data, SO_LINGER 0, a process that dies. */
#include "probe.h"

static void wait_error(int fd)
{
	MUST(wait_for(fd, 0) & POLLERR);
}

static void unread(void)
{
	struct pair p;
	char x[8];

	pair_open(&p);
	send_all(p.client, "never read", 10);
	wait_for(p.server, POLLIN);
	SHOW(close(p.server));
	wait_error(p.client);
	SHOW(recv(p.client, x, sizeof(x), 0));
	SHOW(recv(p.client, x, sizeof(x), 0));
	SHOW(send(p.client, x, 1, MSG_NOSIGNAL));
	MUST(close(p.client) == 0 && close(p.listener) == 0);
}

static void partly_read(void)
{
	struct pair p;
	char x[8];

	pair_open(&p);
	send_all(p.client, "half is read", 12);
	SHOW(recv(p.server, x, 4, MSG_WAITALL));
	SHOW(close(p.server));
	wait_error(p.client);
	SHOW(error_of(p.client));
	SHOW(error_of(p.client));
	SHOW(recv(p.client, x, sizeof(x), 0));
	MUST(close(p.client) == 0 && close(p.listener) == 0);
}

static void linger(bool sent)
{
	struct linger l = { 1, 0 };
	struct pair p;
	char x[8];

	pair_open(&p);
	MUST(setsockopt(p.server, SOL_SOCKET, SO_LINGER, &l, sizeof(l)) == 0);
	if (sent)
		send_all(p.server, "bye", 3);
	wait_for(p.client, sent ? POLLIN : POLLOUT);
	SHOW(close(p.server));
	wait_error(p.client);
	printf("reset: %s\n", events_text(ready_now(p.client)));
	if (sent)
		SHOW(recv(p.client, x, 3, MSG_WAITALL));
	SHOW(recv(p.client, x, sizeof(x), 0));
	SHOW(recv(p.client, x, sizeof(x), 0));
	MUST(close(p.client) == 0 && close(p.listener) == 0);
}

static void blocked_reader_reset(void)
{
	struct linger l = { 1, 0 };
	struct pair p;
	pid_t pid;
	char x;

	pair_open(&p);
	fflush(stdout);
	pid = fork();
	MUST(pid >= 0);
	if (pid == 0) {
		close(p.client);
		sleep_ms(60);
		setsockopt(p.server, SOL_SOCKET, SO_LINGER, &l, sizeof(l));
		close(p.server);
		_exit(0);
	}
	MUST(close(p.server) == 0);
	SHOW(recv(p.client, &x, 1, 0));
	SHOW(recv(p.client, &x, 1, 0));
	MUST(waitpid(pid, NULL, 0) == pid);
	MUST(close(p.client) == 0 && close(p.listener) == 0);
}

/* What a process wrote before it ended comes; then the end of the stream. */
static void last_words(const char *how, bool killed, bool by_exit)
{
	struct pair p;
	pid_t pid;
	char x[32] = "";

	pair_open(&p);
	fflush(stdout);
	pid = fork();
	MUST(pid >= 0);
	if (pid == 0) {
		close(p.server);
		send_all(p.client, "last words", 10);
		if (killed)
			raise(SIGKILL);
		if (by_exit)
			exit(0);
		_exit(0);
	}
	MUST(close(p.client) == 0);
	MUST(waitpid(pid, NULL, 0) == pid);
	printf("%s:\n", how);
	SHOW(recv(p.server, x, 10, MSG_WAITALL));
	if (killed) /* a bare reader cannot tell this from an orderly end; a meshed one can, and is told */
		printf("over: %d\n", recv(p.server, x, 10, 0) <= 0);
	else
		SHOW(recv(p.server, x, 10, 0));
	MUST(close(p.server) == 0 && close(p.listener) == 0);
}

int main(void)
{
	probe_start();
	unread();
	partly_read();
	linger(false);
	linger(true);
	blocked_reader_reset();
	last_words("_exit", false, false);
	last_words("exit", false, true);
	last_words("killed", true, false);
	return 0;
}
