/* Connections that travel over a Unix socket: to oneself, to a worker, before and after their first byte, several at once. */
#include <sys/syscall.h>

#include "probe.h"

#define MANY 4

/* Sends `n` descriptors with one byte. */
static ssize_t give(int channel, const int *fds, int n, int flags)
{
	char control[CMSG_SPACE(MANY * sizeof(int))] = "", byte = 'f';
	struct iovec iov = { &byte, 1 };
	struct msghdr m = { .msg_iov = &iov,
			    .msg_iovlen = 1,
			    .msg_control = control,
			    .msg_controllen = CMSG_SPACE((size_t)n * sizeof(int)) };
	struct cmsghdr *h = CMSG_FIRSTHDR(&m);

	*h = (struct cmsghdr){ .cmsg_level = SOL_SOCKET,
			       .cmsg_type = SCM_RIGHTS,
			       .cmsg_len = CMSG_LEN((size_t)n * sizeof(int)) };
	memcpy(CMSG_DATA(h), fds, (size_t)n * sizeof(int));
	return sendmsg(channel, &m, flags);
}

/* Receives into room for exactly `n`; prints what the kernel says of the control data. Returns how many came. */
static int take(int channel, int *fds, int n, bool show)
{
	char control[CMSG_SPACE(MANY * sizeof(int))], byte;
	struct iovec iov = { &byte, 1 };
	struct msghdr m = { .msg_iov = &iov,
			    .msg_iovlen = 1,
			    .msg_control = control,
			    .msg_controllen = CMSG_LEN((size_t)n * sizeof(int)) };
	struct cmsghdr *h;
	int got = 0;

	MUST(recvmsg(channel, &m, MSG_CMSG_CLOEXEC) == 1);
	h = CMSG_FIRSTHDR(&m);
	if (h) {
		got = (int)((h->cmsg_len - CMSG_LEN(0)) / sizeof(int));
		memcpy(fds, CMSG_DATA(h), (size_t)got * sizeof(int));
	}
	if (show)
		printf("room for %d: %d came, length %zu, control %zu, flags%s%s, next %s\n", n,
		       got, h ? (size_t)h->cmsg_len : 0, (size_t)m.msg_controllen,
		       m.msg_flags & MSG_CTRUNC ? " CTRUNC" : "",
		       m.msg_flags & MSG_CMSG_CLOEXEC ? " CLOEXEC" : "",
		       h && CMSG_NXTHDR(&m, h) ? "another" : "none");
	return got;
}

static int take_one(int channel)
{
	int fd;

	MUST(take(channel, &fd, 1, false) == 1);
	return fd;
}

static void talk(int a, int b, const char *name)
{
	char text[32] = "";
	size_t n = strlen(name);

	send_all(a, name, n);
	recv_all(b, text, n);
	printf("%s, ", text);
	send_all(b, "back", 4);
	recv_all(a, text, 4);
	printf("%.4s\n", text);
}

static pid_t start(void)
{
	pid_t pid;

	fflush(stdout);
	pid = fork();
	MUST(pid >= 0);
	return pid;
}

static void end(pid_t pid)
{
	int status;

	MUST(waitpid(pid, &status, 0) == pid);
	printf("worker %d\n", status);
}

/* After bytes went both ways, to oneself. The new number is the same connection. */
static void to_oneself(bool client, bool nonblock)
{
	int channel[2], fd;
	struct pair p;

	printf("-- to oneself, %s, %s\n", client ? "client" : "server",
	       nonblock ? "non-blocking" : "blocking");
	pair_open(&p);
	talk(p.client, p.server, "before");
	set_nonblock(client ? p.client : p.server, nonblock);
	MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, channel) == 0);
	SHOW(give(channel[0], client ? &p.client : &p.server, 1, 0));
	fd = take_one(channel[1]);
	printf("non-blocking: %d, close-on-exec: %d\n", !!(fcntl(fd, F_GETFL) & O_NONBLOCK),
	       fcntl(fd, F_GETFD) & FD_CLOEXEC);
	MUST(close(client ? p.client : p.server) == 0);
	*(client ? &p.client : &p.server) = fd;
	talk(p.client, p.server, "after");
	talk(p.server, p.client, "again");
	SHOW(shutdown(fd, SHUT_WR));
	fd = client ? p.server : p.client;
	set_nonblock(fd, false);
	SHOW(recv(fd, &(char){ 0 }, 1, 0));
	send_all(fd, "half", 4);
	recv_all(client ? p.client : p.server, (char[4]){ "" }, 4);
	pair_close(&p);
	MUST(close(channel[0]) == 0 && close(channel[1]) == 0);
}

