#include "conduit/share.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "sys/clock.h"
#include "sys/pool.h"
#include "sys/sys.h"

#define SHARE_HOLDERS 30
#define SHARE_PENDING (-1)    /* a fork that is under way */
#define SHARE_PENDING_MS 1000 /* after this it failed */

/* A process that holds the connection. A count would not do: a child that was killed, or that went on by exec, never takes
 * itself off. Start time tells a reused pid, the start of the stack tells an exec. */
struct holder {
	int pid;
	uint64_t start, stack;
	int64_t since_ms;
};

struct share {
	struct lock lock;
	_Atomic int open;    /* the session is there for everybody */
	_Atomic int stepper; /* pid of the process that does the handshake */
	unsigned n;          /* holders; more than SHARE_HOLDERS: nobody is ever the last */
	struct holder holder[SHARE_HOLDERS];
	struct session session;
};

#define SHARE_HEAD ((sizeof(struct share) + 4095) & ~(size_t)4095)
#define SHARE_SIZE (SHARE_HEAD + 2 * POOL_BLOCK)

static int self_pid(void)
{
	return (int)sys_call(SYS_getpid, 0, 0, 0, 0, 0, 0);
}

/* proc_pid_stat(5): start time is field 22, start of the stack field 28 (0 where we may not know). */
static bool look_at_process(int pid, struct holder *h)
{
	char path[32], text[512], *p;
	long fd, n = 0;
	int field;

	*h = (struct holder){ .pid = pid };
	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	fd = sys_call(SYS_openat, AT_FDCWD, (long)path, O_RDONLY | O_CLOEXEC, 0, 0, 0);
	if (fd >= 0) {
		n = sys_call(SYS_read, fd, (long)text, sizeof(text) - 1, 0, 0, 0);
		sys_call(SYS_close, fd, 0, 0, 0, 0, 0);
	}
	if (n <= 0)
		return sys_call(SYS_kill, pid, 0, 0, 0, 0, 0) != -ESRCH;
	text[n] = 0;
	p = strrchr(text, ')');
	if (!p || p[1] != ' ' || p[2] == 'Z' || p[2] == 'X')
		return false;
	for (field = 2; p && field <= 28; field++, p = p ? strchr(p + 1, ' ') : NULL) {
		if (field == 22)
			h->start = strtoull(p + 1, NULL, 10);
		if (field == 28)
			h->stack = strtoull(p + 1, NULL, 10);
	}
	return true;
}

static bool holder_lives(const struct holder *h)
{
	struct holder now;

	if (h->pid == SHARE_PENDING)
		return clock_now_ms() - h->since_ms < SHARE_PENDING_MS;
	return look_at_process(h->pid, &now) && (!now.start || now.start == h->start) &&
	       (!now.stack || now.stack == h->stack);
}

static void holder_add(struct share *s, int pid)
{
	struct holder *h = &s->holder[s->n < SHARE_HOLDERS ? s->n : SHARE_HOLDERS - 1];

	lock_take(&s->lock);
	if (s->n < SHARE_HOLDERS && pid != SHARE_PENDING)
		look_at_process(pid, h);
	else if (s->n < SHARE_HOLDERS)
		*h = (struct holder){ .pid = pid, .since_ms = clock_now_ms() };
	s->n++;
	lock_drop(&s->lock);
}

static struct share *share_new(struct conn *c)
{
	long p = sys_call(SYS_mmap, 0, SHARE_SIZE, PROT_READ | PROT_WRITE,
			  MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	struct share *s = (struct share *)p;

	if (p < 0 && p > -4096)
		return NULL;
	holder_add(s, self_pid());
	session_move(&s->session, c->session, (uint8_t *)s + SHARE_HEAD);
	s->open = conn_state(c) == CONN_OPEN;
	c->session = &s->session;
	return s;
}

/* -EDEADLK where the forking thread itself is in the middle of this connection. */
static int take_all(struct conn *c)
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

void share_prepare(void)
{
	struct session *old;
	struct conn *c;

	conn_list_lock();
	for (c = conn_list_first(); c; c = c->next) {
		if (conn_state(c) == CONN_CLOSED || conn_state(c) == CONN_PLAIN || take_all(c) < 0)
			continue;
		c->prepared = true;
		old = c->session;
		if (!c->share) {
			c->share = share_new(c);
			if (c->share) { /* whoever waited for the old locks finds that it moved */
				lock_take(&c->session->rx_lock);
				lock_take(&c->session->tx_lock);
				lock_drop(&old->tx_lock);
				lock_drop(&old->rx_lock);
			}
		}
		if (c->share)
			holder_add(c->share, SHARE_PENDING);
	}
	pool_lock();
}

void share_parent(void)
{
	struct conn *c;

	pool_unlock();
	for (c = conn_list_first(); c; c = c->next) {
		if (!c->prepared)
			continue;
		c->prepared = false;
		lock_drop(&c->session->tx_lock);
		lock_drop(&c->session->rx_lock);
		lock_drop(&c->lock);
	}
	conn_list_unlock();
}

static void claim_pending(struct share *s)
{
	unsigned i, n;

	lock_take(&s->lock);
	n = s->n < SHARE_HOLDERS ? s->n : SHARE_HOLDERS;
	for (i = n; i-- > 0;)
		if (s->holder[i].pid == SHARE_PENDING) {
			look_at_process(self_pid(), &s->holder[i]);
			break;
		}
	lock_drop(&s->lock);
}

/* The locks in private memory are copies of those that the parent's thread holds; those in shared memory are the parent's
 * to drop. */
void share_child(void)
{
	struct conn *c;

	lock_forked();
	pool_forked();
	for (c = conn_list_first(); c; c = c->next) {
		memset(&c->lock, 0, sizeof(c->lock));
		if (!c->share) {
			memset(&c->own.rx_lock, 0, sizeof(c->own.rx_lock));
			memset(&c->own.tx_lock, 0, sizeof(c->own.tx_lock));
		} else if (c->prepared) {
			claim_pending(c->share);
		}
		c->prepared = false;
	}
	conn_list_forked();
}

bool share_may_step(struct conn *c)
{
	int me = self_pid(), nobody = 0;

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

void share_opened(struct conn *c)
{
	if (c->share)
		atomic_store_explicit(&c->share->open, 1, memory_order_release);
}

bool share_is_last(struct conn *c)
{
	int me = self_pid();
	bool last = true;
	unsigned i;

	if (!c->share)
		return true;
	lock_take(&c->share->lock);
	if (c->share->n > SHARE_HOLDERS)
		last = false;
	for (i = 0; last && i < c->share->n; i++)
		if (c->share->holder[i].pid != me && holder_lives(&c->share->holder[i]))
			last = false;
	lock_drop(&c->share->lock);
	return last;
}

void share_leave(struct conn *c)
{
	struct share *s = c->share;
	int me = self_pid();
	unsigned i;

	if (!s)
		return;
	lock_take(&s->lock);
	for (i = 0; s->n <= SHARE_HOLDERS && i < s->n; i++)
		if (s->holder[i].pid == me)
			s->holder[i--] = s->holder[--s->n];
	lock_drop(&s->lock);
}

void share_release(struct conn *c)
{
	if (c->share)
		sys_call(SYS_munmap, (long)c->share, SHARE_SIZE, 0, 0, 0, 0);
	c->share = NULL;
}
