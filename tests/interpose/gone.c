/* A client that closes at once, before it said anything: its server reads an end, and what it writes goes nowhere the first
 * time and meets a broken pipe from then on. */
#include "probe.h"

#include <sys/sendfile.h>

static volatile sig_atomic_t pipes;

static void on_pipe(int sig)
{
	(void)sig;
	pipes++;
}

/* The server's side of a connection whose client is gone, before the server took it or after. */
static int left_alone(int listener, const struct sockaddr_in *addr, bool taken)
{
	int fd = -1, client = connect_to(addr);

	pipes = 0;
	if (taken)
		fd = accept(listener, NULL, NULL);
	MUST(close(client) == 0);
	if (!taken)
		fd = accept(listener, NULL, NULL);
	MUST(fd >= 0);
	return fd;
}

/* Whether the reset has come yet is not looked at. */
static void events(int fd)
{
	printf("%s\n", events_text(ready_now(fd) & ~(POLLERR | POLLHUP)));
}

static void reads_first(int fd)
{
	char b[8];

	SHOW(recv(fd, b, sizeof(b), 0));
	printf("%s\n", events_text(ready_now(fd)));
	SHOW(error_of(fd));
	SHOW(send(fd, "", 0, 0));
	SHOW(write(fd, "", 0));
	SHOW(send(fd, "hello", 5, 0));
	sleep_ms(20);
	events(fd);
	SHOW(send(fd, "hello", 5, 0));
	SHOW(recv(fd, b, sizeof(b), 0));
}

static void writes_first(int fd)
{
	char b[8];

	SHOW(write(fd, "hello", 5));
	sleep_ms(20);
	SHOW(recv(fd, b, sizeof(b), 0));
	SHOW(write(fd, "hello", 5));
	SHOW(write(fd, "hello", 5));
}

static void ends_too(int fd)
{
	SHOW(recv(fd, &(char){ 0 }, 1, 0));
	SHOW(shutdown(fd, SHUT_WR));
	SHOW(send(fd, "hello", 5, 0));
}

static void polls_first(int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };
	char b[8];

	set_nonblock(fd, true);
	SHOW(poll(&p, 1, PROBE_WAIT_MS));
	printf("%s\n", events_text(p.revents));
	SHOW(read(fd, b, sizeof(b)));
	SHOW(send(fd, "hello", 5, 0));
	sleep_ms(20);
	SHOW(send(fd, "hello", 5, MSG_NOSIGNAL));
}

static void sends_a_file(int fd)
{
	int file = open("/proc/self/exe", O_RDONLY);

	MUST(file >= 0);
	SHOW(sendfile(fd, file, NULL, 1000));
	sleep_ms(20);
	SHOW(sendfile(fd, file, NULL, 1000));
	MUST(close(file) == 0);
}

int main(void)
{
	static void (*const way[])(int) = { reads_first, writes_first, ends_too, polls_first,
					    sends_a_file };
	struct sockaddr_in addr;
	int listener;

	probe_start();
	MUST(signal(SIGPIPE, on_pipe) != SIG_ERR);
	listener = listen_on(&addr);
	for (unsigned i = 0; i < sizeof(way) / sizeof(*way) * 2; i++) {
		int fd = left_alone(listener, &addr, i % 2);

		printf("-- %u\n", i);
		way[i / 2](fd);
		printf("%d SIGPIPE\n", (int)pipes);
		MUST(close(fd) == 0);
	}
	return 0;
}
