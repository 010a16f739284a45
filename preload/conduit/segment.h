/* Memory that processes share: by fork, and, where System V memory is to be had, by attaching to it from another program.
 * It has no name and no descriptor: the segment is removed at birth and goes with the last process that has it mapped. */
#ifndef CONDUIT_SEGMENT_H
#define CONDUIT_SEGMENT_H

#include <stdbool.h>
#include <stddef.h>

struct segment;

struct segment *segment_new(size_t size); /* one reference, zeroed; NULL: no memory */
/* A segment that another process has mapped. *out has a reference. -EIDRM: it is gone; -errno. */
int segment_attach(int id, struct segment **out);
struct segment *segment_ref(struct segment *s);
void segment_put(struct segment *s); /* NULL-safe; the last unmaps */

int segment_id(const struct segment *s); /* for segment_attach(); -1: only a fork shares it */
bool segment_allows(
	const struct segment *s); /* may this process attach to it, whatever it executes? */
void *segment_at(const struct segment *s, size_t offset, size_t size); /* NULL: out of bounds */
size_t segment_offset(const struct segment *s, const void *p);

void segment_lock(void); /* around fork */
void segment_unlock(void);
void segment_forked(void); /* in the child, instead of unlock */

#endif
