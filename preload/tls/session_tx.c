#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include "sys/ready.h"
#include "sys/sys.h"
#include "tls/session_int.h"

#define TX_REKEY_AT \
	(1u << 23) /* records under one key: half of what RFC 8446 section 5.5 allows AES-GCM */
#define TX_LAST_WAIT_MS 2000

_Atomic int session_holds;

/* The rest of a record that the socket took in part goes out before anything else. */
static int flush(struct session *s, int fd, int flags)
{
	while (s->tx_off < s->tx_end) {
		long r = session_put(fd, tx_block(s) + s->tx_off, s->tx_end - s->tx_off,
				     MSG_NOSIGNAL | (flags & MSG_MORE));

		if (r < 0)
			return (int)r;
		s->tx_off += (uint32_t)r;
	}
	s->tx_off = s->tx_end = 0;
	session_unblock(s, true);
	return 0;
}

/* Puts `to` where `from` is. false: nowhere. */
static bool ahead(struct session *s, uint64_t from, uint64_t to)
{
	unsigned i;

	for (i = 0; i < SESSION_AHEAD; i++) {
		uint64_t was = from;

		if (atomic_load_explicit(&s->tx_ahead[i], memory_order_relaxed) == from &&
		    atomic_compare_exchange_strong(&s->tx_ahead[i], &was, to))
			return true;
	}
	return false;
}

/* The socket took `sent` bytes of the `k` records in tx_block, record i of plain[i] bytes. Those of which nothing went out
 * never happened. One that went out in part stays as the rest to flush; if it is the last of what the program wrote, the
 * program is told one byte less, so that it comes back and the rest follows. Returns plaintext bytes taken. */
static size_t take_back(struct session *s, const uint32_t *plain, unsigned k, size_t sent,
			size_t asked, uint64_t who)
{
	size_t off = 0, taken = 0;
	unsigned i = 0;

	while (i < k && off + plain[i] + RECORD_OVERHEAD <= sent) {
		off += plain[i] + RECORD_OVERHEAD;
		taken += plain[i++];
	}
	if (off == sent) {
		s->tx.seq -= k - i;
		session_unblock(s, true);
		return taken;
	}
	s->tx.seq -= k - i - 1;
	s->tx_off = (uint32_t)sent;
	s->tx_end = (uint32_t)(off + plain[i] + RECORD_OVERHEAD);
	taken += plain[i];
	if (taken == asked && ahead(s, 0, who))
		taken--;
	return taken;
}

/* Seals and sends a burst of records. Returns plaintext bytes taken, or -errno. *full: the socket took only a part. */
static ssize_t send_batch(struct session *s, struct session_aead *a, int fd,
			  const struct iovec *iov, size_t skip, size_t n, int flags, uint64_t who,
			  bool *full)
{
	uint8_t *block = session_block(s, true);
	uint32_t plain[SESSION_BURST];
	size_t wire = 0, sealed = 0;
	unsigned k = 0;
	long r;

	if (!block)
		return -ENOMEM;
	for (; k < s->tx_burst && sealed < n; k++) {
		plain[k] = (uint32_t)(n - sealed < WEFT_RECORD_MAX ? n - sealed : WEFT_RECORD_MAX);
		r = record_seal(a->tx, &s->tx, RECORD_DATA, iov, skip + sealed, plain[k],
				block + wire);
		if (r < 0)
			return session_fail(s, -EIO, WEFT_REASON_BAD_RECORD);
		wire += (size_t)r;
		sealed += plain[k];
	}
	r = session_put(fd, block, wire, MSG_NOSIGNAL | (flags & MSG_MORE));
	if (r == (long)wire) {
		s->tx_burst = s->tx_burst < SESSION_BURST ? s->tx_burst * 2 : SESSION_BURST;
		return (ssize_t)sealed;
	}
	s->tx_burst = 1; /* what is sealed in vain is sealed again */
	if (r < 0) {
		s->tx.seq -= k;
		session_unblock(s, true);
		return r;
	}
	*full = true;
	return (ssize_t)take_back(s, plain, k, (size_t)r, n, who);
}

void session_sent(struct session *s, uint64_t who)
{
	ahead(s, who, SESSION_ANYBODY);
}

/* A part of a record that holds one byte would go out untold. */
static bool has_room(int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLOUT };
	struct timespec now = { 0 };

	return ready_poll(&p, 1, &now, NULL) != 0;
}

static ssize_t send_all(struct session *s, struct session_aead *a, int fd, const struct iovec *iov,
			size_t skip, size_t n, int flags, uint64_t who)
{
	size_t done = 0;
	ssize_t r = 0;

	if (n == 1 && !has_room(fd))
		return -EAGAIN;
	while (done < n) {
		bool full = false;

		r = send_batch(s, a, fd, iov, skip + done, n - done, flags, who, &full);
		if (r < 0)
			break;
		done += (size_t)r;
		if (full) {
			r = -EAGAIN;
			break;
		}
	}
	if (!s->tx_end)
		session_unblock(s, true);
	return done ? (ssize_t)done : r;
}

