#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "sys/sys.h"
#include "tls/session_int.h"

/* Where byte `skip` of the iovec lies, and how much room follows it in its segment. */
static uint8_t *iov_at(const struct iovec *iov, size_t skip, size_t *room)
{
	while (skip >= iov->iov_len)
		skip -= iov++->iov_len;
	*room = iov->iov_len - skip;
	return (uint8_t *)iov->iov_base + skip;
}

long session_draw(struct session *s, int fd, void *buf, size_t n)
{
	long r = session_take(fd, buf, n, 0);

	if (r > 0)
		s->seen_wire -= (uint32_t)session_min(s->seen_wire, (size_t)r);
	return r;
}

static void iov_put(const struct iovec *iov, size_t skip, const uint8_t *from, size_t n)
{
	while (n) {
		size_t room;
		uint8_t *to = iov_at(iov, skip, &room);
		size_t k = session_min(room, n);

		memcpy(to, from, k);
		from += k;
		skip += k;
		n -= k;
	}
}

int session_set_lowat(struct session *s, int fd, uint32_t lowat)
{
	int value = (int)lowat;

	if (s->lowat == lowat)
		return 0;
	s->lowat = lowat;
	return (int)sys_call(SYS_setsockopt, fd, SOL_SOCKET, SO_RCVLOWAT, (long)&value,
			     sizeof(value), 0);
}

/* Handshake messages after the handshake: KeyUpdate is obeyed, tickets of foreign servers are not used. */
static int take_handshake(struct session *s, const uint8_t *m, size_t n)
{
	while (n >= 4) {
		size_t len = (size_t)m[1] << 16 | (size_t)m[2] << 8 | m[3];

		if (len > n - 4)
			break;
		if (m[0] == 24 && len == 1 && m[4] <= 1) {
			if (record_keys_update(&s->rx) < 0)
				break;
			s->tx_rekey |= m[4];
		} else if (m[0] != 4) {
			break;
		}
		m += 4 + len;
		n -= 4 + len;
	}
	return n ? session_fail(s, -ECONNRESET, WEFT_REASON_BAD_RECORD) : 0;
}

static int take_control(struct session *s, uint8_t type, const uint8_t *content, size_t n)
{
	if (type == RECORD_HANDSHAKE)
		return take_handshake(s, content, n);
	if (type != RECORD_ALERT || n != 2)
		return session_fail(s, -ECONNRESET, WEFT_REASON_BAD_RECORD);
	if (content[1] == 0)
		s->rx_eof = true;
	else if (content[1] == 49)
		return session_fail(s, -ECONNRESET, WEFT_REASON_PEER_REFUSED);
	else if (content[1] != 90)
		return session_fail(s, -ECONNRESET, WEFT_REASON_BAD_RECORD);
	return 0;
}

/* record_open() for the next record of the stream. */
static ssize_t open_next(struct session *s, struct session_aead *a, const uint8_t *rec, size_t len,
			 uint8_t *out, uint8_t *type)
{
	ssize_t n = record_open(a->rx, &s->rx, rec, len, out, type);

	if (s->seen_records) {
		s->seen_records--;
		s->seen_plain -= *type == RECORD_DATA ? (uint32_t)(len - RECORD_OVERHEAD) : 0;
	}
	return n < 0 ? session_fail(s, -ECONNRESET, WEFT_REASON_BAD_RECORD) : n;
}

/* Opens the whole record at `rec`. Data goes to `iov` (and counts in the return value); a control record is obeyed. What may
 * be one is opened aside: a program's buffer is left alone behind what it was told of. */
static ssize_t open_record(struct session *s, struct session_aead *a, const uint8_t *rec,
			   size_t len, const struct iovec *iov, size_t skip)
{
	uint8_t *plain = rx_block(s) + SESSION_PLAIN, *out = plain;
	size_t room = 0;
	uint8_t type = RECORD_DATA;
	ssize_t r;

	if (len > KEY_UPDATE_WIRE)
		out = iov_at(iov, skip, &room);
	if (room < len - RECORD_OVERHEAD || room == 0)
		out = plain;
	r = open_next(s, a, rec, len, out, &type);
	if (r < 0)
		return r;
	if (type != RECORD_DATA)
		return take_control(s, type, out, (size_t)r);
	if (out == plain && r)
		iov_put(iov, skip, plain, (size_t)r);
	return r;
}

