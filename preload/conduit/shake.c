#include "conduit/shake.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <string.h>
#include <sys/syscall.h>

#include "conduit/dial.h"
#include "conduit/early.h"
#include "conduit/share.h"
#include "sys/clock.h"
#include "sys/sys.h"
#include "telemetry/log.h"
#include "telemetry/seen.h"

#define ALERT_ACCESS_DENIED 49 /* RFC 8446 section 6.2 */
#define SPIFFE_SCHEME "spiffe://"

/* Nagle's rule holds back the tail of a flight, or of a record, until what went before is acknowledged; the peer, who can do
 * nothing with a part, acknowledges 40 ms later. So it is off for good. Returns what the program had set. */
static int set_nodelay(int fd)
{
	int was = 1, on = 1;
	socklen_t len = sizeof(was);

	sys_call(SYS_getsockopt, fd, IPPROTO_TCP, TCP_NODELAY, (long)&was, (long)&len, 0);
	if (!was)
		sys_call(SYS_setsockopt, fd, IPPROTO_TCP, TCP_NODELAY, (long)&on, sizeof(on), 0);
	return was;
}

/* A cork is in the session from now on, where it joins what would be records of their own. */
static bool take_cork(int fd)
{
	int was = 0, off = 0;
	socklen_t len = sizeof(was);

	sys_call(SYS_getsockopt, fd, IPPROTO_TCP, TCP_CORK, (long)&was, (long)&len, 0);
	if (was)
		sys_call(SYS_setsockopt, fd, IPPROTO_TCP, TCP_CORK, (long)&off, sizeof(off), 0);
	return was;
}

static void begin(struct conn *c, int fd, struct handshake *h)
{
	if (!h) {
		conn_fail(c, fd, ENOMEM, WEFT_REASON_HANDSHAKE_FAILED, "no memory");
		return;
	}
	c->handshake = h;
	if (!c->shook) {
		c->app_nodelay = set_nodelay(fd);
		c->app_cork = take_cork(fd);
	}
	c->shook = true;
	c->deadline_ms = clock_now_ms() + WEFT_HANDSHAKE_MS;
	c->wants = handshake_wants(h);
	conn_move(c, CONN_HANDSHAKE);
}

void shake_client(struct conn *c, int fd)
{
	const struct wire_cluster *to = &c->dial.service->wire->clusters.v[c->dial.cluster];
	struct handshake_client peer = { .sni = to->sni.p, .identities = &to->identities };

	begin(c, fd, handshake_new_client(c->id, &peer));
	early_client(c, fd);
}

void shake_server(struct conn *c, int fd)
{
	session_set_lowat(c->session, fd, 1);
	begin(c, fd, handshake_new_server(c->id));
}

static struct inbound_verdict authorize(const struct identity *id, int fd, const char *peer)
{
	struct inbound_facts facts = { .principal = peer };
	union conn_name name;
	socklen_t len = sizeof(name);

	if (sys_call(SYS_getpeername, fd, (long)&name, (long)&len, 0, 0, 0) == 0)
		addr_from_sockaddr(&facts.source, &name.sa, len);
	len = sizeof(name);
	if (sys_call(SYS_getsockname, fd, (long)&name, (long)&len, 0, 0, 0) == 0)
		addr_from_sockaddr(&facts.local, &name.sa, len);
	if (peer && strncmp(peer, SPIFFE_SCHEME, strlen(SPIFFE_SCHEME)) == 0)
		facts.principal = peer + strlen(SPIFFE_SCHEME);
	return inbound_authorize(id->wire->inbound, &facts);
}

static enum weft_reason judge(const struct identity *id, int fd, const char *peer, bool strict)
{
	struct inbound_verdict v;

	if (!peer && strict)
		return WEFT_REASON_NOT_TLS;
	v = authorize(id, fd, peer);
	if (v.dry_run_denied || v.audited)
		log_info("%s %s by policy %s", peer ? peer : "plaintext peer",
			 v.audited ? "audited" : "would be denied", v.policy ? v.policy : "-");
	return v.allowed ? WEFT_REASON_NONE : WEFT_REASON_AUTHZ_DENIED;
}

enum weft_reason shake_verdict(const struct conn *c, const struct identity *id, int fd,
			       const char *peer)
{
	char text[WEFT_ADDR_TEXT];
	enum weft_reason r;

	if (!c->lenient)
		return judge(id, fd, peer, false);
	if (control_mode_inbound(NULL) != WEFT_MODE_OBSERVE)
		return WEFT_REASON_NONE;
	r = judge(id, fd, peer, c->strict);
	conn_seen(fd, r ? WEFT_TALLY_WOULD_REFUSE : WEFT_TALLY_WOULD_ADMIT, r);
	if (r)
		log_warn("observed: connection from %s %s would be refused: %s (%s)",
			 conn_peer_text(fd, text), peer ? peer : "in the clear", reason_text(r),
			 reason_name(r));
	return WEFT_REASON_NONE;
}