static void gather(uint8_t *to, const struct iovec *iov, size_t skip, size_t n)
{
	while (n) {
		size_t k;

		while (skip >= iov->iov_len)
			skip -= iov++->iov_len;
		k = iov->iov_len - skip < n ? iov->iov_len - skip : n;
		memcpy(to, (const uint8_t *)iov->iov_base + skip, k);
		to += k;
		skip += k;
		n -= k;
	}
}

static void count_held(struct session_aead *a, bool holds)
{
	if (atomic_exchange_explicit(&a->holds, holds, memory_order_relaxed) != holds)
		atomic_fetch_add_explicit(&session_holds, holds ? 1 : -1, memory_order_relaxed);
}

void session_unhold(struct session_aead *a)
{
	count_held(a, false);
}

/* What was held back becomes a record that waits to be sent. */
static int seal_held(struct session *s, struct session_aead *a)
{
	uint32_t n = s->tx_held < WEFT_RECORD_MAX ? s->tx_held : WEFT_RECORD_MAX;
	struct iovec iov = { .iov_base = tx_block(s) + SESSION_HELD, .iov_len = n };
	ssize_t r = record_seal(a->tx, &s->tx, RECORD_DATA, &iov, 0, n, tx_block(s));

	if (r < 0)
		return session_fail(s, -EIO, WEFT_REASON_BAD_RECORD);
	session_unhold(a);
	s->tx_held = 0;
	s->tx_off = 0;
	s->tx_end = (uint32_t)r;
	return 0;
}

/* Adds to what is held back. A full record goes out, and so does what is not followed by more. */
static ssize_t send_held(struct session *s, struct session_aead *a, int fd, const struct iovec *iov,
			 size_t skip, size_t n, int flags, uint64_t who)
{
	size_t room = WEFT_RECORD_MAX - s->tx_held, done;
	ssize_t r;

	if (room > WEFT_RECORD_MAX || !session_block(s, true))
		return -ENOMEM;
	done = n < room ? n : room;
	gather(tx_block(s) + SESSION_HELD + s->tx_held, iov, skip, done);
	s->tx_held += (uint32_t)done;
	if (flags & MSG_MORE && s->tx_held < WEFT_RECORD_MAX) {
		count_held(a, true);
		return (ssize_t)done;
	}
	r = seal_held(s, a);
	if (!r)
		r = flush(s, fd, done < n ? MSG_MORE : flags);
	if (r == -EAGAIN && done == n && ahead(s, 0, who)) /* as in take_back() */
		done--;
	if (!r && done < n)
		r = send_all(s, a, fd, iov, skip + done, n - done, flags, who);
	if (r > 0)
		done += (size_t)r;
	return r >= 0 || (r == -EAGAIN && done) ? (ssize_t)done : r;
}

/* What went out before anybody was told of it, then the rest. */
static ssize_t send_some(struct session *s, struct session_aead *a, int fd, const struct iovec *iov,
			 size_t skip, size_t n, int flags, uint64_t who)
{
	size_t told = ahead(s, who, 0) || ahead(s, SESSION_ANYBODY, 0);
	ssize_t r = 0;

	if (told < n && (s->tx_held || (flags & MSG_MORE && n - told < WEFT_RECORD_MAX)))
		r = send_held(s, a, fd, iov, skip + told, n - told, flags, who);
	else if (told < n)
		r = send_all(s, a, fd, iov, skip + told, n - told, flags, who);
	return told ? (ssize_t)told + (r > 0 ? r : 0) : r;
}

int session_rekey(struct session *s, struct session_aead *a, int fd)
{
	static const uint8_t key_update[5] = {
		24, 0, 0, 1, 0
	}; /* RFC 8446 section 4.6.3, update_not_requested */
	struct iovec iov = { .iov_base = (void *)(uintptr_t)key_update,
			     .iov_len = sizeof(key_update) };
	uint8_t *block = session_block(s, true);
	ssize_t r;

	if (!block)
		return -ENOMEM;
	r = record_seal(a->tx, &s->tx, RECORD_HANDSHAKE, &iov, 0, sizeof(key_update), block);
	if (r < 0 || record_keys_update(&s->tx) < 0)
		return session_fail(s, -EIO, WEFT_REASON_BAD_RECORD);
	s->tx_rekey = false;
	s->tx_off = 0;
	s->tx_end = (uint32_t)r;
	return flush(s, fd, 0);
}

/* The kernel's word on a write of which it gets no byte now: the connection may be over, or this side of it shut. */
static ssize_t ask(int fd, int flags)
{
	static const uint8_t none;

	return session_put(fd, &none, 0, flags);
}

