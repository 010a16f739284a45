#include "conduit/conn.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "conduit/admit.h"
#include "conduit/call.h"
#include "conduit/dial.h"
#include "conduit/direct.h"
#include "conduit/early.h"
#include "conduit/share.h"
#include "conduit/shake.h"
#include "sys/clock.h"
#include "sys/quiet.h"
#include "sys/stack.h"
#include "sys/sys.h"
#include "telemetry/log.h"
#include "telemetry/seen.h"

#define CONN_CHUNK (64u << 10) /* bytes asked of the kernel at a time */
#define CONN_SOON_MS 2         /* to look again after a step of somebody else's */
#define CONN_LATER_MS 20

_Atomic int conn_live, conn_stepping, conn_early;
void (*conn_moved_on)(struct conn *c);

static struct {
	struct lock lock;
	struct conn *all;
	struct conn *free; /* linked by `next` */
} list;

static struct conn *conn_alloc(void)
{
	struct conn *c;
	long chunk;
	size_t i;

	if (!list.free) {
		chunk = sys_call(SYS_mmap, 0, CONN_CHUNK, PROT_READ | PROT_WRITE,
				 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (chunk < 0 && chunk > -4096)
			return NULL;
		for (i = 0; i < CONN_CHUNK / sizeof(*c); i++) {
			c = (struct conn *)chunk + i;
			c->next = list.free;
			list.free = c;
		}
	}
	c = list.free;
	list.free = c->next;
	return c;
}

uint64_t conn_cookie(int fd)
{
	uint64_t cookie = 0;
	socklen_t len = sizeof(cookie);

	sys_call(SYS_getsockopt, fd, SOL_SOCKET, SO_COOKIE, (long)&cookie, (long)&len, 0);
	return cookie;
}

struct conn *conn_new(int fd, int family)
{
	struct conn *c = NULL;
	uint64_t cookie = conn_cookie(fd);

	conn_list_lock();
	c = conn_alloc();
	if (c) {
		memset((char *)c + sizeof(c->refs), 0, sizeof(*c) - sizeof(c->refs));
		c->session = &c->own;
		c->own.lowat = 1;
		c->fd = fd;
		c->cookie = cookie;
		c->family = family;
		c->fds = 1;
		c->next = list.all;
		if (list.all)
			list.all->prev = c;
		list.all = c;
		atomic_fetch_add(&conn_live, 1);
		atomic_store_explicit(&c->refs, 1, memory_order_release);
	}
	conn_list_unlock();
	return c;
}

struct conn *conn_get(struct conn *c)
{
	unsigned n = atomic_load_explicit(&c->refs, memory_order_relaxed);

