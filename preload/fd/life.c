#include "fd/life.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "conduit/admit.h"
#include "conduit/carry.h"
#include "conduit/direct.h"
#include "conduit/early.h"
#include "conduit/share.h"
#include "fd/reg.h"
#include "sys/fds.h"
#include "sys/leave.h"
#include "sys/quiet.h"
#include "sys/sys.h"

_Atomic bool life_listened;

static int pid;         /* whose memory this is */
static bool *inherited; /* its page is empty in every child that copies the memory */
static void (*on_attach)(void);

static bool is_ours(void)
{
	return sys_call(SYS_getpid, 0, 0, 0, 0, 0, 0) == pid;
}

enum life_memory life_memory(void)
{
	return is_ours() ? LIFE_OWN : inherited && *inherited ? LIFE_LENT : LIFE_COPY;
}

/* The order of the locks; see conn.h, share.h, reg.h, control.h. */
void life_fork_prepare(void)
{
	early_settle(NULL, -1);
	quiet_hold();
	share_prepare();
	reg_lock();
	control_atfork_prepare();
}

void life_fork_parent(void)
{
	control_atfork_parent();
	reg_unlock();
	share_parent();
	quiet_let();
}

void life_fork_child(void)
{
	share_child();
	table_forked();
	early_forked();
	reg_forked();
	control_atfork_child();
	quiet_let();
	pid = (int)sys_call(SYS_getpid, 0, 0, 0, 0, 0, 0);
	if (inherited)
		*inherited = true;
}

void life_start(void (*attached)(void))
{
	long page = sys_call(SYS_mmap, 0, 1, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
			     -1, 0);

	on_attach = attached;
	conn_moved_on = reg_settle;
	share_start();
	pid = (int)sys_call(SYS_getpid, 0, 0, 0, 0, 0, 0);
	if (sys_call(SYS_madvise, page, 1, MADV_WIPEONFORK, 0, 0, 0) == 0) {
		inherited = (bool *)page;
		*inherited = true;
	}
	pthread_atfork(life_fork_prepare, life_fork_parent, life_fork_child);
}

/* c->fd is to be one that still leads to `c`. */
static void repoint(struct conn *c, int but)
{
	int fd;

	for (fd = 0; fd < table_end(); fd++)
		if (fd != but && table_word(fd) == (uintptr_t)c) {
			atomic_store(&c->fd, fd);
			return;
		}
}

/* Calls in progress, or what was written before the peer was known, outlive the descriptor. */
static void close_last(struct conn *c, int fd)
{
	bool goes_on = early_orphan(c, fd);

	if (atomic_load(&c->refs) > 1 && direct_keep(c, fd))
		return;
	if (goes_on)
		early_disown(c);
	direct_close(c, fd);
}

/* A word that the table gives up. The last descriptor takes the connection with it; `fd` still is open unless `gone`. */
static void let_go(uintptr_t word, int fd, bool gone)
{
	struct conn *c = (struct conn *)word;

	if (word <= SLOT_LEAVING)
		return;
	if (atomic_fetch_sub(&c->fds, 1) == 1) {
		if (gone || conn_cookie(fd) != c->cookie) /* it is another file's number */
			conn_move(c, CONN_CLOSED);
		else
			close_last(c, fd);
		reg_drop(c);
	} else if (atomic_load(&c->fd) == fd) {
		repoint(c, fd);
	}
	conn_put(c);
}

void life_born(int fd, enum slot slot)
{
	uintptr_t was;
	bool ok;

	if (slot <= SLOT_PASS && table_word(fd) == SLOT_UNKNOWN)
		return;
	was = table_swap(fd, slot, &ok);
	if (was > SLOT_MAX)
		let_go(was, fd, true);
}

void life_attach(int fd, struct conn *c)
{
	uintptr_t was;
	bool ok;

	if (on_attach)
		on_attach();
	was = table_swap(fd, (uintptr_t)c, &ok);
	if (!ok) { /* no memory for the table: it must not go on in the clear */
		sys_call(SYS_shutdown, fd, SHUT_RDWR, 0, 0, 0, 0);
		let_go((uintptr_t)c, fd, true);
		return;
	}
	if (was > SLOT_MAX) /* of the same connection it was counted twice */
		let_go(was, fd, true);
}

struct conn *life_adopt(int fd)
{
	uintptr_t word = table_word(fd);
	struct conn *c;

	if (word > SLOT_MAX)
		return table_conn_of(fd, word);
	if (word != SLOT_FRESH4 && word != SLOT_FRESH6)
		return NULL;
	c = conn_new(fd, word == SLOT_FRESH6 ? AF_INET6 : AF_INET);
	if (!c)
		return NULL;
	conn_get(c);
	life_attach(fd, c);
	return c;
}

