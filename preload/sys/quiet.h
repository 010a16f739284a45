/* Sections that no signal handler of the guest may see half done, or jump out of: signals wait at the door, cancellation with
 * them. Two system calls, so not for what is done at every byte. */
#ifndef SYS_QUIET_H
#define SYS_QUIET_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct quiet {
	uint64_t mask;
};
void quiet_begin(struct quiet *q);
void quiet_end(const struct quiet *q);

/* The same, nested, of the calling thread. A fork's child ends what its parent's thread began. */
void quiet_hold(void);
void quiet_let(void);

/* A handler of this guest was seen to use a connection that its thread was busy with, or to jump away from there: from then
 * on data calls are such sections too. */
extern atomic_bool quiet_guest;

static inline void quiet_data_hold(void)
{
	if (__builtin_expect(atomic_load_explicit(&quiet_guest, memory_order_relaxed), 0))
		quiet_hold();
}

/* Ends a section that began before or after the guest was known to need it. */
static inline void quiet_data_let(void)
{
	if (__builtin_expect(atomic_load_explicit(&quiet_guest, memory_order_relaxed), 0))
		quiet_let();
}

#endif
