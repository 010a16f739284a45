/* Certificates that were found to chain to one set of anchors, so that a peer who comes again is not verified from the
 * root down each time (an eighth of a handshake). Lives and ends with its anchors: another bundle begins anew. */
#ifndef IDENTITY_VERIFIED_H
#define IDENTITY_VERIFIED_H

#include <openssl/x509.h>
#include <stdbool.h>
#include <stdint.h>
#include <time.h>

#include "sys/lock.h"

#define VERIFIED_SLOTS 64 /* by digest; a newer one takes the place */
#define VERIFIED_DIGEST 32

struct verified {
	struct lock lock;
	struct verified_slot {
		uint8_t digest[VERIFIED_DIGEST];
		time_t since,
			until; /* within these every certificate of the chain is valid; 0, 0: empty */
	} slots[VERIFIED_SLOTS];
};

/* What a certificate goes by: SHA-256 of it, changed by the role that it was verified for. False: no memory. */
bool verified_digest(X509 *cert, bool as_server, uint8_t out[static VERIFIED_DIGEST]);
bool verified_has(struct verified *v, const uint8_t digest[static VERIFIED_DIGEST]);
/* `chain` is what X509_verify_cert() has just accepted, from the leaf to an anchor. */
void verified_add(struct verified *v, const uint8_t digest[static VERIFIED_DIGEST],
		  const STACK_OF(X509) * chain);

#endif
