/* Where the relay of our uid listens, and that it does. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>

#include "control/exchange.h"
#include "control/internal.h"
#include "sys/sys.h"
#include "telemetry/log.h"
#include "weft/relay.h"

int mesh_relay_path(unsigned i, char path[static MESH_RELAY_PATH])
{
	const char *socket = control_env.socket[i], *slash;
	int n;

	if (i >= control_env.n_sockets)
		return -ENOENT;
	slash = strrchr(socket, '/');
	n = snprintf(path, MESH_RELAY_PATH, "%.*s/" WEFT_RELAY_NAME, (int)(slash - socket), socket,
		     (unsigned long)sys_call(SYS_geteuid, 0, 0, 0, 0, 0, 0));
	return n < MESH_RELAY_PATH ? 0 : -ENAMETOOLONG;
}

int mesh_relay_start(void)
{
	KEEP_ERRNO;
	struct wire_relay in = { 0 }, out;
	struct exchange x = { .type = WIRE_RELAY,
			      .ask = &wire_schema_relay,
			      .in = &in,
			      .answer = &wire_schema_relay,
			      .out = &out,
			      .timeout_ms = WEFT_EXCHANGE_MS };
	int r = exchange(&x);

	if (r == -EACCES)
		log_error("weftd starts no relay for this process: %s", x.text);
	exchange_close(&x);
	return r;
}
