#include "fd/reg.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "conduit/call.h"
#include "conduit/direct.h"
#include "sys/quiet.h"
#include "sys/sys.h"

/* A tag: REG_MARK, 20 bits of generation, 28 bits of index. A program's own data with the same mark is told apart by the
 * generation, and passes if it is none that we gave out. */
#define REG_MARK UINT64_C(0x7ef7)
#define REG_CHUNK 512u
#define REG_CHUNKS 4096u
#define REG_GENERATIONS 0xfffffu
#define REG_ALWAYS (EPOLLERR | EPOLLHUP)
#define REG_FLAGS (EPOLLET | EPOLLONESHOT | EPOLLEXCLUSIVE | EPOLLWAKEUP)

struct reg {
	struct conn *conn; /* NULL: free */
	uint32_t generation;
	uint32_t next; /* of the connection, or of the free list; index + 1, 0 ends */
	int ep, fd;
	uint32_t events; /* the program's */
	epoll_data_t data;
	bool spent; /* its ONESHOT has fired */
	bool early; /* the program was told that an early connection is writable; once, if EPOLLET */
};

static struct {
	struct lock lock;
	struct reg *chunk[REG_CHUNKS];
	uint32_t n, free;
} regs;

void reg_lock(void)
{
	quiet_hold();
	lock_take(&regs.lock);
}

void reg_unlock(void)
{
	lock_drop(&regs.lock);
	quiet_let();
}

void reg_forked(void)
{
	regs.lock = (struct lock){ 0 };
	quiet_let();
}

bool reg_used(void)
{
	return __atomic_load_n(&regs.n, __ATOMIC_ACQUIRE) != 0;
}

static struct reg *reg_at(uint32_t id)
{
	return &regs.chunk[(id - 1) / REG_CHUNK][(id - 1) % REG_CHUNK];
}

