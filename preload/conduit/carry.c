#include <errno.h>
#include <linux/sockios.h>
#include <linux/tcp.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>

#include "conduit/block.h"
#include "conduit/carry_int.h"
#include "sys/clock.h"
#include "sys/sys.h"

#define CARRY_LOOKS 1000
#define CARRY_STEP_MS 20      /* another process may be the one that shakes hands */
#define CARRY_EXPECT_MS 30000 /* a receiver that has not come by then never will */
#define CARRY_ALONE_MS 200    /* a server closes its copy soon after it forked */

struct conn *carry_conn(int fd)
{
	uint64_t cookie = conn_cookie(fd);
	struct conn *c;

	if (!cookie)
		return NULL;
	conn_list_lock();
	for (c = conn_list_first(); c; c = c->next)
		if (c->cookie == cookie && conn_state(c) != CONN_CLOSED && conn_get(c))
			break;
	conn_list_unlock();
	return c;
}

static void wait_step(struct conn *c, int fd)
{
	struct pollfd p = { .fd = fd, .events = conn_wants(c) };
	struct timespec step = { .tv_nsec = CARRY_STEP_MS * 1000000L };
	struct timespec pause = { .tv_nsec = 1000000 };

	if (sys_call(SYS_ppoll, (long)&p, 1, (long)&step, 0, 0, 0) > 0 && c->share)
		sys_call(SYS_nanosleep, (long)&pause, 0, 0, 0, 0, 0);
	if (clock_now_ms() >= conn_deadline(c))
		conn_expire_all();
}

static int settle(struct conn *c, int fd, int64_t ms)
{
	int64_t until = clock_now_ms() + ms;

	conn_speaks_first(c);
	while (conn_step(c, fd) == -EAGAIN && clock_now_ms() < until)
		wait_step(c, fd);
	switch (conn_state(c)) {
	case CONN_OPEN:
		return 1;
	case CONN_NEW:
	case CONN_PLAIN:
	case CONN_CLOSED:
		return 0;
	case CONN_FAILED:
		return -ECONNRESET;
	default:
		return -ETIMEDOUT;
	}
}

int carry_settle(int fd, int64_t ms)
{
	struct conn *c = carry_conn(fd);
	int r = c ? settle(c, fd, ms) : 0;

	conn_put(c);
	return r;
}

uint64_t carry_ipc_ns(void)
{
	struct stat st;

	if (sys_call(SYS_newfstatat, AT_FDCWD, (long)"/proc/self/ns/ipc", (long)&st, 0, 0, 0) < 0)
		return 0;
	return st.st_ino;
}

uint64_t carry_token(int memfd)
{
	struct stat st;

	return sys_call(SYS_fstat, memfd, (long)&st, 0, 0, 0, 0) < 0 ? 0 : st.st_ino;
}

static long tcp_info(int fd, struct tcp_info *info)
{
	socklen_t len = sizeof(*info);

	*info = (struct tcp_info){ 0 };
	return sys_call(SYS_getsockopt, fd, IPPROTO_TCP, TCP_INFO, (long)info, (long)&len, 0);
}

/* The kernel tells of them one by one, while segments arrive: what it says first must hold afterwards. */
int carry_counts(int fd, struct carry_counts *out)
{
	struct tcp_info info, after;
	int unread = 0, unacked = 0, i;
	long r = tcp_info(fd, &after);

	for (i = 0; !r && i < CARRY_LOOKS; i++) {
		info = after;
		r = sys_call(SYS_ioctl, fd, SIOCINQ, (long)&unread, 0, 0, 0);
		if (!r)
			r = sys_call(SYS_ioctl, fd, SIOCOUTQ, (long)&unacked, 0, 0, 0);
		if (!r)
			r = tcp_info(fd, &after);
		if (info.tcpi_bytes_received == after.tcpi_bytes_received &&
		    info.tcpi_bytes_acked == after.tcpi_bytes_acked)
			break;
	}
	out->taken = after.tcpi_bytes_received - (uint64_t)unread;
	out->queued = after.tcpi_bytes_acked + (uint64_t)unacked;
	out->open = after.tcpi_state == 1 /* TCP_ESTABLISHED */ || after.tcpi_state == 4 ||
		    after.tcpi_state == 5; /* FIN_WAIT: ours went out, the peer's did not come */
	return (int)r;
}

