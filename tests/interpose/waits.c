/* poll, ppoll, select, pselect, epoll_wait, epoll_pwait: results, time-outs, signals, sets of many kinds of fd. */
#include "probe.h"

#include <sys/epoll.h>
#include <sys/select.h>

static volatile sig_atomic_t signals;

static void on_signal(int sig)
{
	(void)sig;
	signals++;
}

static void took(int64_t from, int ms)
{
	int64_t t = now_ms() - from;

	printf("after about %d ms: %d\n", ms, t >= ms - 5 && t < ms + 1500);
}

static void polls(struct pair *p)
{
	int ends[2];
	struct pollfd v[5];
	struct timespec t = { 0, 60000000 };
	int64_t from = now_ms();
	char b[8];

	MUST(pipe(ends) == 0);
	v[0] = (struct pollfd){ .fd = p->server, .events = POLLIN };
	v[1] = (struct pollfd){ .fd = ends[0], .events = POLLIN };
	v[2] = (struct pollfd){ .fd = -1, .events = POLLIN, .revents = 77 };
	v[3] = (struct pollfd){ .fd = 12345, .events = POLLIN };
	v[4] = (struct pollfd){ .fd = p->client, .events = 0 };
	SHOW(poll(v, 5, 60));
	printf("%d %d %d %d %d\n", v[0].revents, v[1].revents, v[2].revents, v[3].revents,
	       v[4].revents);
	v[3].fd = -1;
	from = now_ms();
	SHOW(poll(v, 5, 60));
	took(from, 60);
	from = now_ms();
	SHOW(ppoll(v, 5, &t, NULL));
	took(from, 60);
	send_all(p->client, "x", 1);
	SHOW(poll(v, 5, PROBE_WAIT_MS));
	printf("%d %d %d %d %d\n", v[0].revents, v[1].revents, v[2].revents, v[3].revents,
	       v[4].revents);
	MUST(write(ends[1], "y", 1) == 1);
	v[4].events = POLLOUT;
	SHOW(ppoll(v, 5, NULL, NULL));
	printf("%d %d %d %d %d\n", v[0].revents, v[1].revents, v[2].revents, v[3].revents,
	       v[4].revents);
	MUST(recv(p->server, b, 8, 0) == 1);
	v[4].events = 0;
	SHOW(poll(v, 1, 0));
	SHOW(poll(NULL, 0, 10));
	MUST(close(ends[0]) == 0 && close(ends[1]) == 0);
}

static void selects(struct pair *p)
{
	struct timeval t = { 0, 60000 };
	struct timespec ts = { 0, 60000000 };
	int64_t from = now_ms();
	fd_set r, w;
	int n = (p->client > p->server ? p->client : p->server) + 1;
	char b[8];

	FD_ZERO(&r);
	FD_SET(p->server, &r);
	SHOW(select(n, &r, NULL, NULL, &t));
	took(from, 60);
	printf("left in the set %d, time left %d\n", !!FD_ISSET(p->server, &r),
	       (int)(t.tv_sec + t.tv_usec));
	FD_SET(p->server, &r);
	from = now_ms();
	SHOW(pselect(n, &r, NULL, NULL, &ts, NULL));
	took(from, 60);
	send_all(p->client, "x", 1);
	FD_ZERO(&w);
	FD_SET(p->server, &r);
	FD_SET(p->client, &w);
	wait_for(p->server, POLLIN);
	SHOW(select(n, &r, &w, NULL, NULL));
	printf("readable %d writable %d\n", !!FD_ISSET(p->server, &r), !!FD_ISSET(p->client, &w));
	FD_CLR(p->client, &r);
	SHOW(pselect(n, &r, NULL, NULL, NULL, NULL));
	MUST(recv(p->server, b, 8, 0) == 1);
	t = (struct timeval){ 0, 0 };
	SHOW(select(n, &r, NULL, NULL, &t));
	FD_ZERO(&r);
	FD_SET(900, &r);
	SHOW(select(901, &r, NULL, NULL, &t));
	SHOW(select(-1, NULL, NULL, NULL, &t));
}

