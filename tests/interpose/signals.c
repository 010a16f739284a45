/* EINTR and SA_RESTART in calls that block; a handler that uses the connection itself. */
#include "probe.h"

static volatile sig_atomic_t signals;
static int handler_fd = -1;

static void on_signal(int sig)
{
	(void)sig;
	signals++;
	if (handler_fd >= 0)
		MUST(write(handler_fd, "!", 1) == 1);
}

static void handle(int flags)
{
	struct sigaction sa = { .sa_handler = on_signal, .sa_flags = flags };

	MUST(sigaction(SIGUSR1, &sa, NULL) == 0);
	signals = 0;
}

struct plan {
	pthread_t target;
	int fd;
};

/* A signal after 50 ms, data after 100 ms. */
static void *disturb(void *arg)
{
	struct plan *p = arg;

	sleep_ms(50);
	pthread_kill(p->target, SIGUSR1);
	sleep_ms(50);
	if (p->fd >= 0)
		send_all(p->fd, "data", 4);
	return NULL;
}

static void reading(struct pair *p, int flags)
{
	struct plan plan = { pthread_self(), p->client };
	pthread_t t;
	char b[8] = "";

	handle(flags);
	printf("SA_RESTART %d\n", !!flags);
	MUST(pthread_create(&t, NULL, disturb, &plan) == 0);
	SHOW(recv(p->server, b, sizeof(b), 0));
	MUST(pthread_join(t, NULL) == 0);
	if (!flags)
		recv_all(p->server, b, 4);
	printf("signals %d, %.4s\n", (int)signals, b);
	MUST(pthread_create(&t, NULL, disturb, &plan) == 0);
	SHOW(read(p->server, b, sizeof(b)));
	MUST(pthread_join(t, NULL) == 0);
	if (!flags)
		recv_all(p->server, b, 4);
	/* Part of it is there when the signal comes: the part is the answer. */
	send_all(p->client, "part", 4);
	wait_for(p->server, POLLIN);
	plan.fd = -1;
	MUST(pthread_create(&t, NULL, disturb, &plan) == 0);
	SHOW(recv(p->server, b, 8, MSG_WAITALL));
	MUST(pthread_join(t, NULL) == 0);
	MUST(recv(p->server, b, 8, MSG_DONTWAIT) == -1);
}

static void writing(int flags)
{
	static char block[1 << 20];
	struct pair p;
	struct plan plan = { pthread_self(), -1 };
	pthread_t t;
	ssize_t r;

	if (flags)
		return; /* would wait for ever */
	pair_open_sized(&p, 8192);
	handle(flags);
	MUST(pthread_create(&t, NULL, disturb, &plan) == 0);
	r = send(p.client, block, sizeof(block), 0);
	MUST(pthread_join(t, NULL) == 0);
	printf("interrupted send took a part: %d\n", r > 0 && r < (ssize_t)sizeof(block));
	MUST(pthread_create(&t, NULL, disturb, &plan) == 0);
	SHOW(send(p.client, block, sizeof(block), 0) < (ssize_t)sizeof(block));
	MUST(pthread_join(t, NULL) == 0);
	pair_close(&p);
}

static void accepting(int flags)
{
	struct sockaddr_in addr;
	struct plan plan = { pthread_self(), -1 };
	int l = listen_on(&addr);
	pthread_t t;

	if (flags)
		return;
	handle(flags);
	MUST(pthread_create(&t, NULL, disturb, &plan) == 0);
	SHOW(accept(l, NULL, NULL));
	MUST(pthread_join(t, NULL) == 0);
	MUST(close(l) == 0);
}

/* The handler writes to the connection that the interrupted call reads from, and to the one it writes to. */
static void inside(struct pair *p)
{
	struct plan plan = { pthread_self(), p->client };
	pthread_t t;
	char b[8] = "";

	handle(SA_RESTART);
	handler_fd = p->server;
	MUST(pthread_create(&t, NULL, disturb, &plan) == 0);
	SHOW(recv(p->server, b, 4, MSG_WAITALL));
	MUST(pthread_join(t, NULL) == 0);
	printf("%.4s\n", b);
	recv_all(p->client, b, 1);
	printf("the handler wrote %c\n", b[0]);
	handler_fd = -1;
}

int main(void)
{
	struct pair p;

	probe_start();
	pair_open(&p);
	reading(&p, 0);
	reading(&p, SA_RESTART);
	writing(0);
	accepting(0);
	inside(&p);
	pair_close(&p);
	return 0;
}
