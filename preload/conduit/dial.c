#include "conduit/dial.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>

#include "conduit/shake.h"
#include "sys/clock.h"
#include "sys/ready.h"
#include "sys/sys.h"
#include "telemetry/log.h"
#include "telemetry/seen.h"

#define DIAL_ATTEMPTS 16 /* endpoints tried for one connect() */

static const struct wire_cluster *cluster_of(const struct conn *c)
{
	return &c->dial.service->wire->clusters.v[c->dial.cluster];
}

static const struct wire_endpoint *endpoint_of(const struct conn *c)
{
	return &cluster_of(c)->endpoints.v[c->dial.endpoint];
}

static bool endpoint_is_tls(const struct conn *c)
{
	const struct wire_cluster *k = cluster_of(c);

	return !c->dial.plain &&
	       (k->tls == WEFT_TLS_MUTUAL || (k->tls == WEFT_TLS_AUTO && endpoint_of(c)->tls));
}

static void count(struct conn *c, int delta)
{
	if (c->dial.counted == (delta > 0))
		return;
	c->dial.counted = delta > 0;
	service_active(c->dial.service, c->dial.cluster, c->dial.endpoint, delta);
}

void dial_release(struct conn *c)
{
	if (c->dial.service)
		count(c, -1);
	c->dial.service = service_unref(c->dial.service);
	free(c->dial.tried);
	c->dial.tried = NULL;
}

/* connect() that never waits, whatever O_NONBLOCK says. */
static int connect_now(int fd, const struct sockaddr *sa, int len)
{
	long fl = sys_call(SYS_fcntl, fd, F_GETFL, 0, 0, 0, 0);
	int r;

	if (!(fl & O_NONBLOCK))
		sys_call(SYS_fcntl, fd, F_SETFL, fl | O_NONBLOCK, 0, 0, 0);
	r = (int)sys_call(SYS_connect, fd, (long)sa, len, 0, 0, 0);
	if (!(fl & O_NONBLOCK))
		sys_call(SYS_fcntl, fd, F_SETFL, fl, 0, 0, 0);
	return r;
}

/* Makes a socket whose attempt failed good for another: a bare second connect() would only fetch the old error. */
static void unconnect(struct conn *c, int fd)
{
	struct sockaddr none = { .sa_family = AF_UNSPEC };

	sys_call(SYS_connect, fd, (long)&none, sizeof(none), 0, 0, 0);
	if (c->dial.bound)
		sys_call(SYS_bind, fd, (long)&c->dial.local,
			 c->family == AF_INET6 ? sizeof(c->dial.local.v6)
					       : sizeof(c->dial.local.v4),
			 0, 0, 0);
}

/* A link-local address is one only together with its scope, which the registry cannot know: that of the program's. */
static void keep_scope(const struct conn *c, struct sockaddr_storage *sa)
{
	struct sockaddr_in6 in6;

	if (c->family != AF_INET6 || c->dialled.sa.sa_family != AF_INET6 ||
	    c->dialled_len < sizeof(in6))
		return;
	memcpy(&in6, sa, sizeof(in6));
	if (memcmp(&in6.sin6_addr, &c->dialled.v6.sin6_addr, sizeof(in6.sin6_addr)) != 0)
		return;
	in6.sin6_scope_id = c->dialled.v6.sin6_scope_id;
	in6.sin6_flowinfo = c->dialled.v6.sin6_flowinfo;
	memcpy(sa, &in6, sizeof(in6));
}

static int connect_endpoint(struct conn *c, int fd)
{
	const struct wire_endpoint *e = endpoint_of(c);
	struct weft_addr a = { .port = (uint16_t)e->port };
	struct sockaddr_storage sa;
	int len, r;

	if (e->address.n != sizeof(a.ip))
		return -EAFNOSUPPORT;
	memcpy(a.ip, e->address.p, sizeof(a.ip));
	len = addr_to_sockaddr(&a, c->family, &sa);
	if (len < 0)
		return len;
	keep_scope(c, &sa);
	r = connect_now(fd, (struct sockaddr *)&sa, len);
	if (r == -EINPROGRESS)
		r = 0;
	if (!r) {
		count(c, +1);
		c->deadline_ms = clock_now_ms() + c->timeout_ms;
	}
	return r;
}

/* Starts an attempt with the next endpoint that was not tried. 0, or `err` (negative) when there is none left. */
static int attempt(struct conn *c, int fd, int err)
{
	while (c->dial.attempts < DIAL_ATTEMPTS) {
		uint32_t e;
		int r;

		if (service_pick(c->dial.service, c->dial.tried, c->dial.cluster, &e) < 0)
			return err;
		c->dial.endpoint = e;
		c->dial.tried[e / 64] |= UINT64_C(1) << e % 64;
		if (c->dial.attempts++)
			unconnect(c, fd);
		r = connect_endpoint(c, fd);
		if (!r || r == -EADDRNOTAVAIL || r == -EPERM || r == -EACCES || r == -EBADF)
			return r;
		err = r;
	}
	return err;
}

