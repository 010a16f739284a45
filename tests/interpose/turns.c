/* A connection that the program has closed goes on, however many others wait for peers that do not answer. */
#include "probe.h"

#define CROWD 70

/* Takes its client late, and says what it read from it. */
static void serve(int report, int number)
{
	struct sockaddr_in addr;
	int l = listen_on(&addr), c;
	char b[32] = "";

	MUST(write(number, &addr, sizeof(addr)) == sizeof(addr));
	sleep_ms(400);
	c = accept(l, NULL, NULL);
	MUST(c >= 0 && recv(c, b, sizeof(b), MSG_WAITALL) == 11);
	MUST(write(report, b, 11) == 11);
	_exit(0);
}

int main(void)
{
	struct sockaddr_in addr, busy;
	int report[2], number[2], l, i, fd, crowd[CROWD];
	char b[32] = "";
	pid_t child;

	probe_start();
	MUST(pipe(report) == 0 && pipe(number) == 0);
	child = fork();
	MUST(child >= 0);
	if (!child)
		serve(report[1], number[1]);
	MUST(read(number[0], &addr, sizeof(addr)) == sizeof(addr));
	fd = connect_to(&addr);
	send_all(fd, "last of all", 11);
	MUST(close(fd) == 0);
	l = listen_on(&busy);
	MUST(listen(l, CROWD) == 0);
	for (i = 0; i < CROWD; i++)
		crowd[i] = connect_to(&busy);
	printf("%s\n", events_text(wait_for(report[0], POLLIN)));
	MUST(read(report[0], b, 11) == 11);
	printf("%s\n", b);
	MUST(waitpid(child, NULL, 0) == child);
	for (i = 0; i < CROWD; i++)
		MUST(close(crowd[i]) == 0);
	return 0;
}
