/* Streams: what fread, printf, fclose and their kin do to a descriptor, and the calls on streams that pass by these. */
#include "hook/stdio.h"

#include <dlfcn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdio_ext.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "fd/life.h"
#include "hook/hook.h"
#include "telemetry/log.h"

/* Of glibc's struct _IO_jump_t, libio/libioP.h: two words that hold nothing, then one entry per operation. */
enum { JUMP_READ = 14, JUMP_WRITE = 15, JUMP_CLOSE = 17 };
#define FILE_ERROR 0x20 /* _IO_ERR_SEEN of FILE._flags */

int __vasprintf_chk(char **text, int flag, const char *format, va_list ap);

typedef ssize_t (*file_io)(FILE *f, void *buf, ssize_t n);
typedef int (*file_end)(FILE *f);

static struct {
	void **narrow, **wide; /* _IO_file_jumps, _IO_wfile_jumps */
	file_io read, write;
	file_end close;
	FILE **all; /* _IO_list_all */
	void (*lock)(void), (*unlock)(void);
} io;

/* As _IO_file_read. */
static ssize_t file_read(FILE *f, void *buf, ssize_t n)
{
	return hook_passes(f->_fileno) ? io.read(f, buf, n) : read(f->_fileno, buf, (size_t)n);
}

/* As _IO_file_write: to the last byte, or less and the stream is in error. */
static ssize_t file_write(FILE *f, void *buf, ssize_t n)
{
	ssize_t done = 0, r;

	if (hook_passes(f->_fileno))
		return io.write(f, buf, n);
	while (done < n) {
		r = write(f->_fileno, (char *)buf + done, (size_t)(n - done));
		if (r < 0) {
			f->_flags |= FILE_ERROR;
			break;
		}
		done += r;
	}
	if (f->_offset >= 0)
		f->_offset += done;
	return done;
}

static int file_close(FILE *f)
{
	return table_word(f->_fileno) == SLOT_UNKNOWN ? io.close(f) : close(f->_fileno);
}

void stdio_start(void)
{
	*(void **)(void *)&io.read = dlsym(RTLD_NEXT, "_IO_file_read");
	*(void **)(void *)&io.write = dlsym(RTLD_NEXT, "_IO_file_write");
	*(void **)(void *)&io.close = dlsym(RTLD_NEXT, "_IO_file_close");
	*(void **)(void *)&io.lock = dlsym(RTLD_NEXT, "_IO_list_lock");
	*(void **)(void *)&io.unlock = dlsym(RTLD_NEXT, "_IO_list_unlock");
	io.all = dlsym(RTLD_NEXT, "_IO_list_all");
	io.narrow = dlsym(RTLD_NEXT, "_IO_file_jumps");
	io.wide = dlsym(RTLD_NEXT, "_IO_wfile_jumps");
}

/* The table is what we take it for. */
static bool is_known(void **jumps)
{
	return jumps && io.read && io.write && io.close && jumps[JUMP_READ] == (void *)io.read &&
	       jumps[JUMP_WRITE] == (void *)io.write && jumps[JUMP_CLOSE] == (void *)io.close;
}

/* The table lies in memory that ld.so made read-only after relocation. */
static long protect(void **jumps, int how)
{
	long page = sysconf(_SC_PAGESIZE), at = (long)&jumps[JUMP_READ] & -page;

	return sys_call(SYS_mprotect, at, (long)&jumps[JUMP_CLOSE + 1] - at, how, 0, 0, 0);
}

static bool patch(void **jumps)
{
	if (protect(jumps, PROT_READ | PROT_WRITE) < 0)
		return false;
	__atomic_store_n(&jumps[JUMP_READ], (void *)file_read, __ATOMIC_RELEASE);
	__atomic_store_n(&jumps[JUMP_WRITE], (void *)file_write, __ATOMIC_RELEASE);
	__atomic_store_n(&jumps[JUMP_CLOSE], (void *)file_close, __ATOMIC_RELEASE);
	protect(jumps, PROT_READ);
	return true;
}

void stdio_patch(void)
{
	static atomic_flag done = ATOMIC_FLAG_INIT;

	if (atomic_flag_test_and_set(&done))
		return;
	if (!is_known(io.narrow) || !is_known(io.wide))
		log_warn("this libc's stdio is not the one that weft knows: streams (fdopen, "
			 "stdin, stdout) on meshed connections do not work in this process");
	else if (!patch(io.narrow) || !patch(io.wide))
		log_warn("mprotect of stdio's tables was refused: streams (fdopen, stdin, stdout) "
			 "on meshed connections do not work in this process");
}

/* A stream of one of the two tables, and so of a descriptor: the table stands behind the FILE. */
static bool is_file(const FILE *f)
{
	void **const *jumps = (void **const *)(const void *)(f + 1);

	return *jumps == io.narrow || *jumps == io.wide;
}

/* At exit libc itself takes the list's lock and writes without those of the streams, whoever holds them: so it does not wait
 * for a thread that sits in a read from stdin. */
void stdio_flush(void)
{
	FILE *f;

	if (!io.all || !io.lock || !io.unlock)
		return;
	io.lock();
	for (f = *io.all; f; f = f->_chain)
		if (is_file(f) && table_word(f->_fileno) > SLOT_MAX && __fpending(f))
			fflush_unlocked(f);
	io.unlock();
}

/* Before its descriptor is closed behind our back, or another file takes its number, which is returned. */
static int leave(FILE *f)
{
	int saved = errno, fd = f && is_file(f) ? f->_fileno : -1;

	if (table_word(fd) == SLOT_UNKNOWN)
		return -1;
	if (table_word(fd) > SLOT_MAX)
		fflush(f);
	life_leave(fd);
	errno = saved;
	return fd;
}

HOOK_EXPORT FILE *freopen(const char *path, const char *mode, FILE *f)
{
	int fd = leave(f);
	FILE *r = sys.freopen(path, mode, f);

	life_left(fd);
	return r;
}

HOOK_EXPORT FILE *freopen64(const char *path, const char *mode, FILE *f)
{
	int fd = leave(f);
	FILE *r = sys.freopen64(path, mode, f);

	life_left(fd);
	return r;
}

/* Formats into memory and writes that: with libc's own, the way to the descriptor differs between versions. */
static int print(int fd, int flag, const char *format, va_list ap)
{
	char *text = NULL;
	int n = flag ? __vasprintf_chk(&text, flag, format, ap) : vasprintf(&text, format, ap);
	ssize_t done = 0, r = 0;

	while (done < n && (r = write(fd, text + done, (size_t)(n - done))) >= 0)
		done += r;
	if (n >= 0)
		free(text);
	return r < 0 ? -1 : n;
}

HOOK_EXPORT int vdprintf(int fd, const char *format, va_list ap)
{
	return hook_passes(fd) ? sys.vdprintf(fd, format, ap) : print(fd, 0, format, ap);
}

HOOK_EXPORT int __vdprintf_chk(int fd, int flag, const char *format, va_list ap)
{
	return hook_passes(fd) ? sys.__vdprintf_chk(fd, flag, format, ap)
			       : print(fd, flag, format, ap);
}

HOOK_EXPORT int dprintf(int fd, const char *format, ...)
{
	va_list ap;
	int r;

	va_start(ap, format);
	r = vdprintf(fd, format, ap);
	va_end(ap);
	return r;
}

HOOK_EXPORT int __dprintf_chk(int fd, int flag, const char *format, ...)
{
	va_list ap;
	int r;

	va_start(ap, format);
	r = __vdprintf_chk(fd, flag, format, ap);
	va_end(ap);
	return r;
}
