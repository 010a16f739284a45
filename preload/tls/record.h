/* The TLS 1.3 record layer (RFC 8446 section 5) for one direction: no socket, no session, bytes in and out.
 * AES-128-GCM, AES-256-GCM and ChaCha20-Poly1305. */
#ifndef TLS_RECORD_H
#define TLS_RECORD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "weft/limits.h"

#define RECORD_HEADER 5
#define RECORD_OVERHEAD 22                                      /* header, content type, tag */
#define RECORD_WIRE_MAX (RECORD_HEADER + WEFT_RECORD_MAX + 256) /* RFC 8446 section 5.2 */

enum record_type { RECORD_ALERT = 21, RECORD_HANDSHAKE = 22, RECORD_DATA = 23 };

/* Plain data: may be copied, shared across fork and written to a memfd. */
struct record_keys {
	uint16_t suite;      /* 0x1301, 0x1302, 0x1303 */
	uint16_t secret_len; /* 32 or 48 */
	uint32_t updates;    /* key updates so far */
	uint64_t seq;        /* of the next record */
	uint8_t secret[48];  /* application traffic secret N */
	uint8_t key[32];
	uint8_t iv[12];
};

/* 0, or -EPROTONOSUPPORT for another suite. seq starts at 0. */
int record_keys_set(struct record_keys *k, uint16_t suite, const uint8_t *secret, size_t len);
/* application_traffic_secret_N+1 (RFC 8446 section 7.2); seq is 0 again. */
int record_keys_update(struct record_keys *k);
bool record_keys_sound(const struct record_keys *k); /* as record_keys_set() could have left it */
void record_keys_wipe(struct record_keys *k);

/* An AEAD context, private to a process, keyed lazily from `k` and again when it changed. NULL-safe free. */
struct record_aead;
struct record_aead *record_aead_new(void);
struct record_aead *record_aead_free(struct record_aead *a); /* returns NULL */

/* Seals the next `n` (<= WEFT_RECORD_MAX) bytes of `iov` starting `skip` bytes into it as one record into `out`,
 * which has room for n + RECORD_OVERHEAD. Returns the bytes written; k->seq is one more.
 * -EKEYEXPIRED when the key may seal no more (caller sends a KeyUpdate), -EIO. */
ssize_t record_seal(struct record_aead *a, struct record_keys *k, enum record_type type,
		    const struct iovec *iov, size_t skip, size_t n, uint8_t *out);

/* How many whole bytes the record whose header is `h` takes on the wire, header included.
 * -EPROTO for what is no TLS 1.3 protected record (type 23, version 3.3, length in 17..16640). */
ssize_t record_wire_length(const uint8_t h[RECORD_HEADER]);

/* Opens one whole record. `out` has room for len - RECORD_OVERHEAD bytes and may not overlap `rec`.
 * Returns plaintext bytes (content type and padding removed), *type set, k->seq one more.
 * -EBADMSG when it does not authenticate (nothing of it is left in `out`), -EPROTO. */
ssize_t record_open(struct record_aead *a, struct record_keys *k, const uint8_t *rec, size_t len,
		    uint8_t *out, uint8_t *type);

#endif
