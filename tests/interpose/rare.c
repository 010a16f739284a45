/* Calls that few programs make, in orders that fewer do: connect and listen on what is connected, flags for records that a
 * stream has none of, options of the kernel's own, vectors of every size. */
#include "probe.h"

#include <limits.h>
#include <linux/errqueue.h>
#include <sys/ioctl.h>

/* A listener that was told to connect listens on. */
static void listens_on(struct pair *p)
{
	int c = connect_to(&p->addr), s = accept(p->listener, NULL, NULL);
	char b[6];

	MUST(s >= 0);
	send_all(c, "accept", 6);
	recv_all(s, b, 6);
	printf("%.6s\n", b);
	MUST(close(c) == 0 && close(s) == 0);
}

static void twice(struct pair *p)
{
	struct sockaddr_in other = p->addr;
	struct sockaddr_storage from;
	socklen_t len = sizeof(from);

	SHOW(connect(p->client, (struct sockaddr *)&p->addr, sizeof(p->addr)));
	SHOW(connect(p->server, (struct sockaddr *)&p->addr, sizeof(p->addr)));
	SHOW(listen(p->client, 5));
	SHOW(bind(p->client, (struct sockaddr *)&other, sizeof(other)));
	SHOW(accept(p->client, NULL, NULL));
	SHOW(connect(p->listener, (struct sockaddr *)&p->addr, sizeof(p->addr)));
	listens_on(p);
	SHOW(recv(p->listener, &from, 1, 0));
	SHOW(send(p->listener, &from, 1, MSG_NOSIGNAL));
	SHOW(getsockname(p->client, (struct sockaddr *)&from, &len));
	SHOW(len);
	len = 3;
	SHOW(getsockname(p->client, (struct sockaddr *)&from, &len));
	SHOW(len);
	len = 0;
	SHOW(getpeername(p->client, (struct sockaddr *)&from, &len));
	SHOW(len);
	len = 2;
	SHOW(getpeername(p->server, (struct sockaddr *)&from, &len));
	SHOW(len);
	len = (socklen_t)-1;
	SHOW(getpeername(p->client, (struct sockaddr *)&from, &len));
	SHOW(getsockname(p->client, (struct sockaddr *)&from, &len));
	SHOW(shutdown(p->listener, SHUT_WR));
}

static void urgent(struct pair *p)
{
	int mark = -1;
	char b;

	SHOW(recv(p->server, &b, 1, MSG_OOB));
	SHOW(sockatmark(p->server));
	SHOW(ioctl(p->server, SIOCATMARK, &mark));
	SHOW(mark);
	SHOW(sockatmark(0));
}

static void receiving(struct pair *p)
{
	char b[64] = "", control[256];
	struct sockaddr_storage from;
	struct iovec v = { b, sizeof(b) };
	struct msghdr m = { .msg_iov = &v,
			    .msg_iovlen = 1,
			    .msg_name = &from,
			    .msg_namelen = sizeof(from),
			    .msg_control = control,
			    .msg_controllen = sizeof(control),
			    .msg_flags = 77 };
	socklen_t len = sizeof(from);

	SHOW(recv(p->client, b, sizeof(b), MSG_ERRQUEUE));
	SHOW(recvmsg(p->client, &m, MSG_ERRQUEUE | MSG_DONTWAIT));
	send_all(p->client, "abcdefgh", 8);
	wait_for(p->server, POLLIN);
	memset(&from, 1, sizeof(from));
	SHOW(recvfrom(p->server, b, 2, MSG_PEEK, (struct sockaddr *)&from, &len));
	printf("address %u, family %#x\n", len, from.ss_family);
	SHOW(recvmsg(p->server, &m, MSG_PEEK));
	printf("name %u control %zu flags %#x\n", m.msg_namelen, m.msg_controllen,
	       (unsigned)m.msg_flags);
	m.msg_controllen = sizeof(control);
	m.msg_namelen = sizeof(from);
	v.iov_len = 3;
	SHOW(recvmsg(p->server, &m, MSG_TRUNC | MSG_PEEK));
	printf("name %u control %zu flags %#x\n", m.msg_namelen, m.msg_controllen,
	       (unsigned)m.msg_flags);
	SHOW(recv(p->server, b, 4, MSG_TRUNC | MSG_PEEK));
	SHOW(recv(p->server, b, 2, MSG_CMSG_CLOEXEC | MSG_NOSIGNAL));
	SHOW(recv(p->server, b, 2, MSG_WAITALL | MSG_TRUNC));
	SHOW(recv(p->server, b, sizeof(b), MSG_PEEK | MSG_WAITALL | MSG_DONTWAIT));
	printf("%.4s\n", b);
	m.msg_iovlen = 0;
	SHOW(recvmsg(p->server, &m, 0));
	SHOW(recv(p->server, b, sizeof(b), 0));
	m.msg_iovlen = 0;
	SHOW(recvmsg(p->server, &m, MSG_DONTWAIT));
	m.msg_iovlen = IOV_MAX + 1;
	SHOW(recvmsg(p->server, &m, MSG_DONTWAIT));
	m.msg_iovlen = 1;
	SHOW(recvmsg(p->server, &m, MSG_DONTWAIT));
	SHOW(recvmmsg(p->server, NULL, 0, MSG_DONTWAIT, NULL));
	SHOW(recv(p->server, b, 1, MSG_DONTWAIT | MSG_TRUNC));
}

