/* The processes that hold a connection, in memory that they share. A list, not a count: one that is killed never takes
 * itself off. Start time tells a reused pid, the start of the stack tells that its memory went with an exec. */
#ifndef CONDUIT_HOLDER_H
#define CONDUIT_HOLDER_H

#include <stdbool.h>
#include <stdint.h>

#include "sys/lock.h"

#define HOLDERS_MAX 30

struct holder {
	int pid;
	uint64_t start; /* of one that is expected: its token */
	uint64_t stack; /* 0: whatever it executes */
	int64_t until_ms;
};

/* Zero is empty. The calls take the lock. */
struct holders {
	struct lock lock;
	unsigned n;
	unsigned more; /* that found no room; while there are such, nobody is the last */
	struct holder v[HOLDERS_MAX];
};

int holders_self(void); /* pid of the caller, also in a child that shares our memory */

void holders_add(struct holders *h, int pid); /* this process holds it */
/* A process to come holds it too; after `ms` it failed. `token` tells the one from the other; 0: a fork. */
void holders_expect(struct holders *h, uint64_t token, int64_t ms);
void holders_renounce(struct holders *h, uint64_t token); /* it will not come */
void holders_expected_is(struct holders *h, uint64_t token,
			 int pid); /* it is this process, which has yet to claim */
/* The caller holds it: its old entry, or the expected one, or a new one is its own. */
void holders_claim(struct holders *h, uint64_t token);
/* The caller is about to go on as another program, and holds the connection through it. holders_claim() ends this. */
void holders_exec(struct holders *h);
bool holders_leave(struct holders *h); /* the caller holds it no more; true: nobody does */
bool holders_only_self(struct holders *h);

#endif
