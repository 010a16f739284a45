#include "conduit/admit.h"

#include <errno.h>
#include <sys/syscall.h>

#include "conduit/early.h"
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

/* Nothing to look at: real calls from here on. */
static struct conn *pass(struct conn *c)
{
	conn_move(c, CONN_CLOSED);
	conn_put(c);
	return NULL;
}

/* How long a server that speaks first is held back, so that a ClientHello may come. Looked up when the connection is accepted:
 * later the mode may have settled, and who dialled before it did still comes with one. */
static int64_t sniff_for(const struct conn *c)
{
	bool settling = false;
	enum weft_mode mode;

	if (!c->lenient)
		return c->id->wire->inbound->sniff_ms ? (int64_t)c->id->wire->inbound->sniff_ms
						      : WEFT_SNIFF_MS;
	mode = control_mode_inbound(&settling); /* ENFORCE: since a moment */
	return settling || mode == WEFT_MODE_ENFORCE ? WEFT_SNIFF_SETTLING_MS : 0;
}

/* As the port's mode says. The step lock is not needed: nobody else knows of the connection yet. */
static struct conn *begin(struct conn *c, int fd, enum weft_mtls mtls)
{
	enum weft_reason refused = WEFT_REASON_NONE;

	c->strict = mtls == WEFT_MTLS_STRICT;
	c->sniff_for_ms = sniff_for(c);
	if (mtls == WEFT_MTLS_DISABLE) {
		refused = shake_verdict(c, c->id, fd, NULL);
		if (!refused)
			return pass(c);
		conn_fail(c, fd, ECONNRESET, refused, "plaintext");
	} else if (c->strict && !c->lenient) {
		shake_server(c, fd);
	} else {
		conn_move(c, CONN_SNIFFING);
	}
	return c;
}

struct conn *admit(int fd, int family)
{
	enum weft_reason reason = WEFT_REASON_NO_BROKER;
	enum mesh_accepts how = mesh_accepts();
	struct identity *id = NULL;
	struct conn *c;

	if (how == MESH_PASSES)
		return NULL;
	if (how == MESH_REFUSES)
		return refuse(fd, family, reason);
	if (mesh_identity(&id, &reason) < 0) {
		if (how == MESH_ADMITS)
			return refuse(fd, family, reason);
		conn_seen(fd, WEFT_TALLY_NO_IDENTITY, reason);
		return NULL;
	}
	c = conn_new(fd, family);
	if (!c) {
		identity_unref(id);
		sys_call(SYS_shutdown, fd, SHUT_RDWR, 0, 0, 0, 0);
		return NULL;
	}
	c->server = true;
	c->lenient = how == MESH_LOOKS;
	c->id = id;
	return begin(c, fd, inbound_mtls(id->wire->inbound, local_port(fd)));
}

/* Policy has admitted the client in the clear: so it gets what was written before that was known. 0; -EAGAIN. */
static int pass_plain(struct conn *c, int fd)
{
	if (early_flush_plain(c, fd) == -EAGAIN)
		return -EAGAIN;
	conn_move(c, CONN_PLAIN);
	early_opened(c, fd);
	return 0;
}

int admit_sniff(struct conn *c, int fd)
{
	uint8_t *bytes;
	size_t need = 1;
	bool tls;
	long n;
	int r;

	if (c->sniff_ms == CONN_SNIFFED)
		return pass_plain(c, fd);
	bytes = pool_get();
	if (!bytes)
		return -EAGAIN;
	n = sys_call(SYS_recvfrom, fd, (long)bytes, RECORD_WIRE_MAX, MSG_PEEK | MSG_DONTWAIT, 0, 0);
	r = n > 0 ? hello_peek(bytes, (size_t)n, &need) : n == -EAGAIN ? -EAGAIN : 0;
	tls = n > 1 && bytes[0] == RECORD_HANDSHAKE && bytes[1] == 3;
	pool_put(bytes);
	if (r == -EAGAIN && need < RECORD_WIRE_MAX) {
		session_set_lowat(c->session, fd, (uint32_t)need);
		if (!c->sniff_ms || clock_now_ms() < c->sniff_ms)
			return -EAGAIN;
	}
	if (r == 1)
		shake_server(c, fd);
	else
		admit_plain(c, fd, tls);
	return conn_state(c) == CONN_SNIFFING ? -EAGAIN : 0;
}

void admit_plain(struct conn *c, int fd, bool tls)
{
	enum weft_reason refused;
	char text[WEFT_ADDR_TEXT];

	c->sniff_ms = CONN_SNIFFED;
	session_set_lowat(c->session, fd, 1);
	refused = shake_verdict(c, c->id, fd, NULL);
	if (refused) {
		conn_fail(c, fd, ECONNRESET, refused, "plaintext");
		return;
	}
	c->id = identity_unref(c->id);
	conn_seen(fd, tls ? WEFT_TALLY_ADMITTED_TLS : WEFT_TALLY_ADMITTED_PLAIN, WEFT_REASON_NONE);
	log_info("connection from %s admitted: peer none", conn_peer_text(fd, text));
	pass_plain(c, fd);
}

void admit_again(struct conn *c, int fd)
{
	enum weft_reason reason;
	struct identity *id;

	if (!c->server || c->policy_seq == mesh_identity_seq() || mesh_identity(&id, &reason) < 0)
		return;
	c->policy_seq = id->seq;
	c->lenient = control_mode_inbound(NULL) != WEFT_MODE_ENFORCE;
	/* What came with an exec from another workload was admitted by a policy that this one does not know. */
	if (c->admitted_as == shake_self(id) && shake_verdict(c, id, fd, c->peer)) {
		session_alert(c->session, &c->aead, fd, ALERT_ACCESS_DENIED);
		conn_fail(c, fd, ECONNRESET, WEFT_REASON_REVOKED, NULL);
	}
	identity_unref(id);
}
