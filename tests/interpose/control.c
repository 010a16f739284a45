/* fcntl, ioctl, socket options, names of both ends. */
#include "probe.h"

#include <sys/ioctl.h>

static void modes(struct pair *p)
{
	int on = 1, off = 0;
	char x;

	SHOW(fcntl(p->server, F_GETFL) & O_ACCMODE);
	SHOW(fcntl(p->server, F_SETFL, O_RDWR | O_NONBLOCK));
	SHOW(recv(p->server, &x, 1, 0));
	SHOW(fcntl(p->server, F_GETFL) & O_NONBLOCK);
	SHOW(ioctl(p->server, FIONBIO, &off));
	SHOW(fcntl(p->server, F_GETFL) & O_NONBLOCK);
	SHOW(ioctl(p->server, FIONBIO, &on));
	SHOW(fcntl(p->server, F_GETFL) & O_NONBLOCK);
	SHOW(read(p->server, &x, 1));
	SHOW(ioctl(p->server, FIONBIO, &off));
	SHOW(fcntl(p->client, F_GETFD));
	SHOW(ioctl(p->client, FIONCLEX));
	SHOW(fcntl(p->client, F_GETFD));
	SHOW(ioctl(p->client, FIOCLEX));
	SHOW(fcntl(p->client, F_GETFD));
	SHOW(fcntl(p->client, 9999));
	SHOW(ioctl(p->client, 0x12345678, &on));
	SHOW(fcntl(-1, F_GETFL));
	SHOW(ioctl(-1, FIONREAD, &on));
}

static int readable(int fd)
{
	int n = -1;

	MUST(ioctl(fd, FIONREAD, &n) == 0);
	return n;
}

static int unsent(int fd)
{
	int n = -1;

	MUST(ioctl(fd, TIOCOUTQ, &n) == 0);
	return n;
}

/* FIONREAD is what one read would give. */
static void counts(struct pair *p)
{
	static char b[20000];
	int64_t end;

	SHOW(readable(p->server));
	send_all(p->client, "12345", 5);
	send_all(p->client, "67890", 5);
	wait_for(p->server, POLLIN);
	for (end = now_ms() + PROBE_WAIT_MS; readable(p->server) < 10 && now_ms() < end;)
		sleep_ms(1);
	SHOW(readable(p->server));
	SHOW(recv(p->server, b, 3, 0));
	SHOW(readable(p->server));
	SHOW(recv(p->server, b, 100, 0));
	SHOW(readable(p->server));
	send_all(p->client, b, sizeof(b));
	wait_for(p->server, POLLIN);
	for (end = now_ms() + PROBE_WAIT_MS;
	     readable(p->server) < (int)sizeof(b) && now_ms() < end;)
		sleep_ms(1);
	SHOW(readable(p->server));
	SHOW(recv(p->server, b, 1, 0));
	SHOW(readable(p->server));
	recv_all(p->server, b, sizeof(b) - 1);
	SHOW(readable(p->server));
	for (end = now_ms() + PROBE_WAIT_MS; unsent(p->client) && now_ms() < end;)
		sleep_ms(1);
	SHOW(unsent(p->client));
	SHOW(ioctl(p->listener, FIONREAD, b));
}

static int get_int(int fd, int level, int name)
{
	int v = -1;
	socklen_t len = sizeof(v);

	if (getsockopt(fd, level, name, &v, &len) != 0)
		return -1;
	MUST(len == sizeof(v));
	return v;
}

