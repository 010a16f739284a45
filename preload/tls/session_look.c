/* Looking at what the socket holds, without delivering it: is something there to read, and how much? */
#include <errno.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include "sys/sys.h"
#include "tls/session_int.h"

#define ALERT_WIRE (RECORD_OVERHEAD + 2)
#define PEEK_SKIPS 128 /* blocks: 8.5 MB, more than tcp_rmem allows by default */

/* Kernels before 6.9 cannot skip in a peek of TCP: there the bytes in between go to a block that nobody reads. */
long session_peek_at(int fd, uint32_t at, uint8_t *buf, size_t n)
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
		iov[msg.msg_iovlen] = (struct iovec){ skip, session_min(left, POOL_BLOCK) };
	iov[msg.msg_iovlen++] = (struct iovec){ buf, n };
	r = sys_call(SYS_recvmsg, fd, (long)&msg, MSG_PEEK | MSG_DONTWAIT, 0, 0, 0);
	pool_put(skip);
	return r > (long)at ? r - (long)at : r < 0 ? r : -EAGAIN;
}

int session_wire(int fd)
{
	int have = 0;

	sys_call(SYS_ioctl, fd, FIONREAD, (long)&have, 0, 0, 0);
	return have;
}

int session_tcp_state(int fd)
{
	struct tcp_info info = { .tcpi_state = TCP_CLOSE };
	socklen_t len = sizeof(info);

	sys_call(SYS_getsockopt, fd, IPPROTO_TCP, TCP_INFO, (long)&info, (long)&len, 0);
	return info.tcpi_state;
}

bool session_peer_ended(int fd)
{
	int state = session_tcp_state(fd);

	return state != TCP_ESTABLISHED && state != TCP_FIN_WAIT1 && state != TCP_FIN_WAIT2;
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
	size_t have = session_min(s->rx_have, KEY_UPDATE_WIRE);
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
	r = session_draw(s, fd, rx_block(s) + s->rx_have, have);
	if (r > 0)
		s->rx_have += (uint32_t)r;
}

/* A KeyUpdate is nothing that a program could read: take it, and look at what follows. */
static bool obey(struct session *s, struct session_aead *a, int fd)
{
	uint8_t none[8];
	struct iovec iov = { .iov_base = none, .iov_len = sizeof(none) };
	bool dry;

	return session_fill(s, a, fd, &iov, 0, KEY_UPDATE_WIRE - RECORD_OVERHEAD, false, &dry) <
		       0 ||
	       session_is_ready(s, a, fd);
}

bool session_is_ready(struct session *s, struct session_aead *a, int fd)
{
	uint8_t rec[KEY_UPDATE_WIRE];
	ssize_t len;
	uint32_t need;
	int have;

	if (s->plain_end || s->rx_eof || s->rx_over || s->error)
		return true;
	have = session_wire(fd);
	if (have <= 0) /* the look would take an error with it, which the kernel tells once */
		return session_peer_ended(fd);
	len = look_at_record(s, fd, rec);
	if (len < 0)
		return len != -EAGAIN;
	need = len ? (uint32_t)len - s->rx_have : RECORD_HEADER - s->rx_have;
	if (len && (size_t)have >= need)
		return len != KEY_UPDATE_WIRE || is_data(s, a, rec, (size_t)len, 0) ||
		       obey(s, a, fd);
	if (session_peer_ended(fd))
		return true;
	take_part(s, fd, (size_t)have);
	return false;
}

bool session_ready(struct session *s, struct session_aead *a, int fd)
{
	bool ready;

	if (!session_try(&s->rx_lock))
		return true; /* somebody is reading: he will find out, as with two readers of a bare socket */
	ready = session_is_ready(s, a, session_fd(a, fd));
	session_leave(&s->rx_lock);
	return ready;
}

int session_drain_end(struct session *s, struct session_aead *a, int fd)
{
	uint8_t rec[KEY_UPDATE_WIRE];
	int have = 0;

	if (session_enter(s, &s->rx_lock))
		return 0;
	fd = session_fd(a, fd);
	sys_call(SYS_ioctl, fd, FIONREAD, (long)&have, 0, 0, 0);
	if (have == ALERT_WIRE && !s->rx_have && !s->plain_end &&
	    look_at_record(s, fd, rec) == ALERT_WIRE && !is_data(s, a, rec, ALERT_WIRE, 0))
		have -= session_draw(s, fd, rec, ALERT_WIRE) == ALERT_WIRE ? ALERT_WIRE : 0;
	session_leave(&s->rx_lock);
	return have;
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
		size_t n = session_min(held, sizeof(rec));

		if (n)
			memcpy(rec, rx_block(s), n);
		if (at >= have ||
		    (n < sizeof(rec) &&
		     (len = session_peek_at(fd, at, rec + n, sizeof(rec) - n)) <= 0) ||
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
	if (!s->told && have > 0)
		session_is_ready(s, a, fd);
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
