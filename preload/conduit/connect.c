#include <errno.h>
#include <limits.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/syscall.h>

#include "conduit/block.h"
#include "conduit/dial.h"
#include "conduit/direct.h"
#include "conduit/early.h"
#include "sys/clock.h"
#include "sys/quiet.h"
#include "sys/stack.h"
#include "sys/sys.h"
#include "telemetry/log.h"
#include "telemetry/seen.h"

static int told(struct conn *c)
{
	if (c->told || c->server)
		return -EISCONN;
	c->told = true;
	return 0;
}

/* What connect() answers for a connection that is early, or not stepping any more. */
static int outcome(struct conn *c)
{
	int err;

	if (early_is(c))
		return told(c);
	switch (conn_state(c)) {
	case CONN_OPEN:
	case CONN_PLAIN:
		return told(c);
	case CONN_FAILED:
		err = c->so_error;
		c->so_error = 0;
		conn_move(c, CONN_NEW);
		return -err;
	default:
		return -EBADF;
	}
}

int direct_connect_wait(struct conn *c, int fd)
{
	int64_t deadline;
	int r;

	if (!block_may(fd, 0)) {
		conn_step(c, fd); /* on loopback TCP has connected by now */
		return -EINPROGRESS;
	}
	deadline = block_deadline(fd, SO_SNDTIMEO);
	while (conn_step(c, fd) == -EAGAIN && !early_is(c)) {
		fd = conn_fd(c, fd);
		r = early_wait_step(c, fd, deadline, deadline != INT64_MAX);
		if (r < 0)
			return r == -ETIMEDOUT ? -EINPROGRESS : r;
	}
	if (early_is(c))
		early_settle(c, fd); /* a peer in this process may have accepted already */
	return outcome(c);
}

/* A connection that began in the clear goes on so, whatever the address means by now: programs ask by a second connect(). */
static bool is_under_way(int fd)
{
	struct tcp_info info = { .tcpi_state = TCP_CLOSE };
	socklen_t len = sizeof(info);

	sys_call(SYS_getsockopt, fd, IPPROTO_TCP, TCP_INFO, (long)&info, (long)&len, 0);
	return info.tcpi_state != TCP_CLOSE;
}

/* A second connect(), or one after a failure. 1: a new connection is to be made. */
static int connect_again(struct conn *c, int fd)
{
	if (conn_state(c) == CONN_PLAIN && !c->connected)
		return is_under_way(fd) ? CONDUIT_PASS : 1;
	if (conn_state(c) == CONN_NEW ||
	    (conn_state(c) == CONN_FAILED && !c->server && !c->so_error))
		return 1;
	if (!conn_is_stepping(c))
		return outcome(c);
	if (conn_step(c, fd) == 0 || early_is(c))
		return outcome(c);
	return block_may(fd, 0) ? CONDUIT_WAIT : -EALREADY;
}

static bool is_stream(int fd)
{
	int type = 0;
	socklen_t len = sizeof(type);

	sys_call(SYS_getsockopt, fd, SOL_SOCKET, SO_TYPE, (long)&type, (long)&len, 0);
	return type == SOCK_STREAM;
}

/* What the address means. 0: a service; CONDUIT_PASS; -errno, reported. *plain: reach it without TLS. */
static int look_up(int fd, const struct sockaddr *addr, socklen_t len,
		   struct weft_names_service *svc, enum weft_names_kind *kind, bool *plain)
{
	enum weft_reason reason = WEFT_REASON_NONE;
	enum weft_mode mode;
	struct weft_addr a;
	char text[WEFT_ADDR_TEXT];
	int r;

	if (addr_from_sockaddr(&a, addr, len) < 0)
		return CONDUIT_PASS;
	r = mesh_find_addr(&a, svc, kind, &reason);
	if (r == -ENOENT) {
		if (addr_is_private(&a))
			mesh_passes(&a, is_stream(fd));
		return CONDUIT_PASS;
	}
	if (r < 0) {
		seen(WEFT_TALLY_DIAL_REFUSED, &a, reason);
		log_warn("connection to %s: %s (%s)", addr_format(&a, text), reason_text(reason),
			 reason_name(reason));
		return r;
	}
	mode = control_mode();
	*plain = mode != WEFT_MODE_ENFORCE;
	if (svc->external && *kind == WEFT_NAMES_ADDRESS)
		return CONDUIT_PASS;
	if (mode == WEFT_MODE_OBSERVE)
		seen(WEFT_TALLY_WOULD_MESH, &a, WEFT_REASON_NONE);
	return *plain && *kind != WEFT_NAMES_VIP ? CONDUIT_PASS : 0;
}

