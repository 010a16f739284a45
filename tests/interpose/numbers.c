/* The same calls by their numbers, as libuv and netty make them, and by the other names that libc has for them. */
#include "probe.h"

#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/select.h>
#include <sys/sendfile.h>
#include <sys/syscall.h>

ssize_t __read(int fd, void *buf, size_t n);
ssize_t __write(int fd, const void *buf, size_t n);
ssize_t __send(int fd, const void *buf, size_t n, int flags);
int __close(int fd);
int __connect(int fd, const struct sockaddr *addr, socklen_t len);
int __dup2(int fd, int to);
int __fcntl(int fd, int cmd, ...);
int __poll(struct pollfd *fds, nfds_t n, int timeout);
int __select(int n, fd_set *r, fd_set *w, fd_set *e, struct timeval *timeout);

#define CALL(name, ...) SHOW(syscall(SYS_##name, __VA_ARGS__))
#define CALL_FD(name, ...) SHOW_FD((int)syscall(SYS_##name, __VA_ARGS__))

static void *serve(void *arg)
{
	int listener = *(int *)arg,
	    fd = (int)syscall(SYS_accept4, listener, NULL, NULL, SOCK_CLOEXEC);

	MUST(fd >= 0);
	MUST(wait_for(fd, POLLOUT) & POLLOUT);
	*(int *)arg = fd;
	return NULL;
}

static void open_by_number(struct pair *p)
{
	pthread_t t;
	int server;

	p->listener = listen_on(&p->addr);
	server = p->listener;
	CALL(listen, p->listener, 5);
	p->client = CALL_FD(socket, AF_INET, SOCK_STREAM, 0);
	MUST(pthread_create(&t, NULL, serve, &server) == 0);
	CALL(connect, p->client, &p->addr, sizeof(p->addr));
	MUST(pthread_join(t, NULL) == 0);
	p->server = server;
}

static void data(struct pair *p)
{
	char b[32] = "";
	struct iovec v = { (char[]){ "vector" }, 6 }, in = { b, sizeof(b) };
	struct msghdr m = { .msg_iov = &v, .msg_iovlen = 1 };
	struct mmsghdr mm = { .msg_hdr = m };

	CALL(write, p->client, "write", 5);
	wait_for(p->server, POLLIN);
	CALL(read, p->server, b, sizeof(b));
	CALL(writev, p->client, &v, 1);
	wait_for(p->server, POLLIN);
	CALL(readv, p->server, &in, 1);
	CALL(pwritev2, p->client, &v, 1, -1L, -1L, 0);
	wait_for(p->server, POLLIN);
	CALL(preadv2, p->server, &in, 1, -1L, -1L, 0);
	CALL(sendto, p->client, "sendto", 6, 0, NULL, 0);
	wait_for(p->server, POLLIN);
	CALL(recvfrom, p->server, b, sizeof(b), 0, NULL, NULL);
	CALL(sendmsg, p->client, &m, 0);
	m.msg_iov = &in;
	wait_for(p->server, POLLIN);
	CALL(recvmsg, p->server, &m, 0);
	CALL(sendmmsg, p->client, &mm, 1, 0);
	mm.msg_hdr.msg_iov = &in;
	wait_for(p->server, POLLIN);
	CALL(recvmmsg, p->server, &mm, 1, 0, NULL);
	printf("%.6s\n", b);
	CALL(pread64, p->server, b, 1, 0);
}

static void from_files(struct pair *p)
{
	char path[] = "/tmp/interpose-XXXXXX", b[16] = "";
	int file = mkstemp(path), ends[2];

	MUST(file >= 0 && unlink(path) == 0 && write(file, "contents", 8) == 8 && pipe(ends) == 0);
	CALL(sendfile, p->client, file, &(off_t){ 2 }, 6);
	wait_for(p->server, POLLIN);
	CALL(read, p->server, b, sizeof(b));
	MUST(write(ends[1], "piped", 5) == 5);
	CALL(splice, ends[0], NULL, p->client, NULL, 5, 0);
	wait_for(p->server, POLLIN);
	CALL(splice, p->server, NULL, ends[1], NULL, 5, 0);
	CALL(read, ends[0], b, sizeof(b));
	printf("%.8s\n", b);
	CALL(close, file);
	CALL(close, ends[0]);
	CALL(close, ends[1]);
}

