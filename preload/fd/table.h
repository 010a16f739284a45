/* Which descriptor is what: one word per fd, read without lock, system call or thread-local storage by the first
 * instructions of every hook. Numbers are the kernel's own. */
#ifndef FD_TABLE_H
#define FD_TABLE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "conduit/call.h"

#define TABLE_CHUNK 1024u
#define TABLE_CHUNKS 4096u /* 4 Mi descriptors: more than fs.nr_open allows by default */

enum slot { /* a word above SLOT_LEAVING points to a struct conn and holds a reference */
	    SLOT_UNKNOWN,  /* nothing is known: real calls */
	    SLOT_PASS,     /* known not to be of interest: real calls */
	    SLOT_FRESH4,   /* TCP socket of socket(), AF_INET, not connected */
	    SLOT_FRESH6,   /* the same, AF_INET6 */
	    SLOT_LISTENER, /* what it accepts is admitted to the mesh */
	    SLOT_MAX,
	    SLOT_LEAVING, /* a connection's; close() or dup2() of some thread is about to give the number up */
};

typedef _Atomic uintptr_t slot_word;
extern slot_word table_first[TABLE_CHUNK]; /* no allocation in most processes */
extern _Atomic(slot_word *) table_chunk[TABLE_CHUNKS];

static inline slot_word *table_slot(int fd)
{
	slot_word *chunk;

	if ((unsigned)fd < TABLE_CHUNK)
		return &table_first[fd];
	if ((unsigned)fd >= TABLE_CHUNK * TABLE_CHUNKS)
		return NULL;
	chunk = atomic_load_explicit(&table_chunk[(unsigned)fd / TABLE_CHUNK],
				     memory_order_acquire);
	return chunk ? &chunk[(unsigned)fd % TABLE_CHUNK] : NULL;
}

static inline uintptr_t table_word(int fd)
{
	slot_word *s = table_slot(fd);

	return s ? atomic_load_explicit(s, memory_order_acquire) : SLOT_UNKNOWN;
}

/* With a word above SLOT_MAX. NULL: the real call, after whoever gives up the number has done so. */
struct conn *table_conn_of(int fd, uintptr_t word);

/* What close() and dup2() put around the real call. In between the number still leads to the connection's socket for the
 * kernel, but no more to the connection for us: a real call of another thread would read the wire, or write to it in the
 * clear. table_leave() returns the word that was there. */
uintptr_t table_leave(int fd);
void table_left(int fd);
/* The word of `fd`, after waiting for another thread that is between the two. */
uintptr_t table_settled(int fd);
/* In a child of fork(): there is no other thread. */
void table_forked(void);

/* The connection behind an fd with a reference, or NULL. */
static inline struct conn *table_conn(int fd)
{
	uintptr_t word = table_word(fd);

	return __builtin_expect(word > SLOT_MAX, 0) ? table_conn_of(fd, word) : NULL;
}

/* Begins a call on the connection behind `fd`, or NULL. */
struct conn *table_call_of(struct call *k, int fd, uintptr_t word);
static inline struct conn *table_call(struct call *k, int fd)
{
	uintptr_t word = table_word(fd);

	k->n = 0;
	return __builtin_expect(word > SLOT_MAX, 0) ? table_call_of(k, fd, word) : NULL;
}

/* Declares `c`, and the call on it that ends with the block. */
#define TABLE_CALL(c, fd)                                        \
	struct call c##_call __attribute__((cleanup(call_end))); \
	struct conn *c = table_call(&c##_call, fd)

/* Stores a word (for a connection, with its reference) and returns what was there. 0 and no change if the table cannot
 * grow: *ok tells. */
uintptr_t table_swap(int fd, uintptr_t word, bool *ok);
/* Highest fd that may have a word, for walks. */
int table_end(void);

#endif
