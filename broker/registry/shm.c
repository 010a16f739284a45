#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "registry/internal.h"

static int path_of(const char *dir, const char *name, const char *suffix, char out[static PATH_MAX])
{
	return snprintf(out, PATH_MAX, "%s/%s%s", dir, name, suffix) < PATH_MAX ? 0 : -ENAMETOOLONG;
}

static bool header_agrees(int fd, uint64_t magic, size_t size)
{
	struct weft_shm h;
	struct stat st;

	return fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_uid == geteuid() &&
	       (size_t)st.st_size == size && pread(fd, &h, sizeof(h), 0) == sizeof(h) &&
	       h.magic == magic && h.layout == WEFT_SHM_LAYOUT && h.size == size;
}

static int create(const char *dir, const char *name, uint64_t magic, size_t size, mode_t mode)
{
	const struct weft_shm h = { .magic = magic, .layout = WEFT_SHM_LAYOUT, .size = size };
	char path[PATH_MAX], tmp[PATH_MAX];

	if (path_of(dir, name, "", path) < 0 || path_of(dir, name, ".new", tmp) < 0)
		return -ENAMETOOLONG;
	unlink(tmp);
	int fd = open(tmp, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return -errno;
	/* The first page is always there: writing to it cannot meet a full disk. */
	if (ftruncate(fd, (off_t)size) == 0 &&
	    (errno = posix_fallocate(fd, 0, size < 4096 ? (off_t)size : 4096)) == 0 &&
	    fchmod(fd, mode) == 0 && pwrite(fd, &h, sizeof(h), 0) == sizeof(h) &&
	    rename(tmp, path) == 0)
		return fd;
	int r = errno ? -errno : -EIO;
	close(fd);
	unlink(tmp);
	return r;
}

int shm_map(const char *dir, const char *name, uint64_t magic, size_t size, mode_t mode, void **out,
	    bool *fresh)
{
	char path[PATH_MAX];

	if (path_of(dir, name, "", path) < 0)
		return -ENAMETOOLONG;
	int fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
	*fresh = fd < 0 || !header_agrees(fd, magic, size);
	if (*fresh) {
		if (fd >= 0)
			close(fd);
		fd = create(dir, name, magic, size, mode);
		if (fd < 0)
			return fd;
	}
	void *map = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	int r = map == MAP_FAILED ? -errno : 0;
	close(fd);
	if (r == 0)
		*out = map;
	return r;
}

int shm_reopen(const char *dir, const char *name)
{
	char path[PATH_MAX];

	if (path_of(dir, name, "", path) < 0)
		return -ENAMETOOLONG;
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	return fd < 0 ? -errno : fd;
}

int shm_reserve(const char *dir, const char *name, size_t offset, size_t len)
{
	char path[PATH_MAX];

	if (path_of(dir, name, "", path) < 0)
		return -ENAMETOOLONG;
	int fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0)
		return -errno;
	int r = -posix_fallocate(fd, (off_t)offset, (off_t)len);
	close(fd);
	return r;
}
