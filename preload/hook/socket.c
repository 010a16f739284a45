/* Sockets: birth, connection, acceptance, end of one direction. */
#include <sys/syscall.h>

#include "conduit/block.h"
#include "conduit/early.h"
#include "fd/life.h"
#include "fd/reg.h"
#include "hook/hook.h"
#include "sys/user.h"

HOOK_EXPORT int socket(int domain, int type, int protocol)
{
	int fd = sys.socket(domain, type, protocol);
	bool tcp = (type & 0xf) == SOCK_STREAM && (protocol == 0 || protocol == IPPROTO_TCP);

	if (fd >= 0)
		life_born(fd, tcp && domain == AF_INET    ? SLOT_FRESH4
			      : tcp && domain == AF_INET6 ? SLOT_FRESH6
							  : SLOT_PASS);
	return fd;
}

HOOK_EXPORT int socketpair(int domain, int type, int protocol, int sv[2])
{
	int r = sys.socketpair(domain, type, protocol, sv);

	if (!r) {
		life_born(sv[0], SLOT_PASS);
		life_born(sv[1], SLOT_PASS);
	}
	return r;
}

HOOK_EXPORT int listen(int fd, int backlog)
{
	int saved = errno;

	return (int)hook_result(life_listen(fd, backlog), saved);
}

static bool listens(int fd)
{
	int value = 0;
	socklen_t len = sizeof(value);

	sys_call(SYS_getsockopt, fd, SOL_SOCKET, SO_ACCEPTCONN, (long)&value, (long)&len, 0);
	return value != 0;
}

/* Early connections go on while the program waits for another. */
static int await_accept(int fd)
{
	int64_t until;
	int r = 0;

	if (early_any() && listens(fd) && block_may(fd, 0)) {
		until = block_deadline(fd, SO_RCVTIMEO);
		r = early_wait(fd, POLLIN, until, until != INT64_MAX);
	}
	return r == -ETIMEDOUT ? -EAGAIN : r;
}

HOOK_EXPORT int accept(int fd, struct sockaddr *addr, socklen_t *len)
{
	uintptr_t word =
		table_word(fd); /* when accept() returns, the number may be another file's */
	int saved = errno, got;

	conn_push();
	got = await_accept(fd);
	got = got < 0 ? (int)hook_result(got, saved) : sys.accept(fd, addr, len);

	return got < 0 ? got : (int)hook_result(life_accepted(fd, word, got), saved);
}

HOOK_EXPORT int accept4(int fd, struct sockaddr *addr, socklen_t *len, int flags)
{
	uintptr_t word = table_word(fd);
	int saved = errno, got;

	conn_push();
	got = await_accept(fd);
	got = got < 0 ? (int)hook_result(got, saved) : sys.accept4(fd, addr, len, flags);

	return got < 0 ? got : (int)hook_result(life_accepted(fd, word, got), saved);
}

static int family_of(int fd, uintptr_t word)
{
	int domain = 0;
	socklen_t len = sizeof(domain);

	if (word == SLOT_FRESH4)
		return AF_INET;
	if (word == SLOT_FRESH6)
		return AF_INET6;
	sys_call(SYS_getsockopt, fd, SOL_SOCKET, SO_DOMAIN, (long)&domain, (long)&len, 0);
	return domain;
}

/* connect(AF_UNSPEC) makes the socket a fresh one; AF_UNIX and the like are none of ours. */
static int connect_other(struct conn *c, int fd, const struct sockaddr *addr, socklen_t len)
{
	int family = c ? c->family : 0;

	conn_put(c);
	if (c && len >= sizeof(sa_family_t) && user_reads(addr, len) &&
	    addr->sa_family == AF_UNSPEC) {
		life_born(fd, SLOT_PASS);
		life_born(fd, family == AF_INET6 ? SLOT_FRESH6 : SLOT_FRESH4);
	}
	return sys.connect(fd, addr, len);
}

/* The table knows of the connection by now: other threads see it, and if this one is cancelled it still is meshed. */
static int connect_wait(struct conn *c, int fd)
{
	CALL_ON(call, c);
	int r = direct_connect_wait(c, fd);

	reg_settle(c);
	return r;
}

int socket_connect(int fd, const struct sockaddr *addr, socklen_t len)
{
	uintptr_t word = table_word(fd);
	struct conn *c = table_conn(fd), *had = c;
	int r = direct_connect(&c, fd, family_of(fd, word), addr, len);

	if (c && !had) {
		conn_get(c);
		life_attach(fd, c);
		if (conn_cookie(fd) != c->cookie) /* another thread has closed it meanwhile */
			life_lost(fd, c);
	}
	if (r == CONDUIT_WAIT)
		return connect_wait(c, fd);
	if (c)
		reg_settle(c);
	else if (r == CONDUIT_PASS && word != SLOT_LISTENER)
		life_born(fd, SLOT_PASS);
	conn_put(c);
	return r;
}

HOOK_EXPORT int connect(int fd, const struct sockaddr *addr, socklen_t len)
{
	int saved = errno, r;

	if (len < sizeof(sa_family_t) || len > sizeof(struct sockaddr_storage) ||
	    !user_reads(addr, len) || (addr->sa_family != AF_INET && addr->sa_family != AF_INET6))
		return connect_other(table_conn(fd), fd, addr, len);
	r = socket_connect(fd, addr, len);
	if (r != CONDUIT_PASS)
		return (int)hook_result(r, saved);
	errno = saved;
	return sys.connect(fd, addr, len);
}

HOOK_ALIAS(int, __connect, (int fd, const struct sockaddr *addr, socklen_t len), connect);

HOOK_EXPORT int shutdown(int fd, int how)
{
	TABLE_CALL(c, fd);
	int saved = errno;

	if (c)
		return (int)hook_result(direct_shutdown(c, fd, how), saved);
	life_shut(fd, how);
	return sys.shutdown(fd, how);
}
