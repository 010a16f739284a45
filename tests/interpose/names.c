/* getpeername and getsockname through the life of a connection: while both ends are open, half closed, closed by both, and
 * after a failed connect. */
#include "probe.h"

static void names(const struct pair *p, const char *when)
{
	struct sockaddr_in a;
	socklen_t len = sizeof(a);

	printf("%s\n", when);
	if (SHOW(getpeername(p->client, (struct sockaddr *)&a, &len)) == 0)
		printf("the server: %d, %u bytes\n",
		       a.sin_port == p->addr.sin_port &&
			       a.sin_addr.s_addr == p->addr.sin_addr.s_addr,
		       len);
	len = 3;
	SHOW(getpeername(p->client, (struct sockaddr *)&a, &len));
	printf("%u bytes\n", len);
	SHOW(getpeername(p->client, NULL, &len));
	len = sizeof(a);
	SHOW(getpeername(p->server, (struct sockaddr *)&a, &len));
	SHOW(getsockname(p->client, (struct sockaddr *)&a, &len));
}

int main(void)
{
	struct pair p;
	char byte;

	probe_start();
	pair_open(&p);
	names(&p, "open");
	SHOW(shutdown(p.client, SHUT_WR));
	SHOW(recv(p.server, &byte, 1, 0));
	names(&p, "the client has ended");
	SHOW(shutdown(p.server, SHUT_WR));
	SHOW(recv(p.client, &byte, 1, 0));
	wait_for(p.server, POLLHUP);
	names(&p, "both have ended");
	pair_close(&p);
	p.client = client_socket();
	p.server = client_socket();
	SHOW(connect(p.client, (struct sockaddr *)&p.addr, sizeof(p.addr)));
	names(&p, "refused");
	return 0;
}
