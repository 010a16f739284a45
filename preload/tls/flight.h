/* The BIO between OpenSSL and the application's socket while hands are shaken: raw system calls, never past the record
 * that OpenSSL asks for, and what it writes leaves in one send per flight. */
#ifndef TLS_FLIGHT_H
#define TLS_FLIGHT_H

#include <openssl/bio.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct flight {
	int fd;    /* of the step that runs */
	int error; /* -errno of the socket, other than -EAGAIN */
	bool eof;
	bool answered;    /* OpenSSL wrote something */
	bool full;        /* the socket took no more: wait for POLLOUT */
	uint8_t first[3]; /* what the peer's stream begins with */
	unsigned n_first;
	uint8_t *out; /* written by OpenSSL; out_sent bytes of it have left */
	size_t out_len, out_sent, out_size;
};

/* A BIO over `f`, which must outlive it. NULL: no memory. */
BIO *flight_bio(struct flight *f);
/* Sends what is left. 0, -EAGAIN, or f->error. */
int flight_flush(struct flight *f);
void flight_done(struct flight *f); /* wipes and frees the buffer */

/* What came cannot be TLS: its first bytes are no record header. */
bool flight_is_foreign(const struct flight *f);

#endif
