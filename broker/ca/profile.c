#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include <openssl/rand.h>

#include "ca/ca.h"
#include "ca/internal.h"

#define ROOT_LIFE_S (10L * 365 * 86400)
#define SERIAL_BYTES 16 /* positive and of 127 random bits, RFC 5280 section 4.1.2.2 */
#define SCHEME "spiffe://"

static bool set_serial(X509 *cert)
{
	uint8_t bytes[SERIAL_BYTES];
	BIGNUM *n = NULL;
	bool ok = false;

	if (RAND_bytes(bytes, sizeof(bytes)) == 1) {
		bytes[0] = (bytes[0] & 0x7f) | 0x40;
		n = BN_bin2bn(bytes, sizeof(bytes), NULL);
		ok = n && BN_to_ASN1_INTEGER(n, X509_get_serialNumber(cert));
	}
	BN_free(n);
	return ok;
}

static bool add(X509 *cert, X509V3_CTX *ctx, int nid, const char *value)
{
	X509_EXTENSION *e = X509V3_EXT_conf_nid(NULL, ctx, nid, value);
	bool ok = e && X509_add_ext(cert, e, -1) == 1;

	X509_EXTENSION_free(e);
	return ok;
}

/* One URI, built by hand: a text for X509V3_EXT_conf would give meaning to characters of the name. */
static bool add_uri(X509 *cert, const char *uri, bool critical)
{
	GENERAL_NAMES *names = GENERAL_NAMES_new();
	GENERAL_NAME *name = GENERAL_NAME_new();
	ASN1_IA5STRING *text = ASN1_IA5STRING_new();
	bool ok = false;

	if (names && name && text && ASN1_STRING_set(text, uri, -1) == 1) {
		GENERAL_NAME_set0_value(name, GEN_URI, text);
		text = NULL;
		if (sk_GENERAL_NAME_push(names, name) > 0) {
			name = NULL;
			ok = X509_add1_ext_i2d(cert, NID_subject_alt_name, names, critical, 0) == 1;
		}
	}
	ASN1_IA5STRING_free(text);
	GENERAL_NAME_free(name);
	GENERAL_NAMES_free(names);
	return ok;
}

static X509 *start(EVP_PKEY *subject, long life_s)
{
	X509 *cert = X509_new();

	if (cert && X509_set_version(cert, X509_VERSION_3) == 1 && set_serial(cert) &&
	    X509_gmtime_adj(X509_getm_notBefore(cert), -CA_BACKDATE_S) &&
	    X509_gmtime_adj(X509_getm_notAfter(cert), life_s) &&
	    X509_set_pubkey(cert, subject) == 1)
		return cert;
	X509_free(cert);
	return NULL;
}

X509 *profile_root(EVP_PKEY *key, const char *trust_domain)
{
	X509 *cert = start(key, ROOT_LIFE_S);
	char uri[sizeof(SCHEME) + WEFT_HOST_MAX];
	X509V3_CTX ctx;
	X509_NAME *name = cert ? X509_get_subject_name(cert) : NULL;

	if (!cert)
		return NULL;
	X509V3_set_ctx(&ctx, cert, cert, NULL, NULL, 0);
	snprintf(uri, sizeof(uri), SCHEME "%s", trust_domain);
	if (X509_NAME_add_entry_by_txt(name, "O", MBSTRING_ASC, (const unsigned char *)"weft", -1,
				       -1, 0) &&
	    X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, (const unsigned char *)"weft root",
				       -1, -1, 0) &&
	    X509_set_issuer_name(cert, name) &&
	    add(cert, &ctx, NID_basic_constraints, "critical,CA:TRUE") &&
	    add(cert, &ctx, NID_key_usage, "critical,keyCertSign,cRLSign") &&
	    add(cert, &ctx, NID_subject_key_identifier, "hash") && add_uri(cert, uri, false) &&
	    X509_sign(cert, key, EVP_sha256()))
		return cert;
	X509_free(cert);
	return NULL;
}

/* An empty subject makes the alternative name critical, RFC 5280 section 4.2.1.6. */
X509 *profile_leaf(const struct ca *ca, EVP_PKEY *subject, const char *spiffe, long ttl_s)
{
	time_t end = time(NULL) + ttl_s;
	X509 *cert = start(subject, ttl_s);
	X509V3_CTX ctx;

	if (!cert)
		return NULL;
	if (X509_cmp_time(X509_get0_notAfter(ca->root), &end) < 0 &&
	    X509_set1_notAfter(cert, X509_get0_notAfter(ca->root)) != 1) {
		X509_free(cert);
		return NULL;
	}
	X509V3_set_ctx(&ctx, ca->root, cert, NULL, NULL, 0);
	if (X509_set_issuer_name(cert, X509_get_subject_name(ca->root)) &&
	    add(cert, &ctx, NID_basic_constraints, "critical,CA:FALSE") &&
	    add(cert, &ctx, NID_key_usage, "critical,digitalSignature") &&
	    add(cert, &ctx, NID_ext_key_usage, "serverAuth,clientAuth") &&
	    add(cert, &ctx, NID_authority_key_identifier, "keyid") && add_uri(cert, spiffe, true) &&
	    X509_sign(cert, ca->key, EVP_sha256()))
		return cert;
	X509_free(cert);
	return NULL;
}

int profile_root_domain(X509 *root, char out[static WEFT_HOST_MAX + 1])
{
	GENERAL_NAMES *names = X509_get_ext_d2i(root, NID_subject_alt_name, NULL, NULL);
	int r = -EINVAL;

	if (sk_GENERAL_NAME_num(names) == 1) {
		int type;
		const ASN1_STRING *s =
			GENERAL_NAME_get0_value(sk_GENERAL_NAME_value(names, 0), &type);
		const char *p = type == GEN_URI ? (const char *)ASN1_STRING_get0_data(s) : "";
		int n = type == GEN_URI ? ASN1_STRING_length(s) : 0;
		int skip = (int)strlen(SCHEME);
		if (n > skip && n - skip <= WEFT_HOST_MAX && memcmp(p, SCHEME, (size_t)skip) == 0) {
			memcpy(out, p + skip, (size_t)(n - skip));
			out[n - skip] = '\0';
			r = 0;
		}
	}
	GENERAL_NAMES_free(names);
	return r;
}
