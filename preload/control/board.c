/* The memories that every guest maps, and what is read from them without asking. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>

#include "control/internal.h"
#include "sys/sys.h"
#include "weft/env.h"

struct mapped {
	_Atomic(void *) at;
	dev_t dev; /* these two under the lock */
	ino_t ino;
};

static struct mapped names, board;
static _Atomic uint64_t netns;

const struct weft_names_mem *board_names(void)
{
	return atomic_load_explicit(&names.at, memory_order_acquire);
}

const struct weft_board *board_get(void)
{
	return atomic_load_explicit(&board.at, memory_order_acquire);
}

void *shm_map(int fd, uint64_t magic, size_t size, int *err)
{
	struct weft_shm *shm;
	struct stat st;
	long p;

	*err = (int)sys_call(SYS_fstat, fd, (long)&st, 0, 0, 0, 0);
	if (*err < 0)
		return NULL;
	*err = -EPROTO;
	if (!S_ISREG(st.st_mode) || st.st_size < (off_t)size)
		return NULL;
	p = sys_call(SYS_mmap, 0, (long)size, PROT_READ, MAP_SHARED, fd, 0);
	if (p < 0 && p > -4096) {
		*err = (int)p;
		return NULL;
	}
	shm = (void *)p;
	if (shm->magic == magic && shm->layout == WEFT_SHM_LAYOUT && shm->size >= size) {
		*err = 0;
		return shm;
	}
	sys_call(SYS_munmap, p, (long)size, 0, 0, 0, 0);
	return NULL;
}

/* Under the lock. A file that is mapped already stays as it is; a former mapping is left to those who read it. */
static int remap(struct mapped *m, int fd, uint64_t magic, size_t size)
{
	struct stat st;
	void *p;
	int err = (int)sys_call(SYS_fstat, fd, (long)&st, 0, 0, 0, 0);

	if (err < 0)
		return err;
	if (m->at && m->dev == st.st_dev && m->ino == st.st_ino)
		return 0;
	p = shm_map(fd, magic, size, &err);
	if (!p)
		return err;
	m->dev = st.st_dev;
	m->ino = st.st_ino;
	atomic_store_explicit(&m->at, p, memory_order_release);
	return 0;
}

int board_map(int names_fd, int board_fd)
{
	struct quiet q;
	int r;

	control_lock(&q);
	r = remap(&board, board_fd, WEFT_SHM_BOARD, sizeof(struct weft_board));
	if (!r)
		r = remap(&names, names_fd, WEFT_SHM_NAMES, sizeof(struct weft_names_mem));
	control_unlock(&q);
	return r;
}

static int open_beside(const char *socket, const char *name)
{
	char path[SOCKET_PATH_MAX + 16];
	const char *slash = strrchr(socket, '/');

	snprintf(path, sizeof(path), "%.*s/%s", (int)(slash - socket), socket, name);
	return (int)sys_call(SYS_openat, AT_FDCWD, (long)path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW, 0,
			     0, 0);
}

static int map_beside(const char *socket)
{
	int names_fd = open_beside(socket, WEFT_NAMES_NAME), board_fd, r;

	if (names_fd < 0)
		return names_fd;
	board_fd = open_beside(socket, WEFT_BOARD_NAME);
	r = board_fd < 0 ? board_fd : board_map(names_fd, board_fd);
	sys_call(SYS_close, names_fd, 0, 0, 0, 0, 0);
	if (board_fd >= 0)
		sys_call(SYS_close, board_fd, 0, 0, 0, 0, 0);
	return r;
}

int board_map_by_path(void)
{
	int r = -ENOENT;
	struct quiet q;

	quiet_begin(&q);
	for (unsigned i = 0; i < control_env.n_sockets && r; i++) {
		int next = map_beside(control_env.socket[i]);

		r = next == -ENOENT || next == -ENOTDIR ? r : next;
	}
	quiet_end(&q);
	return r == -EPERM ? -EACCES : r;
}

bool board_is_fresh(void)
{
	const struct weft_board *b = board_get();
	uint64_t now, beat;
	struct timespec t;

	if (!b)
		return false;
	clock_gettime(CLOCK_BOOTTIME, &t);
	now = (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
	beat = atomic_load_explicit(&b->heartbeat_ms, memory_order_relaxed);
	return now < beat + WEFT_HEARTBEAT_STALE_MS;
}

uint64_t board_epoch(void)
{
	const struct weft_board *b = board_get();

	return b ? atomic_load_explicit(&b->epoch, memory_order_acquire) : 0;
}

uint32_t board_generation(uint32_t bucket)
{
	const struct weft_board *b = board_get();

	return b ? atomic_load_explicit(&b->generation[bucket & (WEFT_GENERATIONS - 1)],
					memory_order_acquire)
		 : 0;
}

/* Looked up at the first need: weftd's answer to HELLO says the same. */
uint64_t netns_get(void)
{
	uint64_t known = atomic_load_explicit(&netns, memory_order_relaxed);
	struct stat st;

	if (!known && sys_call(SYS_newfstatat, AT_FDCWD, (long)"/proc/self/ns/net", (long)&st, 0, 0,
			       0) == 0) {
		known = st.st_ino;
		atomic_store_explicit(&netns, known, memory_order_relaxed);
	}
	return known;
}

void netns_set(uint64_t inode)
{
	atomic_store_explicit(&netns, inode, memory_order_relaxed);
}