static void sending(struct pair *p)
{
	static struct iovec many[IOV_MAX + 1];
	char b[IOV_MAX * 2] = "", z = 'z';
	struct msghdr m = { .msg_iov = many, .msg_iovlen = IOV_MAX };
	struct mmsghdr mm = { .msg_hdr = m };

	for (int i = 0; i < IOV_MAX; i++)
		many[i] = (struct iovec){ &z, (size_t)i & 1 };
	SHOW(writev(p->client, many, IOV_MAX));
	recv_all(p->server, b, IOV_MAX / 2);
	SHOW(sendmsg(p->client, &m, MSG_DONTROUTE));
	recv_all(p->server, b, IOV_MAX / 2);
	m.msg_iovlen = IOV_MAX + 1;
	SHOW(sendmsg(p->client, &m, 0));
	mm.msg_hdr.msg_iovlen = IOV_MAX + 1;
	SHOW(sendmmsg(p->client, &mm, 1, 0));
	m.msg_iovlen = 0;
	SHOW(sendmsg(p->client, &m, 0));
	SHOW(sendmmsg(p->client, &mm, 0, 0));
	SHOW(send(p->client, b, 4, MSG_EOR | MSG_CONFIRM));
	recv_all(p->server, b, 4);
	many[0].iov_len = (size_t)-1;
	SHOW(writev(p->client, many, 2));
	SHOW(readv(p->server, many, 2));
	many[0] = many[1] = (struct iovec){ b, SSIZE_MAX };
	SHOW(writev(p->client, many, 2));
	SHOW(recv(p->server, b, 4, MSG_DONTWAIT));
}

static void positions(struct pair *p)
{
	struct iovec v = { (char[8]){ 0 }, 8 };

	SHOW(pwritev2(p->client, &v, 1, -1, RWF_NOWAIT));
	SHOW(pwritev2(p->client, &v, 1, -1, RWF_DSYNC));
	SHOW(pwritev2(p->client, &v, 1, -1, 0x40000000));
	SHOW(pwritev2(p->client, &v, 1, 0, 0));
	SHOW(pwritev(p->client, &v, 1, 0));
	wait_for(p->server, POLLIN);
	SHOW(preadv2(p->server, &v, 1, -1, RWF_HIPRI));
	SHOW(preadv2(p->server, &v, 1, -1, 0x40000000));
	SHOW(preadv2(p->server, &v, 1, -1, RWF_NOWAIT));
	SHOW(preadv2(p->server, &v, 1, -1, RWF_NOWAIT));
	SHOW(preadv(p->server, &v, 1, 0));
	SHOW(lseek(p->server, 0, SEEK_END));
	SHOW(ftruncate(p->server, 0));
	SHOW(fsync(p->server));
	SHOW(fdatasync(p->server));
}

