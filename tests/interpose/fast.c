/* TCP Fast Open, in both forms: the first bytes together with connect(). Without a cookie it is the two of them. */
#include "probe.h"

static void *serve(void *arg)
{
	int listener = *(int *)arg, fd = accept(listener, NULL, NULL);
	char b[64];

	MUST(fd >= 0);
	recv_all(fd, b, 5);
	MUST(!memcmp(b, "hello", 5));
	send_all(fd, "answer", 6);
	MUST(recv(fd, b, 1, 0) == 0);
	MUST(close(fd) == 0);
	return NULL;
}

static void run(const char *name, int form, bool nonblocking)
{
	struct sockaddr_in addr;
	int listener = listen_on(&addr), fd = client_socket(), server = listener;
	struct iovec v = { (char[]){ "hello" }, 5 };
	struct msghdr m = {
		.msg_iov = &v, .msg_iovlen = 1, .msg_name = &addr, .msg_namelen = sizeof(addr)
	};
	char b[8] = "";
	pthread_t t;

	printf("%s:\n", name);
	MUST(pthread_create(&t, NULL, serve, &server) == 0);
	set_nonblock(fd, nonblocking);
	if (form == 0)
		SHOW(sendto(fd, "hello", 5, MSG_FASTOPEN, (struct sockaddr *)&addr, sizeof(addr)));
	else if (form == 1)
		SHOW(sendmsg(fd, &m, MSG_FASTOPEN));
	else {
		SHOW(setsockopt(fd, IPPROTO_TCP, TCP_FASTOPEN_CONNECT, &(int){ 1 }, sizeof(int)));
		SHOW(connect(fd, (struct sockaddr *)&addr, sizeof(addr)));
	}
	if (nonblocking)
		MUST(wait_for(fd, POLLOUT) & POLLOUT);
	if (nonblocking || form == 2)
		SHOW(send(fd, "hello", 5, 0));
	recv_all(fd, b, 6);
	printf("client: %s\n", b);
	SHOW(shutdown(fd, SHUT_WR));
	MUST(pthread_join(t, NULL) == 0);
	MUST(close(fd) == 0 && close(listener) == 0);
}

static void refused(void)
{
	struct sockaddr_in addr;
	int listener = listen_on(&addr), fd = client_socket();

	MUST(close(listener) == 0);
	SHOW(sendto(fd, "hello", 5, MSG_FASTOPEN | MSG_NOSIGNAL, (struct sockaddr *)&addr,
		    sizeof(addr)));
	SHOW(send(fd, "hello", 5, MSG_NOSIGNAL));
	MUST(close(fd) == 0);
}

int main(void)
{
	probe_start();
	run("sendto", 0, false);
	run("sendmsg", 1, false);
	run("connect", 2, false);
	run("sendto without waiting", 0, true);
	run("sendmsg without waiting", 1, true);
	run("connect without waiting", 2, true);
	refused();
	return 0;
}
