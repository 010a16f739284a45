#include "tls/session.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include "sys/pool.h"
#include "sys/quiet.h"
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
	if (tx && s->tx_held)
		return;
	if (!s->own)
		pool_put(tx ? tx_block(s) : rx_block(s));
	*(tx ? &s->tx_at : &s->rx_at) = 0;
}

void session_wipe(struct session *s)
{
	s->tx_held = 0;
	session_unblock(s, false);
	session_unblock(s, true);
	record_keys_wipe(&s->rx);
	record_keys_wipe(&s->tx);
}

void session_move(struct session *to, struct session *from, uint8_t *own)
{
	/* All but the locks, which others are waiting for. */
	memset(to, 0, offsetof(struct session, rx));
	memcpy(&to->rx, &from->rx, sizeof(*to) - offsetof(struct session, rx));
	to->own = (intptr_t)own - (intptr_t)to;
	to->rx_at = to->tx_at = 0;
	if (from->rx_at)
		memcpy(session_block(to, false), rx_block(from), POOL_BLOCK);
	if (from->tx_at)
		memcpy(session_block(to, true), tx_block(from), POOL_BLOCK);
	session_wipe(from);
	from->moved = true;
}

size_t session_write(const struct session *s, struct session *image,
		     struct iovec part[static SESSION_PARTS])
{
	uint8_t *rx = rx_block(s), *tx = tx_block(s);

	*image = *s;
	memset(&image->rx_lock, 0, sizeof(image->rx_lock));
	memset(&image->tx_lock, 0, sizeof(image->tx_lock));
	image->rx_at = image->tx_at = image->own = 0;
	image->tx_held = 0;
	part[0] = (struct iovec){ image, sizeof(*image) };
	part[1] = (struct iovec){ rx, rx ? s->rx_have : 0 };
	part[2] = (struct iovec){ rx ? rx + SESSION_PLAIN : NULL, rx ? s->plain_end : 0 };
	part[3] = (struct iovec){ tx, tx ? s->tx_end : 0 };
	return part[0].iov_len + part[1].iov_len + part[2].iov_len + part[3].iov_len;
}

/* Of memory that anybody may have written. */
static bool is_bool(const volatile void *p)
{
	return *(const volatile uint8_t *)p <= 1;
}

static bool is_sound(const struct session *s)
{
	return is_bool(&s->told) && is_bool(&s->moved) && is_bool(&s->rx_eof) &&
	       is_bool(&s->rx_over) && is_bool(&s->tx_closed) && is_bool(&s->over) &&
	       is_bool(&s->tx_rekey) && s->rx_have <= SESSION_PLAIN &&
	       s->plain_off <= s->plain_end && s->plain_end <= POOL_BLOCK - SESSION_PLAIN &&
	       s->tx_off <= s->tx_end && s->tx_end <= POOL_BLOCK && !s->tx_held &&
	       s->tx_burst - 1 < SESSION_BURST && !s->moved && s->error <= 0 && s->error > -4096 &&
	       record_keys_sound(&s->rx) && record_keys_sound(&s->tx);
}

int session_read(struct session *s, const void *bytes, size_t n)
{
	const uint8_t *p = (const uint8_t *)bytes + sizeof(*s);
	struct session image;

	if (n < sizeof(image))
		return -EBADMSG;
	memcpy(&image, bytes, sizeof(image));
	if (!is_sound(&image) ||
	    n - sizeof(image) != (size_t)image.rx_have + image.plain_end + image.tx_end)
		return -EBADMSG;
	memset(&image.rx_lock, 0, sizeof(image.rx_lock));
	memset(&image.tx_lock, 0, sizeof(image.tx_lock));
	image.rx_at = image.tx_at = image.own = 0;
	image.seen_wire = image.seen_plain = image.seen_records = 0;
	*s = image;
	record_keys_wipe(&image.rx);
	record_keys_wipe(&image.tx);
	if (((s->rx_have || s->plain_end) && !session_block(s, false)) ||
	    (s->tx_end && !session_block(s, true)))
		return -ENOMEM;
	if (s->rx_at) {
		memcpy(rx_block(s), p, s->rx_have);
		memcpy(rx_block(s) + SESSION_PLAIN, p + s->rx_have, s->plain_end);
	}
	if (s->tx_at)
		memcpy(tx_block(s), p + s->rx_have + s->plain_end, s->tx_end);
	return 0;
}

int session_fail(struct session *s, int err, enum weft_reason reason)
{
	if (!s->error) {
		s->error = err;
		s->reason = reason;
	}
	return s->error;
}

/* A handler that finds its own thread in here is the last to do so: such sections are quiet from then on. */
int session_enter(struct session *s, struct lock *l)
{
	int r;

	quiet_data_hold();
	r = lock_take(l);
	if (r == -EDEADLK) {
		quiet_data_let();
		atomic_store(&quiet_guest, true);
		return -EAGAIN;
	}
	if (r == -EOWNERDEAD) /* it died between two steps of a record: nothing sure can follow */
		session_fail(s, -ECONNRESET, WEFT_REASON_BAD_RECORD);
	if (!s->moved)
		return 0;
	session_leave(l);
	return -ESTALE;
}

bool session_try(struct lock *l)
{
	quiet_data_hold();
	if (lock_try(l))
		return true;
	quiet_data_let();
	return false;
}

void session_leave(struct lock *l)
{
	lock_drop(l);
	quiet_data_let();
}

/* ThreadSanitizer is right that others may write: a wrong answer costs one look at the socket. */
__attribute__((no_sanitize("thread"))) bool session_is_dry(const struct session *s)
{
	return !s->plain_end && !s->rx_eof && !s->rx_over && !s->error && !s->moved;
}

long session_io(long call, int fd, const void *buf, size_t n, int flags)
{
	long r;

	do
		r = sys_call(call, fd, (long)buf, (long)n, flags | MSG_DONTWAIT, 0, 0);
	while (r == -EINTR);
	return r;
}
