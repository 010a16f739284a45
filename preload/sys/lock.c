#include "sys/lock.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>

#include "sys/raw.h"

#define LOCK_WAITERS (1 << 30)
#define LOCK_PATIENCE_MS 200 /* then look whether the owner still lives */

static __thread int self;

int lock_self(void)
{
	if (!self)
		self = (int)raw_syscall(SYS_gettid, 0, 0, 0, 0, 0, 0);
	return self;
}

void lock_forked(void)
{
	self = 0;
}

bool lock_try(struct lock *l)
{
	int expected = 0;

	return atomic_compare_exchange_strong_explicit(&l->word, &expected, lock_self(),
						       memory_order_acquire, memory_order_relaxed);
}

/* One that was killed and that nobody has waited for yet still has its number: its state in proc_pid_stat(5) tells. Its
 * parent may be who waits here. */
static bool is_zombie(int owner)
{
	char path[32] = "/proc/", digits[12], text[64], *end = NULL;
	size_t at = strlen(path), n = 0;
	long fd, r;
	int i;

	for (; owner; owner /= 10)
		digits[n++] = (char)('0' + owner % 10);
	while (n)
		path[at++] = digits[--n];
	memcpy(path + at, "/stat", sizeof("/stat"));
	fd = raw_syscall(SYS_openat, AT_FDCWD, (long)path, O_RDONLY | O_CLOEXEC, 0, 0, 0);
	if (fd < 0)
		return false;
	r = raw_syscall(SYS_read, fd, (long)text, sizeof(text), 0, 0, 0);
	raw_syscall(SYS_close, fd, 0, 0, 0, 0, 0);
	for (i = 0; i + 2 < r; i++) /* the name, of 15 bytes at most, may have parentheses too */
		if (text[i] == ')')
			end = text + i;
	return end && (end[2] == 'Z' || end[2] == 'X');
}

static bool owner_is_dead(int owner)
{
	return raw_syscall(SYS_kill, owner, 0, 0, 0, 0, 0) == -ESRCH || is_zombie(owner);
}

int lock_take(struct lock *l)
{
	struct timespec patience = { .tv_nsec = LOCK_PATIENCE_MS * 1000000L };
	int me = lock_self(), seen = 0;
	long r;

	if (atomic_compare_exchange_strong_explicit(&l->word, &seen, me, memory_order_acquire,
						    memory_order_relaxed))
		return 0;
	for (;;) {
		int owner = seen & ~LOCK_WAITERS;

		if (owner == me)
			return -EDEADLK;
		if (!seen) {
			if (atomic_compare_exchange_weak_explicit(
				    &l->word, &seen, me | LOCK_WAITERS, memory_order_acquire,
				    memory_order_relaxed))
				return 0;
			continue;
		}
		if (!(seen & LOCK_WAITERS) &&
		    !atomic_compare_exchange_weak(&l->word, &seen, seen | LOCK_WAITERS))
			continue;
		r = raw_syscall(SYS_futex, (long)&l->word, FUTEX_WAIT, owner | LOCK_WAITERS,
				(long)&patience, 0, 0);
		seen = atomic_load_explicit(&l->word, memory_order_relaxed);
		if (r == -ETIMEDOUT && (seen & ~LOCK_WAITERS) == owner && owner_is_dead(owner) &&
		    atomic_compare_exchange_strong(&l->word, &seen, me | LOCK_WAITERS))
			return -EOWNERDEAD;
	}
}

bool lock_is_mine(struct lock *l)
{
	return (atomic_load_explicit(&l->word, memory_order_relaxed) & ~LOCK_WAITERS) ==
	       lock_self();
}

void lock_drop(struct lock *l)
{
	if (atomic_exchange_explicit(&l->word, 0, memory_order_release) & LOCK_WAITERS)
		raw_syscall(SYS_futex, (long)&l->word, FUTEX_WAKE, 1, 0, 0, 0);
}
