/* The oldest glibc that weft runs on is 2.28; on one that lacks a version it names, ld.so ends the guest. What glibc 2.33 and
 * 2.34 moved from other libraries and gave a new version is bound here to the version it always had: these definitions
 * stand before libc's for the whole library, the static OpenSSL in it included. On an old glibc they live in libdl and
 * libpthread, so the Makefile names both as needed. scripts/lint looks at what the built library asks for. */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "sys/leave.h"
#include "sys/raw.h"

#if defined(__x86_64__)
#define FIRST_VERSION "GLIBC_2.2.5"
#elif defined(__aarch64__)
#define FIRST_VERSION "GLIBC_2.17"
#endif

#define BIND(ret, name, params, args)                                \
	extern __typeof__(name) first_##name;                        \
	__asm__(".symver first_" #name "," #name "@" FIRST_VERSION); \
	ret name params                                              \
	{                                                            \
		return first_##name args;                            \
	}

BIND(void *, dlopen, (const char *file, int mode), (file, mode))
BIND(int, dlclose, (void *handle), (handle))
BIND(char *, dlerror, (void), ())
BIND(int, dladdr, (const void *addr, Dl_info *info), (addr, info))
/* RTLD_NEXT asks who calls: code of this library, on either side of the wrapper. */
BIND(void *, dlsym, (void *handle, const char *name), (handle, name))

BIND(void, _pthread_cleanup_push,
     (struct _pthread_cleanup_buffer * b, void (*undo)(void *), void *arg), (b, undo, arg))
BIND(void, _pthread_cleanup_pop, (struct _pthread_cleanup_buffer * b, int execute), (b, execute))

BIND(int, pthread_once, (pthread_once_t * once, void (*routine)(void)), (once, routine))
BIND(int, pthread_key_create, (pthread_key_t * key, void (*destructor)(void *)), (key, destructor))
BIND(int, pthread_key_delete, (pthread_key_t key), (key))
BIND(void *, pthread_getspecific, (pthread_key_t key), (key))
BIND(int, pthread_setspecific, (pthread_key_t key, const void *value), (key, value))
BIND(int, pthread_rwlock_init, (pthread_rwlock_t * lock, const pthread_rwlockattr_t *attr),
     (lock, attr))
BIND(int, pthread_rwlock_destroy, (pthread_rwlock_t * lock), (lock))
BIND(int, pthread_rwlock_rdlock, (pthread_rwlock_t * lock), (lock))
BIND(int, pthread_rwlock_wrlock, (pthread_rwlock_t * lock), (lock))
BIND(int, pthread_rwlock_unlock, (pthread_rwlock_t * lock), (lock))

/* Before 2.33 these were inline functions over __xstat. On 64-bit machines struct stat is the kernel's. */
static int status(int fd, const char *path, struct stat *st, int flags)
{
	long r = raw_syscall(SYS_newfstatat, fd, (long)path, (long)st, flags, 0, 0);

	if (r < 0)
		errno = (int)-r;
	return r < 0 ? -1 : 0;
}

int stat(const char *path, struct stat *st)
{
	return status(AT_FDCWD, path, st, 0);
}

int lstat(const char *path, struct stat *st)
{
	return status(AT_FDCWD, path, st, AT_SYMLINK_NOFOLLOW);
}

int fstat(int fd, struct stat *st)
{
	return status(fd, "", st, AT_EMPTY_PATH);
}
