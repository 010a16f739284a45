#include "conduit/share.h"

#include <errno.h>
#include <string.h>
#include <sys/syscall.h>

#include "conduit/segment.h"
#include "sys/pool.h"
#include "sys/sys.h"

#define SHARE_FORK_MS 1000 /* a child that has not come by then never will */

struct share {
	uint64_t nonce;      /* who attaches by place checks that it is this one */
	_Atomic int open;    /* the session is there for everybody */
	_Atomic int stepper; /* pid of the process that does the handshake */
	struct holders holders;
	struct session session;
};

#define SHARE_HEAD ((sizeof(struct share) + 4095) & ~(size_t)4095)
#define SHARE_SIZE (SHARE_HEAD + 2 * POOL_BLOCK)

static int owner; /* whose memory this is: not a child of vfork, which runs in it */

void share_start(void)
{
	owner = holders_self();
}

/* Moves the session to part `i` of `seg`; all locks are held, those of the new session too afterwards. */
static void move_in(struct conn *c, struct segment *seg, size_t i)
{
	struct share *s = segment_at(seg, i * SHARE_SIZE, SHARE_SIZE);
	struct session *old = c->session;

	sys_call(SYS_getrandom, (long)&s->nonce, sizeof(s->nonce), 1 /* GRND_NONBLOCK */, 0, 0, 0);
	s->nonce ^= c->cookie;
	holders_add(&s->holders, owner);
	session_move(&s->session, old, (uint8_t *)s + SHARE_HEAD);
	s->open = conn_state(c) == CONN_OPEN;
	c->share = s;
	c->segment = segment_ref(seg);
	lock_take(&s->session.rx_lock);
	lock_take(&s->session.tx_lock);
	c->session = &s->session;
	lock_drop(&old->tx_lock); /* whoever waited finds that it moved */
	lock_drop(&old->rx_lock);
}

int share_lock(struct conn *c)
{
	if (lock_take(&c->lock) == -EDEADLK)
		return -EDEADLK;
	if (lock_take(&c->session->rx_lock) == -EDEADLK)
		goto drop;
	if (lock_take(&c->session->tx_lock) != -EDEADLK)
		return 0;
	lock_drop(&c->session->rx_lock);
drop:
	lock_drop(&c->lock);
	return -EDEADLK;
}

void share_unlock(struct conn *c)
{
	lock_drop(&c->session->tx_lock);
	lock_drop(&c->session->rx_lock);
	lock_drop(&c->lock);
}

static bool is_of_use(const struct conn *c)
{
	return conn_state(c) != CONN_CLOSED && conn_state(c) != CONN_PLAIN;
}

/* One segment for all sessions that this fork is the first to share: a machine has 4,096 of them. */
void share_prepare(void)
{
	struct segment *seg = NULL;
	struct conn *c;
	size_t n = 0;

	conn_list_lock();
	for (c = conn_list_first(); c; c = c->next)
		n += !c->share && is_of_use(c);
	if (n)
		seg = segment_new(n * SHARE_SIZE);
	for (c = conn_list_first(); c; c = c->next) {
		if (!is_of_use(c) || share_lock(c) < 0)
			continue;
		c->prepared = true;
		if (!c->share && seg && n)
			move_in(c, seg, --n);
		if (c->share)
			holders_expect(&c->share->holders, 0, SHARE_FORK_MS);
	}
	segment_put(seg);
	segment_lock();
}

void share_parent(void)
{
	struct conn *c;

	segment_unlock();
	for (c = conn_list_first(); c; c = c->next) {
		if (!c->prepared)
			continue;
		c->prepared = false;
		share_unlock(c);
	}
	conn_list_unlock();
}

/* The locks in private memory are copies of those that the parent's thread holds; those in shared memory are the parent's
 * to drop. */
void share_child(void)
{
	struct conn *c;

	share_start();
	lock_forked();
	segment_forked();
	for (c = conn_list_first(); c; c = c->next) {
		memset(&c->lock, 0, sizeof(c->lock));
		if (!c->share) {
			memset(&c->own.rx_lock, 0, sizeof(c->own.rx_lock));
			memset(&c->own.tx_lock, 0, sizeof(c->own.tx_lock));
		} else if (c->prepared) {
			holders_claim(&c->share->holders, 0);
		}
		c->prepared = false;
	}
	conn_list_forked();
}

bool share_is_within_reach(const struct conn *c)
{
	return !c->share || segment_allows(c->segment);
}

/* What a process of root shared is out of reach after setuid(). Where nobody else holds it any more, it moves; the former
 * memory stays mapped, other threads may wait for its locks. */
int share_now(struct conn *c)
{
	struct segment *seg;
	int r;

	if (c->share && share_is_within_reach(c))
		return 0;
	seg = segment_new(SHARE_SIZE);
	r = seg && segment_id(seg) >= 0 ? share_lock(c) : -ENOTSUP;
	if (!r) {
		if (!c->share || share_is_last(c))
			move_in(c, seg, 0);
		r = share_is_within_reach(c) ? 0 : -ENOTSUP;
		share_unlock(c);
	}
	segment_put(seg);
	return r;
}

struct share_place share_place(const struct conn *c)
{
	if (!c->share)
		return (struct share_place){ .segment = -1 };
	return (struct share_place){ .segment = segment_id(c->segment),
				     .offset = segment_offset(c->segment, c->share),
				     .nonce = c->share->nonce };
}

int share_attach(struct conn *c, const struct share_place *at)
{
	struct segment *seg;
	struct share *s;
	int r = segment_attach(at->segment, &seg);

	if (r)
		return r;
	s = at->offset % SHARE_SIZE == 0 ? segment_at(seg, at->offset, SHARE_SIZE) : NULL;
	if (!s || s->nonce != at->nonce) { /* the number is another segment's by now */
		segment_put(seg);
		return -EIDRM;
	}
	c->share = s;
	c->segment = seg;
	c->session = &s->session;
	return 0;
}

struct holders *share_holders(struct conn *c)
{
	return c->share ? &c->share->holders : NULL;
}

bool share_may_step(struct conn *c)
{
	int me = holders_self(), nobody = 0;

	if (!c->share)
		return true;
	if (!c->share->open)
		return atomic_compare_exchange_strong(&c->share->stepper, &nobody, me) ||
		       nobody == me;
	c->aead.rx = c->aead.rx ? c->aead.rx : record_aead_new();
	c->aead.tx = c->aead.tx ? c->aead.tx : record_aead_new();
	if (!c->aead.rx || !c->aead.tx)
		return false;
	c->handshake = handshake_free(c->handshake);
	conn_move(c, CONN_OPEN);
	return false;
}

bool share_steps_here(const struct conn *c)
{
	return !c->share || atomic_load(&c->share->stepper) == holders_self();
}

void share_opened(struct conn *c)
{
	if (c->share)
		atomic_store_explicit(&c->share->open, 1, memory_order_release);
}

bool share_is_last(struct conn *c)
{
	return !c->share || holders_only_self(&c->share->holders);
}

bool share_leave(struct conn *c)
{
	return !c->share || holders_leave(&c->share->holders);
}

void share_release(struct conn *c)
{
	segment_put(c->segment);
	c->segment = NULL;
	c->share = NULL;
}
