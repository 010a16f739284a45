/* Signal-driven input: O_ASYNC, FIOASYNC, F_SETOWN, F_SETSIG. The handler reads until there is nothing more. */
#include "probe.h"

#include <sys/ioctl.h>

static volatile sig_atomic_t from = -1, got, ended;

static void on_io(int sig)
{
	int saved = errno;
	char b[64];
	ssize_t n;

	(void)sig;
	if (from < 0)
		return;
	while ((n = recv(from, b, sizeof(b), MSG_DONTWAIT)) > 0)
		got += (int)n;
	ended |= n == 0;
	errno = saved;
}

static void wait_until(int bytes, bool end)
{
	for (int64_t until = now_ms() + PROBE_WAIT_MS;
	     (got < bytes || ended != end) && now_ms() < until;)
		sleep_ms(5);
	printf("%d bytes, end %d\n", (int)got, (int)ended);
}

static void run(const char *name, bool by_ioctl, int sig)
{
	static char big[40000];
	struct pair p;
	int on = 1;

	printf("%s:\n", name);
	got = ended = 0;
	pair_open(&p);
	SHOW(fcntl(p.server, F_SETOWN, getpid()));
	printf("owner %d\n", fcntl(p.server, F_GETOWN) == getpid());
	if (sig)
		SHOW(fcntl(p.server, F_SETSIG, sig));
	from = p.server;
	if (by_ioctl)
		SHOW(ioctl(p.server, FIOASYNC, &on));
	else
		SHOW(fcntl(p.server, F_SETFL, fcntl(p.server, F_GETFL) | O_ASYNC));
	send_all(p.client, "one", 3);
	wait_until(3, false);
	send_all(p.client, big, sizeof(big));
	wait_until(3 + sizeof(big), false);
	SHOW(shutdown(p.client, SHUT_WR));
	wait_until(3 + sizeof(big), true);
	from = -1;
	pair_close(&p);
}

int main(void)
{
	struct sigaction sa = { .sa_handler = on_io, .sa_flags = SA_RESTART };

	probe_start();
	MUST(sigaction(SIGIO, &sa, NULL) == 0 && sigaction(SIGRTMIN, &sa, NULL) == 0);
	run("fcntl", false, 0);
	run("ioctl", true, 0);
	run("a signal of its own", false, SIGRTMIN);
	return 0;
}
