/* What this process is: key, certificate chain, trust bundle and inbound policy, as one immutable counted object.
 * The key is made in the process and never leaves it; weftd signs the same public key again at half life. */
#ifndef IDENTITY_IDENTITY_H
#define IDENTITY_IDENTITY_H

#include <stddef.h>
#include <stdint.h>

#include "weft/limits.h"
#include "weft/wire.h"

struct identity {
	unsigned refs;                      /* atomic; identity_ref and identity_unref alone */
	uint64_t seq;                       /* of the identity memory it was decoded from */
	const struct wire_identity *wire;   /* decoded; wire->inbound is never NULL */
	void *block;                        /* memory of `wire` */
	struct ssl_ctx_st *client, *server; /* contexts that handshakes are made from */
};

struct identity *identity_ref(struct identity *id);
struct identity *identity_unref(struct identity *id); /* NULL-safe, returns NULL */

/* The key of the process: P-256, created at the first call, kept out of core dumps and wiped at exit. */
struct keypair;
struct keypair *keypair_get(void); /* NULL: no memory or no entropy */
/* Self-signed certificate request, DER. Bytes written to `out` (WEFT_CSR_MAX) or -EIO. */
void keypair_wipe(void); /* at the end of the process: no handshake from here on */
int keypair_csr(struct keypair *k, uint8_t *out);

/* Builds an identity from the encoded wire_identity that weftd wrote. The leaf must carry our public key.
 * *out has one reference. 0, -EPROTO (with *why), -ENOMEM. Does no I/O and reads no configuration: OpenSSL lives in
 * an OSSL_LIB_CTX of its own. */
int identity_build(struct keypair *k, const uint8_t *bytes, size_t len, uint64_t seq,
		   struct identity **out, const char **why);

#endif