	while (n)
		if (atomic_compare_exchange_weak(&c->refs, &n, n + 1))
			return c;
	return NULL;
}

/* The last call on a connection that has no descriptor any more. */
static void close_kept(struct conn *c)
{
	int fd = conn_fd(c, -1);

	if (fd < 0)
		return;
	direct_close(c, fd);
	sys_call(SYS_close, fd, 0, 0, 0, 0, 0);
}

static void conn_release(struct conn *c)
{
	quiet_hold();
	close_kept(c);
	dial_release(c);
	c->handshake = handshake_free(c->handshake);
	c->id = identity_unref(c->id);
	session_unhold(&c->aead);
	c->aead.rx = record_aead_free(c->aead.rx);
	c->aead.tx = record_aead_free(c->aead.tx);
	session_wipe(&c->own);
	share_release(c);
	early_release(c);
	free(c->peer);
	c->peer = NULL;
	conn_list_lock();
	if (c->prev)
		c->prev->next = c->next;
	else
		list.all = c->next;
	if (c->next)
		c->next->prev = c->prev;
	c->next = list.free;
	list.free = c;
	conn_list_unlock();
	quiet_let();
}

void conn_put(struct conn *c)
{
	if (c && atomic_fetch_sub_explicit(&c->refs, 1, memory_order_acq_rel) == 1)
		conn_release(c);
}

void conn_move(struct conn *c, enum conn_state to)
{
	bool was = conn_is_stepping(c), is = to >= CONN_DIALING && to <= CONN_HANDSHAKE;

	if (conn_state(c) == CONN_CLOSED)
		return;
	if (is != was)
		atomic_fetch_add(&conn_stepping, is ? 1 : -1);
	if (!is && atomic_exchange(&c->early, false))
		atomic_fetch_sub(&conn_early, 1);
	if (to == CONN_CLOSED)
		atomic_fetch_sub(&conn_live, 1);
	atomic_store_explicit(&c->state, to, memory_order_release);
	atomic_fetch_add_explicit(&c->phase, 1, memory_order_release);
}

const char *conn_peer_text(int fd, char text[static WEFT_ADDR_TEXT])
{
	struct weft_addr a;
	union conn_name name;
	socklen_t len = sizeof(name);

	if (sys_call(SYS_getpeername, fd, (long)&name, (long)&len, 0, 0, 0) < 0 ||
	    addr_from_sockaddr(&a, &name.sa, len) < 0)
		return "?";
	return addr_format(&a, text);
}

void conn_seen(int fd, enum weft_tally kind, enum weft_reason reason)
{
	struct weft_addr peer, local;
	union conn_name name;
	socklen_t len = sizeof(name);

	if (sys_call(SYS_getpeername, fd, (long)&name, (long)&len, 0, 0, 0) < 0 ||
	    addr_from_sockaddr(&peer, &name.sa, len) < 0)
		return;
	len = sizeof(name);
	peer.port = 0;
	if (sys_call(SYS_getsockname, fd, (long)&name, (long)&len, 0, 0, 0) == 0 &&
	    addr_from_sockaddr(&local, &name.sa, len) == 0)
		peer.port = local.port;
	seen(kind, &peer, reason);
}

static void tell_failure(const struct conn *c, int fd, enum weft_reason reason, const char *detail)
{
	char text[WEFT_ADDR_TEXT];
	const char *who =
		c->dial.service ? c->dial.service->wire->name.p : conn_peer_text(fd, text);

	log_warn("%s %s%s%s: %s (%s)%s%s", c->server ? "refused connection from" : "connection to",
		 who, c->peer ? " " : "", c->peer ? c->peer : "", reason_text(reason),
		 reason_name(reason), detail && *detail ? ": " : "", detail ? detail : "");
	if (c->server)
		conn_seen(fd, WEFT_TALLY_REFUSED, reason);
	else
		seen(WEFT_TALLY_DIAL_REFUSED, NULL, reason);
}

void conn_fail(struct conn *c, int fd, int err, enum weft_reason reason, const char *detail)
{
	c->gone = c->server && !err;
	if (!c->gone)
		tell_failure(c, fd, reason, detail);
	c->handshake = handshake_free(c->handshake);
	c->id = identity_unref(c->id);
	c->so_error = err;
	c->reason = reason;
	if (c->server && err)
		sys_call(SYS_shutdown, fd, SHUT_RDWR, 0, 0, 0, 0);
	conn_move(c, CONN_FAILED);
}

static int step_once(struct conn *c, int fd)
{
	switch (conn_state(c)) {
	case CONN_DIALING:
		return dial_step(c, fd);
	case CONN_SNIFFING:
		return admit_sniff(c, fd);
	case CONN_HANDSHAKE:
		return shake_step(c, fd);
	default:
		return 0;
	}
}

struct step {
	struct conn *c;
	int fd;
};

static void step_all(void *arg)
{
	struct step *s = arg;

	while (conn_is_stepping(s->c) && !step_once(s->c, s->fd))
		;
}

static uint64_t claim_of(const void *frame)
{
	return (uint64_t)lock_self() << 32 | (uint32_t)(uintptr_t)frame;
}

bool conn_is_mine(const struct conn *c)
{
	uint64_t claim = atomic_load_explicit(&c->claim, memory_order_relaxed);

	return !claim || claim >> 32 == (uint32_t)lock_self();
}

bool conn_claim(struct conn *c, const void *frame)
{
	bool mine;

	quiet_hold();
	lock_take(&c->lock); /* a step of another thread is done by now, or will not be */
	mine = conn_is_stepping(c) && conn_is_mine(c) && share_may_step(c);
	if (mine && !c->claim)
		c->claim = claim_of(frame);
	lock_drop(&c->lock);
	quiet_let();
	return mine;
}

void conn_let(struct conn *c, const void *frame)
{
	uint64_t mine = claim_of(frame);

	atomic_compare_exchange_strong(&c->claim, &mine, 0);
}

int64_t conn_look_ms(const struct conn *c)
{
	bool soon = conn_state(c) == CONN_HANDSHAKE && !c->early;

	return clock_now_ms() + (soon ? CONN_SOON_MS : CONN_LATER_MS);
}

static void moved_on(struct conn *c, unsigned phase)
{
	if (conn_moved_on && atomic_load_explicit(&c->phase, memory_order_relaxed) != phase)
		conn_moved_on(c);
}

int conn_step(struct conn *c, int fd)
{
	unsigned phase = atomic_load_explicit(&c->phase, memory_order_relaxed);
	struct step s = { .c = c };

	if (!conn_is_stepping(c))
		return 0;
	quiet_hold();
	if (lock_try(&c->lock)) {
		s.fd = conn_fd(c, fd);
		if (conn_is_mine(c) && share_may_step(c))
			stack_run(step_all, &s);
		early_check(c);
		lock_drop(&c->lock);
		moved_on(c, phase);
	}
	quiet_let();
	return conn_is_stepping(c) ? -EAGAIN : 0;
}

short conn_wants(const struct conn *c)
{
	switch (conn_state(c)) {
	case CONN_DIALING:
		return POLLOUT;
	case CONN_HANDSHAKE:
		return atomic_load_explicit(&c->wants, memory_order_relaxed);
	default:
		return c->sniff_ms == CONN_SNIFFED ? POLLOUT : POLLIN;
	}
}

int64_t conn_deadline(const struct conn *c)
{
	int64_t t = c->deadline_ms ? c->deadline_ms : INT64_MAX;

	if (c->grace_ms && c->grace_ms < t && !c->early && conn_state(c) == CONN_HANDSHAKE)
		return c->grace_ms;

	return c->sniff_ms && c->sniff_ms < t && conn_state(c) == CONN_SNIFFING ? c->sniff_ms : t;
}

int64_t conn_deadline_all(void)
{
	int64_t first;
	struct conn *c;

	if (!atomic_load_explicit(&conn_stepping, memory_order_relaxed))
		return INT64_MAX;
	first = early_turn_ms();
	conn_list_lock();
	for (c = list.all; c; c = c->next)
		if (conn_is_stepping(c) && conn_deadline(c) < first)
			first = conn_deadline(c);
	conn_list_unlock();
	return first;
}

void conn_expire_all(void)
{
	int64_t now = clock_now_ms();
	struct conn *due, *c;
	unsigned phase;
	int fd;

	quiet_hold();
	do {
		due = NULL;
		conn_list_lock();
		for (c = list.all; c && !due; c = c->next)
			if (conn_is_stepping(c) && conn_deadline(c) <= now && lock_try(&c->lock)) {
				due = conn_get(c);
				if (!due)
					lock_drop(&c->lock);
			}
		conn_list_unlock();
		if (!due)
			break;
		fd = conn_fd(due, due->fd);
		phase = due->phase;
		if (conn_state(due) == CONN_DIALING)
			dial_expired(due, fd);
		else if (conn_state(due) == CONN_SNIFFING && due->sniff_ms && due->sniff_ms <= now)
			admit_plain(due, fd, false);
		else if (due->grace_ms && due->grace_ms <= now && !due->early)
			early_check(due);
		else if (conn_is_stepping(due))
			shake_expired(due, fd);
		lock_drop(&due->lock);
		moved_on(due, phase);
		if (!conn_is_stepping(due))
			early_disown(due);
		conn_put(due);
	} while (due);
	quiet_let();
}

void conn_speaks_first(struct conn *c)
{
	if (conn_state(c) == CONN_SNIFFING && !c->sniff_ms)
		c->sniff_ms = clock_now_ms() + c->sniff_for_ms;
}

void conn_push_all(void)
{
	struct conn *c;

	conn_list_lock();
	for (c = list.all; c; c = c->next)
		if (c->aead.holds && conn_state(c) == CONN_OPEN)
			session_push(c->session, &c->aead, conn_fd(c, c->fd), MSG_MORE);
	conn_list_unlock();
}

void conn_list_lock(void)
{
	quiet_hold();
	lock_take(&list.lock);
}

void conn_list_unlock(void)
{
	lock_drop(&list.lock);
	quiet_let();
}

/* References and claims of calls that other threads of the parent were in are nobody's here. */
void conn_list_forked(void)
{
	struct conn *c, *next;

	for (c = list.all; c; c = c->next) {
		if (c->refs) /* else a thread that is no more was about to free it */
			c->refs = (unsigned)c->fds + call_depth(c) + 1;
		c->claim = 0;
	}
	list.lock = (struct lock){ 0 };
	quiet_let();
	for (c = list.all; c; c = next) {
		next = c->next;
		if (c->refs)
			conn_put(c);
	}
}

struct conn *conn_list_first(void)
{
	return list.all;
}
