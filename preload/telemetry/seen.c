#include "telemetry/seen.h"

#include <string.h>

static struct weft_tally_mem own;
static _Atomic(struct weft_tally_mem *) shared_mem;

void seen(enum weft_tally kind, const struct weft_addr *peer, enum weft_reason reason)
{
	struct weft_tally_mem *m = atomic_load_explicit(&shared_mem, memory_order_acquire);

	tally_count(m ? m : &own, kind, peer, reason);
}

void seen_share(struct weft_tally_mem *shared)
{
	struct weft_tally_mem *none = NULL;

	if (atomic_compare_exchange_strong(&shared_mem, &none, shared))
		tally_merge(shared, &own);
}

void seen_forked(void)
{
	if (!atomic_load_explicit(&shared_mem, memory_order_relaxed))
		memset(&own, 0, sizeof(own));
}
