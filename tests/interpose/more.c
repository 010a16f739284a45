/* MSG_MORE and TCP_CORK: what is held back for more comes with it, in order, and at the latest when it is waited for. */
#include "probe.h"

#include <sys/epoll.h>
#include <sys/sendfile.h>

static void expect(int fd, const char *text)
{
	char b[256];

	recv_all(fd, b, strlen(text));
	b[strlen(text)] = 0;
	printf("%s %s\n", text, strcmp(b, text) ? "is wrong" : "came");
}

static int cork(int fd)
{
	int v = -1;
	socklen_t len = sizeof(v);

	MUST(getsockopt(fd, IPPROTO_TCP, TCP_CORK, &v, &len) == 0);
	return v;
}

static void flags(struct pair *p)
{
	struct iovec v[2] = { { (char[]){ "ve" }, 2 }, { (char[]){ "ctor" }, 4 } };
	struct msghdr m = { .msg_iov = v, .msg_iovlen = 2 };

	SHOW(send(p->client, "one ", 4, MSG_MORE));
	SHOW(send(p->client, "two ", 4, MSG_MORE));
	SHOW(sendmsg(p->client, &m, MSG_MORE));
	SHOW(send(p->client, " end", 4, 0));
	expect(p->server, "one two vector end");
	SHOW(send(p->client, "", 0, MSG_MORE));
	SHOW(send(p->client, "a", 1, MSG_MORE));
	SHOW(write(p->client, "b", 1));
	expect(p->server, "ab");
}

static void corked(struct pair *p)
{
	char path[] = "/tmp/interpose-XXXXXX";
	int file = mkstemp(path);
	off_t at = 0;

	MUST(file >= 0 && unlink(path) == 0 && write(file, "the body", 8) == 8);
	set_int(p->client, IPPROTO_TCP, TCP_CORK, 1);
	printf("cork %d\n", cork(p->client));
	SHOW(write(p->client, "header ", 7));
	SHOW(sendfile(p->client, file, &at, 8));
	SHOW(write(p->client, " trailer", 8));
	set_int(p->client, IPPROTO_TCP, TCP_CORK, 0);
	printf("cork %d\n", cork(p->client));
	expect(p->server, "header the body trailer");
	set_int(p->client, IPPROTO_TCP, TCP_CORK, 1);
	SHOW(write(p->client, "pushed", 6));
	set_int(p->client, IPPROTO_TCP, TCP_NODELAY, 1);
	expect(p->server, "pushed");
	set_int(p->client, IPPROTO_TCP, TCP_CORK, 0);
	MUST(close(file) == 0);
}

/* A question that is never said to be complete is sent all the same, before the answer is waited for. */
static void *answers(void *arg)
{
	struct pair *p = arg;
	char b[8];

	for (int i = 0; i < 6; i++) {
		recv_all(p->server, b, 8);
		MUST(!memcmp(b, "question", 8));
		send_all(p->server, "answer", 6);
	}
	return NULL;
}

static void waited_for(struct pair *p)
{
	struct pollfd f = { .fd = p->client, .events = POLLIN };
	struct epoll_event ev = { .events = EPOLLIN };
	int ep = epoll_create1(EPOLL_CLOEXEC);
	char b[8];
	pthread_t t;

	MUST(pthread_create(&t, NULL, answers, p) == 0);
	SHOW(send(p->client, "question", 8, MSG_MORE));
	SHOW(recv(p->client, b, 6, MSG_WAITALL));
	SHOW(send(p->client, "question", 8, MSG_MORE));
	SHOW(poll(&f, 1, PROBE_WAIT_MS));
	SHOW(recv(p->client, b, 6, MSG_WAITALL));
	MUST(epoll_ctl(ep, EPOLL_CTL_ADD, p->client, &ev) == 0);
	SHOW(send(p->client, "question", 8, MSG_MORE));
	SHOW(epoll_wait(ep, &ev, 1, PROBE_WAIT_MS));
	SHOW(recv(p->client, b, 6, MSG_WAITALL));
	set_int(p->client, IPPROTO_TCP, TCP_CORK, 1);
	for (int i = 0; i < 2; i++) {
		SHOW(write(p->client, "question", 8));
		SHOW(recv(p->client, b, 6, MSG_WAITALL));
	}
	set_nonblock(p->client, true);
	SHOW(write(p->client, "question", 8));
	wait_for(p->client, POLLIN);
	SHOW(recv(p->client, b, 6, 0));
	set_nonblock(p->client, false);
	set_int(p->client, IPPROTO_TCP, TCP_CORK, 0);
	MUST(pthread_join(t, NULL) == 0 && close(ep) == 0);
}

