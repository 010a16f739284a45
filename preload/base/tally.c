#include "weft/tally.h"

#include <errno.h>
#include <string.h>

enum tally_state { TALLY_FREE, TALLY_CLAIMED, TALLY_READY };

static const struct {
	const char *word, *text;
} names[] = {
#define TALLY(name, word, text) [WEFT_TALLY_##name] = { word, text },
#include "weft/tally.def"
#undef TALLY
};

const char *tally_word(enum weft_tally kind)
{
	return names[kind].word;
}

const char *tally_text(enum weft_tally kind)
{
	return names[kind].text;
}

static unsigned place_of(const struct weft_addr *a, uint8_t kind)
{
	uint32_t h = 2166136261u ^ kind ^ (uint32_t)a->port << 8;

	for (unsigned i = 0; i < sizeof(a->ip); i++)
		h = (h ^ a->ip[i]) * 16777619u;
	return h % WEFT_TALLY_ROWS;
}

static bool row_is(const struct weft_tally_row *r, const struct weft_addr *a, uint8_t kind,
		   uint8_t reason)
{
	return r->kind == kind && r->reason == reason && r->port == a->port &&
	       memcmp(r->ip, a->ip, sizeof(r->ip)) == 0;
}

/* A row that another writer is filling in is passed by: readers take two rows of one peer as well. */
static struct weft_tally_row *row_get(struct weft_tally_mem *m, const struct weft_addr *a,
				      uint8_t kind, uint8_t reason)
{
	unsigned at = place_of(a, kind);

	for (unsigned i = 0; i < WEFT_TALLY_ROWS; i++) {
		struct weft_tally_row *r = &m->row[(at + i) % WEFT_TALLY_ROWS];
		uint32_t state = TALLY_FREE;

		if (atomic_compare_exchange_strong(&r->state, &state, TALLY_CLAIMED)) {
			memcpy(r->ip, a->ip, sizeof(r->ip));
			r->port = a->port;
			r->kind = kind;
			r->reason = reason;
			atomic_store_explicit(&r->state, TALLY_READY, memory_order_release);
			return r;
		}
		if (state == TALLY_READY && row_is(r, a, kind, reason))
			return r;
	}
	return NULL;
}

static void add(struct weft_tally_mem *m, const struct weft_addr *a, uint8_t kind, uint8_t reason,
		uint32_t n)
{
	struct weft_tally_row *r = row_get(m, a, kind, reason);

	if (r)
		atomic_fetch_add_explicit(&r->count, n, memory_order_relaxed);
	else
		atomic_fetch_add_explicit(&m->unlisted, n, memory_order_relaxed);
}

void tally_count(struct weft_tally_mem *m, enum weft_tally kind, const struct weft_addr *peer,
		 enum weft_reason reason)
{
	atomic_fetch_add_explicit(&m->total[kind], 1, memory_order_relaxed);
	if (peer)
		add(m, peer, (uint8_t)kind, (uint8_t)reason, 1);
}

uint64_t tally_total(const struct weft_tally_mem *m, enum weft_tally kind)
{
	return atomic_load_explicit(&m->total[kind], memory_order_relaxed);
}

int tally_next(const struct weft_tally_mem *m, unsigned *at, enum weft_tally *kind,
	       enum weft_reason *reason, struct weft_addr *peer, uint32_t *count)
{
	while (*at < WEFT_TALLY_ROWS) {
		const struct weft_tally_row *r = &m->row[(*at)++];

		if (atomic_load_explicit(&r->state, memory_order_acquire) != TALLY_READY ||
		    r->kind >= WEFT_TALLY_MAX || r->reason >= WEFT_REASON_MAX)
			continue;
		*kind = (enum weft_tally)r->kind;
		*reason = (enum weft_reason)r->reason;
		*count = atomic_load_explicit(&r->count, memory_order_relaxed);
		memcpy(peer->ip, r->ip, sizeof(peer->ip));
		peer->port = r->port;
		return 0;
	}
	return -ENOENT;
}

void tally_merge(struct weft_tally_mem *to, const struct weft_tally_mem *from)
{
	enum weft_tally kind;
	enum weft_reason reason;
	struct weft_addr peer;
	uint32_t n;

	for (kind = 0; kind < WEFT_TALLY_MAX; kind++)
		atomic_fetch_add_explicit(&to->total[kind], tally_total(from, kind),
					  memory_order_relaxed);
	atomic_fetch_add_explicit(&to->unlisted,
				  atomic_load_explicit(&from->unlisted, memory_order_relaxed),
				  memory_order_relaxed);
	for (unsigned at = 0; tally_next(from, &at, &kind, &reason, &peer, &n) == 0;)
		add(to, &peer, (uint8_t)kind, (uint8_t)reason, n);
}