static void *later(void *arg)
{
	pthread_t main_thread = *(pthread_t *)arg;

	sleep_ms(50);
	pthread_kill(main_thread, SIGUSR1);
	return NULL;
}

/* A signal ends a wait with EINTR; a mask given to the wait holds it back or lets it in. */
static void interrupted(struct pair *p)
{
	struct pollfd v = { .fd = p->server, .events = POLLIN };
	struct epoll_event ev = { .events = EPOLLIN };
	struct timespec shortly = { 0, 150000000 }, two = { 8, 0 };
	int ep = epoll_create1(0), i;
	pthread_t self = pthread_self(), t;
	sigset_t blocked, none, old;
	fd_set r;

	sigemptyset(&none);
	sigemptyset(&blocked);
	sigaddset(&blocked, SIGUSR1);
	MUST(epoll_ctl(ep, EPOLL_CTL_ADD, p->server, &ev) == 0);
	FD_ZERO(&r);
	FD_SET(p->server, &r);
	for (i = 0; i < 8; i++) {
		bool masked = i >= 3 && i <= 5;

		signals = 0;
		if (masked)
			MUST(pthread_sigmask(SIG_BLOCK, &blocked, &old) == 0);
		MUST(pthread_create(&t, NULL, later, &self) == 0);
		switch (i) {
		case 0:
			SHOW(poll(&v, 1, PROBE_WAIT_MS));
			break;
		case 1:
			SHOW(epoll_wait(ep, &ev, 1, PROBE_WAIT_MS));
			break;
		case 2:
			SHOW(select(p->server + 1, &r, NULL, NULL, &(struct timeval){ 8, 0 }));
			break;
		case 3:
			SHOW(ppoll(&v, 1, &two, &none));
			break;
		case 4:
			SHOW(epoll_pwait(ep, &ev, 1, PROBE_WAIT_MS, &none));
			break;
		case 5:
			SHOW(pselect(p->server + 1, &r, NULL, NULL, &two, &none));
			break;
		case 6:
			SHOW(ppoll(&v, 1, &shortly, &blocked));
			break;
		case 7:
			SHOW(epoll_pwait(ep, &ev, 1, 150, &blocked));
			break;
		}
		MUST(pthread_join(t, NULL) == 0);
		if (masked)
			MUST(pthread_sigmask(SIG_SETMASK, &old, NULL) == 0);
		printf("signals %d\n", (int)signals);
	}
	MUST(close(ep) == 0);
}

/* One thread waits while another makes it ready, and while another closes the other end. */
static void *writer(void *arg)
{
	sleep_ms(30);
	send_all(*(int *)arg, "z", 1);
	sleep_ms(30);
	MUST(shutdown(*(int *)arg, SHUT_WR) == 0);
	return NULL;
}

static void woken(struct pair *p)
{
	struct pollfd v = { .fd = p->server, .events = POLLIN | POLLRDHUP };
	pthread_t t;
	char b[4];

	MUST(pthread_create(&t, NULL, writer, &p->client) == 0);
	SHOW(poll(&v, 1, -1));
	printf("%s\n", events_text(v.revents));
	SHOW(recv(p->server, b, 4, 0));
	SHOW(poll(&v, 1, -1));
	printf("%s\n", events_text(v.revents));
	SHOW(recv(p->server, b, 4, 0));
	MUST(pthread_join(t, NULL) == 0);
}

int main(void)
{
	struct sigaction sa = { .sa_handler = on_signal };
	struct pair p;

	probe_start();
	MUST(sigaction(SIGUSR1, &sa, NULL) == 0);
	pair_open(&p);
	polls(&p);
	selects(&p);
	interrupted(&p);
	woken(&p);
	pair_close(&p);
	return 0;
}
