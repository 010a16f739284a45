/* The process's tally: in memory of its own until weftd shares one. Lock-free and async-signal-safe. */
#ifndef TELEMETRY_SEEN_H
#define TELEMETRY_SEEN_H

#include "weft/tally.h"

/* As tally_count(). */
void seen(enum weft_tally kind, const struct weft_addr *peer, enum weft_reason reason);

/* From now on it lies in `shared`, which stays mapped for ever; what was counted before moves there. */
void seen_share(struct weft_tally_mem *shared);
/* In the child of a fork: what its parent has not shared yet is the parent's to tell. */
void seen_forked(void);

#endif
