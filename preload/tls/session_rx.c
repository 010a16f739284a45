#include <errno.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include "sys/sys.h"
#include "tls/session_int.h"

#define KEY_UPDATE_WIRE (RECORD_OVERHEAD + 5)
#define ALERT_WIRE (RECORD_OVERHEAD + 2)
#define PEEK_SKIPS 128 /* blocks: 8.5 MB, more than tcp_rmem allows by default */

static size_t min_size(size_t a, size_t b)
{
	return a < b ? a : b;
}

/* Where byte `skip` of the iovec lies, and how much room follows it in its segment. */
static uint8_t *iov_at(const struct iovec *iov, size_t skip, size_t *room)
{
	while (skip >= iov->iov_len)
		skip -= iov++->iov_len;
	*room = iov->iov_len - skip;
	return (uint8_t *)iov->iov_base + skip;
}

/* Takes bytes out of the socket. What was counted of them is gone with them. */
static long take(struct session *s, int fd, void *buf, size_t n)
{
	long r = session_take(fd, buf, n, 0);

	if (r > 0)
		s->seen_wire -= (uint32_t)min_size(s->seen_wire, (size_t)r);
	return r;
}

static void iov_put(const struct iovec *iov, size_t skip, const uint8_t *from, size_t n)
{
	while (n) {
		size_t room;
		uint8_t *to = iov_at(iov, skip, &room);
		size_t k = min_size(room, n);

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
	if (r == 0)
		return s->rx_shut ? -ESHUTDOWN
				  : session_fail(s, -ECONNRESET, WEFT_REASON_TRUNCATED);
	s->rx_eof |= r != -EAGAIN;
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
		r = take(s, fd, rx_block(s) + s->rx_have, want - s->rx_have);
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
		take(s, fd, &last, 1);
	return type == RECORD_DATA ? 0 : take_control(s, type, plain, (size_t)n);
}

/* Takes what the socket has, at most so much that every whole record in it fits the room.
 * Returns plaintext bytes delivered (0: look again), or -errno. *dry: the socket had no more. */
static ssize_t fill(struct session *s, struct session_aead *a, int fd, const struct iovec *iov,
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
	want = min_size(room + RECORD_OVERHEAD, SESSION_PLAIN) - s->rx_have;
	r = take(s, fd, rx_block(s) + s->rx_have, want);
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
	size_t n = min_size(s->plain_end - s->plain_off, room);
	uint8_t last;

	iov_put(iov, skip, rx_block(s) + SESSION_PLAIN + s->plain_off, n);
	if (peek)
		return n;
	s->plain_off += (uint32_t)n;
	if (s->plain_off == s->plain_end) {
		s->plain_off = s->plain_end = 0;
		take(s, fd, &last, 1);
	}
	return n;
}

/* Peeks `n` bytes that lie `at` bytes behind the head of the socket. Kernels before 6.9 cannot skip in a peek of TCP: there
 * the bytes in between go to a block that nobody reads. */
static long peek_at(int fd, uint32_t at, uint8_t *buf, size_t n)
{
	struct iovec iov[PEEK_SKIPS + 1];
	struct msghdr msg = { .msg_iov = iov };
	int off = (int)at;
	void *skip;
	long r;

	if (sys_call(SYS_setsockopt, fd, SOL_SOCKET, SO_PEEK_OFF, (long)&off, sizeof(off), 0) ==
	    0) {
		r = session_take(fd, buf, n, MSG_PEEK);
		off = -1;
		sys_call(SYS_setsockopt, fd, SOL_SOCKET, SO_PEEK_OFF, (long)&off, sizeof(off), 0);
		return r;
	}
	skip = pool_get();
	if (!skip || at > PEEK_SKIPS * POOL_BLOCK) {
		pool_put(skip);
		return -ENOMEM;
	}
	for (uint32_t left = at; left; left -= (uint32_t)iov[msg.msg_iovlen++].iov_len)
		iov[msg.msg_iovlen] = (struct iovec){ skip, min_size(left, POOL_BLOCK) };
	iov[msg.msg_iovlen++] = (struct iovec){ buf, n };
	r = sys_call(SYS_recvmsg, fd, (long)&msg, MSG_PEEK | MSG_DONTWAIT, 0, 0, 0);
	pool_put(skip);
	return r > (long)at ? r - (long)at : r < 0 ? r : -EAGAIN;
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

	while (block && done < room && peek_at(fd, at, block, RECORD_HEADER) == RECORD_HEADER) {
		len = record_wire_length(block);
		if (len < 0 || peek_at(fd, at, block, (size_t)len) != len)
			break;
		n = record_open(a->rx, &keys, block, (size_t)len, block + SESSION_PLAIN, &type);
		if (n < 0 || type != RECORD_DATA)
			break;
		n = (ssize_t)min_size((size_t)n, room - done);
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
		if (s->rx_eof || s->error || (dry && done))
			break;
		r = fill(s, a, fd, iov, skip + done, n - done, peek, &dry);
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

/* The peer sent FIN (or worse): no more bytes will come. */
static bool is_at_end(int fd)
{
	struct tcp_info info;
	socklen_t len = sizeof(info);

	memset(&info, 0, sizeof(info));
	sys_call(SYS_getsockopt, fd, IPPROTO_TCP, TCP_INFO, (long)&info, (long)&len, 0);
	return info.tcpi_state != TCP_ESTABLISHED && info.tcpi_state != TCP_FIN_WAIT1 &&
	       info.tcpi_state != TCP_FIN_WAIT2;
}

/* A record of the size of a KeyUpdate: is it one, or five bytes of data? Opened on copies, nothing moves on. */
static bool is_data(struct session *s, struct session_aead *a, const uint8_t *rec, size_t len,
		    uint32_t ahead)
{
	struct record_keys keys = s->rx;
	uint8_t plain[8] = { 0 }, type = RECORD_DATA;

	keys.seq += ahead;
	if (len == KEY_UPDATE_WIRE || len == ALERT_WIRE)
		record_open(a->rx, &keys, rec, len, plain, &type);
	record_keys_wipe(&keys);
	return type == RECORD_DATA;
}

/* Header, and as much of a small record as tells what it is. Returns its wire length; 0: not whole; -errno. */
static ssize_t look_at_record(struct session *s, int fd, uint8_t rec[KEY_UPDATE_WIRE])
{
	size_t have = min_size(s->rx_have, KEY_UPDATE_WIRE);
	long r;

	if (have)
		memcpy(rec, rx_block(s), have);
	if (have < KEY_UPDATE_WIRE) {
		r = session_take(fd, rec + have, KEY_UPDATE_WIRE - have, MSG_PEEK);
		if (r <= 0)
			return r < 0 ? r : -ECONNRESET;
		have += (size_t)r;
	}
	return have < RECORD_HEADER ? 0 : record_wire_length(rec);
}

/* A part of a record is nothing that a poller need know of: it is taken into the session, so that the kernel is silent until
 * more comes. A mark (SO_RCVLOWAT) for what is missing would do the same with fewer wake-ups, but where segments are large
 * the kernel clamps the window to the mark, and reader and writer then wait for each other (tcp_set_rcvlowat). */
static void take_part(struct session *s, int fd, size_t have)
{
	long r;

	if (!session_block(s, false) || s->rx_have + have > SESSION_PLAIN)
		return;
	r = take(s, fd, rx_block(s) + s->rx_have, have);
	if (r > 0)
		s->rx_have += (uint32_t)r;
}

static bool is_ready(struct session *s, struct session_aead *a, int fd);

/* A KeyUpdate is nothing that a program could read: take it, and look at what follows. */
static bool obey(struct session *s, struct session_aead *a, int fd)
{
	uint8_t none[8];
	struct iovec iov = { .iov_base = none, .iov_len = sizeof(none) };
	bool dry;

	return fill(s, a, fd, &iov, 0, KEY_UPDATE_WIRE - RECORD_OVERHEAD, false, &dry) < 0 ||
	       is_ready(s, a, fd);
}

static bool is_ready(struct session *s, struct session_aead *a, int fd)
{
	uint8_t rec[KEY_UPDATE_WIRE];
	ssize_t len;
	uint32_t need;
	int have = 0;

	if (s->plain_end || s->rx_eof || s->error)
		return true;
	len = look_at_record(s, fd, rec);
	if (len < 0)
		return len != -EAGAIN;
	sys_call(SYS_ioctl, fd, FIONREAD, (long)&have, 0, 0, 0);
	need = len ? (uint32_t)len - s->rx_have : RECORD_HEADER - s->rx_have;
	if (len && (size_t)have >= need)
		return len != KEY_UPDATE_WIRE || is_data(s, a, rec, (size_t)len, 0) ||
		       obey(s, a, fd);
	if (is_at_end(fd))
		return true;
	if (have > 0)
		take_part(s, fd, (size_t)have);
	return false;
}

bool session_ready(struct session *s, struct session_aead *a, int fd)
{
	bool ready;

	if (!session_try(&s->rx_lock))
		return true; /* somebody is reading: he will find out, as with two readers of a bare socket */
	ready = is_ready(s, a, session_fd(a, fd));
	session_leave(&s->rx_lock);
	return ready;
}

void session_drain_end(struct session *s, struct session_aead *a, int fd)
{
	uint8_t rec[KEY_UPDATE_WIRE];
	int have = 0;

	if (session_enter(s, &s->rx_lock))
		return;
	fd = session_fd(a, fd);
	sys_call(SYS_ioctl, fd, FIONREAD, (long)&have, 0, 0, 0);
	if (have == ALERT_WIRE && !s->rx_have && !s->plain_end &&
	    look_at_record(s, fd, rec) == ALERT_WIRE && !is_data(s, a, rec, ALERT_WIRE, 0))
		take(s, fd, rec, ALERT_WIRE);
	session_leave(&s->rx_lock);
}

/* Counts the records that follow those counted before, of the `have` bytes in the socket. */
static void count_records(struct session *s, struct session_aead *a, int fd, uint32_t have)
{
	uint8_t rec[KEY_UPDATE_WIRE];
	uint32_t at = s->seen_wire;
	ssize_t len;

	if (!at && s->plain_end)
		at = 1; /* the last byte of the record that is being read */
	for (;;) {
		uint32_t held = at ? 0 : s->rx_have;
		size_t n = min_size(held, sizeof(rec));

		if (n)
			memcpy(rec, rx_block(s), n);
		if (at >= have ||
		    (n < sizeof(rec) && (len = peek_at(fd, at, rec + n, sizeof(rec) - n)) <= 0) ||
		    n + (n < sizeof(rec) ? (size_t)len : 0) < RECORD_HEADER)
			break;
		len = record_wire_length(rec);
		if (len < 0 || have - at < (uint32_t)len - held)
			break;
		if (is_data(s, a, rec, (size_t)len, s->seen_records))
			s->seen_plain += (uint32_t)len - RECORD_OVERHEAD;
		s->seen_records++;
		at += (uint32_t)len - held;
		s->seen_wire = at;
	}
}

/* Who asks how much there is (nginx) reads so much and then waits for the kernel to say more. The part of a record that lies
 * behind must then be out of the socket, or the window stays shut and nothing more can come. */
static ssize_t unread(struct session *s, struct session_aead *a, int fd)
{
	int have = 0;

	long r = sys_call(SYS_ioctl, fd, FIONREAD, (long)&have, 0, 0, 0);

	if (r < 0)
		return r;
	count_records(s, a, fd, (uint32_t)have);
	s->told = s->seen_records || s->plain_end;
	if (!s->told)
		is_ready(s, a, fd);
	return s->plain_end - s->plain_off + s->seen_plain;
}

ssize_t session_unread(struct session *s, struct session_aead *a, int fd)
{
	ssize_t r = session_enter(s, &s->rx_lock);

	if (r)
		return r;
	r = unread(s, a, session_fd(a, fd));
	session_leave(&s->rx_lock);
	return r;
}

ssize_t session_recv(struct session *s, struct session_aead *a, int fd, const struct iovec *iov,
		     size_t skip, size_t n, int flags)
{
	ssize_t r;

	if (!n)
		return 0;
	r = session_enter(s, &s->rx_lock);
	if (r)
		return r;
	fd = session_fd(a, fd);
	r = recv_all(s, a, fd, iov, skip, n, flags & MSG_PEEK);
	if (s->told && !s->seen_records && !s->plain_end) {
		s->told = false;
		is_ready(s, a, fd);
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
