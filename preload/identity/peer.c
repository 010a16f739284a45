#include "identity/peer.h"

#include <errno.h>
#include <openssl/x509v3.h>
#include <stdbool.h>
#include <string.h>

#include "weft/ident.h"

int anchors_add(struct anchors *a, const char *trust_domain, X509 *cert)
{
	size_t i = 0;

	while (i < a->n && strcmp(a->sets[i].trust_domain, trust_domain) != 0)
		i++;
	if (i == a->n && i < WEFT_BUNDLE_MAX) {
		a->sets[i] = (struct anchor_set){ trust_domain, sk_X509_new_null() };
		a->n += a->sets[i].certs != NULL;
	}
	if (i < a->n && sk_X509_push(a->sets[i].certs, cert) > 0)
		return 0;
	X509_free(cert);
	return -ENOMEM;
}

void anchors_done(struct anchors *a)
{
	for (size_t i = 0; i < a->n; i++)
		sk_X509_pop_free(a->sets[i].certs, X509_free);
	a->n = 0;
}

static STACK_OF(X509) * anchors_of(const struct anchors *a, const char *trust_domain)
{
	for (size_t i = 0; i < a->n; i++)
		if (!strcmp(a->sets[i].trust_domain, trust_domain))
			return a->sets[i].certs;
	return NULL;
}

/* Copies the URI out of `names` if there is exactly one. */
static int one_uri(const GENERAL_NAMES *names, char *out)
{
	int found = 0, len = 0;

	for (int i = 0; i < sk_GENERAL_NAME_num(names); i++) {
		const GENERAL_NAME *name = sk_GENERAL_NAME_value(names, i);
		const ASN1_IA5STRING *uri = name->d.uniformResourceIdentifier;

		if (name->type != GEN_URI)
			continue;
		len = ASN1_STRING_length(uri);
		if (found++ || len <= 0 || len > WEFT_SPIFFE_MAX ||
		    memchr(ASN1_STRING_get0_data(uri), 0, (size_t)len))
			return -EINVAL;
		memcpy(out, ASN1_STRING_get0_data(uri), (size_t)len);
		out[len] = '\0';
	}
	return found ? len : -EINVAL;
}

int peer_uri(X509 *cert, char out[static WEFT_SPIFFE_MAX + 1])
{
	/* NULL also where there are several such extensions. */
	GENERAL_NAMES *names = X509_get_ext_d2i(cert, NID_subject_alt_name, NULL, NULL);
	struct weft_spiffe id;
	int len = names ? one_uri(names, out) : -EINVAL;

	GENERAL_NAMES_free(names);
	return len > 0 && spiffe_parse(&id, out, (size_t)len) == 0 ? len : -EINVAL;
}

/* X509-SVID section 5.2: a leaf is no CA and signs no certificates. */
static bool is_leaf(X509 *cert)
{
	uint32_t usage = X509_get_key_usage(cert); /* all bits where the extension is absent */

	if (X509_get_extension_flags(cert) & (EXFLAG_CA | EXFLAG_INVALID))
		return false;
	return usage == UINT32_MAX || !(usage & (KU_KEY_CERT_SIGN | KU_CRL_SIGN));
}

static int refuse(X509_STORE_CTX *store, struct peer *p, enum weft_reason reason, int err,
		  const char *detail)
{
	p->reason = reason;
	p->detail = detail ? detail : X509_verify_cert_error_string(err);
	X509_STORE_CTX_set_error(store, err); /* decides which alert is sent */
	return 0;
}

static bool is_expected(const struct wire_strs *expected, const char *uri)
{
	for (uint32_t i = 0; expected && i < expected->n; i++)
		if (!strcmp(expected->v[i].p, uri))
			return true;
	return !expected;
}

