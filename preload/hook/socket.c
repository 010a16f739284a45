/* Sockets: birth, connection, acceptance, options, names. */
#include <netinet/tcp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>

#include "fd/life.h"
#include "fd/reg.h"
#include "hook/hook.h"

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

HOOK_EXPORT int accept(int fd, struct sockaddr *addr, socklen_t *len)
{
	int saved = errno, got = sys.accept(fd, addr, len);

	return got < 0 ? got : (int)hook_result(life_accepted(fd, got), saved);
}

HOOK_EXPORT int accept4(int fd, struct sockaddr *addr, socklen_t *len, int flags)
{
	int saved = errno, got = sys.accept4(fd, addr, len, flags);

	return got < 0 ? got : (int)hook_result(life_accepted(fd, got), saved);
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
	if (c && addr && len >= sizeof(sa_family_t) && addr->sa_family == AF_UNSPEC) {
		life_born(fd, SLOT_PASS);
		life_born(fd, family == AF_INET6 ? SLOT_FRESH6 : SLOT_FRESH4);
	}
	return sys.connect(fd, addr, len);
}

HOOK_EXPORT int connect(int fd, const struct sockaddr *addr, socklen_t len)
{
	uintptr_t word = table_word(fd);
	struct conn *c = table_conn(fd), *had = c;
	int saved = errno, r;

	if (!addr || len < sizeof(sa_family_t) ||
	    (addr->sa_family != AF_INET && addr->sa_family != AF_INET6))
		return connect_other(c, fd, addr, len);
	r = direct_connect(&c, fd, family_of(fd, word), addr, len);
	if (c && !had) {
		conn_get(c);
		life_attach(fd, c);
	}
	if (c)
		reg_settle(c);
	conn_put(c);
	if (r != CONDUIT_PASS)
		return (int)hook_result(r, saved);
	if (!c)
		life_born(fd, SLOT_PASS);
	errno = saved;
	return sys.connect(fd, addr, len);
}

HOOK_ALIAS(int, __connect, (int fd, const struct sockaddr *addr, socklen_t len), connect);

HOOK_EXPORT int shutdown(int fd, int how)
{
	struct conn *c = table_conn(fd);
	int saved = errno, r;

	if (!c)
		return sys.shutdown(fd, how);
	r = direct_shutdown(c, fd, how);
	conn_put(c);
	return (int)hook_result(r, saved);
}

/* The name that was dialled, as long as the kernel has one: a connection that both ends have closed has none. */
static int copy_name(const struct conn *c, int fd, struct sockaddr *addr, socklen_t *len)
{
	struct sockaddr_storage real;
	socklen_t real_len = sizeof(real);

	if (!addr || !len || sys.getpeername(fd, (struct sockaddr *)&real, &real_len) < 0)
		return CONDUIT_PASS;
	memcpy(addr, &c->dialled, *len < c->dialled_len ? *len : c->dialled_len);
	*len = c->dialled_len;
	return 0;
}

HOOK_EXPORT int getpeername(int fd, struct sockaddr *addr, socklen_t *len)
{
	struct conn *c = table_conn(fd);
	int saved = errno, r = CONDUIT_PASS;

	if (c && c->connected && conn_is_stepping(c))
		r = conn_step(c, fd) == -EAGAIN ? -ENOTCONN : CONDUIT_PASS;
	if (c && c->connected && (conn_state(c) == CONN_OPEN || conn_state(c) == CONN_PLAIN))
		r = copy_name(c, fd, addr, len);
	conn_put(c);
	return r == CONDUIT_PASS ? sys.getpeername(fd, addr, len) : (int)hook_result(r, saved);
}

static int get_int(void *val, socklen_t *len, int v)
{
	if (!val || !len)
		return -EFAULT;
	memcpy(val, &v, *len < sizeof(v) ? *len : sizeof(v));
	*len = *len < sizeof(v) ? *len : sizeof(v);
	return 0;
}

HOOK_EXPORT int getsockopt(int fd, int level, int name, void *val, socklen_t *len)
{
	struct conn *c = table_conn(fd);
	int saved = errno, r = CONDUIT_PASS;

	if (c && level == SOL_SOCKET && name == SO_ERROR) {
		r = get_int(val, len, direct_error(c, fd));
		reg_settle(c);
	} else if (c && level == SOL_SOCKET && name == SO_RCVLOWAT && conn_state(c) != CONN_PLAIN) {
		r = get_int(val, len, c->app_lowat ? c->app_lowat : 1);
	} else if (c && level == IPPROTO_TCP && name == TCP_NODELAY && c->shook) {
		r = get_int(val, len, c->app_nodelay);
	}
	conn_put(c);
	return r == CONDUIT_PASS ? sys.getsockopt(fd, level, name, val, len)
				 : (int)hook_result(r, saved);
}

HOOK_EXPORT int setsockopt(int fd, int level, int name, const void *val, socklen_t len)
{
	struct conn *c = table_conn(fd);
	int saved = errno, r = CONDUIT_PASS;

	if (c && conn_state(c) != CONN_PLAIN && val && len >= sizeof(int)) {
		if (level == SOL_SOCKET && name == SO_RCVLOWAT) {
			memcpy(&c->app_lowat, val,
			       sizeof(int)); /* the mark on the socket is the session's */
			r = 0;
		} else if (level == IPPROTO_TCP && name == TCP_NODELAY && c->shook) {
			c->app_nodelay = *(const int *)val != 0;
			r = 0;
		} else if ((level == IPPROTO_TCP && name == TCP_ULP) ||
			   (level == SOL_SOCKET && name == SO_ZEROCOPY)) {
			r = -ENOPROTOOPT; /* the kernel cannot do this with bytes that are sealed here */
		}
	}
	conn_put(c);
	return r == CONDUIT_PASS ? sys.setsockopt(fd, level, name, val, len)
				 : (int)hook_result(r, saved);
}

HOOK_EXPORT int ioctl(int fd, unsigned long req, ...)
{
	struct conn *c = req == FIONREAD ? table_conn(fd) : NULL;
	int saved = errno;
	ssize_t r = CONDUIT_PASS;
	va_list ap;
	void *arg;

	va_start(ap, req);
	arg = va_arg(ap, void *);
	va_end(ap);
	if (c)
		r = direct_unread(c, fd);
	conn_put(c);
	if (r == CONDUIT_PASS)
		return sys.ioctl(fd, req, arg);
	if (r >= 0) {
		*(int *)arg = (int)r;
		r = 0;
	}
	return (int)hook_result(r, saved);
}