/* The descriptor that came is the last to be closed: the peer reads the end. */
static void last_copy(void)
{
	int channel[2], fd;
	struct pair p;

	pair_open(&p);
	MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, channel) == 0);
	SHOW(give(channel[0], &p.client, 1, 0));
	fd = take_one(channel[1]);
	MUST(close(p.client) == 0);
	send_all(fd, "last", 4);
	MUST(close(fd) == 0);
	recv_all(p.server, (char[4]){ "" }, 4);
	SHOW(recv(p.server, &(char){ 0 }, 1, 0));
	MUST(close(p.server) == 0 && close(p.listener) == 0);
	MUST(close(channel[0]) == 0 && close(channel[1]) == 0);
}

/* A worker is forked first, and given the connection later. */
static void to_worker(bool fresh)
{
	struct sockaddr_in addr;
	int l = listen_on(&addr), channel[2], fd;
	char text[64];
	pid_t worker, client;

	printf("-- to a worker, %s\n", fresh ? "fresh" : "after I/O");
	MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, channel) == 0);
	worker = start();
	if (!worker) {
		close(channel[0]);
		close(l);
		fd = take_one(channel[1]);
		recv_all(fd, text, 7);
		send_all(fd, memcmp(text, "request", 7) ? "what" : "done", 4);
		MUST(recv(fd, text, 1, 0) == 0);
		_exit(7);
	}
	client = start();
	if (!client) {
		close(channel[0]);
		fd = connect_to(&addr);
		if (!fresh) {
			send_all(fd, "hello", 5);
			recv_all(fd, text, 5);
		}
		send_all(fd, "request", 7);
		recv_all(fd, text, 4);
		MUST(!memcmp(text, "done", 4));
		MUST(shutdown(fd, SHUT_WR) == 0);
		MUST(recv(fd, text, 1, 0) == 0);
		_exit(8);
	}
	fd = accept(l, NULL, NULL);
	MUST(fd >= 0);
	if (!fresh) {
		recv_all(fd, text, 5);
		send_all(fd, text, 5);
	}
	SHOW(give(channel[0], &fd, 1, 0));
	MUST(close(fd) == 0);
	end(worker);
	end(client);
	MUST(close(l) == 0 && close(channel[0]) == 0 && close(channel[1]) == 0);
}

/* Two connections and a pipe in one message; into more room than needed, as much, and less. */
static void several(int room)
{
	int channel[2], pipes[2], fds[MANY] = { -1, -1, -1, -1 }, n;
	struct pair p, q;

	printf("-- several, room for %d\n", room);
	pair_open(&p);
	pair_open(&q);
	talk(p.client, p.server, "first");
	talk(q.client, q.server, "second");
	MUST(pipe(pipes) == 0);
	MUST(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, channel) == 0);
	SHOW(give(channel[0], (int[]){ p.server, q.client, pipes[1] }, 3, 0));
	n = take(channel[1], fds, room, true);
	if (n > 0)
		talk(p.client, fds[0], "first moved");
	if (n > 1)
		talk(fds[1], q.server, "second moved");
	if (n > 2) {
		MUST(write(fds[2], "p", 1) == 1 && read(pipes[0], &(char){ 0 }, 1) == 1);
		printf("pipe\n");
	}
	for (int i = 0; i < n; i++)
		MUST(close(fds[i]) == 0);
	pair_close(&p);
	pair_close(&q);
	MUST(close(pipes[0]) == 0 && close(pipes[1]) == 0);
	MUST(close(channel[0]) == 0 && close(channel[1]) == 0);
}

/* A channel that is full takes nothing, and what was not sent is as it was. */
static void full_channel(void)
{
	int channel[2], n = 0, fd;
	struct pair p;

	printf("-- full channel\n");
	pair_open(&p);
	talk(p.client, p.server, "before");
	MUST(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, channel) == 0);
	while (send(channel[0], (char[4096]){ "" }, 4096, 0) > 0)
		n++;
	for (int i = 0; i < 3; i++)
		SHOW(give(channel[0], &p.server, 1, 0));
	talk(p.client, p.server, "still here");
	while (recv(channel[1], (char[4096]){ "" }, 4096, 0) > 0)
		;
	SHOW(give(channel[0], &p.server, 1, 0));
	fd = take_one(channel[1]);
	MUST(close(p.server) == 0);
	p.server = fd;
	talk(p.client, p.server, "moved");
	pair_close(&p);
	MUST(close(channel[0]) == 0 && close(channel[1]) == 0);
}

