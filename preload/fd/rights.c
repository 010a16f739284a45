#include "fd/rights.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/syscall.h>

#include "conduit/block.h"
#include "conduit/carry.h"
#include "conduit/fresh.h"
#include "conduit/relay.h"
#include "fd/life.h"
#include "fd/receiver.h"
#include "sys/pool.h"
#include "sys/sys.h"
#include "telemetry/log.h"

#define RIGHTS_MAX 253                /* SCM_MAX_FD */
#define RIGHTS_CONTROL 1280           /* that many descriptors, and credentials */
#define RIGHTS_MORE (2 * sizeof(int)) /* room for the memories that go along */

static bool is_rights(const struct cmsghdr *h)
{
	return h->cmsg_level == SOL_SOCKET && h->cmsg_type == SCM_RIGHTS &&
	       h->cmsg_len >= CMSG_LEN(0);
}

static unsigned rights_count(const struct cmsghdr *h)
{
	return (unsigned)((h->cmsg_len - CMSG_LEN(0)) / sizeof(int));
}

static int rights_at(const struct cmsghdr *h, unsigned i)
{
	int fd;

	memcpy(&fd, CMSG_DATA(h) + i * sizeof(fd), sizeof(fd));
	return fd;
}

static void rights_put(struct cmsghdr *h, unsigned i, int fd)
{
	memcpy(CMSG_DATA(h) + i * sizeof(fd), &fd, sizeof(fd));
}

static struct cmsghdr *next_header(const struct msghdr *msg, struct cmsghdr *h)
{
	union {
		const struct msghdr *in;
		struct msghdr *out;
	} m = { .in = msg }; /* older glibc wants it writable, and does not write */

	return CMSG_NXTHDR(m.out, h);
}

bool rights_meshed(const struct msghdr *msg)
{
	struct cmsghdr *h;
	unsigned i;

	for (h = CMSG_FIRSTHDR(msg); h; h = next_header(msg, h))
		for (i = 0; is_rights(h) && i < rights_count(h); i++)
			if (table_word(rights_at(h, i)) >= SLOT_LISTENER)
				return true;
	return false;
}

/* --- out --- */

struct parcel { /* in a block of the pool */
	int channel;
	bool known, looked; /* whoever receives it carries the shim */
	unsigned n_offers;  /* to the relay, where that is not so */
	int n_open,
		n_fresh; /* sessions that go along, and connections that the receiver is to admit */
	int open[RIGHTS_MAX], fresh[RIGHTS_MAX];
	int memory[2]; /* of these */
	int n_memory;
	struct relay_offer offer[RIGHTS_MAX];
	_Alignas(struct cmsghdr) char control[];
};

#define PARCEL_MORE CMSG_SPACE(2 * sizeof(int)) /* of control data, for `memory` */
#define PARCEL_CONTROL (POOL_BLOCK - sizeof(struct parcel) - PARCEL_MORE)

static int pack_known(struct parcel *p, struct conn *c, int fd)
{
	int r;

	if (p->n_open + p->n_fresh == RIGHTS_MAX)
		return -ETOOMANYREFS;
	if (fresh_is(c, fd)) {
		p->fresh[p->n_fresh++] = fd;
		fresh_options(c, fd, true);
		return fd;
	}
	if (c->given)
		return -EACCES; /* its new owner has begun */
	r = carry_ready(fd, CARRY_OTHER);
	if (r == 1)
		p->open[p->n_open++] = fd;
	return r >= 0 || r == -ECONNRESET ? fd : -EACCES;
}

static int pack_unknown(struct parcel *p, const struct conn *c, int fd)
{
	unsigned i;
	int r;

	if (c->given)
		return -EACCES;
	for (i = 0; i < p->n_offers; i++)
		if (conn_cookie(p->offer[i].fd) == conn_cookie(fd))
			return p->offer[i].near;
	if (p->n_offers == RIGHTS_MAX)
		return -ETOOMANYREFS;
	r = relay_offer(&p->offer[p->n_offers], fd);
	if (r == -ENOENT || r == -ECONNRESET) /* it turned out not to be meshed, or failed */
		return fd;
	return r < 0 ? -EACCES : p->offer[p->n_offers++].near;
}

static bool is_known(struct parcel *p)
{
	if (!p->looked)
		p->known = receiver_is_meshed(p->channel);
	p->looked = true;
	return p->known;
}

