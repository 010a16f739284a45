#include "conduit/admit.h"

#include <errno.h>
#include <sys/syscall.h>

#include "conduit/shake.h"
#include "sys/clock.h"
#include "sys/pool.h"
#include "sys/sys.h"
#include "telemetry/log.h"

#define ALERT_ACCESS_DENIED 49

static uint16_t local_port(int fd)
{
	union conn_name name;
	socklen_t len = sizeof(name);
	struct weft_addr a;

	if (sys_call(SYS_getsockname, fd, (long)&name, (long)&len, 0, 0, 0) < 0 ||
	    addr_from_sockaddr(&a, &name.sa, len) < 0)
		return 0;
	return a.port;
}

static struct conn *refuse(int fd, int family, enum weft_reason reason)
{
	struct conn *c = conn_new(fd, family);

	if (!c) { /* no memory to say why, but it does not pass */
		sys_call(SYS_shutdown, fd, SHUT_RDWR, 0, 0, 0, 0);
		return NULL;
	}
	c->server = true;
	conn_fail(c, fd, ECONNRESET, reason, NULL);
	return c;
}

struct conn *admit(int fd, int family)
{
	enum weft_reason reason = WEFT_REASON_NO_BROKER;
	struct identity *id = NULL;
	enum weft_mtls mtls;
	struct conn *c;
	int r = mesh_accepts();

	if (!r)
		return NULL;
	if (r < 0 || mesh_identity(&id, &reason) < 0)
		return refuse(fd, family, reason);
	mtls = inbound_mtls(id->wire->inbound, local_port(fd));
	if (mtls == WEFT_MTLS_DISABLE && shake_admits(id, fd, NULL)) {
		identity_unref(id);
		return NULL;
	}
	c = conn_new(fd, family);
	if (!c) {
		identity_unref(id);
		sys_call(SYS_shutdown, fd, SHUT_RDWR, 0, 0, 0, 0);
		return NULL;
	}
	c->server = true;
	c->id = id;
	if (mtls == WEFT_MTLS_DISABLE) {
		conn_fail(c, fd, ECONNRESET, WEFT_REASON_AUTHZ_DENIED, "plaintext");
	} else if (mtls == WEFT_MTLS_STRICT) {
		shake_server(c, fd);
	} else {
		conn_move(c, CONN_SNIFFING);
	}
	return c;
}

int admit_sniff(struct conn *c, int fd)
{
	uint8_t *bytes = pool_get();
	size_t need = 1;
	long n;
	int r;

	if (!bytes)
		return -EAGAIN;
	n = sys_call(SYS_recvfrom, fd, (long)bytes, RECORD_WIRE_MAX, MSG_PEEK | MSG_DONTWAIT, 0, 0);
	r = n > 0 ? hello_peek(bytes, (size_t)n, &need) : n == -EAGAIN ? -EAGAIN : 0;
	pool_put(bytes);
	if (r == -EAGAIN && need < RECORD_WIRE_MAX) {
		session_set_lowat(c->session, fd, (uint32_t)need);
		if (!c->sniff_ms || clock_now_ms() < c->sniff_ms)
			return -EAGAIN;
	}
	if (r == 1)
		shake_server(c, fd);
	else
		admit_plain(c, fd);
	return 0;
}

void admit_plain(struct conn *c, int fd)
{
	char text[WEFT_ADDR_TEXT];

	session_set_lowat(c->session, fd, 1);
	if (!shake_admits(c->id, fd, NULL)) {
		conn_fail(c, fd, ECONNRESET, WEFT_REASON_AUTHZ_DENIED, "plaintext");
		return;
	}
	c->id = identity_unref(c->id);
	log_info("connection from %s admitted: peer none", conn_peer_text(fd, text));
	conn_move(c, CONN_PLAIN);
}

void admit_again(struct conn *c, int fd)
{
	enum weft_reason reason;
	struct identity *id;

	if (!c->server || c->policy_seq == mesh_identity_seq() || mesh_identity(&id, &reason) < 0)
		return;
	c->policy_seq = id->seq;
	/* What came with an exec from another workload was admitted by a policy that this one does not know. */
	if (c->admitted_as == shake_self(id) && !shake_admits(id, fd, c->peer)) {
		session_alert(c->session, &c->aead, fd, ALERT_ACCESS_DENIED);
		conn_fail(c, fd, ECONNRESET, WEFT_REASON_REVOKED, NULL);
	}
	identity_unref(id);
}
