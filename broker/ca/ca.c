#include "ca/ca.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <openssl/err.h>
#include <openssl/pem.h>

#include "ca/internal.h"
#include "weft/ident.h"
#include "weft/wire.h"

/* --- the root in the state folder --- */

static FILE *open_file(const char *path, bool create)
{
	int fd = open(path,
		      (create ? O_WRONLY | O_CREAT | O_EXCL : O_RDONLY) | O_CLOEXEC | O_NOFOLLOW,
		      0600);
	FILE *f = fd < 0 ? NULL : fdopen(fd, create ? "w" : "r");

	if (!f && fd >= 0)
		close(fd);
	return f;
}

static int finish(FILE *f, bool ok)
{
	ok = fflush(f) == 0 && fsync(fileno(f)) == 0 && ok;
	fclose(f);
	return ok ? 0 : -EIO;
}

/* The certificate first and by rename: a key without one is made anew, a certificate without key never is seen. */
static int save(const struct ca *ca, const char *key_path, const char *cert_path)
{
	char tmp[PATH_MAX + 8];

	snprintf(tmp, sizeof(tmp), "%s.new", key_path);
	unlink(tmp);
	unlink(cert_path);
	FILE *f = open_file(cert_path, true);
	int r = f ? finish(f, PEM_write_X509(f, ca->root) == 1) : -errno;
	if (r < 0)
		return r;
	f = open_file(tmp, true);
	r = f ? finish(f, PEM_write_PKCS8PrivateKey(f, ca->key, NULL, NULL, 0, NULL, NULL) == 1)
	      : -errno;
	if (r == 0 && rename(tmp, key_path) < 0)
		r = -errno;
	return r;
}

static int create(struct ca *ca, const char *key_path, const char *cert_path)
{
	ca->key = EVP_EC_gen("P-256");
	ca->root = ca->key ? profile_root(ca->key, ca->trust_domain) : NULL;
	return ca->root ? save(ca, key_path, cert_path) : -ENOMEM;
}

static int load(struct ca *ca, FILE *key, const char *cert_path, const char **why)
{
	char domain[WEFT_HOST_MAX + 1];
	FILE *cert = open_file(cert_path, false);

	ca->key = PEM_read_PrivateKey(key, NULL, NULL, NULL);
	ca->root = cert ? PEM_read_X509(cert, NULL, NULL, NULL) : NULL;
	if (cert)
		fclose(cert);
	if (!ca->key || !ca->root)
		*why = "ca.key or ca.crt in the state folder cannot be read";
	else if (X509_check_private_key(ca->root, ca->key) != 1)
		*why = "ca.key and ca.crt in the state folder do not belong together";
	else if (profile_root_domain(ca->root, domain) < 0 || strcmp(domain, ca->trust_domain))
		*why = "ca.crt in the state folder is of another trust domain";
	else if (X509_cmp_current_time(X509_get0_notAfter(ca->root)) < 0)
		*why = "ca.crt in the state folder is expired";
	else
		return 0;
	return -EINVAL;
}

int ca_open(struct ca **out, const char *state_dir, const char *trust_domain, const char **why)
{
	char key_path[PATH_MAX], cert_path[PATH_MAX];
	struct ca *ca = calloc(1, sizeof(*ca));
	int r = -ENAMETOOLONG;

	*why = "";
	if (!ca)
		return -ENOMEM;
	if (strlen(trust_domain) >= sizeof(ca->trust_domain) ||
	    snprintf(key_path, sizeof(key_path), "%s/ca.key", state_dir) >= PATH_MAX ||
	    snprintf(cert_path, sizeof(cert_path), "%s/ca.crt", state_dir) >= PATH_MAX)
		goto out;
	memcpy(ca->trust_domain, trust_domain, strlen(trust_domain) + 1);
	FILE *key = open_file(key_path, false);
	r = key               ? load(ca, key, cert_path, why)
	    : errno == ENOENT ? create(ca, key_path, cert_path)
			      : -errno;
	if (key)
		fclose(key);
	if (r == 0) {
		ca->root_len = i2d_X509(ca->root, &ca->root_der);
		r = ca->root_len > 0 ? 0 : -ENOMEM;
	}
out:
	ERR_clear_error();
	if (r < 0)
		ca_free(ca);
	else
		*out = ca;
	return r;
}

void ca_free(struct ca *ca)
{
	if (!ca)
		return;
	EVP_PKEY_free(ca->key);
	X509_free(ca->root);
	OPENSSL_free(ca->root_der);
	free(ca);
}

const uint8_t *ca_root(const struct ca *ca, size_t *len)
{
	*len = (size_t)ca->root_len;
	return ca->root_der;
}

/* --- signing --- */

