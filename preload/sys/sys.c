#include "sys/sys.h"

#include <dlfcn.h>
#include <errno.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "sys/raw.h"

/* Until sys_start() ran, each pointer leads to a stub that runs it and then makes the call. A stub whose symbol the
 * libc lacks answers ENOSYS. */
static long symbol_missing(void);

#define HOOK(ret, name, params, args)  \
	static ret early_##name params \
	{                              \
		sys_start();           \
		return sys.name args;  \
	}
#define OPTIONAL HOOK
#include "sys/symbols.def"

struct sys sys = {
#define HOOK(ret, name, params, args) .name = early_##name,
#define OPTIONAL HOOK
#include "sys/symbols.def"
};

static long symbol_missing(void)
{
	errno = ENOSYS;
	return -1;
}

static void *next_symbol(const char *name)
{
	void *p = dlsym(RTLD_NEXT, name);

	return p ? p : (void *)(uintptr_t)symbol_missing;
}

void sys_start(void)
{
	static atomic_int done;
	int saved = errno;

	if (atomic_load_explicit(&done, memory_order_acquire))
		return;
		/* Two threads may both do this: they store the same values. */
#define HOOK(ret, name, params, args) *(void **)(void *)&sys.name = next_symbol(#name);
#define OPTIONAL(ret, name, params, args) *(void **)(void *)&sys.name = dlsym(RTLD_NEXT, #name);
#include "sys/symbols.def"
	atomic_store_explicit(&done, 1, memory_order_release);
	errno = saved;
}

long sys_call(long number, long a, long b, long c, long d, long e, long f)
{
	return raw_syscall(number, a, b, c, d, e, f);
}