/* One connection, at the end of the memfd. Its locks are held. */
static int put(const struct conn *c, int fd, int memfd)
{
	static const uint8_t zeros[8];
	struct iovec iov[SESSION_PARTS + 3];
	struct session image;
	struct carry_counts counts;
	struct carry_entry e = {
		.peer_len = c->peer ? (uint32_t)strlen(c->peer) : 0,
		.family = c->family,
		.cookie = c->cookie,
		.place = share_place(c),
		.admitted_as = c->admitted_as,
		.app_nodelay = c->app_nodelay,
		.app_lowat = c->app_lowat,
		.server = c->server,
		.connected = c->connected,
		.dialled_len = c->dialled_len,
		.dialled = c->dialled,
	};
	int r = carry_counts(fd, &counts);
	size_t pad;

	if (r < 0)
		return r;
	e.taken = counts.taken;
	e.queued = counts.queued;
	e.tcp_open = counts.open;
	e.session_len = (uint32_t)session_write(c->session, &image, iov + 2);
	pad = -(sizeof(e) + e.peer_len + e.session_len) % 8;
	e.size = (uint32_t)(sizeof(e) + e.peer_len + e.session_len + pad);
	iov[0] = (struct iovec){ &e, sizeof(e) };
	iov[1] = (struct iovec){ c->peer, e.peer_len };
	iov[SESSION_PARTS + 2] = (struct iovec){ (void *)(uintptr_t)zeros, pad };
	r = (int)sys_call(SYS_writev, memfd, (long)iov, SESSION_PARTS + 3, 0, 0, 0);
	explicit_bzero(&image, sizeof(image));
	return r == (int)e.size ? 0 : r < 0 ? r : -ENOSPC;
}

/* May a program that this process executes attach to the memory of the others? If not, it can go on only where there are no
 * others: a server that forked for this connection closes its own copy in a moment. */
static int may_attach(struct conn *c)
{
	struct timespec pause = { .tv_nsec = 5000000 };
	int64_t until = clock_now_ms() + CARRY_ALONE_MS;

	if (share_is_within_reach(c))
		return 0;
	while (!share_is_last(c)) {
		if (clock_now_ms() >= until)
			return -ENOTSUP;
		sys_call(SYS_nanosleep, (long)&pause, 0, 0, 0, 0, 0);
	}
	return 0;
}

int carry_ready(int fd, enum carry_to to)
{
	struct conn *c = carry_conn(fd);
	int r = c ? settle(c, fd, WEFT_HANDSHAKE_MS) : 0;

	if (r == 1) {
		r = may_attach(c);
		if (!r && to != CARRY_SELF)
			r = share_now(c);
		r = r ? r : 1;
	}
	conn_put(c);
	return r;
}

static int put_one(struct conn *c, int fd, int memfd, uint64_t token, enum carry_to to)
{
	int r = share_lock(c);

	if (r)
		return r;
	r = put(c, fd, memfd);
	if (!r && c->share && to == CARRY_OTHER)
		holders_expect(share_holders(c), token, CARRY_EXPECT_MS);
	else if (!r && c->share)
		holders_exec(share_holders(c));
	if (!r && !c->share)
		c->leaving = true;
	else
		share_unlock(c);
	return r;
}

/* Calls `fn` once for each open connection behind `fds`, however many descriptors lead to it; an error ends this.
 * Returns how many descriptors were gone through. */
