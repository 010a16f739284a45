/* One thread waits to write on a connection that has just been accepted, while another looks at it all the time without
 * waiting: whichever of them takes a step of a handshake, the writer goes on. */
#include <sys/epoll.h>

#include "probe.h"

#define ROUNDS 150

enum look { LOOK_RECV, LOOK_POLL, LOOK_EPOLL, LOOK_ERROR, LOOKS };

static const char *const look_name[LOOKS] = { "recv", "poll", "epoll", "SO_ERROR" };

struct side {
	int fd;
	enum look look;
	_Atomic bool done;
};

static void *write_first(void *arg)
{
	struct side *s = arg;

	MUST(send(s->fd, "hello", 5, 0) == 5);
	s->done = true;
	return NULL;
}

static void *look(void *arg)
{
	struct side *s = arg;
	struct pollfd p = { .fd = s->fd, .events = POLLIN };
	struct epoll_event ev = { .events = EPOLLIN };
	int ep = epoll_create1(EPOLL_CLOEXEC), err;
	socklen_t len = sizeof(err);
	char byte;

	MUST(epoll_ctl(ep, EPOLL_CTL_ADD, s->fd, &ev) == 0);
	while (!s->done) {
		switch (s->look) {
		case LOOK_RECV:
			MUST(recv(s->fd, &byte, 1, MSG_DONTWAIT) < 0 && errno == EAGAIN);
			break;
		case LOOK_POLL:
			MUST(poll(&p, 1, 0) == 0);
			break;
		case LOOK_EPOLL:
			MUST(epoll_wait(ep, &ev, 1, 0) == 0);
			break;
		default:
			MUST(getsockopt(s->fd, SOL_SOCKET, SO_ERROR, &err, &len) == 0 && !err);
		}
	}
	close(ep);
	return NULL;
}

static void *connect_and_read(void *arg)
{
	int c = connect_to(arg);
	char in[6] = "";

	recv_all(c, in, 5);
	MUST(strcmp(in, "hello") == 0);
	return (void *)(intptr_t)c;
}

static void round_of(enum look how)
{
	struct sockaddr_in addr;
	int l = listen_on(&addr);
	struct side s = { .fd = -1, .look = how };
	pthread_t client, writer, looker;
	void *c;

	MUST(pthread_create(&client, NULL, connect_and_read, &addr) == 0);
	s.fd = accept(l, NULL, NULL);
	MUST(s.fd >= 0);
	MUST(pthread_create(&looker, NULL, look, &s) == 0);
	MUST(pthread_create(&writer, NULL, write_first, &s) == 0);
	MUST(pthread_join(writer, NULL) == 0 && pthread_join(looker, NULL) == 0);
	MUST(pthread_join(client, &c) == 0);
	close((int)(intptr_t)c);
	close(s.fd);
	close(l);
}

int main(void)
{
	alarm(50);
	for (int how = 0; how < LOOKS; how++) {
		for (int i = 0; i < ROUNDS; i++)
			round_of(how);
		printf("%s: written\n", look_name[how]);
	}
	return 0;
}