static int option(int fd, int name)
{
	int value = -1;
	socklen_t len = sizeof(value);

	sys_call(SYS_getsockopt, fd, SOL_SOCKET, name, (long)&value, (long)&len, 0);
	return value;
}

static bool is_tcp(int fd)
{
	int domain = option(fd, SO_DOMAIN);

	return (domain == AF_INET || domain == AF_INET6) && option(fd, SO_TYPE) == SOCK_STREAM &&
	       option(fd, SO_PROTOCOL) == IPPROTO_TCP;
}

/* A poller knew the socket before it listened: what it asked for, it asks the kernel from now on. */
static void pass_registrations(int fd)
{
	struct conn *c = table_conn(fd);

	if (!c)
		return;
	quiet_hold();
	lock_take(&c->lock);
	conn_move(c, CONN_PLAIN);
	lock_drop(&c->lock);
	quiet_let();
	reg_settle(c);
	conn_put(c);
}

/* Registers a listening socket with the mesh. Returns its slot. */
static enum slot make_listener(int fd)
{
	enum slot slot = is_tcp(fd) ? SLOT_LISTENER : SLOT_PASS;

	pass_registrations(fd);
	if (slot == SLOT_LISTENER) {
		life_listened = true;
		mesh_listen(fd); /* in force or not is asked anew at each accept: modes change */
	}
	life_born(fd, slot);
	if (slot == SLOT_PASS && table_slot(fd))
		atomic_store_explicit(table_slot(fd), SLOT_PASS, memory_order_release);
	return slot;
}

int life_listen(int fd, int backlog)
{
	uintptr_t word = table_word(fd);
	int saved = errno, r;

	if (word != SLOT_UNKNOWN && word != SLOT_PASS && word != SLOT_LISTENER && is_ours())
		mesh_will_listen();
	r = sys.listen(fd, backlog);
	if (r < 0)
		return -errno;
	if (word == SLOT_LISTENER && is_ours())
		mesh_listen(fd); /* shutdown() may have ended it */
	else if (is_ours())
		make_listener(fd);
	errno = saved;
	return r;
}

void life_shut(int fd, int how)
{
	if (table_word(fd) == SLOT_LISTENER && (how == SHUT_RD || how == SHUT_RDWR) && is_ours())
		mesh_unlisten(fd);
}

void life_inherit_listeners(void)
{
	struct fds_walk w;
	int fd;

	fds_start(&w);
	while ((fd = fds_next(&w)) >= 0)
		if (option(fd, SO_ACCEPTCONN) == 1 && is_tcp(fd))
			make_listener(fd);
	fds_end(&w);
}

int life_accepted(int listener, uintptr_t word, int fd)
{
	struct conn *c = NULL;

	if (word != SLOT_LISTENER && word != SLOT_PASS)
		word = is_ours() ? make_listener(listener)
				 : SLOT_PASS; /* inherited over exec, or made by a raw call */
	life_born(fd, SLOT_PASS);
	if (word == SLOT_LISTENER)
		c = admit(fd, option(fd, SO_DOMAIN));
	if (c)
		life_attach(fd, c);
	if (c &&
	    early_any()) /* the peer may be this process: what depends on both ends is done with */
		early_settle(NULL, -1);
	return fd;
}

static int tcp_state(int fd)
{
	struct tcp_info info;
	socklen_t len = sizeof(info);

	if (sys_call(SYS_getsockopt, fd, IPPROTO_TCP, TCP_INFO, (long)&info, (long)&len, 0) < 0)
		return -1;
	return info.tcpi_state;
}

/* A listener is announced at once: who waited for its first connection would wait for ever where the former holder, by whose
 * endpoint it is found, ends now. */
void life_received(int fd)
{
	int saved = errno;
	struct conn *c;

	life_born(fd, SLOT_UNKNOWN);
	if (is_ours() && is_tcp(fd)) {
		c = carry_conn(fd); /* it was ours before */
		if (c && !c->given) {
			atomic_fetch_add(&c->fds, 1);
			life_attach(fd, c);
			c = NULL;
		} else if (tcp_state(fd) == TCP_LISTEN) {
			make_listener(fd);
		} else if (tcp_state(fd) == TCP_CLOSE) {
			life_born(fd,
				  option(fd, SO_DOMAIN) == AF_INET6 ? SLOT_FRESH6 : SLOT_FRESH4);
		}
		conn_put(c);
	}
	errno = saved;
}

