#include "fd/table.h"

#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>

#include "sys/clock.h"
#include "sys/quiet.h"
#include "sys/sys.h"

slot_word table_first[TABLE_CHUNK];
_Atomic(slot_word *) table_chunk[TABLE_CHUNKS];
static _Atomic int end = TABLE_CHUNK;
static __thread bool
	leaving; /* this thread is giving up a number: its signal handlers do not wait for that */

#define LEAVING_MS 5000 /* close() waits for what is unsent, up to 2 s */
#define LEAVING_STEP_NS 20000

uintptr_t table_leave(int fd)
{
	uintptr_t was = table_word(fd);
	bool ok;

	was = table_swap(fd, was > SLOT_MAX ? SLOT_LEAVING : SLOT_UNKNOWN, &ok);
	leaving |= was > SLOT_LEAVING;
	return was;
}

/* Whoever got the number since has put a word of its own there. */
static void settle(int fd)
{
	uintptr_t word = SLOT_LEAVING;

	if (table_word(fd) == SLOT_LEAVING)
		atomic_compare_exchange_strong(table_slot(fd), &word, SLOT_UNKNOWN);
}

void table_left(int fd)
{
	settle(fd);
	leaving = false;
}

uintptr_t table_settled(int fd)
{
	struct timespec step = { .tv_nsec = LEAVING_STEP_NS };
	int64_t until = 0;
	uintptr_t word;

	while ((word = table_word(fd)) == SLOT_LEAVING && !leaving) {
		if (!until)
			until = clock_now_ms() + LEAVING_MS;
		else if (clock_now_ms() > until)
			break;
		sys_call(SYS_nanosleep, (long)&step, 0, 0, 0, 0, 0);
	}
	return word == SLOT_LEAVING ? SLOT_UNKNOWN : word;
}

void table_forked(void)
{
	for (int fd = 0; fd < table_end(); fd++)
		settle(fd);
	leaving = false;
}

/* A word that changes meanwhile is looked at anew: a real call would be one on a meshed socket still, or again. */
struct conn *table_conn_of(int fd, uintptr_t word)
{
	uintptr_t was;
	struct conn *c;

	if (word == SLOT_LEAVING)
		word = table_settled(fd);
	while (word > SLOT_LEAVING) {
		c = conn_get((struct conn *)word);
		if (c && table_word(fd) == word)
			return c;
		conn_put(c);
		was = word;
		word = table_settled(fd);
		if (!c && word == was)
			return NULL;
	}
	return NULL;
}

struct conn *table_call_of(struct call *k, int fd, uintptr_t word)
{
	if (word == SLOT_LEAVING)
		word = table_settled(fd);
	quiet_data_hold();
	call_begin(k, table_conn_of(fd, word));
	quiet_data_let();
	return k->one;
}

static slot_word *chunk_new(int fd)
{
	unsigned k = (unsigned)fd / TABLE_CHUNK;
	size_t size = TABLE_CHUNK * sizeof(slot_word);
	slot_word *none = NULL, *chunk;
	int e;
	long p;

	if (k >= TABLE_CHUNKS)
		return NULL;
	p = sys_call(SYS_mmap, 0, (long)size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
		     -1, 0);
	if (p < 0 && p > -4096)
		return NULL;
	chunk = (slot_word *)p;
	if (!atomic_compare_exchange_strong(&table_chunk[k], &none, chunk))
		sys_call(SYS_munmap, p, (long)size, 0, 0, 0, 0);
	e = atomic_load(&end);
	while (e < (int)((k + 1) * TABLE_CHUNK) &&
	       !atomic_compare_exchange_weak(&end, &e, (int)((k + 1) * TABLE_CHUNK)))
		;
	return table_slot(fd);
}

uintptr_t table_swap(int fd, uintptr_t word, bool *ok)
{
	slot_word *s = table_slot(fd);

	*ok = true;
	if (!s && word != SLOT_UNKNOWN && word != SLOT_PASS)
		s = fd < 0 ? NULL : chunk_new(fd);
	if (s)
		return atomic_exchange_explicit(s, word, memory_order_acq_rel);
	*ok = word == SLOT_UNKNOWN || word == SLOT_PASS;
	return SLOT_UNKNOWN;
}

int table_end(void)
{
	return atomic_load(&end);
}