static void options(struct pair *p)
{
	SHOW(get_int(p->client, SOL_SOCKET, SO_ERROR));
	SHOW(get_int(p->client, SOL_SOCKET, SO_TYPE));
	SHOW(get_int(p->client, SOL_SOCKET, SO_DOMAIN));
	SHOW(get_int(p->client, SOL_SOCKET, SO_PROTOCOL));
	SHOW(get_int(p->client, SOL_SOCKET, SO_ACCEPTCONN));
	SHOW(get_int(p->listener, SOL_SOCKET, SO_ACCEPTCONN));
	SHOW(get_int(p->client, SOL_SOCKET, SO_RCVLOWAT));
	SHOW(get_int(p->server, SOL_SOCKET, SO_RCVLOWAT));
	SHOW(get_int(p->client, IPPROTO_TCP, TCP_NODELAY));
	SHOW(get_int(p->server, IPPROTO_TCP, TCP_NODELAY));
	set_int(p->client, IPPROTO_TCP, TCP_NODELAY, 1);
	SHOW(get_int(p->client, IPPROTO_TCP, TCP_NODELAY));
	set_int(p->client, IPPROTO_TCP, TCP_NODELAY, 0);
	SHOW(get_int(p->client, IPPROTO_TCP, TCP_NODELAY));
	set_int(p->client, SOL_SOCKET, SO_KEEPALIVE, 1);
	SHOW(get_int(p->client, SOL_SOCKET, SO_KEEPALIVE));
	set_int(p->client, SOL_SOCKET, SO_RCVBUF, 20000);
	SHOW(get_int(p->client, SOL_SOCKET, SO_RCVBUF));
	SHOW(get_int(p->client, SOL_SOCKET, 9999));
	SHOW(get_int(-1, SOL_SOCKET, SO_ERROR));
	SHOW(setsockopt(p->client, SOL_SOCKET, SO_KEEPALIVE, p, 1));
	SHOW(setsockopt(p->client, SOL_SOCKET, 9999, p, 4));
}

/* The program's own low-water mark holds in plaintext bytes. */
static void lowat(struct pair *p)
{
	char b[16];

	set_int(p->server, SOL_SOCKET, SO_RCVLOWAT, 6);
	SHOW(get_int(p->server, SOL_SOCKET, SO_RCVLOWAT));
	send_all(p->client, "1234", 4);
	sleep_ms(50);
	printf("4 of 6: %s\n", events_text(ready_now(p->server)));
	send_all(p->client, "5678", 4);
	wait_for(p->server, POLLIN);
	printf("8 of 6: %s\n", events_text(ready_now(p->server)));
	SHOW(recv(p->server, b, sizeof(b), 0));
	set_int(p->server, SOL_SOCKET, SO_RCVLOWAT, 1);
	SHOW(get_int(p->server, SOL_SOCKET, SO_RCVLOWAT));
}

static bool same(const struct sockaddr_in *a, const struct sockaddr_in *b)
{
	return a->sin_family == b->sin_family && a->sin_port == b->sin_port &&
	       a->sin_addr.s_addr == b->sin_addr.s_addr;
}

static void names(struct pair *p)
{
	struct sockaddr_in a = { 0 }, b = { 0 };
	struct sockaddr_storage big;
	socklen_t la = sizeof(a), lb = sizeof(b), l = 4;

	SHOW(getpeername(p->client, (struct sockaddr *)&a, &la));
	printf("what was dialled: %d, length %u\n", same(&a, &p->addr), la);
	SHOW(getsockname(p->server, (struct sockaddr *)&b, &lb));
	printf("where it came in: %d, length %u\n", same(&b, &p->addr), lb);
	SHOW(getsockname(p->client, (struct sockaddr *)&a, &la));
	SHOW(getpeername(p->server, (struct sockaddr *)&b, &lb));
	printf("the client's end: %d\n", same(&a, &b));
	SHOW(getpeername(p->client, (struct sockaddr *)&big, &l));
	printf("cut to 4, true length %u\n", l);
	SHOW(getpeername(p->listener, (struct sockaddr *)&a, &la));
	SHOW(getpeername(-1, (struct sockaddr *)&a, &la));
	SHOW(getpeername(0, (struct sockaddr *)&a, &la));
}

int main(void)
{
	struct pair p;

	probe_start();
	MUST(close(0) == 0 && open("/dev/null", O_RDONLY) == 0);
	pair_open(&p);
	modes(&p);
	counts(&p);
	options(&p);
	lowat(&p);
	names(&p);
	pair_close(&p);
	return 0;
}
