/* What a process tells of its connections: counters and a small table of peers, in the family memory that it shares with
 * its forked children and with weftd. Whoever maps it may write anything into it: readers take numbers, and no more.
 * The functions are pure, lock-free and async-signal-safe (preload/base/tally.c). */
#ifndef WEFT_TALLY_H
#define WEFT_TALLY_H

#include <stdatomic.h>
#include <stdint.h>

#include "weft/addr.h"
#include "weft/reason.h"

#define WEFT_TALLY_BYTES 4096
#define WEFT_TALLY_ROWS 128

enum weft_tally {
#define TALLY(name, word, text) WEFT_TALLY_##name,
#include "weft/tally.def"
#undef TALLY
	WEFT_TALLY_MAX,
};

struct weft_tally_row {
	_Atomic uint32_t state; /* enum tally_state */
	_Atomic uint32_t count;
	uint8_t ip[16];
	uint16_t port; /* that was dialled, or that the peer came to */
	uint8_t kind;  /* enum weft_tally */
	uint8_t reason;
};

struct weft_tally_mem {
	_Atomic uint64_t total[32]; /* by enum weft_tally */
	_Atomic uint64_t unlisted;  /* counted in total only: the table was full */
	struct weft_tally_row row[WEFT_TALLY_ROWS];
};
_Static_assert(sizeof(struct weft_tally_mem) <= WEFT_TALLY_BYTES, "one page");

/* Counts one, in total and in the row of the peer; peer NULL: in total only. */
void tally_count(struct weft_tally_mem *m, enum weft_tally kind, const struct weft_addr *peer,
		 enum weft_reason reason);
/* Adds what `from` holds. `from` may be written meanwhile, and may be a lie. */
void tally_merge(struct weft_tally_mem *to, const struct weft_tally_mem *from);
/* The next row from *at on: 0 with its parts, *at moved behind it; -ENOENT at the end. Parts are within their enums. */
int tally_next(const struct weft_tally_mem *m, unsigned *at, enum weft_tally *kind,
	       enum weft_reason *reason, struct weft_addr *peer, uint32_t *count);
uint64_t tally_total(const struct weft_tally_mem *m, enum weft_tally kind);

const char *tally_word(enum weft_tally kind);
const char *tally_text(enum weft_tally kind);

#endif
