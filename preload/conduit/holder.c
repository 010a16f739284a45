#include "conduit/holder.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>

#include "sys/clock.h"
#include "sys/confined.h"
#include "sys/sys.h"

#define EXPECTED (-1) /* pid of one to come */

int holders_self(void)
{
	return (int)sys_call(SYS_getpid, 0, 0, 0, 0, 0, 0);
}

/* proc_pid_stat(5): start time is field 22, start of the stack field 28 (0 where we may not know). Field 23 is 0 where there
 * is no memory any more: a process that ends gives it up before it closes its descriptors. (Field 26 would be 0 for a
 * moment of every exec too.) */
static bool look_at_process(int pid, struct holder *h)
{
	char path[32], text[512], *p;
	long fd, n = 0;
	int field;

	*h = (struct holder){ .pid = pid };
	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	fd = confined() ? -EPERM
			: sys_call(SYS_openat, AT_FDCWD, (long)path, O_RDONLY | O_CLOEXEC, 0, 0, 0);
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
		if (field == 23 && p[1] == '0')
			return false;
		if (field == 28)
			h->stack = strtoull(p + 1, NULL, 10);
	}
	return true;
}

static bool holder_lives(const struct holder *h)
{
	struct holder now;

	if (h->pid == EXPECTED)
		return clock_now_ms() < h->until_ms;
	return look_at_process(h->pid, &now) && (!now.start || now.start == h->start) &&
	       (!now.stack || !h->stack || now.stack == h->stack);
}

static struct holder *find(struct holders *h, int pid)
{
	unsigned i;

	for (i = h->n; i-- > 0;)
		if (h->v[i].pid == pid)
			return &h->v[i];
	return NULL;
}

static struct holder *find_expected(struct holders *h, uint64_t token)
{
	unsigned i;

	for (i = h->n; i-- > 0;)
		if (h->v[i].pid == EXPECTED && h->v[i].start == token)
			return &h->v[i];
	return NULL;
}

static void drop(struct holders *h, struct holder *x)
{
	if (x)
		*x = h->v[--h->n];
}

static void add(struct holders *h, struct holder x)
{
	unsigned i;

	for (i = h->n; h->n == HOLDERS_MAX && i-- > 0;)
		if (!holder_lives(&h->v[i]))
			drop(h, &h->v[i]);
	if (h->n < HOLDERS_MAX)
		h->v[h->n++] = x;
	else
		h->more++;
}

void holders_expect(struct holders *h, uint64_t token, int64_t ms)
{
	lock_take(&h->lock);
	add(h, (struct holder){ .pid = EXPECTED, .start = token, .until_ms = clock_now_ms() + ms });
	lock_drop(&h->lock);
}

void holders_renounce(struct holders *h, uint64_t token)
{
	lock_take(&h->lock);
	drop(h, find_expected(h, token));
	lock_drop(&h->lock);
}

static void enter(struct holders *h, struct holder x)
{
	struct holder *old;

	lock_take(&h->lock);
	old = find(h, x.pid);
	if (old)
		*old = x;
	else
		add(h, x);
	lock_drop(&h->lock);
}

void holders_add(struct holders *h, int pid)
{
	struct holder x;

	look_at_process(pid, &x);
	enter(h, x);
}

void holders_expected_is(struct holders *h, uint64_t token, int pid)
{
	struct holder x, *old;
	bool lives = look_at_process(pid, &x);

	x.stack = 0;
	lock_take(&h->lock);
	old = find_expected(h, token);
	if (old && lives)
		*old = x;
	else
		drop(h, old);
	lock_drop(&h->lock);
}

void holders_claim(struct holders *h, uint64_t token)
{
	struct holder x, *old;

	look_at_process(holders_self(), &x);
	lock_take(&h->lock);
	old = find(h, x.pid);
	if (old && x.stack && old->stack == x.stack) {
		drop(h, find_expected(h, token)); /* it was sent to itself */
		old = find(h, x.pid);
	} else if (!old) {
		old = find_expected(h, token);
	}
	if (old)
		*old = x;
	else if (!h->more) /* else it is one of those */
		add(h, x);
	lock_drop(&h->lock);
}

void holders_exec(struct holders *h)
{
	struct holder x;

	look_at_process(holders_self(), &x);
	x.stack = 0;
	enter(h, x);
}

/* The lock is held. */
static bool has_other(const struct holders *h)
{
	int me = holders_self();
	unsigned i;

	for (i = 0; i < h->n; i++)
		if (h->v[i].pid != me && holder_lives(&h->v[i]))
			return true;
	return h->more != 0;
}

bool holders_leave(struct holders *h)
{
	struct holder *x;
	bool last;

	lock_take(&h->lock);
	x = find(h, holders_self());
	if (!x && h->more)
		h->more--;
	drop(h, x);
	last = !has_other(h);
	lock_drop(&h->lock);
	return last;
}

bool holders_only_self(struct holders *h)
{
	bool only;

	lock_take(&h->lock);
	only = !has_other(h);
	lock_drop(&h->lock);
	return only;
}