struct start {
	struct conn *c;
	int fd, r;
	const struct weft_names_service *svc;
	enum weft_names_kind kind;
	bool plain;
};

static void start(void *arg)
{
	struct start *s = arg;

	s->r = dial_start(s->c, s->fd, s->svc, s->kind, s->plain);
}

static int begin(struct start *s)
{
	struct conn *c = s->c;

	quiet_hold();
	lock_take(&c->lock);
	stack_run(start, s);
	lock_drop(&c->lock);
	quiet_let();
	if (s->r)
		return s->r;
	c->connected = true;
	c->told = false;
	return CONDUIT_WAIT;
}

static bool is_nobody(const union conn_name *n)
{
	static const struct in6_addr mapped = { .s6_addr = { [10] = 0xff, [11] = 0xff } };

	if (n->sa.sa_family == AF_INET6)
		return IN6_IS_ADDR_UNSPECIFIED(&n->v6.sin6_addr) ||
		       memcmp(&n->v6.sin6_addr, &mapped, sizeof(mapped)) == 0;
	return n->sa.sa_family == AF_INET && !n->v4.sin_addr.s_addr;
}

/* 0.0.0.0 and :: are this host: the address that the socket is bound to, or the loopback. */
static void name_this_host(union conn_name *to, int fd)
{
	union conn_name own = { .sa = { .sa_family = AF_UNSPEC } };
	socklen_t len = sizeof(own);

	if (!is_nobody(to))
		return;
	sys_call(SYS_getsockname, fd, (long)&own, (long)&len, 0, 0, 0);
	if (to->sa.sa_family == AF_INET) {
		to->v4.sin_addr.s_addr = own.sa.sa_family == AF_INET ? own.v4.sin_addr.s_addr : 0;
		if (!to->v4.sin_addr.s_addr)
			to->v4.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	} else if (own.sa.sa_family == AF_INET6 && !IN6_IS_ADDR_UNSPECIFIED(&own.v6.sin6_addr)) {
		to->v6.sin6_addr = own.v6.sin6_addr;
	} else if (IN6_IS_ADDR_UNSPECIFIED(&to->v6.sin6_addr)) {
		to->v6.sin6_addr = in6addr_loopback;
	} else {
		to->v6.sin6_addr.s6_addr[12] = 127;
		to->v6.sin6_addr.s6_addr[15] = 1;
	}
}

int direct_connect(struct conn **pc, int fd, int family, const struct sockaddr *addr, socklen_t len)
{
	struct weft_names_service svc;
	enum weft_names_kind kind;
	struct conn *c = *pc;
	union conn_name to = { .sa = { .sa_family = AF_UNSPEC } };
	bool plain;
	int r;

	r = c ? connect_again(c, fd) : 1;
	if (r != 1)
		return r;
	len = len < sizeof(to) ? len : sizeof(to);
	memcpy(&to, addr, len);
	name_this_host(&to, fd);
	r = look_up(fd, &to.sa, len, &svc, &kind, &plain);
	if (r == CONDUIT_PASS && c)
		conn_move(c, CONN_PLAIN);
	if (r)
		return r;
	if (!is_stream(fd)) /* a datagram to a virtual address would be sent as multicast */
		return kind == WEFT_NAMES_VIP ? -ENETUNREACH : CONDUIT_PASS;
	if (is_under_way(fd))
		return CONDUIT_PASS;
	if (!c)
		c = *pc = conn_new(fd, family);
	if (!c)
		return -ENOMEM;
	c->dialled = to;
	c->dialled_len = len;
	return begin(
		&(struct start){ .c = c, .fd = fd, .svc = &svc, .kind = kind, .plain = plain });
}