static int verify_chain(X509_STORE_CTX *store, struct peer *p, STACK_OF(X509) * anchors)
{
	int err;

	X509_STORE_CTX_set0_trusted_stack(store, anchors);
	/* An anchor may itself be an intermediate: the bundle is all that we trust, and all of it is. */
	X509_STORE_CTX_set_flags(store, X509_V_FLAG_PARTIAL_CHAIN);
	if (X509_verify_cert(store) > 0)
		return 1;
	err = X509_STORE_CTX_get_error(store);
	if (err == X509_V_ERR_CERT_HAS_EXPIRED || err == X509_V_ERR_CERT_NOT_YET_VALID)
		return refuse(store, p, WEFT_REASON_CERT_EXPIRED, err, NULL);
	return refuse(store, p, WEFT_REASON_CERT_UNTRUSTED, err, NULL);
}

/* Trusts `leaf` if it leads to one of `anchors`, now or when it was last seen. */
static int trust_leaf(X509_STORE_CTX *store, struct peer *p, X509 *leaf, bool server,
		      struct verified *known, STACK_OF(X509) * anchors)
{
	uint8_t digest[VERIFIED_DIGEST];
	bool has_digest = verified_digest(leaf, server, digest);

	if (has_digest && verified_has(known, digest)) {
		X509_STORE_CTX_set_error(store, X509_V_OK);
		return 1;
	}
	if (!verify_chain(store, p, anchors))
		return 0;
	if (has_digest)
		verified_add(known, digest, X509_STORE_CTX_get0_chain(store));
	return 1;
}

int peer_verify(X509_STORE_CTX *store, void *arg)
{
	SSL *ssl = X509_STORE_CTX_get_ex_data(store, SSL_get_ex_data_X509_STORE_CTX_idx());
	struct peer *p = SSL_get_app_data(ssl);
	X509 *leaf = X509_STORE_CTX_get0_cert(store);
	struct anchors *all = arg;
	char uri[WEFT_SPIFFE_MAX + 1];
	STACK_OF(X509) * anchors;
	struct weft_spiffe id;
	int len = peer_uri(leaf, uri);

	if (len < 0 || spiffe_parse(&id, uri, (size_t)len) < 0 || !is_leaf(leaf))
		return refuse(store, p, WEFT_REASON_CERT_NO_IDENTITY, X509_V_ERR_CERT_REJECTED,
			      "not an X509-SVID with one URI spiffe://<trust "
			      "domain>/ns/<ns>/sa/<service>");
	anchors = anchors_of(all, id.trust_domain);
	if (!anchors)
		return refuse(store, p, WEFT_REASON_CERT_UNTRUSTED,
			      X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY,
			      "no trust bundle for the peer's trust domain");
	if (!trust_leaf(store, p, leaf, !SSL_is_server(ssl), &all->verified, anchors))
		return 0;
	if (!is_expected(p->expected, uri))
		return refuse(store, p, WEFT_REASON_CERT_WRONG_IDENTITY,
			      X509_V_ERR_HOSTNAME_MISMATCH, "peer has another SPIFFE ID");
	memcpy(p->uri, uri, (size_t)len + 1);
	return 1;
}

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Bytes decoded, at most 48, or 0 for what is not all hex. */
static size_t hex_decode(const char *s, uint8_t out[static 48])
{
	size_t n = 0;

	for (; s[0]; s += 2, n++) {
		int hi = hex_digit(s[0]), lo = hi < 0 ? -1 : hex_digit(s[1]);

		if (lo < 0 || n == 48)
			return 0;
		out[n] = (uint8_t)(hi << 4 | lo);
	}
	return n;
}

/* "<label> <client random> <secret>", in lower-case hex. */
void peer_keylog(const SSL *ssl, const char *line)
{
	static const char client[] = "CLIENT_TRAFFIC_SECRET_0 ",
			  server[] = "SERVER_TRAFFIC_SECRET_0 ";
	struct peer *p = SSL_get_app_data(ssl);
	bool is_client = !strncmp(line, client, sizeof(client) - 1);
	const char *secret = strrchr(line, ' ');
	size_t n;

	if (!is_client && strncmp(line, server, sizeof(server) - 1) != 0)
		return;
	n = hex_decode(secret + 1, is_client ? p->client_secret : p->server_secret);
	if (n) {
		p->secret_len = n;
		p->secrets |= is_client ? 1 : 2;
	}
}