/* What is to stand for one descriptor of the message: itself, or a socket pair's end. -errno. */
static int pack_one(struct parcel *p, int fd)
{
	struct conn *c = table_conn(fd);
	int r = fd;

	if (table_word(fd) == SLOT_LISTENER)
		mesh_listen_shared(fd);
	if (c && (conn_is_stepping(c) || conn_state(c) == CONN_OPEN || c->given))
		r = is_known(p) ? pack_known(p, c, fd) : pack_unknown(p, c, fd);
	conn_put(c);
	return r;
}

/* The kernel makes one list of the descriptors of all headers. */
static void add_memory(struct parcel *p, struct msghdr *msg)
{
	size_t n = (size_t)p->n_memory * sizeof(int);
	struct cmsghdr *h;

	if (!p->n_memory)
		return;
	msg->msg_controllen = CMSG_ALIGN(msg->msg_controllen);
	h = (struct cmsghdr *)(void *)(p->control + msg->msg_controllen);
	*h = (struct cmsghdr){ .cmsg_level = SOL_SOCKET,
			       .cmsg_type = SCM_RIGHTS,
			       .cmsg_len = CMSG_LEN(n) };
	memcpy(CMSG_DATA(h), p->memory, n);
	msg->msg_controllen += CMSG_SPACE(n);
}

static int pack_memory(struct parcel *p, struct msghdr *msg)
{
	int r;

	if (p->n_open) {
		r = carry_out(p->open, p->n_open);
		if (r < 0)
			return r == -ENOENT ? 0 : -EACCES;
		p->memory[p->n_memory++] = r;
	}
	if (p->n_fresh) {
		r = fresh_list(p->fresh, p->n_fresh);
		if (r < 0)
			return r;
		p->memory[p->n_memory++] = r;
	}
	add_memory(p, msg);
	return 0;
}

static int pack(struct parcel *p, struct msghdr *msg)
{
	struct cmsghdr *h;
	unsigned i;
	int fd;

	for (h = CMSG_FIRSTHDR(msg); h; h = CMSG_NXTHDR(msg, h))
		for (i = 0; is_rights(h) && i < rights_count(h); i++) {
			fd = pack_one(p, rights_at(h, i));
			if (fd < 0)
				return fd;
			rights_put(h, i, fd);
		}
	return pack_memory(p, msg);
}

/* The message has left: the receiver's end of each pair must have something behind it. Where no relay takes it any more it
 * has an end of file, for our ends are closed. */
static void sent(struct parcel *p)
{
	unsigned i;
	int k;

	for (i = 0; i < p->n_offers; i++)
		if (relay_take(&p->offer[i]) == 0)
			sys_call(SYS_close, p->offer[i].near, 0, 0, 0, 0, 0);
		else
			relay_drop(&p->offer[i]);
	for (k = 0; k < p->n_fresh; k++)
		fresh_given(p->fresh[k]);
}

static void not_sent(struct parcel *p)
{
	struct conn *c;
	unsigned i;
	int k;

	for (i = 0; i < p->n_offers; i++)
		relay_drop(&p->offer[i]);
	if (p->n_open && p->n_memory)
		carry_revoke(p->memory[0], p->open, p->n_open);
	for (k = 0; k < p->n_fresh; k++) {
		c = table_conn(p->fresh[k]);
		if (c)
			fresh_options(c, p->fresh[k], false);
		conn_put(c);
	}
}

ssize_t rights_send(int fd, const struct msghdr *msg, int flags)
{
	struct pollfd room = { .fd = fd, .events = POLLOUT };
	struct timespec none = { 0 };
	struct msghdr copy = *msg;
	struct parcel *p;
	ssize_t r;

	if (msg->msg_controllen > PARCEL_CONTROL)
		return -ENOBUFS;
	if (!block_may(fd, flags) && sys_call(SYS_ppoll, (long)&room, 1, (long)&none, 0, 0, 0) == 0)
		return -EAGAIN; /* the preparations would be for nothing, each time that the program tries */
	p = pool_get();
	if (!p)
		return -ENOMEM;
	memset(p, 0, offsetof(struct parcel, offer));
	p->channel = fd;
	copy.msg_control = memcpy(p->control, msg->msg_control, msg->msg_controllen);
	r = pack(p, &copy);
	if (!r) {
		r = sys.sendmsg(fd, &copy, flags);
		r = r < 0 ? -errno : r;
	}
	if (r == -EACCES)
		log_error("a message takes along a meshed connection whose session cannot go with "
			  "it: not sent");
	if (r >= 0)
		sent(p);
	else
		not_sent(p);
	while (p->n_memory > 0)
		sys_call(SYS_close, p->memory[--p->n_memory], 0, 0, 0, 0, 0);
	pool_put(p);
	return r;
}

