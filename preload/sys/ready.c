#include "sys/ready.h"

#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "sys/sys.h"

#define BITS (sizeof(long) * CHAR_BIT)
#define FEW (1024 / BITS) /* words of a set on the stack */

static bool has(const unsigned long *set, int fd)
{
	return set[(size_t)fd / BITS] >> ((size_t)fd % BITS) & 1;
}

static void put(unsigned long *set, int fd, bool on)
{
	if (on)
		set[(size_t)fd / BITS] |= 1ul << ((size_t)fd % BITS);
}

int ready_by_select(struct pollfd *fds, nfds_t n, const struct timespec *timeout,
		    const sigset_t *mask)
{
	struct timespec t = timeout ? *timeout : (struct timespec){ 0 };
	struct {
		const sigset_t *mask;
		size_t size;
	} with = { mask, _NSIG / 8 };
	unsigned long few[3 * FEW] = { 0 }, *r = few, *w, *e;
	size_t words = 0, size = 0;
	int top = -1;
	nfds_t i;
	long got;

	for (i = 0; i < n; i++)
		top = fds[i].fd > top ? fds[i].fd : top;
	words = (size_t)(top + 1) / BITS + 1;
	if (words > FEW) {
		size = 3 * words * sizeof(long);
		got = sys_call(SYS_mmap, 0, (long)size, PROT_READ | PROT_WRITE,
			       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (got < 0 && got > -4096)
			return (int)got;
		r = (unsigned long *)got;
	}
	w = r + words;
	e = w + words;
	for (i = 0; i < n; i++) {
		if (fds[i].fd < 0)
			continue;
		put(r, fds[i].fd, fds[i].events & (POLLIN | POLLRDNORM));
		put(w, fds[i].fd, fds[i].events & (POLLOUT | POLLWRNORM));
		put(e, fds[i].fd, fds[i].events & POLLPRI);
	}
	got = sys_call(SYS_pselect6, top + 1, (long)r, (long)w, (long)e, timeout ? (long)&t : 0,
		       (long)&with);
	for (i = 0; got >= 0 && i < n; i++) {
		int fd = fds[i].fd;

		fds[i].revents = 0;
		if (fd < 0)
			continue;
		fds[i].revents = (short)((has(r, fd) ? POLLIN | POLLRDNORM : 0) |
					 (has(w, fd) ? POLLOUT | POLLWRNORM : 0) |
					 (has(e, fd) ? POLLPRI : 0));
	}
	if (size)
		sys_call(SYS_munmap, (long)r, (long)size, 0, 0, 0, 0);
	return (int)got;
}

int ready_poll(struct pollfd *fds, nfds_t n, const struct timespec *timeout, const sigset_t *mask)
{
	struct timespec t = timeout ? *timeout : (struct timespec){ 0 };
	long r = sys_call(SYS_ppoll, (long)fds, (long)n, timeout ? (long)&t : 0, (long)mask,
			  _NSIG / 8, 0);

	return r == -EINVAL ? ready_by_select(fds, n, timeout, mask) : (int)r;
}