/* Opens every whole record in rx_block[0, rx_have): they fit `iov` from `skip` on. What is left of the next one moves to
 * the front. Returns plaintext bytes delivered, or -errno where the first one fails. */
static ssize_t open_whole(struct session *s, struct session_aead *a, const struct iovec *iov,
			  size_t skip)
{
	size_t off = 0, done = 0;
	ssize_t r = 0;

	while (s->rx_have - off >= RECORD_HEADER && !s->rx_eof) {
		ssize_t len = record_wire_length(rx_block(s) + off);

		if (len < 0) {
			r = session_fail(s, -ECONNRESET, WEFT_REASON_BAD_RECORD);
			break;
		}
		if (s->rx_have - off < (size_t)len)
			break;
		r = open_record(s, a, rx_block(s) + off, (size_t)len, iov, skip + done);
		if (r < 0)
			break;
		off += (size_t)len;
		done += (size_t)r;
	}
	s->rx_have -= (uint32_t)off;
	if (off && s->rx_have)
		memmove(rx_block(s), rx_block(s) + off, s->rx_have);
	return done ? (ssize_t)done : r < 0 ? r : 0;
}

/* The socket's answer where bytes of a record were wanted. The kernel tells its own errors once, then says "end". If it is
 * another file by now, that says nothing of the session. To a program that shut this side it says "end" whenever it is dry. */
static int take_end(struct session *s, long r)
{
	if (r == -ENOTSOCK || r == -EBADF)
		return (int)r;
	if (r == -ECONNRESET && s->tx_closed && (s->over || s->rx_over))
		r = 0; /* what came where nothing is taken any more was a goodbye */
	if (r == 0)
		return s->rx_over ? -ESHUTDOWN
				  : session_fail(s, -ECONNRESET, WEFT_REASON_TRUNCATED);
	if (r != -EAGAIN)
		s->rx_eof = true;
	return (int)r;
}

/* Wire length of the record that rx_block begins with; 0: its header is not complete. */
static ssize_t record_begun(struct session *s)
{
	ssize_t len = s->rx_have >= RECORD_HEADER ? record_wire_length(rx_block(s)) : 0;

	return len < 0 ? session_fail(s, -ECONNRESET, WEFT_REASON_BAD_RECORD) : len;
}

/* Takes one record that is larger than the caller's room: all but its last byte leaves the socket, that byte is peeked,
 * and the plaintext waits in the session while the kernel goes on saying "readable". */
static int hold_record(struct session *s, struct session_aead *a, int fd)
{
	ssize_t len = record_begun(s);
	size_t want = len ? (size_t)len - 1 : RECORD_HEADER;
	uint8_t type = RECORD_DATA, *plain = rx_block(s) + SESSION_PLAIN, last;
	ssize_t n;
	long r;

	if (len < 0)
		return (int)len;
	if (s->rx_have < want) {
		r = session_draw(s, fd, rx_block(s) + s->rx_have, want - s->rx_have);
		if (r <= 0)
			return take_end(s, r);
		s->rx_have += (uint32_t)r;
		return 0;
	}
	r = session_take(fd, rx_block(s) + want, 1, MSG_PEEK);
	if (r <= 0)
		return take_end(s, r);
	n = open_next(s, a, rx_block(s), (size_t)len, plain, &type);
	if (n < 0)
		return (int)n;
	s->rx_have = 0;
	s->plain_off = 0;
	s->plain_end = type == RECORD_DATA ? (uint32_t)n : 0;
	if (!s->plain_end)
		session_draw(s, fd, &last, 1);
	return type == RECORD_DATA ? 0 : take_control(s, type, plain, (size_t)n);
}

ssize_t session_fill(struct session *s, struct session_aead *a, int fd, const struct iovec *iov,
		     size_t skip, size_t room, bool peek, bool *dry)
{
	ssize_t len;
	size_t want;
	long r;

	if (!session_block(s, false))
		return -ENOMEM;
	len = record_begun(s);
	if (len < 0)
		return len;
	if (peek || (size_t)len > room + RECORD_OVERHEAD)
		return hold_record(s, a, fd);
	want = session_min(room + RECORD_OVERHEAD, SESSION_PLAIN) - s->rx_have;
	r = session_draw(s, fd, rx_block(s) + s->rx_have, want);
	if (r == 0 && !s->rx_have)
		return take_end(s, 0);
	if (r <= 0)
		return take_end(s, r);
	*dry = (size_t)r < want;
	s->rx_have += (uint32_t)r;
	return open_whole(s, a, iov, skip);
}

