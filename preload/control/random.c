/* Numbers for choices among equals, not for secrets: splitmix64 over a counter that every thread advances. */
#include <sys/syscall.h>
#include <time.h>

#include "control/internal.h"
#include "sys/sys.h"

static _Atomic uint64_t state;
static _Atomic bool seeded;

static void seed(void)
{
	struct timespec t;
	uint64_t s;

	if (sys_call(SYS_getrandom, (long)&s, sizeof(s), 0, 0, 0, 0) != sizeof(s)) {
		clock_gettime(CLOCK_MONOTONIC, &t);
		s = (uint64_t)t.tv_nsec << 32 ^ (uint64_t)t.tv_sec ^ (uint64_t)(uintptr_t)&t;
	}
	atomic_store(&state, s);
	atomic_store_explicit(&seeded, true, memory_order_release);
}

void control_random_forked(void)
{
	atomic_store(&seeded, false);
}

uint64_t control_random(void)
{
	uint64_t z;

	if (!atomic_load_explicit(&seeded, memory_order_acquire))
		seed();
	z = atomic_fetch_add_explicit(&state, UINT64_C(0x9e3779b97f4a7c15), memory_order_relaxed);
	z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
	return z ^ z >> 31;
}
