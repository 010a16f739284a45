/* What is no TCP connection is none of our business: AF_UNIX, pipes, UDP, files, raw calls, multicast. */
#include "probe.h"

#include <sys/ioctl.h>
#include <sys/sendfile.h>
#include <sys/syscall.h>
#include <sys/un.h>

static void unix_pair(void)
{
	struct msghdr m = { 0 };
	char control[CMSG_SPACE(sizeof(int))], b[16] = "";
	struct iovec v = { (char[]){ "fd" }, 2 };
	struct cmsghdr *c;
	int sv[2], got = -1, n = 0;

	SHOW(socketpair(AF_UNIX, SOCK_STREAM, 0, sv));
	m.msg_iov = &v;
	m.msg_iovlen = 1;
	m.msg_control = control;
	m.msg_controllen = sizeof(control);
	c = CMSG_FIRSTHDR(&m);
	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(c), &sv[1], sizeof(int));
	SHOW(sendmsg(sv[0], &m, 0));
	SHOW(ioctl(sv[1], FIONREAD, &n));
	v.iov_base = b;
	SHOW(recvmsg(sv[1], &m, MSG_CMSG_CLOEXEC));
	c = CMSG_FIRSTHDR(&m);
	MUST(c && c->cmsg_type == SCM_RIGHTS);
	memcpy(&got, CMSG_DATA(c), sizeof(int));
	SHOW(write(sv[0], "through", 7));
	SHOW(read(got, b, sizeof(b)));
	printf("%d %.7s\n", n, b);
	SHOW(shutdown(sv[0], SHUT_WR));
	SHOW(recv(got, b, 1, 0));
	MUST(close(got) == 0 && close(sv[0]) == 0 && close(sv[1]) == 0);
}

static void unix_server(void)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	int l = socket(AF_UNIX, SOCK_STREAM, 0), c = socket(AF_UNIX, SOCK_STREAM, 0), s;
	socklen_t len = (socklen_t)(sizeof(sa_family_t) + 20);
	char b[8] = "";

	snprintf(a.sun_path + 1, 20, "interpose-%d", (int)getpid());
	MUST(bind(l, (struct sockaddr *)&a, len) == 0);
	SHOW(listen(l, 5));
	SHOW(connect(c, (struct sockaddr *)&a, len));
	s = SHOW_FD(accept4(l, NULL, NULL, SOCK_NONBLOCK));
	SHOW(recv(s, b, 8, 0));
	SHOW(send(c, "unix", 4, 0));
	SHOW(recv(s, b, 8, 0));
	MUST(close(l) == 0 && close(c) == 0 && close(s) == 0);
}

static void udp(void)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) },
			   from;
	socklen_t len = sizeof(a), from_len = sizeof(from);
	int s = socket(AF_INET, SOCK_DGRAM, 0), c = socket(AF_INET, SOCK_DGRAM, 0);
	struct mmsghdr mm[2] = { 0 };
	struct iovec v[2] = { { (char[]){ "one" }, 3 }, { (char[]){ "two" }, 3 } };
	char b[16] = "";

	MUST(bind(s, (struct sockaddr *)&a, sizeof(a)) == 0 &&
	     getsockname(s, (struct sockaddr *)&a, &len) == 0);
	SHOW(listen(s, 5));
	SHOW(sendto(c, "datagram", 8, 0, (struct sockaddr *)&a, sizeof(a)));
	wait_for(s, POLLIN);
	SHOW(recvfrom(s, b, 4, MSG_TRUNC, (struct sockaddr *)&from, &from_len));
	SHOW(connect(c, (struct sockaddr *)&a, sizeof(a)));
	for (int i = 0; i < 2; i++) {
		mm[i].msg_hdr.msg_iov = &v[i];
		mm[i].msg_hdr.msg_iovlen = 1;
	}
	SHOW(sendmmsg(c, mm, 2, 0));
	v[0].iov_base = b;
	v[1].iov_base = b + 8;
	SHOW(recvmmsg(s, mm, 2, MSG_WAITFORONE, NULL));
	printf("%s %s %u %u\n", b, b + 8, mm[0].msg_len, mm[1].msg_len);
	SHOW(recv(s, b, 8, MSG_DONTWAIT));
	MUST(close(s) == 0 && close(c) == 0);
}

static void files(void)
{
	char path[] = "/tmp/interpose-XXXXXX", b[16] = "";
	struct iovec v[2] = { { b, 2 }, { b + 2, 8 } };
	int fd = mkstemp(path), ends[2], n;

	MUST(fd >= 0 && unlink(path) == 0 && pipe(ends) == 0);
	SHOW(write(fd, "0123456789", 10));
	SHOW(pwritev2(fd, v, 0, 0, 0));
	SHOW(preadv2(fd, v, 2, 3, 0));
	printf("%s\n", b);
	SHOW(read(fd, b, 8));
	SHOW(recv(fd, b, 8, 0));
	SHOW(getpeername(fd, (struct sockaddr *)b, &(socklen_t){ sizeof(b) }));
	SHOW(listen(fd, 1));
	SHOW(accept(fd, NULL, NULL));
	SHOW(connect(fd, (struct sockaddr *)b, sizeof(b)));
	SHOW(sendfile(ends[1], fd, &(off_t){ 4 }, 4));
	SHOW(ioctl(ends[0], FIONREAD, &n));
	SHOW(splice(ends[0], NULL, fd, NULL, 4, 0));
	SHOW(syscall(SYS_write, ends[1], "raw", 3));
	SHOW(syscall(SYS_read, ends[0], b, 16));
	SHOW(syscall(SYS_getpid) == getpid());
	SHOW(syscall(99999));
	SHOW(fcntl(ends[0], F_GETPIPE_SZ) > 0);
	MUST(close(ends[0]) == 0);
	signal(SIGPIPE, SIG_IGN);
	SHOW(write(ends[1], "x", 1));
	MUST(close(ends[1]) == 0 && close(fd) == 0);
}

static void sockets(void)
{
	int fd;

	SHOW(socket(AF_INET, 77, 0));
	SHOW(socket(AF_INET, SOCK_STREAM, IPPROTO_UDP));
	SHOW(socketpair(AF_INET, SOCK_STREAM, 0, (int[2]){ 0 }));
	fd = SHOW_FD(socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
	printf("flags %d %d\n", !!(fcntl(fd, F_GETFL) & O_NONBLOCK), fcntl(fd, F_GETFD));
	SHOW(accept(fd, NULL, NULL));
	MUST(close(fd) == 0);
}

int main(void)
{
	probe_start();
	unix_pair();
	unix_server();
	udp();
	files();
	sockets();
	return 0;
}