static int get(int fd, int level, int name)
{
	int v = -1;
	socklen_t len = sizeof(v);
	int r = getsockopt(fd, level, name, &v, &len);

	return r ? r : v;
}

static void kernel_options(struct pair *p)
{
	struct tcp_info info = { 0 };
	struct linger l = { 1, 3 };
	struct timeval tv = { 2, 500000 };
	socklen_t len = sizeof(info);
	char text[16] = "";

	SHOW(getsockopt(p->client, IPPROTO_TCP, TCP_INFO, &info, &len));
	printf("state %d\n", info.tcpi_state);
	SHOW(get(p->client, IPPROTO_TCP, TCP_MAXSEG) > 0);
	SHOW(get(p->client, SOL_SOCKET, SO_INCOMING_CPU) >= 0);
	SHOW(get(p->client, SOL_SOCKET, SO_OOBINLINE));
	SHOW(get(p->client, SOL_SOCKET, SO_SNDLOWAT));
	SHOW(setsockopt(p->client, SOL_SOCKET, SO_SNDLOWAT, &(int){ 5 }, sizeof(int)));
	SHOW(setsockopt(p->client, SOL_SOCKET, SO_LINGER, &l, sizeof(l)));
	len = sizeof(l);
	SHOW(getsockopt(p->client, SOL_SOCKET, SO_LINGER, &l, &len));
	printf("linger %d %d\n", l.l_onoff, l.l_linger);
	SHOW(setsockopt(p->client, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv)));
	tv.tv_sec = 0;
	len = sizeof(tv);
	SHOW(getsockopt(p->client, SOL_SOCKET, SO_RCVTIMEO, &tv, &len));
	printf("timeout %ld.%06ld\n", (long)tv.tv_sec, (long)tv.tv_usec);
	SHOW(setsockopt(p->client, SOL_SOCKET, SO_RCVTIMEO, &(struct timeval){ 0, 2000000 },
			sizeof(tv)));
	SHOW(setsockopt(p->client, IPPROTO_TCP, TCP_CORK, &(int){ 1 }, sizeof(int)));
	SHOW(get(p->client, IPPROTO_TCP, TCP_CORK));
	SHOW(setsockopt(p->client, IPPROTO_TCP, TCP_CORK, &(int){ 0 }, sizeof(int)));
	SHOW(get(p->client, IPPROTO_TCP, TCP_CORK));
	SHOW(setsockopt(p->client, IPPROTO_TCP, TCP_QUICKACK, &(int){ 1 }, sizeof(int)));
	SHOW(setsockopt(p->client, IPPROTO_TCP, TCP_USER_TIMEOUT, &(int){ 9000 }, sizeof(int)));
	SHOW(get(p->client, IPPROTO_TCP, TCP_USER_TIMEOUT));
	len = sizeof(text);
	SHOW(getsockopt(p->client, IPPROTO_TCP, TCP_CONGESTION, text, &len));
	SHOW(setsockopt(p->client, IPPROTO_TCP, TCP_CONGESTION, "nonesuch", 8));
	SHOW(setsockopt(p->client, SOL_SOCKET, SO_RCVLOWAT, &(int){ 7 }, 2));
	SHOW(setsockopt(p->client, SOL_SOCKET, SO_RCVLOWAT, &(int){ 0 }, sizeof(int)));
	SHOW(get(p->client, SOL_SOCKET, SO_RCVLOWAT));
	SHOW(setsockopt(p->client, SOL_SOCKET, SO_RCVLOWAT, &(int){ -1 }, sizeof(int)));
	SHOW(get(p->client, SOL_SOCKET, SO_RCVLOWAT) > 1000000);
	SHOW(setsockopt(p->client, SOL_SOCKET, SO_RCVLOWAT, &(int){ 1 }, sizeof(int)));
	SHOW(setsockopt(p->client, IPPROTO_TCP, TCP_NODELAY, &(int){ 1 }, 1));
	SHOW(setsockopt(p->client, IPPROTO_TCP, TCP_NODELAY, &(int){ 7 }, sizeof(int)));
	SHOW(get(p->client, IPPROTO_TCP, TCP_NODELAY));
	len = 1;
	SHOW(getsockopt(p->client, IPPROTO_TCP, TCP_NODELAY, text, &len));
	printf("length %u\n", len);
	len = 2;
	SHOW(getsockopt(p->client, SOL_SOCKET, SO_ERROR, text, &len));
	printf("length %u\n", len);
	len = (socklen_t)-5;
	SHOW(getsockopt(p->client, SOL_SOCKET, SO_ERROR, text, &len));
	SHOW(getsockopt(p->client, IPPROTO_TCP, TCP_NODELAY, text, &len));
	SHOW(getsockopt(p->client, SOL_SOCKET, SO_RCVLOWAT, text, &len));
}

