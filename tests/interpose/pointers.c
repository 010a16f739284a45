/* Pointers to memory that is not there, or that may not be written: EFAULT, at the time when the kernel says it. */
#include "probe.h"

#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/select.h>
#include <sys/sendfile.h>
#include <sys/syscall.h>

static char *none, *edge; /* a page of nothing; 16 bytes before it that can be used */
static char *constant;    /* a page that cannot be written */

static void map(void)
{
	char *p = mmap(NULL, 3 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	MUST(p != MAP_FAILED && mprotect(p + 4096, 4096, PROT_NONE) == 0 &&
	     mprotect(p + 8192, 4096, PROT_READ) == 0);
	none = p + 4096;
	edge = none - 16;
	constant = p + 8192;
}

static void writes(int fd, int peer, char *bad)
{
	struct iovec v[2] = { { (char[]){ "good" }, 4 }, { bad, 4 } };
	struct msghdr m = { .msg_iov = v + 1, .msg_iovlen = 1 };
	char b[16];

	SHOW(write(fd, bad, 4));
	SHOW(send(fd, bad, 4, 0));
	SHOW(sendto(fd, bad, 4, 0, NULL, 0));
	SHOW(sendmsg(fd, &m, 0));
	SHOW(writev(fd, v, 2));
	SHOW(writev(fd, v + 1, 1));
	SHOW(writev(fd, (struct iovec *)bad, 1));
	SHOW(sendmsg(fd, (struct msghdr *)bad, 0));
	SHOW(sendmmsg(fd, (struct mmsghdr *)bad, 1, 0));
	SHOW(write(fd, bad, 0));
	SHOW(recv(peer, b, sizeof(b), MSG_DONTWAIT));
}

static void reads(int fd, int peer, char *bad)
{
	char b[16] = "";
	struct iovec v[2] = { { b, 2 }, { bad, 4 } };
	struct msghdr m = { .msg_iov = v + 1, .msg_iovlen = 1 };
	struct mmsghdr mm = { .msg_hdr = m };

	SHOW(recv(fd, bad, 4, MSG_DONTWAIT));
	send_all(peer, "data", 4);
	wait_for(fd, POLLIN);
	SHOW(read(fd, bad, 4));
	SHOW(recv(fd, bad, 4, 0));
	SHOW(recv(fd, bad, 4, MSG_PEEK));
	SHOW(recvfrom(fd, bad, 4, 0, NULL, NULL));
	SHOW(recvmsg(fd, &m, 0));
	SHOW(recvmmsg(fd, &mm, 1, 0, NULL));
	SHOW(readv(fd, v + 1, 1));
	SHOW(readv(fd, (struct iovec *)bad, 1));
	SHOW(recvmsg(fd, (struct msghdr *)bad, 0));
	SHOW(read(fd, bad, 0));
	SHOW(read(fd, b, sizeof(b)));
	printf("%.4s\n", b);
}

static void at_the_edge(int fd, int peer)
{
	char b[16];

	memcpy(edge, "sixteen bytes   ", 16);
	SHOW(send(fd, edge, 16, 0));
	recv_all(peer, b, 16);
	send_all(peer, "twelve bytes", 12);
	wait_for(fd, POLLIN);
	SHOW(recv(fd, edge, 4000, 0));
	printf("%.12s\n", edge);
	SHOW(send(fd, constant, 4, 0));
	recv_all(peer, b, 4);
	send_all(peer, "data", 4);
	wait_for(fd, POLLIN);
	SHOW(recv(fd, constant, 4, 0));
	SHOW(read(fd, constant, 4));
	recv_all(fd, b, 4);
}

static void waits(int fd, char *bad)
{
	struct epoll_event ev = { .events = EPOLLOUT };
	int ep = epoll_create1(0);
	volatile int no_events = -1;
	fd_set r;

	SHOW(poll((struct pollfd *)bad, 1, 0));
	SHOW(select(fd + 1, (fd_set *)bad, NULL, NULL, &(struct timeval){ 0 }));
	FD_ZERO(&r);
	FD_SET(fd, &r);
	SHOW(pselect(fd + 1, &r, NULL, (fd_set *)bad, &(struct timespec){ 0 }, NULL));
	SHOW(epoll_ctl(ep, EPOLL_CTL_ADD, fd, (struct epoll_event *)bad));
	SHOW(epoll_ctl(ep, EPOLL_CTL_ADD, fd, &ev));
	SHOW(epoll_ctl(ep, EPOLL_CTL_MOD, fd, (struct epoll_event *)bad));
	SHOW(epoll_wait(ep, (struct epoll_event *)bad, 1, 0));
	SHOW(epoll_wait(ep, &ev, 1, 0));
	SHOW(epoll_wait(ep, &ev, 0, 0));
	SHOW(epoll_wait(ep, &ev, no_events, 0));
	SHOW(epoll_ctl(ep, EPOLL_CTL_DEL, fd, NULL));
	MUST(close(ep) == 0);
}

static void names(struct pair *p, int fd, char *bad)
{
	struct sockaddr_storage a;
	socklen_t len = sizeof(a), *lost = (socklen_t *)bad;
	int v = 1, fresh = client_socket();

	SHOW(getpeername(fd, (struct sockaddr *)bad, &len));
	SHOW(getpeername(fd, (struct sockaddr *)&a, lost));
	SHOW(getsockname(fd, (struct sockaddr *)bad, &len));
	SHOW(getsockname(fd, (struct sockaddr *)&a, lost));
	SHOW(getsockopt(fd, SOL_SOCKET, SO_ERROR, bad, &len));
	SHOW(getsockopt(fd, SOL_SOCKET, SO_ERROR, &v, lost));
	SHOW(getsockopt(fd, SOL_SOCKET, SO_RCVLOWAT, bad, &len));
	SHOW(getsockopt(fd, IPPROTO_TCP, TCP_NODELAY, bad, &len));
	SHOW(setsockopt(fd, SOL_SOCKET, SO_RCVLOWAT, bad, sizeof(v)));
	SHOW(setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, bad, sizeof(v)));
	SHOW(ioctl(fd, FIONREAD, bad));
	SHOW(ioctl(fd, FIONBIO, bad));
	SHOW(connect(fresh, (struct sockaddr *)bad, sizeof(p->addr)));
	SHOW(connect(fresh, (struct sockaddr *)&p->addr, 1));
	SHOW(connect(fresh, (struct sockaddr *)&p->addr, 200));
	SHOW(connect(fresh, (struct sockaddr *)&p->addr, (socklen_t)-1));
	SHOW(accept(p->listener, (struct sockaddr *)bad, NULL));
	SHOW(socketpair(AF_UNIX, SOCK_STREAM, 0, (int *)bad));
	MUST(close(fresh) == 0);
}

