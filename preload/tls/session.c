#include "tls/session.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include "sys/pool.h"
#include "sys/sys.h"
#include "tls/session_int.h"

void session_start(struct session *s, const struct record_keys *rx, const struct record_keys *tx)
{
	*s = (struct session){
		.own = s->own, .lowat = s->lowat, .tx_burst = 1, .rx = *rx, .tx = *tx
	};
}

uint8_t *session_block(struct session *s, bool tx)
{
	intptr_t *at = tx ? &s->tx_at : &s->rx_at;
	void *block;

	if (!*at && s->own) {
		*at = s->own + (tx ? POOL_BLOCK : 0);
	} else if (!*at) {
		block = pool_get();
		*at = block ? (intptr_t)block - (intptr_t)s : 0;
	}
	return tx ? tx_block(s) : rx_block(s);
}

void session_unblock(struct session *s, bool tx)
{
	if (!s->own)
		pool_put(tx ? tx_block(s) : rx_block(s));
	*(tx ? &s->tx_at : &s->rx_at) = 0;
}

void session_wipe(struct session *s)
{
	session_unblock(s, false);
	session_unblock(s, true);
	record_keys_wipe(&s->rx);
	record_keys_wipe(&s->tx);
}

void session_move(struct session *to, struct session *from, uint8_t *own)
{
	*to = *from;
	memset(&to->rx_lock, 0, sizeof(to->rx_lock));
	memset(&to->tx_lock, 0, sizeof(to->tx_lock));
	to->own = (intptr_t)own - (intptr_t)to;
	to->rx_at = to->tx_at = 0;
	if (from->rx_at)
		memcpy(session_block(to, false), rx_block(from), POOL_BLOCK);
	if (from->tx_at)
		memcpy(session_block(to, true), tx_block(from), POOL_BLOCK);
	session_wipe(from);
	from->moved = true;
}

int session_fail(struct session *s, int err, enum weft_reason reason)
{
	if (!s->error) {
		s->error = err;
		s->reason = reason;
	}
	return s->error;
}

int session_enter(struct session *s, struct lock *l)
{
	int r = lock_take(l);

	if (r == -EDEADLK)
		return -EAGAIN;
	if (r == -EOWNERDEAD) /* it died between two steps of a record: nothing sure can follow */
		session_fail(s, -ECONNRESET, WEFT_REASON_BAD_RECORD);
	if (!s->moved)
		return 0;
	lock_drop(l);
	return -ESTALE;
}

long session_io(long call, int fd, const void *buf, size_t n, int flags)
{
	long r;

	do
		r = sys_call(call, fd, (long)buf, (long)n, flags | MSG_DONTWAIT, 0, 0);
	while (r == -EINTR);
	return r;
}