static bool key_is_allowed(const EVP_PKEY *key)
{
	char group[32];
	size_t n;

	if (EVP_PKEY_is_a(key, "ED25519"))
		return true;
	return EVP_PKEY_is_a(key, "EC") &&
	       EVP_PKEY_get_group_name(key, group, sizeof(group), &n) == 1 &&
	       strcmp(group, "prime256v1") == 0;
}

/* The key of a request that is signed with it; subject and extensions mean nothing. NULL with *why. */
static EVP_PKEY *request_key(const struct wire_bin *der, const char **why)
{
	const uint8_t *p = der->p;
	X509_REQ *csr =
		der->n && der->n <= WEFT_CSR_MAX ? d2i_X509_REQ(NULL, &p, (long)der->n) : NULL;
	EVP_PKEY *key = csr ? X509_REQ_get_pubkey(csr) : NULL;

	*why = NULL;
	if (!csr || p != der->p + der->n)
		*why = "certificate request is not well-formed";
	else if (!key || !key_is_allowed(key))
		*why = "key of the certificate request is neither P-256 nor Ed25519";
	else if (X509_REQ_verify(csr, key) != 1)
		*why = "certificate request is not signed with its own key";
	X509_REQ_free(csr);
	if (*why) {
		EVP_PKEY_free(key);
		return NULL;
	}
	return key;
}

static const char *check(const struct ca *ca, const struct wire_sign *ask)
{
	struct weft_spiffe id;

	if (spiffe_parse(&id, ask->spiffe.p, ask->spiffe.n) < 0)
		return "SPIFFE ID is not well-formed";
	if (strcmp(id.trust_domain, ca->trust_domain))
		return "SPIFFE ID is of another trust domain";
	if (ask->ttl_s < CA_TTL_MIN_S || ask->ttl_s > CA_TTL_MAX_S)
		return "life time is out of bounds";
	return NULL;
}

static int answer_cert(const struct ca *ca, X509 *leaf, uint8_t **answer, size_t *len)
{
	uint8_t *der = NULL;
	int n = i2d_X509(leaf, &der), r = -ENOMEM;
	char serial[CA_SERIAL_TEXT];
	struct wire_bin chain = { der, n > 0 ? (uint32_t)n : 0 };
	struct wire_anchor anchor = {
		.trust_domain = wire_str_of(ca->trust_domain),
		.der = { ca->root_der, (uint32_t)ca->root_len },
	};
	struct wire_signature sig = { .chain = { &chain, 1 }, .bundle = { &anchor, 1 } };

	if (n > 0 && ca_inspect(der, (size_t)n, serial, &sig.not_after) == 0)
		r = wire_encode(&wire_schema_signature, &sig, WEFT_REPLY_MAX, answer, len);
	OPENSSL_free(der);
	return r;
}

static int answer_refused(const char *why, uint8_t **answer, size_t *len)
{
	struct wire_refused refused = { .code = EACCES, .text = wire_str_of(why) };
	struct wire_signature sig = { .refused = &refused };

	return wire_encode(&wire_schema_signature, &sig, WEFT_REPLY_MAX, answer, len);
}

int ca_sign(struct ca *ca, const uint8_t *request, size_t len, uint8_t **answer, size_t *answer_len)
{
	struct wire_sign ask;
	void *block = NULL;
	const char *why = NULL;
	EVP_PKEY *key = NULL;
	X509 *leaf = NULL;
	int r = wire_decode(&wire_schema_sign, request, len, &ask, &block, &why);

	if (r == -ENOMEM)
		return r;
	if (r == 0)
		why = check(ca, &ask);
	if (!why)
		key = request_key(&ask.csr, &why);
	if (key)
		leaf = profile_leaf(ca, key, ask.spiffe.p, (long)ask.ttl_s);
	if (!leaf && !why)
		why = "signing failed";
	r = leaf ? answer_cert(ca, leaf, answer, answer_len)
		 : answer_refused(why, answer, answer_len);
	X509_free(leaf);
	EVP_PKEY_free(key);
	free(block);
	ERR_clear_error();
	return r;
}

int ca_inspect(const uint8_t *der, size_t len, char serial[static CA_SERIAL_TEXT],
	       uint64_t *not_after)
{
	const uint8_t *p = der;
	X509 *cert = len <= WEFT_CERT_MAX ? d2i_X509(NULL, &p, (long)len) : NULL;
	struct tm tm;
	int r = -EINVAL;

	if (cert && ASN1_TIME_to_tm(X509_get0_notAfter(cert), &tm) == 1) {
		const ASN1_INTEGER *n = X509_get0_serialNumber(cert);
		int bytes = ASN1_STRING_length(n) < 20 ? ASN1_STRING_length(n) : 20;
		serial[0] = '\0';
		for (int i = 0; i < bytes; i++)
			snprintf(serial + 2 * i, 3, "%02x", ASN1_STRING_get0_data(n)[i]);
		*not_after = (uint64_t)timegm(&tm);
		r = 0;
	}
	X509_free(cert);
	ERR_clear_error();
	return r;
}