uint64_t shake_self(const struct identity *id)
{
	uint64_t h = UINT64_C(0xcbf29ce484222325); /* FNV-1a */
	size_t i;

	for (i = 0; i < id->wire->spiffe.n; i++)
		h = (h ^ (uint8_t)id->wire->spiffe.p[i]) * UINT64_C(0x100000001b3);
	return h;
}

static bool start_session(struct conn *c, const struct handshake_result *r)
{
	c->aead.rx = record_aead_new();
	c->aead.tx = record_aead_new();
	c->peer = strdup(r->peer);
	if (!c->aead.rx || !c->aead.tx || !c->peer)
		return false;
	session_start(c->session, &r->rx, &r->tx);
	return true;
}

static void finish(struct conn *c, int fd)
{
	struct handshake_result r;
	char text[WEFT_ADDR_TEXT];
	enum weft_reason refused;
	bool ok;

	handshake_result(c->handshake, &r);
	ok = start_session(c, &r);
	record_keys_wipe(&r.rx);
	record_keys_wipe(&r.tx);
	if (!ok) {
		conn_fail(c, fd, ENOMEM, WEFT_REASON_HANDSHAKE_FAILED, "no memory");
		return;
	}
	c->deadline_ms = 0;
	refused = c->server ? shake_verdict(c, c->id, fd, c->peer) : WEFT_REASON_NONE;
	if (refused) {
		session_alert(c->session, &c->aead, fd, ALERT_ACCESS_DENIED);
		conn_fail(c, fd, ECONNRESET, refused, NULL);
		return;
	}
	seen(c->server ? WEFT_TALLY_ADMITTED : WEFT_TALLY_DIALLED, NULL, WEFT_REASON_NONE);
	if (c->server)
		log_info("connection from %s admitted: peer %s", conn_peer_text(fd, text), c->peer);
	else
		log_info("connection to %s open: peer %s at %s", c->dial.service->wire->name.p,
			 c->peer, conn_peer_text(fd, text));
	c->policy_seq = c->id->seq;
	c->admitted_as = shake_self(c->id);
	c->handshake = handshake_free(c->handshake);
	c->id = identity_unref(c->id);
}

/* The peer is authenticated. What the program wrote before goes out first; an error of the socket shows at its next call. */
static int open_up(struct conn *c, int fd)
{
	if (early_flush(c, fd) == -EAGAIN) {
		c->wants = POLLOUT;
		return -EAGAIN;
	}
	conn_move(c, CONN_OPEN);
	share_opened(c);
	early_opened(c, fd);
	return 0;
}

static void fail(struct conn *c, int fd, int err, enum weft_reason reason)
{
	if (c->server)
		conn_fail(c, fd, err, reason, handshake_detail(c->handshake));
	else
		dial_failed(c, fd, err, reason, handshake_detail(c->handshake));
}

/* A client that closes before it said anything is the end of a stream, as it would be bare. */
static int errno_of(const struct conn *c)
{
	if (!c->server)
		return reason_errno(handshake_reason(c->handshake));
	return handshake_ended(c->handshake) ? 0 : ECONNRESET;
}

int shake_step(struct conn *c, int fd)
{
	int r;

	if (!c->handshake && c->peer)
		return open_up(c, fd);
	r = handshake_step(c->handshake, fd);
	if (r == -EAGAIN) {
		c->wants = handshake_wants(c->handshake);
		if (c->server && !c->grace_ms && handshake_heard(c->handshake))
			early_server(c);
		if (!c->deadline_ms || clock_now_ms() < c->deadline_ms)
			return r;
		shake_expired(c, fd);
		return conn_state(c) == CONN_HANDSHAKE ? -EAGAIN : 0;
	}
	if (r < 0)
		fail(c, fd, errno_of(c), handshake_reason(c->handshake));
	else
		finish(c, fd);
	return 0;
}

void shake_expired(struct conn *c, int fd)
{
	/* The program was told that it is connected; a TCP peer may be silent for as long as it likes. */
	if (early_is(c) && !c->orphan && !c->server && !dial_has_other(c))
		c->deadline_ms = 0;
	else if (c->handshake)
		fail(c, fd, c->server ? ECONNRESET : ETIMEDOUT, WEFT_REASON_HANDSHAKE_TIMEOUT);
	else
		conn_fail(c, fd, c->server ? ECONNRESET : ETIMEDOUT, WEFT_REASON_HANDSHAKE_TIMEOUT,
			  NULL);
}
