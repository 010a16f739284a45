/* A TLS 1.3 handshake over a connected socket, by OpenSSL with our own BIO (raw system calls, never reading past
 * the handshake), which ends with two record_keys and is freed. Not thread-safe: the caller holds the session's lock.
 * About 65 KB while it lives. Never blocks: the caller waits for handshake_wants(). */
#ifndef TLS_HANDSHAKE_H
#define TLS_HANDSHAKE_H

#include <stdbool.h>

#include "identity/identity.h"
#include "tls/record.h"
#include "weft/reason.h"

struct handshake;

struct handshake_client {
	const char *sni; /* "<service>.<namespace>" */
	const struct wire_strs
		*identities; /* the server must have one of these; borrowed until handshake_free */
};

/* `id` is referenced while the handshake lives. NULL with errno-free failure means no memory. */
struct handshake *handshake_new_client(struct identity *id, const struct handshake_client *c);
struct handshake *handshake_new_server(struct identity *id);
struct handshake *handshake_free(struct handshake *h); /* NULL-safe, returns NULL */

/* One step on `fd`. 0: done, all of our flight is sent. -EAGAIN: poll for handshake_wants().
 * -ECONNRESET, -ETIMEDOUT, -EACCES...: failed; handshake_reason() says why, an alert was sent if one was due.
 * Does not look at O_NONBLOCK: uses MSG_DONTWAIT and MSG_NOSIGNAL. */
int handshake_step(struct handshake *h, int fd);
short handshake_wants(const struct handshake *h); /* POLLIN or POLLOUT */
enum weft_reason handshake_reason(const struct handshake *h);
bool handshake_heard(const struct handshake *h); /* of a server: it has answered a ClientHello */
bool handshake_ended(
	const struct handshake *h); /* failed because the peer closed, without an alert */
const char *
handshake_detail(const struct handshake *h); /* for the log: OpenSSL's words; never NULL */

struct handshake_result {
	struct record_keys tx, rx;
	char peer[WEFT_SPIFFE_MAX + 1]; /* URI SAN; "" if the peer has none (then it was refused) */
	bool weft;                      /* ALPN weft/1 was agreed */
};
/* After a step that returned 0. Secrets are wiped from `h` by handshake_free. */
void handshake_result(const struct handshake *h, struct handshake_result *r);

/* Looks at the first `n` bytes a client sent (peeked). 1: a ClientHello that offers weft/1. 0: something else, which
 * belongs to the application. -EAGAIN: more bytes are needed to tell (*need is set to how many in all). Pure. */
int hello_peek(const uint8_t *bytes, size_t n, size_t *need);

/* The alert access_denied (49) or close_notify (0) as record content. */
void alert_make(uint8_t out[2], uint8_t description);

#endif
