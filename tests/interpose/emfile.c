/* A process that has no descriptor to spare connects with a socket that it has, and is told of it by accept alone. */
#include "probe.h"

#include <sys/resource.h>

#define MOST 64

int main(void)
{
	struct rlimit limit = { MOST, MOST };
	struct sockaddr_in addr;
	int l, c, s, last = -1, fd;
	char b[8] = "";

	probe_start();
	l = listen_on(&addr);
	c = client_socket();
	set_nonblock(c, true);
	MUST(setrlimit(RLIMIT_NOFILE, &limit) == 0);
	while ((fd = dup(0)) >= 0)
		last = fd;
	MUST(errno == EMFILE && last > 0);
	SHOW(connect(c, (struct sockaddr *)&addr, sizeof(addr)));
	printf("%s\n", events_text(wait_for(c, POLLOUT)));
	SHOW(send(c, "hello", 5, 0));
	wait_for(l, POLLIN);
	SHOW_FD(accept(l, NULL, NULL));
	MUST(close(last) == 0);
	s = SHOW_FD(accept(l, NULL, NULL));
	recv_all(s, b, 5);
	printf("%s\n", b);
	send_all(s, "you", 3);
	recv_all(c, b, 3);
	printf("%.3s\n", b);
	SHOW_FD(socket(AF_INET, SOCK_STREAM, 0));
	SHOW(close(s));
	SHOW(wait_for(c, POLLIN) & POLLIN);
	SHOW(recv(c, b, 1, 0));
	return 0;
}
