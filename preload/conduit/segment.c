#include "conduit/segment.h"

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/shm.h>
#include <sys/syscall.h>

#include "sys/lock.h"
#include "sys/sys.h"

struct segment {
	unsigned refs; /* under the lock, as `next` */
	int id;
	uint8_t *at;
	size_t size;
	struct segment *next;
};

static struct {
	struct lock lock;
	struct segment *all;
} list;

static bool is_error(long r)
{
	return r < 0 && r > -4096;
}

static void unmap(long at, int id, size_t size)
{
	if (id >= 0)
		sys_call(SYS_shmdt, at, 0, 0, 0, 0, 0);
	else
		sys_call(SYS_munmap, at, (long)size, 0, 0, 0, 0);
}

/* shmmni, a seccomp filter: then memory that only a fork shares must do. */
static long map(size_t size, int *id)
{
	long at = -ENOSYS;
	long r = sys_call(SYS_shmget, IPC_PRIVATE, (long)size, IPC_CREAT | SHM_NORESERVE | 0600, 0,
			  0, 0);

	*id = (int)r;
	if (r >= 0) {
		at = sys_call(SYS_shmat, r, 0, 0, 0, 0, 0);
		sys_call(SYS_shmctl, r, IPC_RMID, 0, 0, 0, 0);
	}
	if (!is_error(at))
		return at;
	*id = -1;
	return sys_call(SYS_mmap, 0, (long)size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
			-1, 0);
}

static struct segment *segment_add(long at, int id, size_t size)
{
	struct segment *s = malloc(sizeof(*s));

	if (!s) {
		unmap(at, id, size);
		return NULL;
	}
	*s = (struct segment){
		.refs = 1, .id = id, .at = (uint8_t *)at, .size = size, .next = list.all
	};
	list.all = s;
	return s;
}

struct segment *segment_new(size_t size)
{
	struct segment *s;
	int id;
	long at = map(size, &id);

	if (is_error(at))
		return NULL;
	lock_take(&list.lock);
	s = segment_add(at, id, size);
	lock_drop(&list.lock);
	return s;
}

static int attach(int id, struct segment **out)
{
	struct shmid_ds ds;
	long r = sys_call(SYS_shmctl, id, IPC_STAT, (long)&ds, 0, 0, 0), at;

	if (r < 0)
		return r == -EINVAL ? -EIDRM : (int)r;
	at = sys_call(SYS_shmat, id, 0, 0, 0, 0, 0);
	if (is_error(at))
		return at == -EINVAL ? -EIDRM : (int)at;
	*out = segment_add(at, id, ds.shm_segsz);
	return *out ? 0 : -ENOMEM;
}

int segment_attach(int id, struct segment **out)
{
	struct segment *s;
	int r = 0;

	if (id < 0)
		return -EINVAL;
	lock_take(&list.lock);
	for (s = list.all; s && s->id != id; s = s->next)
		;
	if (s) {
		s->refs++;
		*out = s;
	} else {
		r = attach(id, out);
	}
	lock_drop(&list.lock);
	return r;
}

struct segment *segment_ref(struct segment *s)
{
	lock_take(&list.lock);
	s->refs++;
	lock_drop(&list.lock);
	return s;
}

void segment_put(struct segment *s)
{
	struct segment **at;

	if (!s)
		return;
	lock_take(&list.lock);
	if (--s->refs) {
		lock_drop(&list.lock);
		return;
	}
	for (at = &list.all; *at != s; at = &(*at)->next)
		;
	*at = s->next;
	lock_drop(&list.lock);
	unmap((long)s->at, s->id, s->size);
	free(s);
}

int segment_id(const struct segment *s)
{
	return s->id;
}

bool segment_allows(const struct segment *s)
{
	struct shmid_ds ds;

	return s->id >= 0 && sys_call(SYS_shmctl, s->id, IPC_STAT, (long)&ds, 0, 0, 0) >= 0;
}

void *segment_at(const struct segment *s, size_t offset, size_t size)
{
	return offset <= s->size && size <= s->size - offset ? s->at + offset : NULL;
}

size_t segment_offset(const struct segment *s, const void *p)
{
	return (size_t)((const uint8_t *)p - s->at);
}

void segment_lock(void)
{
	lock_take(&list.lock);
}

void segment_unlock(void)
{
	lock_drop(&list.lock);
}

void segment_forked(void)
{
	list.lock = (struct lock){ 0 };
}