/* The kernel has told why the connection ended, and tells it once. */
static bool is_end(ssize_t r)
{
	return r == -ECONNRESET || r == -ETIMEDOUT || r == -EHOSTUNREACH || r == -ENETUNREACH;
}

ssize_t session_send(struct session *s, struct session_aead *a, int fd, const struct iovec *iov,
		     size_t skip, size_t n, int flags)
{
	return session_send_as(s, a, fd, iov, skip, n, flags, SESSION_ANYBODY);
}

ssize_t session_send_as(struct session *s, struct session_aead *a, int fd, const struct iovec *iov,
			size_t skip, size_t n, int flags, uint64_t who)
{
	ssize_t r = session_enter(s, &s->tx_lock);

	if (r)
		return r;
	fd = session_fd(a, fd);
	if (s->error)
		r = s->error;
	else if (s->tx_closed) /* after shutdown the kernel has the answer */
		r = ask(fd, MSG_NOSIGNAL);
	else
		r = flush(s, fd, flags);
	if (s->tx_closed && (!r || (r == -ECONNRESET && s->over)))
		r = -EPIPE;
	if (!r && !s->tx_held && (s->tx_rekey || s->tx.seq >= TX_REKEY_AT))
		r = session_rekey(s, a, fd);
	if (!r && (!n || (flags & MSG_MORE && n < WEFT_RECORD_MAX)))
		r = ask(fd, MSG_NOSIGNAL);
	if (!r && n)
		r = send_some(s, a, fd, iov, skip, n, flags, who);
	if (is_end(r) && !s->error)
		s->rx_over = true;
	session_leave(&s->tx_lock);
	if (r == -EPIPE &&
	    !(flags & MSG_NOSIGNAL)) /* the signal, now that its handler may do what it likes */
		ask(session_fd(a, fd), 0);
	return r;
}

int session_flush(struct session *s, const struct session_aead *a, int fd)
{
	int r;

	if (!s->tx_end)
		return 0;
	r = session_enter(s, &s->tx_lock);
	if (r)
		return r;
	r = flush(s, session_fd(a, fd), 0);
	session_leave(&s->tx_lock);
	return r;
}

static void enlarge(int fd)
{
	int size = 0;
	socklen_t len = sizeof(size);

	sys_call(SYS_getsockopt, fd, SOL_SOCKET, SO_SNDBUF, (long)&size, (long)&len, 0);
	size = size / 2 + (int)POOL_BLOCK;
	sys_call(SYS_setsockopt, fd, SOL_SOCKET, SO_SNDBUF, (long)&size, sizeof(size), 0);
}

int session_push(struct session *s, struct session_aead *a, int fd, int flags)
{
	int r;

	if (!s->tx_held && !a->holds)
		return 0;
	r = session_enter(s, &s->tx_lock);
	if (r)
		return r;
	fd = session_fd(a, fd);
	session_unhold(a);
	if (!s->tx_held)
		goto out;
	r = seal_held(s, a);
	if (!r)
		r = flush(s, fd, flags);
	if (r == -EAGAIN) { /* the program was told that it is sent, and may never call again */
		enlarge(fd);
		r = flush(s, fd, flags);
	}
	r = r ? r : 1;
out:
	session_leave(&s->tx_lock);
	return r;
}

/* The last bytes before an end: a full send buffer is made larger, or waited for, so that nothing accepted is lost. */
static void flush_last(struct session *s, int fd, int more)
{
	struct pollfd p = { .fd = fd, .events = POLLOUT };
	struct timespec wait = { .tv_sec = TX_LAST_WAIT_MS / 1000 };

	if (flush(s, fd, more) != -EAGAIN)
		return;
	enlarge(fd);
	while (flush(s, fd, more) == -EAGAIN)
		if (ready_poll(&p, 1, &wait, NULL) <= 0)
			break;
}

void session_alert(struct session *s, struct session_aead *a, int fd, uint8_t description)
{
	uint8_t alert[2] = { description ? 2 : 1, description };
	struct iovec iov = { .iov_base = alert, .iov_len = sizeof(alert) };
	ssize_t r;

	if (session_enter(s, &s->tx_lock))
		return;
	fd = session_fd(a, fd);
	if (s->tx_end || (s->tx_held && !seal_held(s, a)))
		flush_last(s, fd, 0);
	if (!s->tx_end && !s->tx_closed && session_block(s, true)) {
		r = record_seal(a->tx, &s->tx, RECORD_ALERT, &iov, 0, sizeof(alert), tx_block(s));
		s->tx_end = r > 0 ? (uint32_t)r : 0;
		flush_last(s, fd, MSG_MORE); /* leaves together with the FIN that follows */
	}
	session_unhold(a);
	s->tx_closed = true;
	s->tx_off = s->tx_end = 0;
	session_unblock(s, true);
	session_leave(&s->tx_lock);
}
