/* A connection stands, and takes data, before the server's program has accepted it: programs that connect to themselves in
 * one thread, a server that serves one client at a time, and ends before and within the accept. */
#include "probe.h"

#include <sys/epoll.h>

#define BIG 20000

static int start(const struct sockaddr_in *addr, bool blocks)
{
	int fd = client_socket(), err = 1;
	socklen_t len = sizeof(err);

	if (blocks) {
		SHOW(connect(fd, (const struct sockaddr *)addr, sizeof(*addr)));
		return fd;
	}
	set_nonblock(fd, true);
	SHOW(connect(fd, (const struct sockaddr *)addr, sizeof(*addr)));
	printf("%s\n", events_text(wait_for(fd, POLLOUT)));
	SHOW(getsockopt(fd, SOL_SOCKET, SO_ERROR, &err, &len));
	SHOW(connect(fd, (const struct sockaddr *)addr, sizeof(*addr)));
	printf("SO_ERROR %d\n", err);
	return fd;
}

/* One thread is both ends, and each writes before the other has read. */
static void self(bool blocks, bool accept_last)
{
	static char out[BIG], in[BIG];
	struct sockaddr_in addr, peer;
	socklen_t len = sizeof(peer);
	int l = listen_on(&addr), c = start(&addr, blocks), s;

	printf("self: %s, accept %s\n", blocks ? "blocking" : "non-blocking",
	       accept_last ? "last" : "first");
	fill(out, BIG, 1);
	SHOW(getpeername(c, (struct sockaddr *)&peer, &len));
	if (accept_last)
		SHOW(write(c, out, BIG));
	s = accept(l, NULL, NULL);
	MUST(s >= 0);
	set_nonblock(s, !blocks);
	if (!accept_last)
		SHOW(write(c, out, BIG));
	SHOW(write(s, "hello", 5));
	SHOW(shutdown(c, SHUT_WR));
	SHOW(send(c, "more", 4, MSG_NOSIGNAL));
	recv_all(s, in, BIG);
	printf("the same: %d\n", memcmp(in, out, BIG) == 0);
	wait_for(s, POLLIN);
	SHOW(recv(s, in, 1, 0));
	recv_all(c, in, 5);
	printf("%.5s\n", in);
	SHOW(close(s));
	wait_for(c, POLLIN);
	SHOW(recv(c, in, 1, 0));
	SHOW(close(c));
	close(l);
}

/* An event loop with both ends in it: connect, accept, a byte each way, all driven by epoll. */
static void loop(uint32_t flags)
{
	struct epoll_event ev = { .events = EPOLLIN }, got[4];
	struct sockaddr_in addr;
	int l = listen_on(&addr), c = client_socket(), s = -1, ep = epoll_create1(EPOLL_CLOEXEC);
	bool wrote = false, done = false;
	char b;

	printf("loop, flags %#x\n", flags);
	set_nonblock(c, true);
	ev.data.fd = l;
	MUST(epoll_ctl(ep, EPOLL_CTL_ADD, l, &ev) == 0);
	SHOW(connect(c, (struct sockaddr *)&addr, sizeof(addr)));
	ev = (struct epoll_event){ .events = EPOLLOUT | flags, .data.fd = c };
	MUST(epoll_ctl(ep, EPOLL_CTL_ADD, c, &ev) == 0);
	while (!done) {
		int n = epoll_wait(ep, got, 4, PROBE_WAIT_MS);

		MUST(n > 0);
		for (int i = 0; i < n; i++) {
			if (got[i].data.fd == l && s < 0) {
				s = accept4(l, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
				ev = (struct epoll_event){ .events = EPOLLIN | (flags & EPOLLET),
							   .data.fd = s };
				MUST(s >= 0 && epoll_ctl(ep, EPOLL_CTL_ADD, s, &ev) == 0);
			} else if (got[i].data.fd == c && !wrote) {
				MUST(got[i].events == EPOLLOUT);
				MUST(write(c, "x", 1) == 1);
				wrote = true;
				ev = (struct epoll_event){ .events = EPOLLIN | flags,
							   .data.fd = c };
				MUST(epoll_ctl(ep, EPOLL_CTL_MOD, c, &ev) == 0);
			} else if (got[i].data.fd == s) {
				MUST(read(s, &b, 1) == 1 && write(s, "y", 1) == 1);
			} else if (got[i].data.fd == c) {
				MUST(read(c, &b, 1) == 1);
				done = true;
			}
		}
	}
	printf("%c\n", b);
	close(c), close(s), close(l), close(ep);
}

/* A server that reads one client to its end before it accepts the next. The client opens both before it writes. */
static void one_at_a_time(void)
{
	struct sockaddr_in addr;
	int l = listen_on(&addr), a, b, status;
	char text[8] = "";
	pid_t pid = fork();

	MUST(pid >= 0);
	if (pid == 0) {
		for (int i = 0; i < 2; i++) {
			int s = accept(l, NULL, NULL);
			ssize_t n;

			while ((n = recv(s, text, sizeof(text), 0)) > 0)
				send_all(s, text, (size_t)n);
			close(s);
		}
		_exit(0);
	}
	close(l);
	printf("one at a time\n");
	a = connect_to(&addr);
	b = connect_to(&addr);
	send_all(b, "second", 6);
	SHOW(shutdown(b, SHUT_WR));
	send_all(a, "first", 5);
	SHOW(shutdown(a, SHUT_WR));
	recv_all(a, text, 5);
	printf("%.5s\n", text);
	SHOW(recv(a, text, 1, 0));
	recv_all(b, text, 6);
	printf("%.6s\n", text);
	SHOW(recv(b, text, 1, 0));
	close(a), close(b);
	MUST(waitpid(pid, &status, 0) == pid && status == 0);
}

/* The server accepts and closes, or closes its listener, without a look at the client. */
static void ends(bool blocks)
{
	struct sockaddr_in addr;
	int l = listen_on(&addr), c = start(&addr, blocks);
	char b;

	printf("ends: %s\n", blocks ? "blocking" : "non-blocking");
	SHOW(close(accept(l, NULL, NULL)));
	wait_for(c, POLLIN);
	SHOW(recv(c, &b, 1, 0));
	close(c);
	c = start(&addr, blocks);
	close(l);
	wait_for(c, POLLIN);
	SHOW(recv(c, &b, 1, 0));
	close(c);
	l = listen_on(&addr);
	c = start(&addr, blocks);
	close(c);
	c = accept(l, NULL, NULL);
	SHOW(recv(c, &b, 1, 0));
	close(c), close(l);
}

int main(void)
{
	probe_start();
	for (int i = 0; i < 4; i++)
		self(i & 1, i & 2);
	loop(0);
	loop(EPOLLET);
	loop(EPOLLONESHOT);
	one_at_a_time();
	ends(true);
	ends(false);
	return 0;
}
