/* The end of a process: what was written, by whatever code and however late, reaches the peer, and then comes the end. */
#include "probe.h"

static FILE *stream;
static int in_destructor = -1;

__attribute__((destructor)) static void late(void)
{
	if (in_destructor < 0)
		return;
	MUST(write(in_destructor, "destructor ", 11) == 11);
	if (stream)
		fputs("stream-in-destructor ", stream);
}

static void at_exit(void)
{
	if (in_destructor >= 0)
		MUST(write(in_destructor, "atexit ", 7) == 7);
}

static void at_quick(void)
{
	if (in_destructor >= 0)
		MUST(write(in_destructor, "at_quick_exit ", 14) == 14);
}

static void *sit(void *arg)
{
	char line[8];

	MUST(!fgets(line, sizeof(line), arg));
	return NULL;
}

static void *leave_by_thread(void *arg)
{
	(void)arg;
	sleep_ms(50);
	exit(0);
}

enum way {
	BY_EXIT,
	BY_EXIT_STREAM,
	BY_EXIT_SITTING,
	BY_THREAD,
	BY_QUICK,
	BY_UNDERSCORE,
	BY_LAST_THREAD
};
static const char *const ways[] = { "exit",
				    "exit with stream",
				    "exit while stdin is read",
				    "exit by a thread",
				    "quick_exit",
				    "_exit",
				    "pthread_exit of the last" };

__attribute__((noreturn)) static void end(enum way way, int fd)
{
	pthread_t t;

	in_destructor = fd;
	MUST(write(fd, "first ", 6) == 6);
	if (way != BY_EXIT) {
		stream = fdopen(dup(fd), "w");
		MUST(stream && fputs("stream ", stream) >= 0);
	}
	switch (way) {
	case BY_EXIT_SITTING:
		MUST(pthread_create(&t, NULL, sit, stdin) == 0);
		sleep_ms(50);
		exit(0);
	case BY_THREAD:
		MUST(pthread_create(&t, NULL, leave_by_thread, NULL) == 0);
		pthread_join(t, NULL);
		exit(1);
	case BY_QUICK:
		quick_exit(0);
	case BY_UNDERSCORE:
		_exit(0);
	case BY_LAST_THREAD:
		pthread_exit(NULL);
	default:
		exit(0);
	}
}

/* The child connects by itself, or goes on with the parent's end. */
static void run(enum way way, bool inherited)
{
	struct sockaddr_in addr;
	int listener = listen_on(&addr), fd, status, hold[2];
	struct pair p = { .server = -1 };
	char text[256] = "";
	size_t n = 0;
	ssize_t r;
	pid_t pid;

	MUST(pipe(hold) == 0);
	if (inherited)
		pair_open(&p);
	pid = fork();
	MUST(pid >= 0);
	if (!pid) {
		MUST(dup2(hold[0], 0) == 0 && close(hold[0]) == 0 && close(hold[1]) == 0);
		if (inherited)
			MUST(close(p.server) == 0);
		end(way, inherited ? p.client : connect_to(&addr));
	}
	fd = inherited ? p.server : accept(listener, NULL, NULL);
	if (inherited)
		MUST(close(p.client) == 0);
	MUST(fd >= 0);
	while ((r = recv(fd, text + n, sizeof(text) - 1 - n, 0)) > 0)
		n += (size_t)r;
	printf("%s%s: %s\n", ways[way], inherited ? ", inherited" : "", text);
	SHOW(r);
	MUST(waitpid(pid, &status, 0) == pid);
	printf("status %#x\n", (unsigned)status);
	MUST(close(fd) == 0 && close(listener) == 0 && close(hold[0]) == 0 && close(hold[1]) == 0);
	if (inherited)
		MUST(close(p.listener) == 0);
}

/* The peer has half-closed before; the process ends without having read that, or with bytes that it did not read either. */
static void half_closed(enum way way, bool unread)
{
	struct sockaddr_in addr;
	int listener = listen_on(&addr), fd, status, end[2];
	char b[8] = "";
	pid_t pid;
	ssize_t r;

	MUST(pipe(end) == 0);
	pid = fork();
	MUST(pid >= 0);
	if (!pid) {
		fd = accept(listener, NULL, NULL);
		MUST(fd >= 0);
		recv_all(fd, b, 3);
		while (!(wait_for(fd, POLLRDHUP) & POLLRDHUP))
			;
		send_all(fd, "answer", 6);
		if (way == BY_QUICK)
			quick_exit(0);
		if (way == BY_UNDERSCORE)
			_exit(0);
		exit(0);
	}
	fd = connect_to(&addr);
	send_all(fd, "asking", unread ? 6 : 3);
	SHOW(shutdown(fd, SHUT_WR));
	MUST(close(end[1]) == 0);
	wait_for(end[0], POLLHUP);
	MUST(waitpid(pid, &status, 0) == pid && status == 0);
	recv_all(fd, b, 6);
	r = recv(fd, b, sizeof(b), 0);
	printf("%s%s: %zd %s\n", ways[way], unread ? ", bytes unread" : "", r,
	       r < 0 ? strerrorname_np(errno) : "");
	MUST(close(fd) == 0 && close(listener) == 0 && close(end[0]) == 0);
}

int main(void)
{
	probe_start();
	MUST(atexit(at_exit) == 0 && at_quick_exit(at_quick) == 0);
	for (enum way w = BY_EXIT; w <= BY_LAST_THREAD; w++)
		run(w, false);
	run(BY_EXIT_STREAM, true);
	run(BY_QUICK, true);
	for (enum way w = BY_QUICK; w <= BY_UNDERSCORE; w++) {
		half_closed(w, false);
		half_closed(w, true);
	}
	half_closed(BY_EXIT, false);
	half_closed(BY_EXIT, true);
	return 0;
}
