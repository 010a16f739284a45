/* A connection that ended badly tells why once, to the next call of any kind that has nothing else to say, and is at its end
 * from then on. What came before the error is read first. Writes of nothing, wrong arguments, ends on one side. */
#include "probe.h"

#include <sys/ioctl.h>

static volatile sig_atomic_t pipes;

static void on_pipe(int sig)
{
	(void)sig;
	pipes++;
}

static int waiting(int fd)
{
	int n = -1;

	MUST(ioctl(fd, FIONREAD, &n) == 0);
	return n;
}

/* The server has `n` bytes to read, in records of `each`, and behind them a reset: the client closed with a byte unread. */
static void reset_behind(struct pair *p, size_t n, size_t each)
{
	char b[64] = "";

	pair_open(p);
	send_all(p->server, "x", 1);
	wait_for(p->client, POLLIN);
	for (size_t at = 0; at < n; at += each)
		send_all(p->client, b, each);
	MUST(close(p->client) == 0);
	MUST(wait_for(p->server, POLLERR) & POLLERR);
}

static void server_ends(struct pair *p)
{
	printf("%s, %d SIGPIPE\n", events_text(ready_now(p->server)), (int)pipes);
	MUST(close(p->server) == 0 && close(p->listener) == 0);
}

/* Bytes are delivered, in one piece or several, without the error that lies behind them. */
static void read_first(size_t each, int flags)
{
	struct pair p;
	char b[64];

	printf("-- records of %zu, flags %#x\n", each, (unsigned)flags);
	reset_behind(&p, 10, each);
	SHOW(waiting(p.server));
	SHOW(recv(p.server, b, 4, 0));
	SHOW(recv(p.server, b, sizeof(b), flags));
	SHOW(waiting(p.server));
	printf("%s\n", events_text(ready_now(p.server)));
	SHOW(recv(p.server, b, sizeof(b), 0));
	SHOW(recv(p.server, b, sizeof(b), 0));
	SHOW(send(p.server, b, 1, 0));
	server_ends(&p);
}

enum teller { BY_OPTION, BY_SEND, BY_NOTHING, BY_MORE, BY_RECVMMSG, BY_NULL, TELLERS };

static void tell(enum teller by, int fd)
{
	struct iovec iov = { (char[8]){ 0 }, 8 };
	struct mmsghdr m = { .msg_hdr = { .msg_iov = &iov, .msg_iovlen = 1 } };

	if (by == BY_OPTION)
		SHOW(error_of(fd) == ECONNRESET);
	else if (by == BY_SEND)
		SHOW(send(fd, "y", 1, 0));
	else if (by == BY_NOTHING)
		SHOW(send(fd, "", 0, 0));
	else if (by == BY_MORE)
		SHOW(send(fd, "more", 4, MSG_MORE));
	else if (by == BY_RECVMMSG)
		SHOW(recvmmsg(fd, &m, 1, MSG_DONTWAIT, NULL));
	else
		SHOW(send(fd, NULL, 8, 0));
}

/* Another call is told first: the bytes are still there, then comes the end. */
static void told_to_another(enum teller by)
{
	struct pair p;
	char b[64];

	printf("-- told to %d\n", by);
	reset_behind(&p, 10, 5);
	tell(by, p.server);
	SHOW(error_of(p.server));
	SHOW(waiting(p.server));
	SHOW(recv(p.server, b, sizeof(b), MSG_WAITALL));
	SHOW(recv(p.server, b, sizeof(b), 0));
	SHOW(send(p.server, "", 0, MSG_NOSIGNAL));
	SHOW(write(p.server, "", 0));
	SHOW(writev(p.server, &(struct iovec){ "", 0 }, 1));
	SHOW(send(p.server, "more", 4, MSG_MORE));
	SHOW(shutdown(p.server, SHUT_WR));
	server_ends(&p);
}

/* With nothing to read a read of nothing is told. */
static void told_to_nothing(void)
{
	struct pair p;
	char b;

	reset_behind(&p, 0, 1);
	SHOW(recv(p.server, &b, 0, 0));
	SHOW(recv(p.server, &b, 1, 0));
	server_ends(&p);
}

/* No such direction, and nothing has happened. */
static void wrong_direction(void)
{
	struct pair p;
	char b[4];

	pair_open(&p);
	SHOW(shutdown(p.client, 7));
	SHOW(shutdown(p.client, -1));
	SHOW(send(p.client, "on", 2, 0));
	SHOW(recv(p.server, b, 2, MSG_WAITALL));
	pair_close(&p);
}

/* Who shut the reading side is told the end, whoever waits for it, by whatever mark. */
static void nothing_more(void)
{
	struct pair p;
	char b;

	pair_open(&p);
	SHOW(shutdown(p.server, SHUT_RD));
	printf("%s\n", events_text(wait_for(p.server, POLLIN)));
	SHOW(recv(p.server, &b, 1, 0));
	pair_close(&p);
	pair_open(&p);
	set_int(p.server, SOL_SOCKET, SO_RCVLOWAT, 100);
	send_all(p.client, "few", 3);
	MUST(shutdown(p.client, SHUT_WR) == 0);
	printf("%s\n", events_text(wait_for(p.server, POLLIN)));
	pair_close(&p);
}

/* The peer has closed; to half-close then is silent, and what is written afterwards is a broken pipe. */
static void second_goodbye(void)
{
	struct pair p;

	pair_open(&p);
	MUST(close(p.client) == 0);
	wait_for(p.server, POLLIN);
	SHOW(shutdown(p.server, SHUT_WR));
	sleep_ms(20);
	SHOW(error_of(p.server));
	SHOW(send(p.server, "z", 1, MSG_NOSIGNAL));
	SHOW(recv(p.server, &(char){ 0 }, 1, 0));
	server_ends(&p);
}

int main(void)
{
	struct sigaction sa = { .sa_handler = on_pipe, .sa_flags = SA_RESTART };

	probe_start();
	MUST(sigaction(SIGPIPE, &sa, NULL) == 0);
	read_first(5, 0);
	read_first(10, 0);
	read_first(10, MSG_WAITALL);
	read_first(10, MSG_PEEK | MSG_WAITALL);
	for (enum teller by = 0; by < TELLERS; by++)
		told_to_another(by);
	told_to_nothing();
	wrong_direction();
	nothing_more();
	second_goodbye();
	return 0;
}