/* What is no connection passes as it is: listeners, fresh sockets, files, datagrams with credentials. */
static void others(void)
{
	struct sockaddr_in addr;
	int l = listen_on(&addr), channel[2], fds[MANY], fresh = client_socket();
	struct pair p;
	socklen_t len;
	pthread_t t;
	int on = 0;

	printf("-- others\n");
	MUST(socketpair(AF_UNIX, SOCK_DGRAM, 0, channel) == 0);
	SHOW(give(channel[0], (int[]){ l, fresh }, 2, 0));
	MUST(close(l) == 0 && close(fresh) == 0);
	MUST(take(channel[1], fds, 2, true) == 2);
	len = sizeof(on);
	MUST(getsockopt(fds[0], SOL_SOCKET, SO_ACCEPTCONN, &on, &len) == 0);
	printf("listens: %d\n", on);
	p.listener = fds[0];
	MUST(pthread_create(&t, NULL, pair_accept, &p) == 0);
	SHOW(connect(fds[1], (struct sockaddr *)&addr, sizeof(addr)));
	MUST(pthread_join(t, NULL) == 0);
	talk(fds[1], p.server, "through both");
	MUST(close(fds[0]) == 0 && close(fds[1]) == 0 && close(p.server) == 0);
	SHOW(give(-1, &channel[0], 1, 0));
	SHOW(give(channel[0], &(int){ 9999 }, 1, 0));
	MUST(close(channel[0]) == 0 && close(channel[1]) == 0);
}

/* Many messages by one call each way. */
static void batches(void)
{
	enum { N = 3 };
	char bytes[N], control[N][CMSG_SPACE(sizeof(int))];
	struct mmsghdr v[N] = { 0 };
	struct iovec iov[N];
	struct pair p[N];
	int channel[2], fds[N];

	printf("-- batches\n");
	MUST(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, channel) == 0);
	for (int i = 0; i < N; i++) {
		pair_open(&p[i]);
		talk(p[i].client, p[i].server, "before");
		bytes[i] = (char)('a' + i);
		iov[i] = (struct iovec){ &bytes[i], 1 };
		v[i].msg_hdr = (struct msghdr){ .msg_iov = &iov[i],
						.msg_iovlen = 1,
						.msg_control = control[i],
						.msg_controllen = sizeof(control[i]) };
		*CMSG_FIRSTHDR(&v[i].msg_hdr) =
			(struct cmsghdr){ .cmsg_level = SOL_SOCKET,
					  .cmsg_type = SCM_RIGHTS,
					  .cmsg_len = CMSG_LEN(sizeof(int)) };
		memcpy(CMSG_DATA(CMSG_FIRSTHDR(&v[i].msg_hdr)), &p[i].server, sizeof(int));
	}
	SHOW(sendmmsg(channel[0], v, N, 0));
	memset(control, 0, sizeof(control));
	for (int i = 0; i < N; i++)
		v[i].msg_hdr.msg_controllen = sizeof(control[i]);
	SHOW(recvmmsg(channel[1], v, N, MSG_WAITFORONE, NULL));
	for (int i = 0; i < N; i++) {
		memcpy(&fds[i], CMSG_DATA(CMSG_FIRSTHDR(&v[i].msg_hdr)), sizeof(int));
		printf("%c %u ", bytes[i], v[i].msg_len);
		talk(p[i].client, fds[i], "moved");
		MUST(close(fds[i]) == 0);
		pair_close(&p[i]);
	}
	MUST(close(channel[0]) == 0 && close(channel[1]) == 0);
}

/* pidfd_getfd(2) of one's own connection. */
static void by_pidfd(void)
{
	int self, fd;
	struct pair p;

	printf("-- pidfd_getfd\n");
	pair_open(&p);
	talk(p.client, p.server, "before");
	self = (int)syscall(SYS_pidfd_open, getpid(), 0);
	MUST(self >= 0);
	fd = (int)syscall(SYS_pidfd_getfd, self, p.server, 0);
	MUST(fd >= 0);
	talk(p.client, fd, "by the new");
	talk(p.client, p.server, "by the old");
	MUST(close(p.server) == 0);
	p.server = fd;
	talk(p.client, p.server, "after");
	pair_close(&p);
	MUST(close(self) == 0);
}

int main(void)
{
	probe_start();
	to_oneself(false, false);
	to_oneself(true, true);
	last_copy();
	to_worker(false);
	to_worker(true);
	several(4);
	several(3);
	several(2);
	several(0);
	full_channel();
	others();
	batches();
	by_pidfd();
	return 0;
}