static void waits(struct pair *p)
{
	struct epoll_event ev = { .events = EPOLLIN, .data.u64 = 7 }, got = { 0 };
	struct pollfd f = { .fd = p->server, .events = POLLIN };
	struct timespec now = { 0 };
	int ep = epoll_create1(EPOLL_CLOEXEC);
	char b[4];
	fd_set r;

	CALL(epoll_ctl, ep, EPOLL_CTL_ADD, p->server, &ev);
	CALL(epoll_pwait, ep, &got, 1, 0, NULL, 8);
	CALL(ppoll, &f, 1, &now, NULL, 8);
	MUST(send(p->client, "wake", 4, 0) == 4);
	CALL(epoll_pwait, ep, &got, 1, PROBE_WAIT_MS, NULL, 8);
	printf("%x %lu\n", got.events, (unsigned long)got.data.u64);
	CALL(ppoll, &f, 1, &now, NULL, 8);
	FD_ZERO(&r);
	FD_SET(p->server, &r);
	CALL(pselect6, p->server + 1, &r, NULL, NULL, &now, NULL);
	CALL(read, p->server, b, 4);
	CALL(pselect6, p->server + 1, &r, NULL, NULL, &now, NULL);
	MUST(close(ep) == 0);
}

static void options(struct pair *p)
{
	struct sockaddr_in name;
	socklen_t len = sizeof(name);
	int n = 9;

	CALL(getpeername, p->client, &name, &len);
	SHOW(name.sin_port == p->addr.sin_port);
	len = sizeof(n);
	CALL(getsockopt, p->client, SOL_SOCKET, SO_ERROR, &n, &len);
	CALL(setsockopt, p->client, SOL_SOCKET, SO_RCVLOWAT, &(int){ 3 }, sizeof(int));
	MUST(send(p->client, "four", 4, 0) == 4);
	wait_for(p->server, POLLIN);
	CALL(ioctl, p->server, FIONREAD, &n);
	printf("%d\n", n);
}

static void copies(struct pair *p)
{
	char b[4] = "";
	int d = CALL_FD(dup, p->server), e;

	CALL_FD(dup3, d, p->server, O_CLOEXEC);
	e = CALL_FD(fcntl, p->server, F_DUPFD_CLOEXEC, 50);
	CALL(close, p->server);
	CALL(read, e, b, 4);
	printf("%.4s\n", b);
	CALL(close, d);
	CALL(shutdown, p->client, SHUT_WR);
	CALL(read, e, b, 4);
	CALL(close_range, e, e, 0);
	wait_for(p->client, POLLIN);
	CALL(read, p->client, b, 1);
	CALL(close, p->client);
	CALL(close, p->client);
	CALL(close, p->listener);
}

static void names(void)
{
	struct pollfd f = { .events = POLLIN };
	struct timeval now = { 0 };
	struct pair p;
	fd_set r;
	char b[8];

	pair_open(&p);
	SHOW(__connect(p.client, (struct sockaddr *)&p.addr, sizeof(p.addr)));
	SHOW(__write(p.client, "one", 3));
	SHOW(__send(p.client, "two", 3, 0));
	f.fd = p.server;
	SHOW(__poll(&f, 1, PROBE_WAIT_MS));
	FD_ZERO(&r);
	FD_SET(p.server, &r);
	SHOW(__select(p.server + 1, &r, NULL, NULL, &now));
	recv_all(p.server, b, 3);
	SHOW(__read(p.server, b, 3));
	SHOW(__dup2(p.listener, p.server) == p.server);
	SHOW(__read(p.client, b, 1));
	SHOW(__fcntl(p.client, F_GETFD));
	SHOW(__close(p.client));
	SHOW(__close(p.client));
	MUST(close(p.server) == 0 && close(p.listener) == 0);
}

int main(void)
{
	struct pair p;

	probe_start();
	open_by_number(&p);
	data(&p);
	from_files(&p);
	waits(&p);
	options(&p);
	copies(&p);
	names();
	SHOW(syscall(SYS_getpid) == getpid());
	SHOW(syscall(100000L));
	return 0;
}