static void wrong_kinds(struct pair *p)
{
	int ends[2];
	char b[4];

	MUST(pipe(ends) == 0);
	SHOW(tee(p->server, ends[1], 10, 0));
	SHOW(splice(p->server, NULL, p->client, NULL, 10, SPLICE_F_NONBLOCK));
	SHOW(splice(p->server, &(off64_t){ 0 }, ends[1], NULL, 10, SPLICE_F_NONBLOCK));
	set_nonblock(p->server, true);
	SHOW(splice(p->server, NULL, ends[1], NULL, 10, 0));
	set_nonblock(p->server, false);
	SHOW(splice(ends[0], NULL, p->client, NULL, 10, SPLICE_F_NONBLOCK));
	SHOW(splice(p->server, NULL, ends[1], NULL, 0, 0));
	SHOW(splice(ends[0], NULL, p->client, NULL, 0, 0));
	SHOW(splice(p->server, NULL, ends[1], NULL, 5, 0x8000));
	SHOW(vmsplice(p->client, &(struct iovec){ b, 4 }, 1, 0));
	SHOW(copy_file_range(p->server, NULL, ends[1], NULL, 4, 0));
	SHOW(write(ends[0], b, 1));
	MUST(close(ends[0]) == 0 && close(ends[1]) == 0);
}

static void deaf(struct pair *p)
{
	char b[8];

	send_all(p->client, "left", 4);
	wait_for(p->server, POLLIN);
	SHOW(shutdown(p->server, SHUT_RD));
	SHOW(recv(p->server, b, 2, 0));
	SHOW(recv(p->server, b, 8, 0));
	SHOW(recv(p->server, b, 8, 0));
	send_all(p->client, "more", 4);
	SHOW(shutdown(p->server, SHUT_RD));
	SHOW(send(p->server, "back", 4, 0));
	recv_all(p->client, b, 4);
	SHOW(recv(p->server, b, 8, 0));
}

static void ended(struct pair *p)
{
	char b[8];

	SHOW(shutdown(p->server, SHUT_WR));
	SHOW(shutdown(p->server, SHUT_WR));
	SHOW(recv(p->client, b, 4, 0));
	SHOW(shutdown(p->client, SHUT_RDWR));
	SHOW(shutdown(p->client, SHUT_RDWR));
	SHOW(send(p->client, b, 0, MSG_NOSIGNAL));
	SHOW(send(p->client, b, 1, MSG_NOSIGNAL));
	SHOW(recv(p->client, b, 0, 0));
	SHOW(recv(p->client, b, 1, 0));
	SHOW(connect(p->client, (struct sockaddr *)&p->addr, sizeof(p->addr)));
}

int main(void)
{
	struct pair p;

	probe_start();
	pair_open(&p);
	twice(&p);
	pair_close(&p);
	pair_open(&p);
	urgent(&p);
	receiving(&p);
	sending(&p);
	positions(&p);
	kernel_options(&p);
	wrong_kinds(&p);
	deaf(&p);
	pair_close(&p);
	pair_open(&p);
	ended(&p);
	pair_close(&p);
	return 0;
}