static void left(void *fd)
{
	table_left((int)(intptr_t)fd);
}

/* The last of a number that is a connection's, which a cancelled close() does not take away. */
static int close_conn(int fd)
{
	int saved = errno, r;
	uintptr_t was = table_leave(fd);
	struct leave l;

	if (was <= SLOT_LEAVING)
		return sys.close(fd) < 0 ? -errno : 0;
	leave_push(&l, left, (void *)(intptr_t)fd);
	let_go(was, fd, false);
	errno = saved;
	r = sys.close(fd) < 0 ? -errno : 0;
	leave_pop(&l);
	table_left(fd);
	return r;
}

int life_close(int fd)
{
	uintptr_t word = table_settled(fd);
	bool ok;

	if (word == SLOT_PASS) /* the same in every child */
		table_swap(fd, SLOT_UNKNOWN, &ok);
	if (word <= SLOT_PASS || !is_ours())
		return sys.close(fd) < 0 ? -errno : 0;
	if (word == SLOT_LISTENER)
		mesh_unlisten(fd);
	return close_conn(fd);
}

void life_close_range(unsigned first, unsigned last)
{
	unsigned end = (unsigned)table_end();
	uintptr_t was;
	int fd;

	if (!is_ours())
		return;
	for (fd = (int)first; (unsigned)fd < end && (unsigned)fd <= last; fd++) {
		if (table_word(fd) == SLOT_UNKNOWN)
			continue;
		if (table_word(fd) == SLOT_LISTENER)
			mesh_unlisten(fd);
		was = table_leave(fd);
		let_go(was, fd, false);
	}
}

void life_closed_range(unsigned first, unsigned last)
{
	unsigned end = (unsigned)table_end();

	for (int fd = (int)first; (unsigned)fd < end && (unsigned)fd <= last; fd++)
		life_left(fd);
}

int life_duped(int from, int to)
{
	uintptr_t word = table_word(from);
	struct conn *c;

	if (to < 0 || from == to)
		return to;
	if (word <= SLOT_PASS && table_word(to) <= SLOT_PASS) {
		life_born(to, (enum slot)word);
		return to;
	}
	if (!is_ours())
		return to;
	if (word > SLOT_MAX) {
		c = table_conn_of(from, word);
		if (!c)
			return to;
		atomic_fetch_add(&c->fds, 1);
		life_attach(to, c);
	} else if (word == SLOT_FRESH4 || word == SLOT_FRESH6) {
		/* both numbers must lead to one connection, whichever is connected */
		c = life_adopt(from);
		if (c) {
			atomic_fetch_add(&c->fds, 1);
			life_attach(to, c);
		}
	} else {
		life_born(to, (enum slot)word);
	}
	return to;
}

void life_lost(int fd, struct conn *c)
{
	uintptr_t word = (uintptr_t)c;

	if (table_word(fd) == word && is_ours() &&
	    atomic_compare_exchange_strong(table_slot(fd), &word, SLOT_UNKNOWN))
		let_go((uintptr_t)c, fd, true);
}

struct conn *life_conn(int fd)
{
	struct conn *c = table_conn(fd);

	if (!c || conn_cookie(fd) == c->cookie)
		return c;
	life_lost(fd, c);
	conn_put(c);
	return NULL;
}

void life_leave(int fd)
{
	uintptr_t word = table_settled(fd);

	if (word == SLOT_UNKNOWN || !is_ours())
		return;
	if (word == SLOT_LISTENER)
		mesh_unlisten(fd);
	let_go(table_leave(fd), fd, false);
}

void life_before_dup2(int from, int to)
{
	if (from != to && table_word(to) != SLOT_UNKNOWN &&
	    sys_call(SYS_fcntl, from, F_GETFD, 0, 0, 0, 0) >= 0)
		life_leave(to);
}

void life_left(int fd)
{
	if (table_word(fd) == SLOT_LEAVING && is_ours())
		table_left(fd);
}

void life_after_dup2(int from, int to, bool done)
{
	if (done)
		life_duped(from, to);
	if (from != to)
		life_left(to);
}

void life_exit(void)
{
	struct conn *c;

	if (!atomic_load_explicit(&conn_live, memory_order_relaxed) || !is_ours())
		return;
	early_exit();
	conn_list_lock();
	for (c = conn_list_first(); c; c = c->next)
		if (conn_state(c) == CONN_OPEN && lock_try(&c->lock)) {
			if (share_leave(c))
				direct_goodbye(c, conn_fd(c, c->fd));
			lock_drop(&c->lock);
		}
	conn_list_unlock();
}
