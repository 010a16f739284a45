/* Every call that writes against every call that reads; lengths of zero; wrong vectors. */
#include "probe.h"

#include <limits.h>

static void show_message(const char *name, ssize_t n, const char *buf)
{
	printf("%s: %zd \"%.*s\"\n", name, n, n > 0 ? (int)n : 0, buf);
}

static void writers(struct pair *p)
{
	char buf[64];
	struct iovec v[3] = { { (char[]){ "one " }, 4 },
			      { (char[]){ "" }, 0 },
			      { (char[]){ "two" }, 3 } };
	struct msghdr m = { .msg_iov = v, .msg_iovlen = 3 };
	struct mmsghdr mm[2] = { { .msg_hdr = m }, { .msg_hdr = m } };

	SHOW(write(p->client, "write", 5));
	recv_all(p->server, buf, 5);
	show_message("got", 5, buf);
	SHOW(writev(p->client, v, 3));
	recv_all(p->server, buf, 7);
	show_message("got", 7, buf);
	SHOW(pwritev2(p->client, v, 3, -1, 0));
	recv_all(p->server, buf, 7);
	show_message("got", 7, buf);
	SHOW(send(p->client, "send", 4, 0));
	recv_all(p->server, buf, 4);
	show_message("got", 4, buf);
	SHOW(sendto(p->client, "sendto", 6, 0, NULL, 0));
	recv_all(p->server, buf, 6);
	show_message("got", 6, buf);
	SHOW(sendto(p->client, "sendto", 6, MSG_NOSIGNAL, (struct sockaddr *)&p->addr,
		    sizeof(p->addr)));
	recv_all(p->server, buf, 6);
	show_message("got", 6, buf);
	SHOW(sendmsg(p->client, &m, 0));
	recv_all(p->server, buf, 7);
	show_message("got", 7, buf);
	SHOW(sendmmsg(p->client, mm, 2, 0));
	printf("lengths %u %u\n", mm[0].msg_len, mm[1].msg_len);
	recv_all(p->server, buf, 14);
	show_message("got", 14, buf);
	SHOW(send(p->client, "more", 4, MSG_MORE));
	SHOW(send(p->client, "last", 4, 0));
	recv_all(p->server, buf, 8);
	show_message("got", 8, buf);
}

static void feed(struct pair *p, const char *text)
{
	send_all(p->client, text, strlen(text));
	wait_for(p->server, POLLIN);
}

static void readers(struct pair *p)
{
	char a[4], b[64];
	struct iovec v[2] = { { a, sizeof(a) }, { b, sizeof(b) } };
	struct sockaddr_storage from;
	socklen_t len = sizeof(from);
	struct msghdr m = {
		.msg_iov = v, .msg_iovlen = 2, .msg_name = &from, .msg_namelen = sizeof(from)
	};
	struct mmsghdr mm[2] = { { .msg_hdr = m } };

	feed(p, "for read");
	show_message("read", SHOW(read(p->server, b, sizeof(b))), b);
	feed(p, "for readv");
	show_message("rest", SHOW(readv(p->server, v, 2)) - 4, b);
	feed(p, "for preadv2");
	show_message("rest", SHOW(preadv2(p->server, v, 2, -1, 0)) - 4, b);
	feed(p, "for recv");
	show_message("recv", SHOW(recv(p->server, b, sizeof(b), 0)), b);
	feed(p, "for recvfrom");
	show_message("recvfrom",
		     SHOW(recvfrom(p->server, b, sizeof(b), 0, (struct sockaddr *)&from, &len)), b);
	printf("address length %u\n", len);
	feed(p, "for recvfrom without address");
	show_message("recvfrom", SHOW(recvfrom(p->server, b, sizeof(b), 0, NULL, NULL)), b);
	feed(p, "for recvmsg");
	show_message("rest", SHOW(recvmsg(p->server, &m, 0)) - 4, b);
	printf("flags %#x, name length %u, control length %zu\n", (unsigned)m.msg_flags,
	       m.msg_namelen, m.msg_controllen);
	feed(p, "for recvmmsg");
	SHOW(recvmmsg(p->server, mm, 1, 0, NULL));
	show_message("rest", (ssize_t)mm[0].msg_len - 4, b);
	feed(p, "two");
	mm[1] = mm[0];
	SHOW(recvmmsg(p->server, mm, 2, MSG_WAITFORONE, NULL));
	printf("length %u\n", mm[0].msg_len);
}

static void nothing(struct pair *p)
{
	char b[8];
	struct iovec none = { b, 0 };

	SHOW(write(p->client, b, 0));
	SHOW(send(p->client, b, 0, 0));
	SHOW(writev(p->client, &none, 1));
	SHOW(writev(p->client, &none, 0));
	SHOW(read(p->server, b, 0));
	SHOW(recv(p->server, b, 0, MSG_DONTWAIT));
	SHOW(readv(p->server, &none, 1));
	SHOW(recv(p->server, b, sizeof(b), MSG_DONTWAIT));
	feed(p, "x");
	SHOW(read(p->server, b, 0));
	SHOW(recv(p->server, b, 0, 0));
	SHOW(recv(p->server, b, sizeof(b), 0));
}

static void wrong(struct pair *p)
{
	static struct iovec many[IOV_MAX + 1];
	struct iovec one = { NULL, 0 };
	char b[1];
	volatile int count = -1; /* the compiler shall not see it */

	SHOW(writev(p->client, many, IOV_MAX + 1));
	SHOW(readv(p->server, many, IOV_MAX + 1));
	SHOW(writev(p->client, &one, count));
	SHOW(readv(p->server, &one, count));
	SHOW(pread(p->server, b, 1, 0));
	SHOW(pwrite(p->server, "", 1, 0));
	SHOW(lseek(p->server, 0, SEEK_CUR));
	SHOW(preadv2(p->server, &one, 1, 5, 0));
	SHOW(read(-1, b, 1));
	SHOW(send(-1, "", 1, 0));
	SHOW(recv(100000, b, 1, 0));
	SHOW(recv(0x7fffffff, b, 1, 0));
	SHOW(close(0x7fffffff));
}

int main(void)
{
	struct pair p;

	probe_start();
	pair_open(&p);
	writers(&p);
	readers(&p);
	nothing(&p);
	wrong(&p);
	pair_close(&p);
	SHOW(read(p.client, &p, 1));
	SHOW(close(p.client));
	return 0;
}
