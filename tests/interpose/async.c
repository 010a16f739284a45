/* A call on a connection that the server has not accepted yet is ended as Java ends it: dup2() puts another file, which is
 * readable, in its place, and a signal without SA_RESTART wakes the thread. */
#include "probe.h"

#include <sys/syscall.h>

static int fd;
static _Atomic int tid;

static void nothing(int sig)
{
	(void)sig;
}

static void *reads(void *arg)
{
	char b;

	(void)arg;
	tid = (int)syscall(SYS_gettid);
	SHOW(recv(fd, &b, 1, 0));
	return NULL;
}

static void *polls(void *arg)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };

	(void)arg;
	tid = (int)syscall(SYS_gettid);
	SHOW(poll(&p, 1, -1));
	return NULL;
}

/* Until the thread was seen asleep several times on end. */
static void wait_asleep(void)
{
	char path[64], text[256];

	for (int seen = 0; seen < 5; sleep_ms(10)) {
		FILE *f;
		char *s;

		if (!tid)
			continue;
		snprintf(path, sizeof(path), "/proc/self/task/%d/stat", tid);
		f = fopen(path, "r");
		MUST(f && fgets(text, sizeof(text), f) && fclose(f) == 0);
		s = strrchr(text, ')');
		seen = s && s[2] == 'S' ? seen + 1 : 0;
	}
}

static void end(void *(*call)(void *), const struct sockaddr_in *addr)
{
	pthread_t t;
	int sv[2];

	fd = connect_to(addr);
	tid = 0;
	MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, sv) == 0 && close(sv[1]) == 0);
	MUST(pthread_create(&t, NULL, call, NULL) == 0);
	wait_asleep();
	MUST(dup2(sv[0], fd) == fd);
	MUST(pthread_kill(t, SIGUSR1) == 0 && pthread_join(t, NULL) == 0);
	SHOW(close(fd));
	MUST(close(sv[0]) == 0);
}

int main(void)
{
	struct sigaction sa = { .sa_handler = nothing };
	struct sockaddr_in addr;
	int l;

	probe_start();
	MUST(sigaction(SIGUSR1, &sa, NULL) == 0);
	l = listen_on(&addr);
	end(reads, &addr);
	end(polls, &addr);
	MUST(close(l) == 0);
	return 0;
}
