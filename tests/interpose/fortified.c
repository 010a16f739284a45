/* The same calls as a program sees them that was compiled with _FORTIFY_SOURCE: __read_chk and its like. */
#undef _FORTIFY_SOURCE
#ifdef __OPTIMIZE__
#define _FORTIFY_SOURCE 2
#endif
#include "probe.h"

int main(int argc, char **argv)
{
	struct pair p;
	struct sockaddr_storage from;
	socklen_t len = sizeof(from);
	char b[32] = "";
	volatile size_t n =
		sizeof(b); /* not known to the compiler: the checked variant is called */
	volatile nfds_t one = 1;
	struct pollfd v[1];
	struct timespec t = { 8, 0 };

	(void)argv;
	probe_start();
	pair_open(&p);
	n -= (size_t)argc;
	send_all(p.client, "for read", 8);
	wait_for(p.server, POLLIN);
	SHOW(read(p.server, b, n));
	printf("%s\n", b);
	send_all(p.client, "for recv", 8);
	wait_for(p.server, POLLIN);
	SHOW(recv(p.server, b, n, 0));
	printf("%s\n", b);
	send_all(p.client, "recvfrom", 8);
	wait_for(p.server, POLLIN);
	SHOW(recvfrom(p.server, b, n, 0, (struct sockaddr *)&from, &len));
	printf("%s\n", b);
	v[0] = (struct pollfd){ .fd = p.server, .events = POLLIN };
	SHOW(poll(v, one, 20));
	send_all(p.client, "x", 1);
	SHOW(poll(v, one, PROBE_WAIT_MS));
	SHOW(ppoll(v, one, &t, NULL));
	SHOW(read(p.server, b, n));
	SHOW(dprintf(p.client, "%zu printed\n", n));
	wait_for(p.server, POLLIN);
	SHOW(read(p.server, b, n));
	pair_close(&p);
	return 0;
}
