/* An open TLS session on the application's own socket: seals what is written, opens what was received.
 *
 * Readiness belongs to the kernel: between calls a session holds either nothing, or a part of one record (which no poller
 * need know of), or the undelivered plaintext of one record whose last byte still lies in the socket.
 *
 * A session is plain data but for its blocks, so it can be moved into memory that a fork shares. Two locks, one per
 * direction, order rx then tx; none is held across a wait. Functions take the locks themselves, never block, and return
 * -errno; -EAGAIN means "wait for the socket" (a signal handler that interrupted a holder gets it too), -ESTALE that the
 * session moved while the caller waited for its lock. */
#ifndef TLS_SESSION_H
#define TLS_SESSION_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "sys/lock.h"
#include "tls/record.h"
#include "weft/reason.h"

#define SESSION_AHEAD 4
#define SESSION_ANYBODY 1 /* the next call, of whatever thread */

struct session {
	struct lock rx_lock, tx_lock;
	struct record_keys rx, tx;
	int error;               /* sticky -errno; what came before it is still delivered */
	enum weft_reason reason; /* why */
	bool told;               /* session_unread() gave a number that was not read yet */
	bool moved;              /* session_move() took everything: callers look for the new one */
	_Atomic bool rx_eof;     /* the peer's close_notify came */
	/* The program shut the reading side, or was told why the connection ended: where the kernel has no more bytes, it
	 * says "end", and that is no truncation. */
	_Atomic bool rx_over;
	bool tx_closed;                /* ours is sent */
	_Atomic bool over;             /* our goodbye was the second one: a reset is no news */
	bool tx_rekey;                 /* the peer asked for a KeyUpdate of ours */
	uint32_t lowat;                /* SO_RCVLOWAT on the socket */
	uint32_t rx_have;              /* bytes of an incomplete record at the start of rx_block */
	uint32_t plain_off, plain_end; /* undelivered plaintext in rx_block, from SESSION_PLAIN */
	uint32_t tx_off,
		tx_end; /* the rest of a record that the socket took in part, in tx_block */
	uint32_t
		tx_held; /* plaintext bytes that wait for more, in tx_block from SESSION_HELD; then tx_end is 0 */
	/* Each a byte that went out and that the program was not told of, by the call that comes back with it. */
	_Atomic uint64_t tx_ahead[SESSION_AHEAD];
	uint32_t tx_burst; /* records to seal before one send: few where the socket is often full */
	uint32_t seen_wire, seen_plain,
		seen_records; /* whole records at the head of the socket, counted by session_unread() */
	intptr_t rx_at, tx_at; /* blocks, by distance from here: each holder maps them elsewhere */
	intptr_t own; /* two blocks for this session alone, in shared memory; 0: of the pool */
};

/* What is this process's own of a session: the AEAD contexts, and where the socket is. */
struct session_aead {
	struct record_aead *rx, *tx;
	_Atomic bool
		holds; /* this process held something back; another may have sent it. Counts in session_holds */
	/* Descriptor + 1 that stands for those that callers name, which were closed; 0: theirs is good. Changes only while
	 * both locks of the session are held. */
	_Atomic int kept;
};

static inline int session_fd(const struct session_aead *a, int fd)
{
	int kept = atomic_load_explicit(&a->kept, memory_order_relaxed);

	return __builtin_expect(kept != 0, 0) ? kept - 1 : fd;
}

/* Anew, but for `lowat` and `own`. Nobody else may know of `s` yet. */
void session_start(struct session *s, const struct record_keys *rx, const struct record_keys *tx);
void session_wipe(struct session *s); /* frees blocks, forgets keys */
/* Moves `from` into memory that a fork will share: `to`, and `own` of 2 * POOL_BLOCK bytes. Both locks are held. */
void session_move(struct session *to, struct session *from, uint8_t *own);

/* A session written down: the struct itself, and what its blocks hold. Both locks are held. */
#define SESSION_PARTS 4
size_t session_write(const struct session *s, struct session *image,
		     struct iovec part[static SESSION_PARTS]);
/* Anew from such bytes, which anybody may have made. 0, -EBADMSG, -ENOMEM. Nobody else may know of `s` yet. */
int session_read(struct session *s, const void *bytes, size_t n);

/* The error in force from now on: `err` (negative), or what came before it. */
int session_fail(struct session *s, int err, enum weft_reason reason);

/* As recv(2) and send(2) on a stream, for `n` bytes of `iov` after its first `skip`. recv knows MSG_PEEK, send
 * MSG_NOSIGNAL and MSG_MORE: less than a record of that stays here until there is more. */
ssize_t session_recv(struct session *s, struct session_aead *a, int fd, const struct iovec *iov,
		     size_t skip, size_t n, int flags);
ssize_t session_send(struct session *s, struct session_aead *a, int fd, const struct iovec *iov,
		     size_t skip, size_t n, int flags);
/* The same for a call that goes on with what was not taken, when the socket has room: `who` tells it from those of other
 * threads and of signal handlers meanwhile. It ends with session_sent(). */
ssize_t session_send_as(struct session *s, struct session_aead *a, int fd, const struct iovec *iov,
			size_t skip, size_t n, int flags, uint64_t who);
void session_sent(struct session *s, uint64_t who);

/* Would a read return something (data, EOF, error) now? If not, the socket is emptied of what there is of a record, so that
 * the kernel says "readable" only when more has come. */
bool session_ready(struct session *s, struct session_aead *a, int fd);
int session_set_lowat(struct session *s, int fd, uint32_t lowat); /* no call if it is so already */
/* Nothing of the session itself answers a read: no plaintext, end or error. A hint, taken without the lock. */
bool session_is_dry(const struct session *s);
/* Of the socket itself: sealed bytes that it holds; its state (TCP_ESTABLISHED...); the peer's FIN, or worse, has come. */
int session_wire(int fd);
int session_tcp_state(int fd);
bool session_peer_ended(int fd);
/* Plaintext that can be read now: exact. */
ssize_t session_unread(struct session *s, struct session_aead *a, int fd);
/* Sessions in which this process holds something back. The kernel would send it after 200 ms; here whoever is about to wait
 * sends it, lest the answer be waited for before the question is sent. */
extern _Atomic int session_holds;
/* Seals and sends what is held back; the kernel may keep it back still if `flags` have MSG_MORE. 1: it went; 0: there was
 * nothing; -errno. */
int session_push(struct session *s, struct session_aead *a, int fd, int flags);
void session_unhold(struct session_aead *a); /* what is held back is nothing any more */
/* Sends what is left of a record. 0, -EAGAIN, or the error of the socket. */
int session_flush(struct session *s, const struct session_aead *a, int fd);
/* Before a close: a close_notify of the peer that nobody read is taken, so that the kernel ends with FIN, not RST. Returns how
 * many other bytes were there: what comes later is not the program's to be blamed for. */
int session_drain_end(struct session *s, struct session_aead *a, int fd);
/* Flushes and sends an alert: close_notify (0) ends our direction. shutdown() or close() must follow: the alert waits for the
 * FIN, so that a poller sees both at once. Does its best on a full socket; may wait 2 s there. */
void session_alert(struct session *s, struct session_aead *a, int fd, uint8_t description);

#endif