static int prepare(struct conn *c, int fd, const struct weft_names_service *svc,
		   enum weft_names_kind kind)
{
	struct weft_addr dialled;
	socklen_t len = sizeof(c->dial.local);
	int r;

	addr_from_sockaddr(&dialled, &c->dialled.sa, c->dialled_len);
	r = mesh_service(svc->name, &dialled, kind == WEFT_NAMES_ENDPOINT, &c->dial.service,
			 &c->reason);
	if (r < 0)
		return r;
	r = service_route(c->dial.service, &c->dial.cluster);
	if (r < 0) {
		c->reason = c->dial.service->wire->reason
				    ? (enum weft_reason)c->dial.service->wire->reason
				    : WEFT_REASON_NO_ROUTE;
		return -reason_errno(c->reason);
	}
	c->dial.tried = calloc(cluster_of(c)->endpoints.n / 64 + 1, sizeof(uint64_t));
	if (!c->dial.tried)
		return -ENOMEM;
	c->timeout_ms = (int64_t)cluster_of(c)->connect_timeout_ms;
	if (c->timeout_ms <= 0)
		c->timeout_ms = WEFT_CONNECT_TIMEOUT_MS;
	if (!c->dial.plain && cluster_of(c)->tls != WEFT_TLS_DISABLE && !c->id)
		r = mesh_identity(&c->id, &c->reason);
	if (r < 0)
		return r;
	if (sys_call(SYS_getsockname, fd, (long)&c->dial.local, (long)&len, 0, 0, 0) == 0)
		c->dial.bound = c->family == AF_INET6 ? c->dial.local.v6.sin6_port
						      : c->dial.local.v4.sin_port;
	return 0;
}

int dial_start(struct conn *c, int fd, const struct weft_names_service *svc,
	       enum weft_names_kind kind, bool plain)
{
	int r;

	c->dial = (struct conn_dial){ .plain = plain };
	r = prepare(c, fd, svc, kind);
	if (!r) {
		c->reason = WEFT_REASON_NO_ENDPOINT;
		r = attempt(c, fd, -ECONNREFUSED);
		if (r < 0 && c->dial.attempts)
			c->reason = WEFT_REASON_CONNECT_FAILED;
	}
	if (r < 0) {
		seen(WEFT_TALLY_DIAL_REFUSED, NULL, c->reason);
		log_warn("connection to %s: %s (%s)", svc->name, reason_text(c->reason),
			 reason_name(c->reason));
		dial_release(c);
		c->id = identity_unref(c->id);
		return r;
	}
	c->reason = WEFT_REASON_NONE;
	conn_move(c, CONN_DIALING);
	return 0;
}

static void dialled_plain(struct conn *c)
{
	struct weft_addr to = { .port = (uint16_t)endpoint_of(c)->port };

	memcpy(to.ip, endpoint_of(c)->address.p, sizeof(to.ip));
	seen(WEFT_TALLY_DIALLED_PLAIN, &to, WEFT_REASON_NONE);
	conn_move(c, CONN_PLAIN);
}

int dial_step(struct conn *c, int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLOUT };
	struct timespec now = { 0 };
	int err = 0;
	socklen_t len = sizeof(err);

	if (ready_poll(&p, 1, &now, NULL) == 0) {
		if (clock_now_ms() < c->deadline_ms)
			return -EAGAIN;
		dial_expired(c, fd);
		return 0;
	}
	sys_call(SYS_getsockopt, fd, SOL_SOCKET, SO_ERROR, (long)&err, (long)&len, 0);
	if (err)
		dial_failed(c, fd, err, WEFT_REASON_CONNECT_FAILED, NULL);
	else if (endpoint_is_tls(c))
		shake_client(c, fd);
	else
		dialled_plain(c);
	return 0;
}

void dial_failed(struct conn *c, int fd, int err, enum weft_reason reason, const char *detail)
{
	bool final = reason == WEFT_REASON_PEER_REFUSED;
	char why[160];
	int r;

	snprintf(why, sizeof(why), "%s", detail ? detail : "");
	log_info("endpoint %s of %s: %s%s%s", endpoint_of(c)->entry.p,
		 c->dial.service->wire->name.p, reason_text(reason), *why ? ": " : "", why);
	c->handshake = handshake_free(c->handshake);
	count(c, -1);
	r = final ? -err : attempt(c, fd, -err);
	if (!r) {
		conn_move(c, CONN_DIALING);
		return;
	}
	unconnect(c, fd);
	conn_fail(c, fd, -r, reason, why);
}

bool dial_has_other(const struct conn *c)
{
	uint32_t e;

	return c->dial.attempts < DIAL_ATTEMPTS &&
	       service_pick(c->dial.service, c->dial.tried, c->dial.cluster, &e) == 0;
}

void dial_expired(struct conn *c, int fd)
{
	dial_failed(c, fd, ETIMEDOUT, WEFT_REASON_CONNECT_TIMEOUT, NULL);
}