static void files(int fd, char *bad)
{
	int file = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);

	SHOW(sendfile(fd, file, (off_t *)bad, 4));
	MUST(close(file) == 0);
}

static void datagrams(char *bad)
{
	struct msghdr m = { .msg_name = bad, .msg_namelen = 16 };
	int fd = socket(AF_INET, SOCK_DGRAM, 0);

	SHOW(sendto(fd, "x", 1, 0, (struct sockaddr *)bad, 16));
	SHOW(sendmsg(fd, &m, 0));
	SHOW(sendmsg(fd, (struct msghdr *)bad, 0));
	SHOW(connect(fd, (struct sockaddr *)bad, 16));
	MUST(close(fd) == 0);
}

/* NULL as an environment is an empty one. */
static void programs(char *bad)
{
	char *argv[] = { (char[]){ "true" }, NULL };

	SHOW(execve(bad, argv, NULL));
	SHOW(syscall(SYS_execve, bad, argv, NULL));
	if (bad)
		SHOW(execve("/bin/true", argv, (char **)(void *)bad));
}

int main(void)
{
	char *bad[4];
	struct pair p;

	probe_start();
	map();
	bad[0] = NULL;
	bad[1] = (char *)8;
	bad[2] = (char *)-9;
	bad[3] = none;
	pair_open(&p);
	set_nonblock(p.listener, true);
	for (int i = 0; i < 4; i++) {
		printf("pointer %d\n", i);
		writes(p.client, p.server, bad[i]);
		reads(p.server, p.client, bad[i]);
		programs(bad[i]);
		if (i) {
			waits(p.client, bad[i]);
			names(&p, p.client, bad[i]);
			files(p.client, bad[i]);
			datagrams(bad[i]);
		}
	}
	at_the_edge(p.client, p.server);
	pair_close(&p);
	return 0;
}
