#include "sys/pool.h"

#include <errno.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "sys/lock.h"
#include "sys/raw.h"

#define POOL_KEEP 8

static struct {
	struct lock lock;
	unsigned n;
	void *block[POOL_KEEP];
} pool;

/* Straight from the kernel: the guest's malloc may itself be what called the hook. */
void *pool_get(void)
{
	void *b = NULL;
	long p;

	if (lock_take(&pool.lock) != -EDEADLK) {
		if (pool.n)
			b = pool.block[--pool.n];
		lock_drop(&pool.lock);
	}
	if (b)
		return b;
	p = raw_syscall(SYS_mmap, 0, POOL_BLOCK, PROT_READ | PROT_WRITE,
			MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	return p < 0 && p > -4096 ? NULL : (void *)p;
}

void pool_put(void *block)
{
	if (!block)
		return;
	if (lock_take(&pool.lock) != -EDEADLK) {
		if (pool.n < POOL_KEEP) {
			pool.block[pool.n++] = block;
			block = NULL;
		}
		lock_drop(&pool.lock);
	}
	if (block)
		raw_syscall(SYS_munmap, (long)block, POOL_BLOCK, 0, 0, 0, 0);
}

void pool_lock(void)
{
	lock_take(&pool.lock);
}

void pool_unlock(void)
{
	lock_drop(&pool.lock);
}

void pool_forked(void)
{
	pool.lock = (struct lock){ 0 };
}
