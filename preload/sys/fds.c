#include "sys/fds.h"

#include <dirent.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#include "sys/raw.h"

#define FDS_TRIED 65536 /* without /proc, no number above is found */

void fds_start(struct fds_walk *w)
{
	w->dir = (int)raw_syscall(SYS_openat, AT_FDCWD, (long)"/proc/self/fd",
				  O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0, 0, 0);
	w->next = w->pos = w->len = 0;
}

/* "." and ".." are no numbers. */
static int number(const char *s)
{
	int n = 0;

	for (; *s; s++) {
		if (*s < '0' || *s > '9')
			return -1;
		n = n * 10 + (*s - '0');
	}
	return n;
}

static int next_tried(struct fds_walk *w)
{
	struct rlimit64 l = { .rlim_cur = FDS_TRIED };

	raw_syscall(SYS_prlimit64, 0, RLIMIT_NOFILE, 0, (long)&l, 0, 0);
	for (; w->next < FDS_TRIED && (uint64_t)w->next < l.rlim_cur; w->next++)
		if (raw_syscall(SYS_fcntl, w->next, F_GETFD, 0, 0, 0, 0) >= 0)
			return w->next++;
	return -1;
}

int fds_next(struct fds_walk *w)
{
	const struct dirent64 *d;
	int fd;

	if (w->dir < 0)
		return next_tried(w);
	for (;;) {
		if (w->pos >= w->len) {
			w->pos = 0;
			w->len = (int)raw_syscall(SYS_getdents64, w->dir, (long)w->names,
						  sizeof(w->names), 0, 0, 0);
			if (w->len <= 0)
				return -1;
		}
		d = (const struct dirent64 *)(const void *)(w->names + w->pos);
		w->pos += d->d_reclen;
		fd = number(d->d_name);
		if (fd >= 0 && fd != w->dir)
			return fd;
	}
}

void fds_end(struct fds_walk *w)
{
	if (w->dir >= 0)
		raw_syscall(SYS_close, w->dir, 0, 0, 0, 0, 0);
}