struct bulk {
	int fd, corked;
};

static void *writes_much(void *arg)
{
	static const size_t sizes[] = { 1, 100, 16383, 1, 16384, 16385, 40000, 7, 70000, 16000 };
	static uint8_t data[1 << 20];
	struct bulk *b = arg;
	size_t done = 0;

	fill(data, sizeof(data), 3);
	if (b->corked)
		set_int(b->fd, IPPROTO_TCP, TCP_CORK, 1);
	for (int i = 0; done < sizeof(data); i++) {
		size_t n = sizes[i % 10];
		ssize_t r;

		if (n > sizeof(data) - done)
			n = sizeof(data) - done;
		r = send(b->fd, data + done, n, b->corked || i % 3 ? MSG_MORE : 0);
		if (r < 0) {
			MUST(errno == EAGAIN);
			wait_for(b->fd, POLLOUT);
			continue;
		}
		done += (size_t)r;
	}
	if (b->corked)
		set_int(b->fd, IPPROTO_TCP, TCP_CORK, 0);
	else
		MUST(shutdown(b->fd, SHUT_WR) == 0);
	return NULL;
}

static void much(struct pair *p, bool corked, bool nonblocking)
{
	struct bulk b = { p->client, corked };
	uint64_t h = HASH_START;
	size_t total = 0;
	char buf[5000];
	pthread_t t;

	set_nonblock(p->client, nonblocking);
	MUST(pthread_create(&t, NULL, writes_much, &b) == 0);
	while (total < 1 << 20) {
		ssize_t r = recv(p->server, buf, sizeof(buf), 0);

		MUST(r > 0);
		h = hash(h, buf, (size_t)r);
		total += (size_t)r;
	}
	MUST(pthread_join(t, NULL) == 0);
	printf("%zu bytes, %016lx\n", total, (unsigned long)h);
}

/* What was held back when the end came. */
static void ends(int how)
{
	struct pair p;
	char b[8] = "";
	pid_t pid = 0;

	pair_open(&p);
	if (how == 2) {
		pid = fork();
		MUST(pid >= 0);
	}
	if (!pid)
		MUST(send(p.client, "last", 4, MSG_MORE) == 4);
	if (how == 2 && !pid)
		exit(0);
	if (how == 0)
		MUST(shutdown(p.client, SHUT_WR) == 0);
	else
		MUST(close(p.client) == 0);
	SHOW(recv(p.server, b, 8, MSG_WAITALL));
	printf("%s\n", b);
	if (pid)
		MUST(waitpid(pid, NULL, 0) == pid);
	if (how == 0)
		MUST(close(p.client) == 0);
	MUST(close(p.server) == 0 && close(p.listener) == 0);
}

/* Held back by the parent, continued by the child. */
static void shared(void)
{
	struct pair p;
	pid_t pid;

	pair_open(&p);
	SHOW(send(p.client, "parent ", 7, MSG_MORE));
	pid = fork();
	MUST(pid >= 0);
	if (!pid) {
		MUST(send(p.client, "child", 5, 0) == 5);
		_exit(0);
	}
	MUST(waitpid(pid, NULL, 0) == pid);
	expect(p.server, "parent child");
	pair_close(&p);
}

int main(void)
{
	struct pair p;

	probe_start();
	pair_open(&p);
	flags(&p);
	corked(&p);
	waited_for(&p);
	much(&p, true, false);
	much(&p, true, true);
	much(&p, false, true);
	pair_close(&p);
	for (int i = 0; i < 3; i++)
		ends(i);
	shared();
	return 0;
}
