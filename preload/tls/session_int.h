/* What session.c, session_rx.c, session_look.c and session_tx.c share. */
#ifndef TLS_SESSION_INT_H
#define TLS_SESSION_INT_H

#include <sys/syscall.h>

#include "sys/pool.h"
#include "tls/session.h"

#define SESSION_BURST 4u /* records sealed before one send, at most */

/* rx_block: ciphertext from 0, plaintext of one record from SESSION_PLAIN. */
#define SESSION_PLAIN (POOL_BLOCK - WEFT_RECORD_MAX - 256)
/* tx_block: records from 0, or what is held back from SESSION_HELD. */
#define SESSION_HELD (POOL_BLOCK - WEFT_RECORD_MAX)

/* A record of this length or less may be one of TLS's own. */
#define KEY_UPDATE_WIRE (RECORD_OVERHEAD + 5)

/* NULL: there is none. */
static inline uint8_t *rx_block(const struct session *s)
{
	return s->rx_at ? (uint8_t *)((intptr_t)s + s->rx_at) : NULL;
}

static inline uint8_t *tx_block(const struct session *s)
{
	return s->tx_at ? (uint8_t *)((intptr_t)s + s->tx_at) : NULL;
}

uint8_t *session_block(struct session *s, bool tx); /* NULL: no memory */
void session_unblock(struct session *s, bool tx);
int session_enter(struct session *s, struct lock *l);
bool session_try(struct lock *l);
void session_leave(struct lock *l);
/* recvfrom or sendto without waiting. */
long session_io(long call, int fd, const void *buf, size_t n, int flags);
int session_rekey(struct session *s, struct session_aead *a, int fd); /* tx lock held */

/* session_rx.c; rx lock held. */

/* Takes bytes out of the socket. What was counted of them is gone with them. */
long session_draw(struct session *s, int fd, void *buf, size_t n);
/* Takes what the socket has, at most so much that every whole record in it fits the room.
 * Returns plaintext bytes delivered (0: look again), or -errno. *dry: the socket had no more. */
ssize_t session_fill(struct session *s, struct session_aead *a, int fd, const struct iovec *iov,
		     size_t skip, size_t room, bool peek, bool *dry);

/* session_look.c; rx lock held. */

/* Peeks `n` bytes that lie `at` bytes behind the head of the socket. */
long session_peek_at(int fd, uint32_t at, uint8_t *buf, size_t n);
/* session_ready(). */
bool session_is_ready(struct session *s, struct session_aead *a, int fd);

static inline size_t session_min(size_t a, size_t b)
{
	return a < b ? a : b;
}

#define session_take(fd, buf, n, flags) session_io(SYS_recvfrom, fd, buf, n, flags)
#define session_put(fd, buf, n, flags) session_io(SYS_sendto, fd, buf, n, flags)

#endif
