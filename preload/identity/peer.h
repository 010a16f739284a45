/* What one handshake learns of its peer. A handshake hangs a struct peer on the SSL object that it makes from
 * identity->client or ->server (SSL_set_app_data); the callbacks of these contexts fill it. */
#ifndef IDENTITY_PEER_H
#define IDENTITY_PEER_H

#include <openssl/ssl.h>
#include <stddef.h>
#include <stdint.h>

#include "identity/verified.h"
#include "weft/limits.h"
#include "weft/reason.h"
#include "weft/wire.h"

struct peer {
	const struct wire_strs
		*expected; /* the peer must have one of these; NULL: any identity that is trusted */
	enum weft_reason reason;       /* why its certificate was refused */
	const char *detail;            /* static text to it, or NULL */
	char uri[WEFT_SPIFFE_MAX + 1]; /* its SPIFFE ID; set only if the certificate was accepted */
	size_t secret_len;
	uint8_t client_secret[48],
		server_secret[48]; /* application traffic secrets, once they are known */
	unsigned secrets;          /* bit 0: the client's is there; bit 1: the server's */
};

#define PEER_SECRETS_ALL 3u

/* Trust anchors by trust domain: a peer is judged by those of its own. */
struct anchors {
	struct anchor_set {
		const char *trust_domain; /* borrowed */
		STACK_OF(X509) * certs;
	} sets[WEFT_BUNDLE_MAX];
	size_t n;
	struct verified verified;
};

/* Takes over `cert`, also on failure. `trust_domain` must outlive `a`. 0 or -ENOMEM. */
int anchors_add(struct anchors *a, const char *trust_domain, X509 *cert);
void anchors_done(struct anchors *a);

/* The URI of the certificate's one SPIFFE ID, NUL-terminated. Its length, or -EINVAL if it has none, several, or one
 * that is not of Istio's form. */
int peer_uri(X509 *cert, char out[static WEFT_SPIFFE_MAX + 1]);

/* Callbacks, as SSL_CTX_set_cert_verify_callback (with the anchors) and SSL_CTX_set_keylog_callback want them. */
int peer_verify(X509_STORE_CTX *store, void *anchors);
void peer_keylog(const SSL *ssl, const char *line);

#endif
