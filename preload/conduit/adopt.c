#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "conduit/carry_int.h"
#include "sys/fds.h"
#include "sys/sys.h"
#include "telemetry/log.h"

struct carried {
	uint8_t *map;
	size_t size;
	struct carry_head head;
	bool known; /* this version and build can take the sessions */
	bool same_ipc;
	uint64_t token;
	struct carry_entry
		*next; /* where the search goes on: entries come in the order of descriptors */
	carry_attach *attach;
	int adopted;
};

static struct carry_entry *first(const struct carried *in)
{
	return (struct carry_entry *)(void *)(in->map + sizeof(struct carry_head));
}

static struct carry_entry *after(struct carry_entry *e)
{
	return (struct carry_entry *)(void *)((uint8_t *)e + e->size);
}

#define ENTRY_MIN offsetof(struct carry_entry, peer_len)

static bool is_sound(const struct carry_entry *e)
{
	return e->size >= sizeof(*e) && e->peer_len <= WEFT_SPIFFE_MAX &&
	       e->session_len <= e->size - sizeof(*e) &&
	       e->peer_len <= e->size - sizeof(*e) - e->session_len &&
	       e->dialled_len <= sizeof(e->dialled);
}

/* Every length that is used later. */
static int check(struct carried *in)
{
	size_t at = sizeof(in->head);
	struct carry_entry *e;
	uint32_t i;

	memcpy(&in->head, in->map, sizeof(in->head));
	if (in->head.magic != CARRY_MAGIC)
		return -EPROTO;
	in->known = in->head.version == CARRY_VERSION &&
		    in->head.session_size == sizeof(struct session);
	for (i = 0; i < in->head.n; i++, at += e->size) {
		e = (struct carry_entry *)(void *)(in->map + at);
		if (in->size - at < ENTRY_MIN || e->size > in->size - at || e->size % 8 ||
		    e->size < ENTRY_MIN || (in->known && !is_sound(e)))
			return -EPROTO;
		e->made = NULL;
	}
	if (at != in->size)
		return -EPROTO;
	in->next = first(in);
	in->same_ipc = in->head.ipc_ns && in->head.ipc_ns == carry_ipc_ns();
	return 0;
}

/* Only a copy that nobody used: what was read and written since would be read and sealed again. The peer's FIN counts as
 * one byte received. */
static bool is_current(const struct carry_entry *e, int fd)
{
	struct carry_counts now;

	if (carry_counts(fd, &now) < 0 || now.queued != e->queued)
		return false;
	return now.taken == e->taken || (now.taken == e->taken + 1 && e->tcp_open && !now.open);
}

static int take_session(struct conn *c, const struct carried *in, const struct carry_entry *e,
			int fd)
{
	const uint8_t *bytes = (const uint8_t *)(e + 1) + e->peer_len;
	int r = -EIDRM;

	if (e->place.segment >= 0)
		r = in->same_ipc ? share_attach(c, &e->place) : -EXDEV;
	if (r == -EIDRM && is_current(e, fd))
		return session_read(&c->own, bytes, e->session_len);
	if (!r)
		holders_claim(share_holders(c), in->token);
	return r;
}

static int take(struct conn *c, const struct carried *in, const struct carry_entry *e, int fd)
{
	if (!in->known)
		return -EPROTO;
	c->server = e->server;
	c->connected = e->connected;
	c->app_nodelay = e->app_nodelay;
	c->app_lowat = e->app_lowat;
	c->dialled = e->dialled;
	c->dialled_len = e->dialled_len;
	c->admitted_as = e->admitted_as;
	c->peer = strndup((const char *)(e + 1), e->peer_len);
	c->aead.rx = record_aead_new();
	c->aead.tx = record_aead_new();
	if (!c->peer || !c->aead.rx || !c->aead.tx)
		return -ENOMEM;
	return take_session(c, in, e, fd);
}

static struct conn *adopt(const struct carried *in, const struct carry_entry *e, int fd)
{
	struct conn *c = conn_new(fd, e->family);
	int r;

	if (!c)
		return NULL;
	c->told = c->shook = true;
	r = take(c, in, e, fd);
	if (r) {
		log_error("connection %s %s came from another program and cannot go on: %s",
			  c->server ? "from" : "to", c->peer ? c->peer : "?",
			  r == -EIDRM    ? "its session went on elsewhere"
			  : r == -EPROTO ? "that had another release of weft"
					 : strerror(-r));
		c->own.error = -ECONNRESET;
		c->own.reason = WEFT_REASON_BAD_RECORD;
	}
	conn_move(c, CONN_OPEN);
	return c;
}

static struct carry_entry *find(struct carried *in, uint64_t cookie)
{
	struct carry_entry *e = in->next;
	uint32_t i;

	for (i = 0; i < in->head.n; i++) {
		if (e->cookie == cookie) {
			in->next = e;
			return e;
		}
		e = after(e);
		if ((uint8_t *)e == in->map + in->size)
			e = first(in);
	}
	return NULL;
}

static void look_at(struct carried *in, int fd)
{
	uint64_t cookie = conn_cookie(fd);
	struct carry_entry *e = cookie ? find(in, cookie) : NULL;
	struct conn *c;

	if (!e)
		return;
	c = carry_conn(fd); /* of another descriptor, or this process sent it to itself */
	if (c) {
		atomic_fetch_add(&c->fds, 1);
		if (!e->made && c->share)
			holders_claim(share_holders(c), in->token);
	} else {
		c = adopt(in, e, fd);
	}
	in->adopted += !e->made;
	e->made = c;
	if (c)
		in->attach(fd, c);
	else /* no memory even to say so */
		sys_call(SYS_shutdown, fd, SHUT_RDWR, 0, 0, 0, 0);
}

static void look_at_all(struct carried *in)
{
	struct fds_walk w;
	int fd;

	fds_start(&w);
	while ((fd = fds_next(&w)) >= 0)
		look_at(in, fd);
	fds_end(&w);
}

int carry_in(int memfd, const int *fds, int n, carry_attach *attach)
{
	struct carried in = { .attach = attach };
	long seals = sys_call(SYS_fcntl, memfd, F_GET_SEALS, 0, 0, 0, 0), map;
	struct stat st;
	int i, r;

	/* Unsealed, somebody could change it, or cut it off under our feet. */
	if (seals < 0 || (seals & CARRY_SEALS) != CARRY_SEALS ||
	    sys_call(SYS_fstat, memfd, (long)&st, 0, 0, 0, 0) < 0 ||
	    st.st_size < (off_t)sizeof(in.head) || st.st_size > CARRY_MAX)
		return -EPROTO;
	in.size = (size_t)st.st_size;
	in.token = st.st_ino;
	map = sys_call(SYS_mmap, 0, (long)in.size, PROT_READ | PROT_WRITE, MAP_PRIVATE, memfd, 0);
	if (map < 0 && map > -4096)
		return (int)map;
	in.map = (uint8_t *)map;
	r = check(&in);
	for (i = 0; !r && fds && i < n; i++)
		look_at(&in, fds[i]);
	if (!r && !fds)
		look_at_all(&in);
	sys_call(SYS_munmap, map, (long)in.size, 0, 0, 0, 0);
	return r ? r : in.adopted;
}

bool carry_is(int fd)
{
	uint32_t magic = 0;

	return (sys_call(SYS_fcntl, fd, F_GET_SEALS, 0, 0, 0, 0) & CARRY_SEALS) == CARRY_SEALS &&
	       sys_call(SYS_pread64, fd, (long)&magic, sizeof(magic), 0, 0, 0) == sizeof(magic) &&
	       magic == CARRY_MAGIC;
}
