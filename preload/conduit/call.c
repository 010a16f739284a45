#include "conduit/call.h"

#include <errno.h>

#include "sys/quiet.h"

static __thread struct call *innermost;

/* A section of the session's was left in the middle: what was taken from the socket or sealed there is lost. */
static void drop_held(struct session *s, struct lock *l)
{
	if (!lock_is_mine(l))
		return;
	session_fail(s, -ECONNRESET, WEFT_REASON_BAD_RECORD);
	lock_drop(l);
}

static void undo(void *arg)
{
	struct call *k = arg;
	size_t i;

	atomic_store(&quiet_guest, true);
	innermost = k->outer;
	for (i = 0; i < k->n; i++) {
		if (!k->v[i])
			continue;
		drop_held(k->v[i]->session, &k->v[i]->session->tx_lock);
		drop_held(k->v[i]->session, &k->v[i]->session->rx_lock);
		conn_put(k->v[i]);
	}
}

void call_begin_all(struct call *k, struct conn *const *v, size_t n)
{
	k->v = v;
	k->n = n;
	if (!n)
		return;
	k->outer = innermost;
	if (__builtin_expect(k->outer != NULL, 0))
		atomic_store(&quiet_guest, true);
	leave_push(&k->leave, undo, k);
	innermost = k;
}

void call_begin(struct call *k, struct conn *c)
{
	k->one = c;
	call_begin_all(k, &k->one, c != NULL);
}

/* Left in between, the references would be given back twice, or never. */
void call_leave(struct call *k)
{
	size_t i;

	quiet_data_hold();
	innermost = k->outer;
	leave_pop(&k->leave);
	for (i = 0; i < k->n; i++)
		conn_put(k->v[i]);
	quiet_data_let();
}

unsigned call_depth(const struct conn *c)
{
	unsigned n = 0;
	size_t i;

	for (struct call *k = innermost; k; k = k->outer)
		for (i = 0; i < k->n; i++)
			n += k->v[i] == c;
	return n;
}