/* Plaintext that waits in the session; the last of it lets the held byte go. */
static size_t deliver(struct session *s, int fd, const struct iovec *iov, size_t skip, size_t room,
		      bool peek)
{
	size_t n = session_min(s->plain_end - s->plain_off, room);
	uint8_t last;

	iov_put(iov, skip, rx_block(s) + SESSION_PLAIN + s->plain_off, n);
	if (peek)
		return n;
	s->plain_off += (uint32_t)n;
	if (s->plain_off == s->plain_end) {
		s->plain_off = s->plain_end = 0;
		session_draw(s, fd, &last, 1);
	}
	return n;
}

/* MSG_PEEK sees past the record that waits in the session: the whole ones behind it are opened on copies. */
static size_t peek_more(struct session *s, struct session_aead *a, int fd, const struct iovec *iov,
			size_t skip, size_t room)
{
	uint8_t *block = pool_get(), type = RECORD_DATA;
	struct record_keys keys = s->rx;
	size_t done = 0;
	uint32_t at = 1; /* the last byte of the record that waits */
	ssize_t len, n;

	while (block && done < room && session_wire(fd) > (int)at &&
	       session_peek_at(fd, at, block, RECORD_HEADER) == RECORD_HEADER) {
		len = record_wire_length(block);
		if (len < 0 || session_peek_at(fd, at, block, (size_t)len) != len)
			break;
		n = record_open(a->rx, &keys, block, (size_t)len, block + SESSION_PLAIN, &type);
		if (n < 0 || type != RECORD_DATA)
			break;
		n = (ssize_t)session_min((size_t)n, room - done);
		iov_put(iov, skip + done, block + SESSION_PLAIN, (size_t)n);
		done += (size_t)n;
		at += (uint32_t)len;
	}
	record_keys_wipe(&keys);
	pool_put(block);
	return done;
}

static void settle(struct session *s, int fd)
{
	session_set_lowat(s, fd, 1);
	if (!s->rx_have && !s->plain_end)
		session_unblock(s, false);
}

static ssize_t recv_all(struct session *s, struct session_aead *a, int fd, const struct iovec *iov,
			size_t skip, size_t n, bool peek)
{
	bool dry = false;
	size_t done = 0;
	ssize_t r = 0;

	while (done < n && r >= 0 && !(peek && done)) {
		if (s->plain_end) {
			done += deliver(s, fd, iov, skip + done, n - done, peek);
			continue;
		}
		if (s->rx_eof || s->error || (done && dry))
			break;
		if (skip + done && session_wire(fd) <= 0) {
			r = -EAGAIN; /* an error that follows bytes is for the next call: the kernel tells it once */
			break;
		}
		r = session_fill(s, a, fd, iov, skip + done, n - done, peek, &dry);
		if (r > 0)
			done += (size_t)r;
	}
	if (done && peek)
		done += peek_more(s, a, fd, iov, skip + done, n - done);
	if (done)
		return (ssize_t)done;
	if (r == -ESHUTDOWN && !s->error)
		return 0;
	return r < 0 && !s->error ? r : s->rx_eof ? 0 : s->error ? s->error : r;
}

static ssize_t take_nothing(struct session *s, int fd)
{
	uint8_t none;
	ssize_t r = session_take(fd, &none, 0, 0);

	if (r >= 0 || r == -EAGAIN)
		return 0;
	s->rx_over = true;
	return r;
}

ssize_t session_recv(struct session *s, struct session_aead *a, int fd, const struct iovec *iov,
		     size_t skip, size_t n, int flags)
{
	ssize_t r;

	if (!n) /* the socket tells an error to this too, and that once */
		return session_is_dry(s) ? take_nothing(s, session_fd(a, fd)) : 0;
	r = session_enter(s, &s->rx_lock);
	if (r)
		return r;
	fd = session_fd(a, fd);
	r = recv_all(s, a, fd, iov, skip, n, flags & MSG_PEEK);
	if (s->told && !s->seen_records && !s->plain_end) {
		s->told = false;
		if (session_wire(fd) > 0)
			session_is_ready(s, a, fd);
	}
	settle(s, fd);
	if (s->tx_rekey && session_try(&s->tx_lock)) {
		if (!s->tx_end && !s->tx_held && !s->tx_closed)
			session_rekey(s, a, fd);
		session_leave(&s->tx_lock);
	}
	session_leave(&s->rx_lock);
	return r;
}
