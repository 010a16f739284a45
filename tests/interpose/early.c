/* TCP is connected when the kernels have shaken hands, though nobody has called accept(): one thread connects, writes, even
 * closes, and only then accepts; or tells the other side over another channel that it may. */
#include "probe.h"

#include <sys/epoll.h>

static struct sockaddr_in addr;

static void say(const char *name)
{
	printf("--- %s\n", name);
}

/* One thread, blocking sockets, in the order that a program must never have had to think about. */
static void alone(void)
{
	char b[64] = "";
	struct sockaddr_in peer;
	socklen_t len = sizeof(peer);
	int l = listen_on(&addr), c = client_socket(), s, err = -1;

	say("alone");
	SHOW(connect(c, (struct sockaddr *)&addr, sizeof(addr)));
	SHOW(connect(c, (struct sockaddr *)&addr, sizeof(addr)));
	SHOW(getpeername(c, (struct sockaddr *)&peer, &len));
	len = sizeof(err);
	SHOW(getsockopt(c, SOL_SOCKET, SO_ERROR, &err, &len));
	printf("SO_ERROR %d, %s\n", err, events_text(ready_now(c)));
	SHOW(send(c, "early bird", 10, 0));
	SHOW(recv(c, b, sizeof(b), MSG_DONTWAIT));
	s = SHOW_FD(accept(l, NULL, NULL));
	set_nonblock(s, true); /* it is there already */
	SHOW(recv(s, b, sizeof(b), 0));
	puts(b);
	SHOW(recv(s, b, sizeof(b), 0));
	SHOW(send(s, "answer", 6, 0));
	memset(b, 0, sizeof(b));
	SHOW(recv(c, b, sizeof(b), 0));
	puts(b);
	MUST(close(c) == 0);
	wait_for(s, POLLIN);
	SHOW(recv(s, b, sizeof(b), 0));
	MUST(close(s) == 0 && close(l) == 0);
}

/* The client is gone when the server accepts. */
static void gone(bool writes, bool half)
{
	char b[64] = "";
	int l = listen_on(&addr), c = connect_to(&addr), s;

	printf("--- gone%s%s\n", writes ? ", wrote" : "", half ? ", half-closed before" : "");
	if (writes)
		SHOW(write(c, "last words", 10));
	if (half) {
		SHOW(shutdown(c, SHUT_WR));
		SHOW(send(c, "more", 4, MSG_NOSIGNAL));
	}
	SHOW(close(c));
	s = SHOW_FD(accept(l, NULL, NULL));
	if (writes) {
		recv_all(s, b, 10);
		puts(b);
	}
	SHOW(recv(s, b, sizeof(b), 0));
	MUST(close(s) == 0 && close(l) == 0);
}

/* The server closes what it has accepted, at once; the client sees the end. */
static void refused_politely(void)
{
	int l = listen_on(&addr), c = connect_to(&addr), s;
	char b[8];

	say("closed at once");
	s = SHOW_FD(accept(l, NULL, NULL));
	SHOW(close(s));
	printf("%s\n", events_text(wait_for(c, POLLIN)));
	SHOW(recv(c, b, sizeof(b), 0));
	MUST(close(c) == 0 && close(l) == 0);
}

/* The server speaks first, and both are in one thread. */
static void server_first(void)
{
	int l = listen_on(&addr), c = connect_to(&addr), s = accept(l, NULL, NULL);
	char b[8] = "";

	say("server first");
	SHOW(send(s, "hello", 5, 0));
	SHOW(recv(c, b, sizeof(b), 0));
	puts(b);
	MUST(close(c) == 0 && close(s) == 0 && close(l) == 0);
}

static void show_events(int ep, int c, const char *what)
{
	struct epoll_event ev[4];
	int n = epoll_wait(ep, ev, 4, 300), found[2] = { 0 };

	for (int i = 0; i < n; i++)
		found[ev[i].data.fd != c] |= (int)ev[i].events;
	printf("%s: client %s", what, events_text(found[0]));
	printf("server %s\n", events_text(found[1]));
}

static void add(int ep, int fd, unsigned events)
{
	struct epoll_event ev = { .events = events, .data.fd = fd };

	MUST(epoll_ctl(ep, EPOLL_CTL_ADD, fd, &ev) == 0);
}