static int each(const int *fds, int n, int (*fn)(struct conn *c, int fd, void *arg), void *arg,
		int *error)
{
	static struct lock lock;
	struct conn *c;
	int i, k;

	*error = 0;
	lock_take(&lock);
	for (i = 0; i < n; i++) {
		c = carry_conn(fds[i]);
		if (c && conn_state(c) == CONN_OPEN && !c->visited)
			*error = fn(c, fds[i], arg);
		if (c && !*error)
			c->visited = true;
		conn_put(c);
		if (*error)
			break;
	}
	for (k = 0; k < i; k++) {
		c = carry_conn(fds[k]);
		if (c)
			c->visited = false;
		conn_put(c);
	}
	lock_drop(&lock);
	return i;
}

struct work {
	int memfd;
	uint64_t token; /* of the receiver: the memfd's inode */
	enum carry_to to;
	int pid;
	uint32_t done;
};

static int undo_one(struct conn *c, int fd, void *arg)
{
	const struct work *w = arg;

	(void)fd;
	if (c->leaving) {
		c->leaving = false;
		share_unlock(c);
	} else if (c->share && w->to == CARRY_OTHER) {
		holders_renounce(share_holders(c), w->token);
	} else if (c->share && w->to == CARRY_CHILD) {
		holders_leave(share_holders(c));
	} else if (c->share) {
		holders_claim(share_holders(c), w->token);
	}
	return 0;
}

static int work_one(struct conn *c, int fd, void *arg)
{
	struct work *w = arg;
	int r = put_one(c, fd, w->memfd, w->token, w->to);

	w->done += !r;
	return r;
}

static int put_all(const int *fds, int n, struct work *w)
{
	struct carry_head h = { .magic = CARRY_MAGIC,
				.version = CARRY_VERSION,
				.session_size = sizeof(struct session),
				.ipc_ns = carry_ipc_ns() };
	int i, r = 0, none;

	for (i = 0; i < n && r >= 0; i++)
		r = carry_ready(fds[i], w->to);
	if (r < 0)
		return r;
	sys_call(SYS_lseek, w->memfd, sizeof(h), SEEK_SET, 0, 0, 0);
	i = each(fds, n, work_one, w, &r);
	h.n = w->done;
	if (!r && !h.n)
		return -ENOENT;
	if (!r && sys_call(SYS_pwrite64, w->memfd, (long)&h, sizeof(h), 0, 0, 0) != sizeof(h))
		r = -ENOSPC;
	if (!r)
		r = (int)sys_call(SYS_fcntl, w->memfd, F_ADD_SEALS, CARRY_SEALS, 0, 0, 0);
	if (r)
		each(fds, i, undo_one, w, &none);
	return r;
}

static int carry(const int *fds, int n, enum carry_to to)
{
	struct work w = { .to = to };
	int r;

	w.memfd = (int)sys_call(SYS_memfd_create, (long)"weft", MFD_CLOEXEC | MFD_ALLOW_SEALING, 0,
				0, 0, 0);
	if (w.memfd < 0)
		return w.memfd;
	w.token = carry_token(w.memfd);
	r = put_all(fds, n, &w);
	if (!r)
		return w.memfd;
	sys_call(SYS_close, w.memfd, 0, 0, 0, 0, 0);
	return r;
}

int carry_out(const int *fds, int n)
{
	conn_push();
	return carry(fds, n, CARRY_OTHER);
}

void carry_revoke(int memfd, const int *fds, int n)
{
	struct work w = { .token = carry_token(memfd), .to = CARRY_OTHER };
	int none;

	each(fds, n, undo_one, &w, &none);
}

static int went_one(struct conn *c, int fd, void *arg)
{
	const struct work *w = arg;

	(void)fd;
	if (c->share)
		holders_expected_is(share_holders(c), w->token, w->pid);
	return 0;
}

void carry_went_to(int memfd, const int *fds, int n, int pid)
{
	struct work w = { .token = carry_token(memfd), .pid = pid };
	int none;

	each(fds, n, went_one, &w, &none);
}

int carry_exec(const int *fds, int n, enum carry_to to)
{
	return carry(fds, n, to);
}

void carry_stay(const int *fds, int n, enum carry_to to)
{
	struct work w = { .to = to };
	int none;

	each(fds, n, undo_one, &w, &none);
}