static uint32_t reg_new(void)
{
	uint32_t id = regs.free;
	long p;

	if (id) {
		regs.free = reg_at(id)->next;
		return id;
	}
	if (regs.n == REG_CHUNK * REG_CHUNKS)
		return 0;
	if (regs.n % REG_CHUNK == 0) {
		p = sys_call(SYS_mmap, 0, REG_CHUNK * sizeof(struct reg), PROT_READ | PROT_WRITE,
			     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (p < 0 && p > -4096)
			return 0;
		regs.chunk[regs.n / REG_CHUNK] = (struct reg *)p;
	}
	__atomic_store_n(&regs.n, regs.n + 1, __ATOMIC_RELEASE);
	return regs.n;
}

static void reg_free(uint32_t id)
{
	struct reg *r = reg_at(id);
	uint32_t *at;

	for (at = &r->conn->regs; *at && *at != id; at = &reg_at(*at)->next)
		;
	*at = r->next;
	r->conn = NULL;
	r->generation = (r->generation + 1) & REG_GENERATIONS;
	r->next = regs.free;
	regs.free = id;
}

static uint64_t reg_tag(uint32_t id)
{
	return REG_MARK << 48 | (uint64_t)reg_at(id)->generation << 28 | id;
}

/* The registration that a tag names. NULL and *ours: one that is gone. */
static struct reg *reg_of(uint64_t tag, bool *ours)
{
	uint32_t id = tag & 0xfffffff;
	struct reg *r;

	*ours = tag >> 48 == REG_MARK && id && id <= regs.n;
	if (!*ours)
		return NULL;
	r = reg_at(id);
	return r->conn && r->generation == (tag >> 28 & REG_GENERATIONS) ? r : NULL;
}

static uint32_t reg_find(struct conn *c, int ep, int fd)
{
	uint32_t id, other = 0;

	for (id = c->regs; id; id = reg_at(id)->next) {
		if (reg_at(id)->fd != fd)
			continue;
		if (reg_at(id)->ep == ep)
			return id;
		other = id; /* the same instance, perhaps, under another number */
	}
	return other;
}

/* What the kernel is to watch for now. */
static struct epoll_event reg_event(uint32_t id)
{
	const struct reg *r = reg_at(id);
	struct epoll_event ev = { .events = r->events, .data.u64 = reg_tag(id) };

	if (conn_is_stepping(r->conn))
		ev.events = (uint16_t)direct_wants(r->conn,
						   r->spent || r->early ? 0 : (short)r->events) |
			    EPOLLONESHOT;
	else if (conn_state(r->conn) == CONN_PLAIN)
		ev.data = r->data;
	return ev;
}

static long ctl(int ep, int op, int fd, struct epoll_event *ev)
{
	return sys_call(SYS_epoll_ctl, ep, op, fd, (long)ev, 0, 0);
}

static long reg_arm(uint32_t id)
{
	struct reg *r = reg_at(id);
	struct epoll_event ev = reg_event(id);
	long err;

	if (r->spent && !conn_is_stepping(r->conn))
		return 0;
	if (!(r->events & EPOLLEXCLUSIVE))
		return ctl(r->ep, EPOLL_CTL_MOD, r->fd, &ev);
	err = ctl(r->ep, EPOLL_CTL_DEL, r->fd, NULL); /* such a registration cannot be modified */
	return err ? err : ctl(r->ep, EPOLL_CTL_ADD, r->fd, &ev);
}

static int reg_add(struct conn *c, int ep, int fd, const struct epoll_event *ev)
{
	uint32_t old = reg_find(c, ep, fd), id = reg_new();
	struct epoll_event kernel;
	long err;

	if (!id)
		return -ENOMEM;
	*reg_at(id) = (struct reg){ .conn = c,
				    .generation = reg_at(id)->generation,
				    .next = c->regs,
				    .ep = ep,
				    .fd = fd,
				    .events = ev->events,
				    .data = ev->data };
	c->regs = id;
	kernel = reg_event(id);
	err = ctl(ep, EPOLL_CTL_ADD, fd, &kernel);
	if (err)
		reg_free(id);
	else if (old && reg_at(old)->ep == ep) /* left over of an instance that is gone */
		reg_free(old);
	return (int)err;
}

int reg_ctl(struct conn *c, int ep, int op, int fd, const struct epoll_event *ev)
{
	struct epoll_event kernel;
	uint32_t id;
	long r;

	if (op != EPOLL_CTL_DEL && !ev)
		return -EFAULT;
	reg_lock();
	id = reg_find(c, ep, fd);
	if (conn_state(c) == CONN_PLAIN || (op != EPOLL_CTL_ADD && !id)) {
		kernel = ev ? *ev : (struct epoll_event){ 0 };
		r = ctl(ep, op, fd, ev ? &kernel : NULL);
	} else if (op == EPOLL_CTL_ADD) {
		r = reg_add(c, ep, fd, ev);
	} else if (op == EPOLL_CTL_MOD) {
		struct reg was = *reg_at(id);

		reg_at(id)->events = ev->events;
		reg_at(id)->data = ev->data;
		reg_at(id)->spent = reg_at(id)->early = false;
		kernel = reg_event(id);
		r = ctl(ep, op, fd, &kernel);
		if (r)
			*reg_at(id) = was;
	} else {
		r = ctl(ep, op, fd, NULL);
		if (!r)
			reg_free(id);
	}
	reg_unlock();
	return (int)r;
}

static void settle(struct conn *c)
{
	uint32_t id, next;

	for (id = c->regs; id; id = next) {
		next = reg_at(id)->next;
		if (reg_arm(id) < 0 || conn_state(c) == CONN_PLAIN)
			reg_free(id);
	}
}

void reg_settle(struct conn *c)
{
	unsigned phase = atomic_load_explicit(&c->phase, memory_order_acquire);

	if (c->armed == phase)
		return;
	reg_lock();
	if (c->armed != phase) {
		c->armed = phase;
		settle(c);
	}
	reg_unlock();
}

void reg_drop(struct conn *c)
{
	if (!c->regs)
		return;
	reg_lock();
	while (c->regs) {
		ctl(reg_at(c->regs)->ep, EPOLL_CTL_DEL, reg_at(c->regs)->fd, NULL);
		reg_free(c->regs);
	}
	reg_unlock();
}

/* One event of an early connection: the program may see that it is writable. */
static bool pass_early(struct conn *c, struct epoll_event *ev)
{
	uint32_t seen = (uint16_t)direct_events(c, c->fd, (short)ev->events);
	uint64_t tag = ev->data.u64;
	struct reg *r;
	bool ours;

	reg_lock();
	r = reg_of(tag, &ours);
	seen &= r ? r->events : 0;
	if (seen) {
		ev->events = seen;
		ev->data = r->data;
		r->spent = r->events & EPOLLONESHOT;
		r->early = r->events & EPOLLET;
	}
	if (r && reg_arm(tag & 0xfffffff) < 0)
		reg_free(tag & 0xfffffff);
	reg_unlock();
	return seen != 0;
}

static void arm_again(uint64_t tag)
{
	bool ours;
	struct reg *r;

	reg_lock();
	r = reg_of(tag, &ours);
	if (r)
		r->spent = false;
	if (r && reg_arm(tag & 0xfffffff) < 0)
		reg_free(tag & 0xfffffff);
	reg_unlock();
}

/* One event of a live registration, copied. Returns whether the program sees it. */
static bool pass_event(struct conn *c, const struct reg *r, struct epoll_event *ev)
{
	uint64_t tag = ev->data.u64;
	uint32_t seen;
	int fd = c->fd; /* not r->fd: the registration outlives that one where there are copies */

	if (conn_is_stepping(c)) {
		if (conn_step(c, fd) == -EAGAIN)
			return pass_early(c, ev);
		else
			reg_settle(c); /* raises the event anew, by what the kernel knows then */
		return false;
	}
	reg_settle(c);
	if (r->spent)
		return false;
	seen = (uint16_t)direct_events(c, fd, (short)ev->events) &
	       ((r->events & ~REG_FLAGS) | REG_ALWAYS);
	if (!seen) {
		if (r->events & EPOLLONESHOT)
			arm_again(tag);
		return false;
	}
	ev->events = seen;
	ev->data = r->data;
	return true;
}

/* A copy of the registration that a tag names, and its connection with a reference. NULL and *ours: one that is gone. The lock
 * is held so shortly, and so often, that signals are not kept out: a handler may find its own thread in here, see quiet.h. */
static struct conn *look_up(uint64_t tag, struct reg *copy, bool *ours)
{
	bool locked = lock_take(&regs.lock) != -EDEADLK;
	struct reg *r = reg_of(tag, ours);
	struct conn *c = NULL;

	if (r) {
		*copy = *r;
		c = conn_get(copy->conn);
		if (c && r->events & EPOLLONESHOT && !conn_is_stepping(c))
			r->spent = true;
	}
	if (locked)
		lock_drop(&regs.lock);
	return c;
}

static void leave_lock(void *arg)
{
	(void)arg;
	if (lock_is_mine(&regs.lock))
		lock_drop(&regs.lock);
}

static bool filter(struct epoll_event *ev)
{
	struct call call __attribute__((cleanup(call_end)));
	struct reg copy = { 0 };
	bool ours;

	call.n = 0;
	if (ev->data.u64 >> 48 != REG_MARK)
		return true;
	quiet_data_hold();
	call_begin(&call, look_up(ev->data.u64, &copy, &ours));
	quiet_data_let();
	return call.one ? pass_event(call.one, &copy, ev) : !ours;
}

int reg_filter(struct epoll_event *ev, int n)
{
	int i, kept = 0;
	struct leave l;

	leave_push(&l, leave_lock, NULL);
	for (i = 0; i < n; i++)
		if (filter(&ev[i]))
			ev[kept++] = ev[i];
	leave_pop(&l);
	return kept;
}