/* Writable when connect() is over, whoever accepts: once with EPOLLET and EPOLLONESHOT, always without. */
static void polled(unsigned flags)
{
	int l = listen_on(&addr), c = client_socket(), ep = epoll_create1(EPOLL_CLOEXEC), s;
	char b[8];

	printf("--- epoll %s\n", flags & EPOLLET ? "ET" : flags ? "ONESHOT" : "LT");
	set_nonblock(c, true);
	SHOW(connect(c, (struct sockaddr *)&addr, sizeof(addr)));
	add(ep, c, EPOLLIN | EPOLLOUT | flags);
	show_events(ep, c, "connected");
	show_events(ep, c, "again");
	SHOW(send(c, "data", 4, 0));
	s = accept(l, NULL, NULL);
	MUST(s >= 0);
	add(ep, s, EPOLLIN | EPOLLOUT);
	wait_for(s, POLLIN);
	SHOW(recv(s, b, sizeof(b), MSG_DONTWAIT));
	SHOW(send(s, "data", 4, 0));
	MUST(close(s) == 0);
	if (flags & EPOLLONESHOT)
		show_events(ep, c, "spent");
	wait_for(c, POLLIN);
	SHOW(recv(c, b, sizeof(b), 0));
	SHOW(recv(c, b, sizeof(b), 0));
	MUST(close(c) == 0 && close(l) == 0 && close(ep) == 0);
}

/* Both ends in one instance. */
static void both_polled(void)
{
	int l = listen_on(&addr), c = client_socket(), ep = epoll_create1(EPOLL_CLOEXEC), s;

	say("both ends polled");
	set_nonblock(c, true);
	SHOW(connect(c, (struct sockaddr *)&addr, sizeof(addr)));
	s = accept(l, NULL, NULL);
	MUST(s >= 0);
	set_nonblock(s, true);
	add(ep, s, EPOLLIN | EPOLLOUT);
	add(ep, c, EPOLLIN | EPOLLOUT);
	show_events(ep, c, "both");
	SHOW(send(c, "data", 4, 0));
	show_events(ep, c, "sent");
	MUST(close(c) == 0 && close(s) == 0 && close(l) == 0 && close(ep) == 0);
}

/* More than can be held: the socket is full, and empties when the server comes. */
static void filled(void)
{
	static char out[1 << 16], in[1 << 16];
	int l = listen_on(&addr), c = connect_to(&addr), s;
	size_t sent = 0, got = 0;
	uint64_t h = HASH_START, g = HASH_START;
	ssize_t r;

	say("filled");
	set_nonblock(c, true);
	fill(out, sizeof(out), 7);
	while ((r = send(c, out, sizeof(out), 0)) > 0) {
		h = hash(h, out, (size_t)r);
		sent += (size_t)r;
	}
	MUST(r < 0 && errno == EAGAIN && sent > 4096);
	MUST(!(ready_now(c) & POLLOUT));
	s = accept(l, NULL, NULL);
	while (got < sent) {
		r = recv(s, in, sizeof(in), 0);
		MUST(r > 0);
		g = hash(g, in, (size_t)r);
		got += (size_t)r;
	}
	printf("all there: %d\n", got == sent && g == h);
	printf("%s\n", events_text(wait_for(c, POLLOUT)));
	MUST(close(c) == 0 && close(s) == 0 && close(l) == 0);
}

static void *take_all(void *arg)
{
	static char in[1 << 16];
	int s = accept(*(int *)arg, NULL, NULL);
	ssize_t r;

	MUST(s >= 0);
	while ((r = recv(s, in, sizeof(in), 0)) > 0)
		;
	MUST(r == 0 && close(s) == 0);
	return NULL;
}

/* One thread sleeps until the full socket takes more; it is another that empties it. */
static void filled_for_thread(bool by_epoll)
{
	static const char out[1 << 16];
	struct epoll_event ev = { .events = EPOLLOUT };
	int l = listen_on(&addr), c = connect_to(&addr), ep = epoll_create1(EPOLL_CLOEXEC);
	pthread_t t;

	printf("--- filled, %s\n", by_epoll ? "epoll" : "poll");
	set_nonblock(c, true);
	while (send(c, out, sizeof(out), 0) > 0)
		;
	MUST(errno == EAGAIN && epoll_ctl(ep, EPOLL_CTL_ADD, c, &ev) == 0);
	MUST(pthread_create(&t, NULL, take_all, &l) == 0);
	if (by_epoll)
		SHOW(epoll_wait(ep, &ev, 1, PROBE_WAIT_MS));
	printf("%s\n", events_text(wait_for(c, POLLOUT)));
	MUST(close(c) == 0 && pthread_join(t, NULL) == 0 && close(l) == 0 && close(ep) == 0);
}

