/* What session.c, session_rx.c and session_tx.c share. */
#ifndef TLS_SESSION_INT_H
#define TLS_SESSION_INT_H

#include <sys/syscall.h>

#include "sys/pool.h"
#include "tls/session.h"

#define SESSION_BURST 4u /* records sealed before one send, at most */

/* rx_block: ciphertext from 0, plaintext of one record from SESSION_PLAIN. */
#define SESSION_HELD \
	(POOL_BLOCK - WEFT_RECORD_MAX) /* in tx_block: behind a record of that length */
#define SESSION_PLAIN (POOL_BLOCK - WEFT_RECORD_MAX - 256)

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

#define session_take(fd, buf, n, flags) session_io(SYS_recvfrom, fd, buf, n, flags)
#define session_put(fd, buf, n, flags) session_io(SYS_sendto, fd, buf, n, flags)

#endif
