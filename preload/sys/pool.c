#include "sys/pool.h"

#include <stdatomic.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "sys/raw.h"

#define POOL_KEEP 8

/* One exchange takes a block or leaves one: no lock that a fork, a dying thread or a signal handler could find taken. */
static void *_Atomic kept[POOL_KEEP];

/* Straight from the kernel: the guest's malloc may itself be what called the hook. */
void *pool_get(void)
{
	void *b;
	long p;

	for (int i = 0; i < POOL_KEEP; i++)
		if (atomic_load_explicit(&kept[i], memory_order_relaxed) &&
		    (b = atomic_exchange_explicit(&kept[i], NULL, memory_order_acquire)))
			return b;
	p = raw_syscall(SYS_mmap, 0, POOL_BLOCK, PROT_READ | PROT_WRITE,
			MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	return p < 0 && p > -4096 ? NULL : (void *)p;
}

void pool_put(void *block)
{
	for (int i = 0; block && i < POOL_KEEP; i++) {
		void *none = NULL;

		if (!atomic_load_explicit(&kept[i], memory_order_relaxed) &&
		    atomic_compare_exchange_strong_explicit(
			    &kept[i], &none, block, memory_order_release, memory_order_relaxed))
			return;
	}
	if (block)
		raw_syscall(SYS_munmap, (long)block, POOL_BLOCK, 0, 0, 0, 0);
}
