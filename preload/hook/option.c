/* What a meshed socket says of itself: options, counts, the name of its peer. */
#include <limits.h>
#include <linux/tcp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>

#include "conduit/early.h"
#include "fd/life.h"
#include "fd/reg.h"
#include "hook/hook.h"
#include "sys/user.h"

/* An answer of ours for memory of the program's. Where that cannot be written the kernel is asked, and says so. */
static int answer(void *to, socklen_t *len, const void *from, socklen_t n)
{
	if (!user_writes(len, sizeof(*len)) || (int)*len < 0 ||
	    !user_writes(to, *len < n ? *len : n))
		return CONDUIT_PASS;
	memcpy(to, from, *len < n ? *len : n);
	return 0;
}

/* The name that was dialled, as long as the kernel has one: a connection that both ends have closed has none. */
static int answer_name(const struct conn *c, int fd, struct sockaddr *addr, socklen_t *len)
{
	struct sockaddr_storage real;
	socklen_t real_len = sizeof(real);
	int r;

	if (sys_call(SYS_getpeername, fd, (long)&real, (long)&real_len, 0, 0, 0) < 0)
		return CONDUIT_PASS;
	r = answer(addr, len, &c->dialled, c->dialled_len);
	if (!r)
		*len = c->dialled_len;
	return r;
}

HOOK_EXPORT int getpeername(int fd, struct sockaddr *addr, socklen_t *len)
{
	struct conn *c = table_conn(fd);
	int saved = errno, r = CONDUIT_PASS;

	if (c && c->connected && conn_is_stepping(c))
		r = conn_step(c, fd) == -EAGAIN ? -ENOTCONN : CONDUIT_PASS;
	if (c && c->connected &&
	    (early_is(c) || conn_state(c) == CONN_OPEN || conn_state(c) == CONN_PLAIN))
		r = answer_name(c, fd, addr, len);
	conn_put(c);
	return r == CONDUIT_PASS ? sys.getpeername(fd, addr, len) : (int)hook_result(r, saved);
}

static int answer_int(void *val, socklen_t *len, int v)
{
	int r = answer(val, len, &v, sizeof(v));

	if (!r && *len > sizeof(v))
		*len = sizeof(v);
	return r;
}

HOOK_EXPORT int getsockopt(int fd, int level, int name, void *val, socklen_t *len)
{
	struct conn *c = life_conn(fd);
	int saved = errno, r = CONDUIT_PASS;

	if (!c)
		return sys.getsockopt(fd, level, name, val, len);
	if (level == SOL_SOCKET && name == SO_ERROR) {
		if (user_writes(len, sizeof(*len)) && (int)*len >= 0)
			r = answer_int(val, len, direct_error(c, fd));
		reg_settle(c);
	} else if (level == SOL_SOCKET && name == SO_RCVLOWAT && conn_state(c) != CONN_PLAIN) {
		r = answer_int(val, len, c->app_lowat ? c->app_lowat : 1);
	} else if (level == IPPROTO_TCP && name == TCP_NODELAY && c->shook) {
		r = answer_int(val, len, c->app_nodelay);
	} else if (level == IPPROTO_TCP && name == TCP_CORK && c->shook) {
		r = answer_int(val, len, c->app_cork);
	} else if (level == IPPROTO_TCP && name == TCP_ZEROCOPY_RECEIVE && c->shook) {
		r = -ENOPROTOOPT; /* pages of the socket's own bytes */
	}
	conn_put(c);
	return r == CONDUIT_PASS ? sys.getsockopt(fd, level, name, val, len)
				 : (int)hook_result(r, saved);
}

/* What the kernel cannot do with bytes that are sealed here is refused, as by a kernel that is too old for it. */
static bool is_of_the_wire(int level, int name)
{
	if (level == IPPROTO_TCP)
		return name == TCP_ULP || name == TCP_INQ;
	return level == SOL_SOCKET && (name == SO_ZEROCOPY || name == SO_PEEK_OFF);
}

/* Options that are the program's own in the shim. 0; CONDUIT_PASS; -errno. */
static int set_own(struct conn *c, int fd, int level, int name, int v)
{
	if (is_of_the_wire(level, name))
		return name == SO_PEEK_OFF ? -EOPNOTSUPP : -ENOPROTOOPT;
	if (level == SOL_SOCKET && name == SO_RCVLOWAT) {
		c->app_lowat = v < 0 ? INT_MAX : v ? v : 1; /* the socket's is the session's */
		return 0;
	}
	if (level != IPPROTO_TCP || !c->shook || (name != TCP_NODELAY && name != TCP_CORK))
		return CONDUIT_PASS;
	if (name == TCP_NODELAY)
		c->app_nodelay = v != 0;
	else
		c->app_cork = v != 0;
	if ((name == TCP_NODELAY) != (v != 0))
		return 0;
	return direct_push(c, fd); /* either sends what is held back: tcp(7) */
}

HOOK_EXPORT int setsockopt(int fd, int level, int name, const void *val, socklen_t len)
{
	bool often = level == IPPROTO_TCP && name == TCP_CORK;
	struct conn *c = often ? table_conn(fd) : life_conn(fd);
	int saved = errno, r = CONDUIT_PASS, v;

	if (c && conn_state(c) != CONN_PLAIN && len >= sizeof(v) && (int)len > 0 &&
	    user_reads(val, sizeof(v))) {
		memcpy(&v, val, sizeof(v));
		r = set_own(c, fd, level, name, v);
	}
	conn_put(c);
	return r == CONDUIT_PASS ? sys.setsockopt(fd, level, name, val, len)
				 : (int)hook_result(r, saved);
}

HOOK_EXPORT int ioctl(int fd, unsigned long req, ...)
{
	int saved = errno;
	ssize_t r = CONDUIT_PASS;
	va_list ap;
	void *arg;

	va_start(ap, req);
	arg = va_arg(ap, void *);
	va_end(ap);
	TABLE_CALL(c,
		   req == FIONREAD && !hook_passes(fd) && user_writes(arg, sizeof(int)) ? fd : -1);
	if (c)
		r = direct_unread(c, fd);
	if (r == -ENOTSOCK || r == -EBADF) {
		life_lost(fd, c);
		r = CONDUIT_PASS;
	}
	if (r == CONDUIT_PASS)
		return sys.ioctl(fd, req, arg);
	if (r >= 0) {
		*(int *)arg = (int)r;
		r = 0;
	}
	return (int)hook_result(r, saved);
}
