/* One question to weftd: connect, send, receive, close. */
#ifndef CONTROL_EXCHANGE_H
#define CONTROL_EXCHANGE_H

#include <stdbool.h>
#include <stddef.h>

#include "weft/wire.h"

#define EXCHANGE_FDS 4

struct exchange {
	enum wire_type type;
	const struct wire_schema *ask, *answer;
	const void *in;
	void *out;             /* decoded answer, of the schema `answer`; its memory is `block` */
	void *block;           /* the caller frees it */
	int fds[EXCHANGE_FDS]; /* that came with the answer, else -1; the caller calls exchange_close() */
	int timeout_ms;
	bool brings_fds; /* the answer comes with descriptors */
	bool aside;      /* nothing hangs on it: no answer does not count as a weftd that is away */
	int code;        /* of a refusal: errno, and its text */
	char text[256];
	int result; /* of exchange.c's */
};

/* 0: answered. -EACCES: refused, see code and text. -ECONNREFUSED: nobody answers, which includes what is no answer;
 * for RETRY_MS afterwards that is said without trying. Blocks for timeout_ms at most; signals wait meanwhile. */
int exchange(struct exchange *x);
void exchange_close(struct exchange *x); /* descriptors and block */

bool exchange_is_due(void); /* false: exchange() would not try */
void exchange_retry(void);  /* the next one tries */
void exchange_forked(
	void); /* in the child: closes sockets of exchanges that other threads were in */

#endif
