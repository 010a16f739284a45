/* A certificate authority for tests, made by OpenSSL's default library context: the side that is not ours. */
#ifndef TESTS_PKI_H
#define TESTS_PKI_H

#include <assert.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "identity/identity.h"
#include "weft/limits.h"

struct pki_ca {
	EVP_PKEY *key;
	X509 *cert;
};

struct pki_leaf {
	const char *
		san; /* as OpenSSL's configuration has it: "URI:spiffe://..." ; NULL: no such extension */
	const char *eku;   /* NULL: both */
	const char *usage; /* NULL: digitalSignature */
	const char *basic; /* NULL: CA:FALSE */
	long from, until;  /* seconds from now; both 0: an hour either way */
};

static inline void pki_extension(X509 *cert, X509 *issuer, int nid, const char *value)
{
	X509V3_CTX ctx;
	X509_EXTENSION *e;

	X509V3_set_ctx(&ctx, issuer, cert, NULL, NULL, 0);
	e = X509V3_EXT_conf_nid(NULL, &ctx, nid, value);
	assert(e && X509_add_ext(cert, e, -1));
	X509_EXTENSION_free(e);
}

static inline X509 *pki_blank(const char *name, EVP_PKEY *key, long from, long until)
{
	static long serial = 1;
	X509 *cert = X509_new();

	assert(cert && X509_set_version(cert, 2) && X509_set_pubkey(cert, key));
	ASN1_INTEGER_set(X509_get_serialNumber(cert), serial++);
	X509_gmtime_adj(X509_getm_notBefore(cert), from ? from : -3600);
	X509_gmtime_adj(X509_getm_notAfter(cert), until ? until : 3600);
	X509_NAME_add_entry_by_txt(X509_get_subject_name(cert), "CN", MBSTRING_ASC,
				   (const unsigned char *)name, -1, -1, 0);
	return cert;
}

/* `above` NULL: a self-signed root. `key` is taken over. */
static inline struct pki_ca pki_ca_with(const char *name, const struct pki_ca *above, EVP_PKEY *key)
{
	struct pki_ca ca = { .key = key };
	const struct pki_ca *signer = above ? above : &ca;

	ca.cert = pki_blank(name, ca.key, 0, 0);
	X509_set_issuer_name(ca.cert, X509_get_subject_name(signer->cert));
	pki_extension(ca.cert, signer->cert, NID_basic_constraints, "critical,CA:TRUE");
	pki_extension(ca.cert, signer->cert, NID_key_usage, "critical,keyCertSign,cRLSign");
	pki_extension(ca.cert, signer->cert, NID_subject_key_identifier, "hash");
	assert(X509_sign(ca.cert, signer->key, EVP_sha256()));
	return ca;
}

static inline struct pki_ca pki_ca(const char *name, const struct pki_ca *above)
{
	return pki_ca_with(name, above, EVP_EC_gen("P-256"));
}

static inline void pki_ca_done(struct pki_ca *ca)
{
	EVP_PKEY_free(ca->key);
	X509_free(ca->cert);
}

static inline X509 *pki_sign(const struct pki_ca *ca, EVP_PKEY *key, const struct pki_leaf *l)
{
	X509 *cert = pki_blank("leaf", key, l->from, l->until);

	X509_set_issuer_name(cert, X509_get_subject_name(ca->cert));
	pki_extension(cert, ca->cert, NID_basic_constraints,
		      l->basic ? l->basic : "critical,CA:FALSE");
	pki_extension(cert, ca->cert, NID_key_usage,
		      l->usage ? l->usage : "critical,digitalSignature");
	pki_extension(cert, ca->cert, NID_ext_key_usage, l->eku ? l->eku : "serverAuth,clientAuth");
	if (l->san)
		pki_extension(cert, ca->cert, NID_subject_alt_name, l->san);
	assert(X509_sign(cert, ca->key, EVP_sha256()));
	return cert;
}

/* The public key of this process's keypair, by way of its certificate request. */
static inline EVP_PKEY *pki_own_key(void)
{
	uint8_t der[WEFT_CSR_MAX];
	const uint8_t *p = der;
	int n = keypair_csr(keypair_get(), der);
	X509_REQ *req = n > 0 ? d2i_X509_REQ(NULL, &p, n) : NULL;
	EVP_PKEY *key = req ? X509_REQ_get_pubkey(req) : NULL;

	assert(key && X509_REQ_verify(req, key) == 1);
	X509_REQ_free(req);
	return key;
}

static inline struct wire_bin pki_der(X509 *cert)
{
	unsigned char *der = NULL;
	int n = i2d_X509(cert, &der);

	assert(n > 0);
	return (struct wire_bin){ der, (uint32_t)n };
}

/* What weftd writes for `uri`: a leaf for our key below the last of `cas`, whose first is the one anchor, under the
 * trust domain `td`. */
struct pki_identity {
	uint8_t *bytes;
	size_t len;
};

static inline struct pki_identity pki_encode(const char *uri, const char *td, X509 *leaf,
					     const struct pki_ca *cas, unsigned n)
{
	struct wire_bin chain[WEFT_CHAIN_MAX];
	struct wire_anchor anchor = { .trust_domain = wire_str_of(td),
				      .der = pki_der(cas[0].cert) };
	struct wire_inbound inbound = { .mtls = 3 };
	struct wire_identity w = { .spiffe = wire_str_of(uri), .inbound = &inbound };
	struct pki_identity out;

	chain[0] = pki_der(leaf);
	for (unsigned i = 1; i < n; i++)
		chain[i] = pki_der(cas[n - i].cert);
	w.chain.v = chain;
	w.chain.n = n;
	w.bundle.v = &anchor;
	w.bundle.n = 1;
	assert(wire_encode(&wire_schema_identity, &w, WEFT_IDENTITY_HALF, &out.bytes, &out.len) ==
	       0);
	for (unsigned i = 0; i < n; i++)
		OPENSSL_free((void *)(uintptr_t)chain[i].p);
	OPENSSL_free((void *)(uintptr_t)anchor.der.p);
	return out;
}

static inline struct identity *pki_identity(const char *uri, const struct pki_ca *cas, unsigned n)
{
	char san[WEFT_SPIFFE_MAX + 8];
	EVP_PKEY *key = pki_own_key();
	struct identity *id = NULL;
	struct pki_identity e;
	const char *why = NULL;
	X509 *leaf;

	snprintf(san, sizeof(san), "URI:%s", uri);
	leaf = pki_sign(&cas[n - 1], key, &(struct pki_leaf){ .san = san });
	e = pki_encode(uri, "cluster.local", leaf, cas, n);
	if (identity_build(keypair_get(), e.bytes, e.len, 7, &id, &why) < 0)
		fprintf(stderr, "identity_build: %s\n", why);
	free(e.bytes);
	X509_free(leaf);
	EVP_PKEY_free(key);
	return id;
}

#endif