/* The server is another process and accepts when a message over a pipe says so. */
static void by_message(bool closes)
{
	int l = listen_on(&addr), go[2], back[2], status, c;
	char b[32] = "";
	pid_t pid;

	printf("--- another process%s\n", closes ? ", after the close" : "");
	MUST(pipe(go) == 0 && pipe(back) == 0);
	pid = fork();
	MUST(pid >= 0);
	if (!pid) {
		int s;

		MUST(read(go[0], b, 2) == 2);
		s = accept(l, NULL, NULL);
		MUST(s >= 0);
		recv_all(s, b, 10);
		MUST(write(back[1], b, 10) == 10);
		if (!closes)
			send_all(s, "thanks", 6);
		MUST(recv(s, b, 1, 0) == 0);
		_exit(0);
	}
	c = connect_to(&addr);
	SHOW(send(c, "early word", 10, 0));
	if (closes)
		MUST(close(c) == 0);
	MUST(write(go[1], "go", 2) == 2);
	if (closes) {
		wait_for(back[0], POLLIN);
	} else {
		SHOW(recv(c, b, 6, 0));
		puts(b);
		MUST(close(c) == 0);
	}
	MUST(read(back[0], b, 10) == 10);
	puts(b);
	MUST(waitpid(pid, &status, 0) == pid);
	printf("status %d\n", status);
	MUST(close(l) == 0 && close(go[0]) == 0 && close(go[1]) == 0 && close(back[0]) == 0 &&
	     close(back[1]) == 0);
}

static void wait_in(int ep, bool newer)
{
	const struct timespec t = { .tv_sec = 2 * PROBE_WAIT_MS / 1000 };
	struct epoll_event ev;

	if (newer)
		MUST(epoll_pwait2(ep, &ev, 1, &t, NULL) == 1);
	else
		MUST(epoll_wait(ep, &ev, 1, 2 * PROBE_WAIT_MS) == 1);
}

/* The server, another process, closes what it has accepted and waits for something else, in an instance that has never held
 * a connection. */
static void closed_unregistered(bool newer)
{
	int l = listen_on(&addr), go[2], ep = epoll_create1(EPOLL_CLOEXEC), status, c;
	char b[2];
	pid_t pid;

	printf("--- closed, never registered%s\n", newer ? ", epoll_pwait2" : "");
	MUST(pipe(go) == 0);
	add(ep, go[0], EPOLLIN);
	pid = fork();
	MUST(pid >= 0);
	if (!pid) {
		int s = accept4(l, NULL, NULL, SOCK_NONBLOCK);

		MUST(s >= 0 && close(s) == 0);
		wait_in(ep, newer);
		_exit(0);
	}
	c = connect_to(&addr);
	wait_for(c, POLLIN);
	SHOW(recv(c, b, sizeof(b), 0));
	MUST(write(go[1], "go", 2) == 2);
	MUST(waitpid(pid, &status, 0) == pid);
	printf("status %d\n", status);
	MUST(close(c) == 0 && close(l) == 0 && close(go[0]) == 0 && close(go[1]) == 0 &&
	     close(ep) == 0);
}

/* The same with a blocking socket, and a wait that has nothing to do with sockets. Who is first with what is a race. */
static void closed_and_busy(void)
{
	int l = listen_on(&addr), go[2], status, c;
	char b[2];
	pid_t pid;

	say("closed, then busy elsewhere");
	MUST(pipe(go) == 0);
	pid = fork();
	MUST(pid >= 0);
	if (!pid) {
		int s = accept(l, NULL, NULL);

		MUST(s >= 0 && close(s) == 0);
		MUST(read(go[0], b, 2) == 2);
		_exit(0);
	}
	c = connect_to(&addr);
	wait_for(c, POLLIN);
	SHOW(recv(c, b, sizeof(b), 0));
	MUST(write(go[1], "go", 2) == 2);
	MUST(waitpid(pid, &status, 0) == pid);
	printf("status %d\n", status);
	MUST(close(c) == 0 && close(l) == 0 && close(go[0]) == 0 && close(go[1]) == 0);
}

/* accept() on what does not listen is told so at once, though a connection of the process has something left to do. */
static void no_listener(void)
{
	int l = listen_on(&addr), c, s, other;

	say("accept() on no listener");
	c = connect_to(&addr);
	other = connect_to(&addr);
	s = accept(l, NULL, NULL);
	MUST(s >= 0);
	SHOW(accept(s, NULL, NULL));
	SHOW(accept4(c, NULL, NULL, SOCK_CLOEXEC));
	MUST(close(s) == 0 && close(c) == 0 && close(other) == 0 && close(l) == 0);
}

int main(void)
{
	probe_start();
	no_listener();
	closed_unregistered(false); /* before any other: no connection has ever been registered */
	closed_unregistered(true);
	for (int i = 0; i < 24; i++)
		closed_and_busy();
	alone();
	gone(false, false);
	gone(true, false);
	gone(true, true);
	refused_politely();
	server_first();
	polled(0);
	polled(EPOLLET);
	polled(EPOLLONESHOT);
	both_polled();
	filled();
	filled_for_thread(false);
	filled_for_thread(true);
	by_message(false);
	by_message(true);
	return 0;
}
