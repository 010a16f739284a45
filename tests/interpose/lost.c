/* Descriptors that are closed, and numbers that are taken, by calls that no library sees: what a program reads and writes
 * afterwards is what the kernel has there. */
#include "probe.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>

/* The instruction itself, as in a program of Go's. */
static long direct(long number, long a, long b, long c)
{
	long r;
#if defined(__x86_64__)
	__asm__ volatile("syscall"
			 : "=a"(r)
			 : "0"(number), "D"(a), "S"(b), "d"(c)
			 : "rcx", "r11", "memory");
#else
	register long x8 __asm__("x8") = number;
	register long x0 __asm__("x0") = a;
	register long x1 __asm__("x1") = b;
	register long x2 __asm__("x2") = c;

	__asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2) : "memory");
	r = x0;
#endif
	return r;
}

static void closed(void)
{
	struct pair p;
	char b[4];
	int n;

	pair_open(&p);
	MUST(direct(SYS_close, p.client, 0, 0) == 0);
	SHOW(read(p.client, b, 1));
	SHOW(write(p.client, b, 1));
	SHOW(ioctl(p.client, FIONREAD, &n));
	SHOW(shutdown(p.client, SHUT_WR));
	SHOW(getpeername(p.client, (struct sockaddr *)&p.addr, &(socklen_t){ sizeof(p.addr) }));
	SHOW(getsockopt(p.client, SOL_SOCKET, SO_ERROR, &n, &(socklen_t){ sizeof(n) }));
	printf("%s\n", events_text(ready_now(p.client)));
	SHOW(close(p.client));
	MUST(close(p.server) == 0 && close(p.listener) == 0);
}

/* The connection had ended, and the session knows it: a file that takes the number is read all the same. */
static void ended(bool reset)
{
	struct linger l = { .l_onoff = 1 };
	struct pair p;
	char b[8] = "";
	int fd;

	pair_open(&p);
	if (reset)
		MUST(setsockopt(p.server, SOL_SOCKET, SO_LINGER, &l, sizeof(l)) == 0);
	MUST(close(p.server) == 0);
	wait_for(p.client, POLLIN);
	SHOW(read(p.client, b, 1));
	SHOW(read(p.client, b, 1));
	MUST(direct(SYS_close, p.client, 0, 0) == 0);
	fd = open("/proc/self/comm", O_RDONLY | O_CLOEXEC);
	MUST(fd == p.client);
	SHOW(read(fd, b, 4));
	printf("%s\n", b);
	MUST(close(fd) == 0 && close(p.listener) == 0);
}

/* `first`: what is done with the number before anything else. */
static void taken_by_file(int first)
{
	struct epoll_event ev = { .events = EPOLLIN, .data.u64 = 5 };
	int ep = epoll_create1(EPOLL_CLOEXEC);
	struct pair p;
	uint64_t n = 3;

	pair_open(&p);
	MUST(direct(SYS_close, p.client, 0, 0) == 0);
	MUST(eventfd(0, EFD_NONBLOCK) == p.client);
	switch (first) {
	case 0:
		SHOW(write(p.client, &n, 8));
		SHOW(read(p.client, &n, 8));
		break;
	case 1:
		SHOW(read(p.client, &n, 8));
		SHOW(write(p.client, &n, 8));
		break;
	case 2:
		SHOW(epoll_ctl(ep, EPOLL_CTL_ADD, p.client, &ev));
		SHOW(epoll_wait(ep, &ev, 1, 0));
		SHOW(write(p.client, &n, 8));
		SHOW(epoll_wait(ep, &ev, 1, 0));
		printf("%x %lu\n", ev.events, (unsigned long)ev.data.u64);
		break;
	case 3:
		printf("%s\n", events_text(ready_now(p.client)));
		SHOW(send(p.client, &n, 8, 0));
		SHOW(write(p.client, &n, 8));
		printf("%s\n", events_text(ready_now(p.client)));
		break;
	default:
		SHOW(shutdown(p.client, SHUT_WR));
		SHOW(getpeername(p.client, (struct sockaddr *)&p.addr,
				 &(socklen_t){ sizeof(p.addr) }));
		SHOW(getsockopt(p.client, SOL_SOCKET, SO_ERROR, &n, &(socklen_t){ sizeof(int) }));
		SHOW(getsockopt(p.client, SOL_SOCKET, SO_RCVLOWAT, &n,
				&(socklen_t){ sizeof(int) }));
		SHOW(setsockopt(p.client, IPPROTO_TCP, TCP_NODELAY, &n, sizeof(int)));
		SHOW(write(p.client, &n, 8));
	}
	SHOW(read(p.client, &n, 8));
	printf("%lu\n", (unsigned long)n);
	MUST(recv(p.server, &n, 1, 0) <= 0);
	SHOW(close(p.client));
	MUST(close(p.server) == 0 && close(p.listener) == 0 && close(ep) == 0);
}

/* A copy of the descriptor lives on: its connection is none the worse. */
static void copy_lives(void)
{
	struct pair p;
	char b[8] = "";
	int copy;

	pair_open(&p);
	copy = dup(p.client);
	MUST(copy >= 0 && direct(SYS_close, p.client, 0, 0) == 0);
	MUST(open("/dev/null", O_RDWR | O_CLOEXEC) == p.client);
	SHOW(write(p.client, "nowhere", 7));
	SHOW(read(p.client, b, 8));
	SHOW(write(copy, "there", 5));
	recv_all(p.server, b, 5);
	printf("%s\n", b);
	SHOW(close(p.client));
	SHOW(send(p.server, "back", 4, 0));
	SHOW(recv(copy, b, 8, 0));
	SHOW(close(copy));
	SHOW(recv(p.server, b, 8, 0));
	MUST(close(p.server) == 0 && close(p.listener) == 0);
}

/* Before the handshake is over. */
static void taken_early(void)
{
	struct sockaddr_in addr;
	int listener = listen_on(&addr), client = client_socket(), server;
	uint64_t n = 9;

	set_nonblock(client, true);
	MUST(connect(client, (struct sockaddr *)&addr, sizeof(addr)) < 0 && errno == EINPROGRESS);
	MUST(direct(SYS_close, client, 0, 0) == 0);
	MUST(eventfd(0, EFD_NONBLOCK) == client);
	SHOW(write(client, &n, 8));
	SHOW(read(client, &n, 8));
	SHOW(close(client));
	server = accept(listener, NULL, NULL);
	MUST(server >= 0);
	MUST(close(server) == 0 && close(listener) == 0);
}

int main(void)
{
	probe_start();
	closed();
	ended(false);
	ended(true);
	for (int i = 0; i < 5; i++)
		taken_by_file(i);
	copy_lives();
	taken_early();
	return 0;
}