/* --- in --- */

bool rights_may_come(int fd)
{
	int domain = 0;
	socklen_t len = sizeof(domain);

	sys_call(SYS_getsockopt, fd, SOL_SOCKET, SO_DOMAIN, (long)&domain, (long)&len, 0);
	return domain == AF_UNIX;
}

/* Root and our own uid may hand us sessions; who sends on this socket is what the kernel remembers of its other end. */
static bool may_hand_over(int fd)
{
	struct ucred peer = { .uid = (uid_t)-1 };
	socklen_t len = sizeof(peer);
	long uid = sys_call(SYS_geteuid, 0, 0, 0, 0, 0, 0);

	return sys_call(SYS_getsockopt, fd, SOL_SOCKET, SO_PEERCRED, (long)&peer, (long)&len, 0) ==
		       0 &&
	       (peer.uid == 0 || peer.uid == (uid_t)uid);
}

/* Does what a memory of ours says for the descriptors before it. False: it is none, and the program's. */
static bool obey(int memory, const int *fds, int n)
{
	if (carry_is(memory))
		return carry_in(memory, fds, n, life_attach) >= 0;
	return fresh_list_is(memory) && fresh_admit(memory, fds, n, life_attach) == 0;
}

/* Takes our memories out of the message: they come last. */
static void unpack(int fd, struct cmsghdr *h)
{
	int fds[RIGHTS_MAX];
	unsigned i, n = rights_count(h);

	if (n > RIGHTS_MAX)
		return;
	for (i = 0; i < n; i++) {
		fds[i] = rights_at(h, i);
		life_received(fds[i]);
	}
	while (n > 1 && may_hand_over(fd) && obey(fds[n - 1], fds, (int)n - 1))
		sys_call(SYS_close, fds[--n], 0, 0, 0, 0, 0);
	h->cmsg_len = CMSG_LEN(n * sizeof(int));
}

/* As the kernel's put_cmsg() and scm_detach_fds() do it: what does not fit is cut, descriptors are closed. */
static void put_header(struct msghdr *to, size_t *left, char **at, const struct cmsghdr *h)
{
	size_t len = h->cmsg_len, fits = *left;
	unsigned i, n = 0;

	if (fits < CMSG_LEN(0))
		fits = 0;
	if (is_rights(h)) {
		n = fits ? (unsigned)((fits - CMSG_LEN(0)) / sizeof(int)) : 0;
		n = n < rights_count(h) ? n : rights_count(h);
		for (i = n; i < rights_count(h); i++)
			life_close(rights_at(h, i));
		fits = n ? CMSG_LEN(n * sizeof(int)) : 0;
	}
	if (fits < len)
		to->msg_flags |= MSG_CTRUNC;
	len = fits < len ? fits : len;
	if (!len)
		return;
	memcpy(*at, h, len);
	memcpy(*at, &len, sizeof(len)); /* cmsg_len */
	len = CMSG_ALIGN(len) < *left ? CMSG_ALIGN(len) : *left;
	*at += len;
	*left -= len;
}

static void put_control(struct msghdr *to, size_t room, const struct msghdr *from)
{
	char *at = to->msg_control;
	size_t left = room;
	struct cmsghdr *h;

	for (h = CMSG_FIRSTHDR(from); h; h = next_header(from, h))
		put_header(to, &left, &at, h);
	to->msg_controllen = room - left;
}

/* A program that expects two descriptors may have room for two exactly, so the kernel is given some more. */
ssize_t rights_receive(int fd, struct msghdr *msg, int flags)
{
	_Alignas(struct cmsghdr) char control[RIGHTS_CONTROL];
	bool ours = msg->msg_controllen <= sizeof(control) - RIGHTS_MORE;
	struct msghdr m = *msg;
	struct cmsghdr *h;
	ssize_t r;

	if (ours) {
		m.msg_control = control;
		m.msg_controllen += RIGHTS_MORE;
	}
	r = sys.recvmsg(fd, &m, flags);
	if (r < 0)
		return -errno;
	for (h = CMSG_FIRSTHDR(&m); h; h = CMSG_NXTHDR(&m, h))
		if (is_rights(h))
			unpack(fd, h);
	msg->msg_namelen = m.msg_namelen;
	msg->msg_flags = m.msg_flags;
	if (ours)
		put_control(msg, msg->msg_controllen, &m);
	else
		msg->msg_controllen = m.msg_controllen;
	return r;
}
