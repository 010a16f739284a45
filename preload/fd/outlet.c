#include "fd/outlet.h"

#include <sys/socket.h>
#include <sys/syscall.h>

#include "conduit/carry.h"
#include "conduit/relay.h"
#include "sys/sys.h"
#include "telemetry/log.h"

int outlet_ended(void)
{
	int sv[2];
	int r = (int)sys_call(SYS_socketpair, AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, (long)sv, 0,
			      0);

	if (r < 0)
		return r;
	sys_call(SYS_close, sv[1], 0, 0, 0, 0, 0);
	return sv[0];
}

int outlet_open(int fd, const char *program, const char *why)
{
	struct conn *c;
	int near = relay_hand_over(fd);

	if (near >= 0)
		return near;
	c = carry_conn(fd);
	log_error("%s cannot have the meshed connection %s %s (descriptor %d) and finds its end: "
		  "%s",
		  program, c && c->server ? "from" : "to", c && c->peer ? c->peer : "?", fd, why);
	conn_put(c);
	return outlet_ended();
}
