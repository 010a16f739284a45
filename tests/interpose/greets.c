/* A server that speaks first without waiting: what accept() returned is writable, whoever the client is, and however far it is.
 * Many write their greeting at once and never look whether it was taken. */
#include "probe.h"

#include <sys/epoll.h>

#define ROUNDS 20

static struct sockaddr_in addr;

/* Reads all until the end of the stream, after it answered the greeting if there is to be an answer. */
static void client(bool answers)
{
	int c = connect_to(&addr);
	char b[64] = "";
	size_t n = 0;
	ssize_t r;

	if (answers) {
		recv_all(c, b, 6);
		MUST(memcmp(b, "hello\n", 6) == 0);
		send_all(c, "thanks", 6);
	}
	while ((r = recv(c, b + n, sizeof(b) - n, 0)) > 0)
		n += (size_t)r;
	MUST(r == 0 && n == (answers ? 4 : 6) && memcmp(b, answers ? "bye\n" : "hello\n", n) == 0);
	close(c);
	_exit(0);
}

static int accept_one(int l)
{
	int s;

	wait_for(l, POLLIN);
	s = accept4(l, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	MUST(s >= 0);
	return s;
}

static void converse(int s, bool by_epoll)
{
	struct epoll_event ev = { .events = EPOLLIN | (by_epoll ? EPOLLET : 0) };
	int ep = epoll_create1(EPOLL_CLOEXEC);
	char b[8] = "";

	if (by_epoll) {
		MUST(epoll_ctl(ep, EPOLL_CTL_ADD, s, &ev) == 0);
		MUST(epoll_wait(ep, &ev, 1, PROBE_WAIT_MS) == 1 && ev.events == EPOLLIN);
	} else {
		wait_for(s, POLLIN);
	}
	MUST(recv(s, b, sizeof(b), 0) == 6 && memcmp(b, "thanks", 6) == 0);
	MUST(send(s, "bye\n", 4, 0) == 4);
	MUST(close(ep) == 0);
}

/* The client has all; what was closed here went on in that wait. */
static void wait_end(int end, bool by_epoll)
{
	struct epoll_event ev = { .events = EPOLLIN };
	int ep = epoll_create1(EPOLL_CLOEXEC);

	if (by_epoll) {
		MUST(epoll_ctl(ep, EPOLL_CTL_ADD, end, &ev) == 0);
		MUST(epoll_wait(ep, &ev, 1, PROBE_WAIT_MS) == 1 && ev.events == EPOLLHUP);
	} else {
		wait_for(end, POLLHUP);
	}
	MUST(close(ep) == 0);
}

static void greet(int l, const char *how, bool answers, bool by_epoll, int flags)
{
	int taken = 0, status, fine = 0;

	for (int i = 0; i < ROUNDS; i++) {
		int s, end[2];
		pid_t pid;

		MUST(pipe(end) == 0);
		pid = fork();
		MUST(pid >= 0);
		if (!pid)
			client(answers);
		MUST(close(end[1]) == 0);
		s = accept_one(l);
		if (flags)
			set_nonblock(s, false);
		taken += send(s, "hello\n", 6, flags) == 6;
		if (answers)
			converse(s, by_epoll);
		MUST(close(s) == 0);
		wait_end(end[0], by_epoll);
		MUST(close(end[0]) == 0 && waitpid(pid, &status, 0) == pid);
		fine += status == 0;
	}
	printf("%s: %d greetings taken, %d clients content\n", how, taken, fine);
}

int main(void)
{
	int l;

	probe_start();
	l = listen_on(&addr);
	greet(l, "closed at once, poll", false, false, 0);
	greet(l, "closed at once, epoll", false, true, 0);
	greet(l, "poll", true, false, 0);
	greet(l, "epoll", true, true, 0);
	greet(l, "MSG_DONTWAIT", true, false, MSG_DONTWAIT);
	MUST(close(l) == 0);
	return 0;
}
