#include "identity/identity.h"

#include <errno.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "identity/crypto.h"
#include "identity/keypair.h"
#include "identity/peer.h"
#include "weft/env.h"
#include "weft/limits.h"

/* struct identity as others see it, and what it is made of. */
struct identity_full {
	struct identity id;
	struct wire_identity wire;
	struct wire_inbound no_inbound; /* where weftd sent none: no policies */
	struct anchors anchors;
};

struct identity *identity_ref(struct identity *id)
{
	__atomic_add_fetch(&id->refs, 1, __ATOMIC_RELAXED);
	return id;
}

struct identity *identity_unref(struct identity *id)
{
	struct identity_full *f = (struct identity_full *)id;

	if (!id || __atomic_sub_fetch(&id->refs, 1, __ATOMIC_ACQ_REL))
		return NULL;
	SSL_CTX_free(id->client);
	SSL_CTX_free(id->server);
	anchors_done(&f->anchors);
	free(id->block);
	free(f);
	return NULL;
}

static X509 *cert_parse(const struct crypto *c, const struct wire_bin *der)
{
	X509 *cert = X509_new_ex(c->lib, NULL);
	const uint8_t *p = der->p;

	if (!der->n || der->n > WEFT_CERT_MAX || !cert || !d2i_X509(&cert, &p, (long)der->n))
		goto fail;
	if (p == der->p + der->n)
		return cert;
fail:
	X509_free(cert);
	return NULL;
}

static const char *read_bundle(const struct crypto *c, struct identity_full *f)
{
	if (!f->wire.bundle.n || f->wire.bundle.n > WEFT_BUNDLE_MAX)
		return "trust bundle is empty or too long";
	for (uint32_t i = 0; i < f->wire.bundle.n; i++) {
		const struct wire_anchor *a = &f->wire.bundle.v[i];
		X509 *cert = cert_parse(c, &a->der);

		if (!cert)
			return "trust anchor is no certificate";
		if (anchors_add(&f->anchors, a->trust_domain.p, cert) < 0)
			return "no memory for the trust bundle";
	}
	return NULL;
}

static const char *check_leaf(const struct identity_full *f, const struct keypair *k, X509 *leaf)
{
	char uri[WEFT_SPIFFE_MAX + 1];

	if (EVP_PKEY_eq(X509_get0_pubkey(leaf), k->key) != 1)
		return "certificate is for another key";
	if (peer_uri(leaf, uri) < 0 || strcmp(uri, f->wire.spiffe.p) != 0)
		return "certificate is for another SPIFFE ID";
	return NULL;
}

/* The chain goes into `ctx`, if its leaf is ours. */
static const char *read_chain(const struct crypto *c, const struct identity_full *f,
			      const struct keypair *k, SSL_CTX *ctx)
{
	STACK_OF(X509) *above = sk_X509_new_null();
	const char *why = "chain is empty, too long or not of certificates";
	X509 *leaf = NULL;

	if (!above || !f->wire.chain.n || f->wire.chain.n > WEFT_CHAIN_MAX)
		goto out;
	leaf = cert_parse(c, &f->wire.chain.v[0]);
	for (uint32_t i = 1; i < f->wire.chain.n; i++) {
		X509 *cert = cert_parse(c, &f->wire.chain.v[i]);

		if (!cert || sk_X509_push(above, cert) <= 0) {
			X509_free(cert);
			goto out;
		}
	}
	why = leaf ? check_leaf(f, k, leaf) : why;
	if (!why && SSL_CTX_use_cert_and_key(ctx, leaf, k->key, above, 1) <= 0)
		why = "OpenSSL refuses the certificate";
out:
	X509_free(leaf);
	sk_X509_pop_free(above, X509_free);
	return why;
}

/* A client without ALPN, or with another, is a mutual TLS client that knows nothing of weft: let it in. */
static int choose_alpn(SSL *ssl, const unsigned char **out, unsigned char *outlen,
		       const unsigned char *in, unsigned int inlen, void *arg)
{
	unsigned char *chosen;

	(void)ssl, (void)arg;
	if (SSL_select_next_proto(&chosen, outlen, (const unsigned char *)WEFT_ALPN_WIRE,
				  sizeof(WEFT_ALPN_WIRE) - 1, in, inlen) != OPENSSL_NPN_NEGOTIATED)
		return SSL_TLSEXT_ERR_NOACK;
	*out = chosen;
	return SSL_TLSEXT_ERR_OK;
}

static bool set_protocol(SSL_CTX *ctx)
{
	SSL_CTX_clear_options(ctx, SSL_OP_ENABLE_MIDDLEBOX_COMPAT);
	SSL_CTX_set_options(ctx,
			    SSL_OP_NO_TICKET | SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION);
	SSL_CTX_set_mode(ctx, SSL_MODE_NO_AUTO_CHAIN);
	SSL_CTX_set_max_send_fragment(ctx, 4096); /* its buffer is allocated in full */
	SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
	SSL_CTX_set_read_ahead(
		ctx,
		0); /* else application bytes vanish into an object that is about to be freed */
	SSL_CTX_set_max_cert_list(ctx, WEFT_CHAIN_MAX * WEFT_CERT_MAX);
	SSL_CTX_set_alpn_select_cb(ctx, choose_alpn, NULL);
	SSL_CTX_set_keylog_callback(ctx, peer_keylog);
	return SSL_CTX_set_min_proto_version(ctx, TLS1_3_VERSION) &&
	       SSL_CTX_set_num_tickets(ctx, 0) &&
	       SSL_CTX_set_ciphersuites(ctx, "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:"
					     "TLS_CHACHA20_POLY1305_SHA256") &&
	       SSL_CTX_set1_groups_list(ctx, "X25519:P-256") &&
	       !SSL_CTX_set_alpn_protos(ctx, (const unsigned char *)WEFT_ALPN_WIRE,
					sizeof(WEFT_ALPN_WIRE) - 1);
}

/* One context serves both roles: it takes 100 KB, and nothing in it depends on the role. */
static const char *make_context(const struct crypto *c, struct identity_full *f,
				const struct keypair *k)
{
	SSL_CTX *ctx = SSL_CTX_new_ex(c->lib, NULL, TLS_method());

	f->id.client = ctx;
	if (!ctx || !set_protocol(ctx))
		return "OpenSSL makes no context";
	SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
	SSL_CTX_set_verify_depth(ctx, WEFT_CHAIN_MAX);
	SSL_CTX_set_cert_verify_callback(ctx, peer_verify, &f->anchors);
	SSL_CTX_up_ref(ctx);
	f->id.server = ctx;
	return read_chain(c, f, k, ctx);
}

int identity_build(struct keypair *k, const uint8_t *bytes, size_t len, uint64_t seq,
		   struct identity **out, const char **why)
{
	const struct crypto *c = crypto_get();
	struct identity_full *f = calloc(1, sizeof(*f));
	int r = -ENOMEM;

	*why = "no memory";
	if (!f)
		return -ENOMEM;
	f->id.refs = 1;
	if (!c)
		goto fail;
	f->id.seq = seq;
	f->id.wire = &f->wire;
	r = wire_decode(&wire_schema_identity, bytes, len, &f->wire, &f->id.block, why);
	if (r < 0)
		goto fail;
	if (!f->wire.inbound)
		f->wire.inbound = &f->no_inbound;
	*why = read_bundle(c, f);
	if (!*why)
		*why = make_context(c, f, k);
	if (!*why) {
		*out = &f->id;
		return 0;
	}
	r = -EPROTO;
	ERR_clear_error();
fail:
	identity_unref(&f->id);
	return r;
}
