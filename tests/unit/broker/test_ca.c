/* The certificate authority, through the bytes that cross between attestation and signing. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>
#include <openssl/evp.h>
#include <openssl/x509v3.h>

#include "ca/ca.h"
#include "weft/limits.h"
#include "weft/wire.h"

#define SPIFFE "spiffe://cluster.local/ns/default/sa/orders"

static char dir[64];

static int make_folder(void **state)
{
	(void)state;
	snprintf(dir, sizeof(dir), "/tmp/weft-test-XXXXXX");
	return mkdtemp(dir) ? 0 : -1;
}

static int remove_folder(void **state)
{
	char path[96];

	(void)state;
	snprintf(path, sizeof(path), "%s/ca.key", dir);
	unlink(path);
	snprintf(path, sizeof(path), "%s/ca.crt", dir);
	unlink(path);
	return rmdir(dir);
}

static struct ca *open_ca(void)
{
	struct ca *ca = NULL;
	const char *why;

	assert_int_equal(ca_open(&ca, dir, "cluster.local", &why), 0);
	return ca;
}

/* A request for `key`, signed with `signer`. Bytes written to `out`. */
static uint32_t request(EVP_PKEY *key, EVP_PKEY *signer, uint8_t *out)
{
	X509_REQ *csr = X509_REQ_new();
	const EVP_MD *md = EVP_PKEY_is_a(signer, "ED25519") ? NULL : EVP_sha256();

	X509_REQ_set_pubkey(csr, key);
	assert_true(X509_REQ_sign(csr, signer, md) > 0);
	int n = i2d_X509_REQ(csr, &out);
	X509_REQ_free(csr);
	assert_in_range(n, 1, WEFT_CSR_MAX);
	return (uint32_t)n;
}

struct answer {
	struct wire_signature sig;
	void *block;
};

static struct answer sign(struct ca *ca, const struct wire_sign *ask)
{
	struct answer a;
	uint8_t *bytes, *out;
	size_t len;
	const char *why;

	assert_int_equal(wire_encode(&wire_schema_sign, ask, WEFT_REQUEST_MAX, &bytes, &len), 0);
	assert_int_equal(ca_sign(ca, bytes, len, &out, &len), 0);
	assert_int_equal(wire_decode(&wire_schema_signature, out, len, &a.sig, &a.block, &why), 0);
	free(bytes);
	free(out);
	return a;
}

static bool is_refused(struct ca *ca, const char *spiffe, const uint8_t *csr, uint32_t n,
		       uint64_t ttl)
{
	struct wire_sign ask = { .spiffe = wire_str_of(spiffe), .csr = { csr, n }, .ttl_s = ttl };
	struct answer a = sign(ca, &ask);
	bool refused = a.sig.refused && a.sig.refused->text.n && !a.sig.chain.n;

	free(a.block);
	return refused;
}

static void check_profile(X509 *leaf, X509 *root)
{
	int critical;
	GENERAL_NAMES *names = X509_get_ext_d2i(leaf, NID_subject_alt_name, &critical, NULL);
	const GENERAL_NAME *name = sk_GENERAL_NAME_value(names, 0);

	assert_int_equal(X509_verify(leaf, X509_get0_pubkey(root)), 1);
	assert_int_equal(X509_NAME_entry_count(X509_get_subject_name(leaf)), 0);
	assert_int_equal(sk_GENERAL_NAME_num(names), 1);
	assert_int_equal(critical, 1); /* RFC 5280: the subject is empty */
	assert_int_equal(name->type, GEN_URI);
	assert_int_equal(ASN1_STRING_length(name->d.ia5), (int)strlen(SPIFFE));
	assert_memory_equal(ASN1_STRING_get0_data(name->d.ia5), SPIFFE, strlen(SPIFFE));
	assert_int_equal(X509_get_extended_key_usage(leaf), XKU_SSL_SERVER | XKU_SSL_CLIENT);
	assert_int_equal(X509_get_key_usage(leaf), KU_DIGITAL_SIGNATURE);
	assert_int_equal(X509_check_ca(leaf), 0);
	assert_int_equal(X509_check_ca(root), 1);
	GENERAL_NAMES_free(names);
}

static void signs_by_the_profile(void **state)
{
	struct ca *ca = open_ca();
	EVP_PKEY *key = EVP_EC_gen("P-256");
	uint8_t csr[WEFT_CSR_MAX];
	struct wire_sign ask = { .spiffe = wire_str_of(SPIFFE), .csr = { csr, 0 }, .ttl_s = 3600 };
	char serial[CA_SERIAL_TEXT];
	uint64_t end;
	size_t len;

	(void)state;
	ask.csr.n = request(key, key, csr);
	struct answer a = sign(ca, &ask);
	assert_null(a.sig.refused);
	assert_int_equal(a.sig.chain.n, 1);
	assert_int_equal(a.sig.bundle.n, 1);
	assert_string_equal(a.sig.bundle.v[0].trust_domain.p, "cluster.local");
	const uint8_t *p = a.sig.chain.v[0].p, *q = ca_root(ca, &len);
	X509 *leaf = d2i_X509(NULL, &p, (long)a.sig.chain.v[0].n),
	     *root = d2i_X509(NULL, &q, (long)len);
	check_profile(leaf, root);
	assert_int_equal(EVP_PKEY_eq(X509_get0_pubkey(leaf), key), 1);
	time_t now = time(NULL), begin = now - CA_BACKDATE_S + 5;
	assert_true(X509_cmp_time(X509_get0_notBefore(leaf), &begin) < 0);
	assert_in_range(a.sig.not_after, (uint64_t)now + 3590, (uint64_t)now + 3610);
	assert_int_equal(ca_inspect(a.sig.chain.v[0].p, a.sig.chain.v[0].n, serial, &end), 0);
	assert_true(end == a.sig.not_after);
	assert_int_equal(strlen(serial), 32);
	X509_free(leaf);
	X509_free(root);
	free(a.block);
	EVP_PKEY_free(key);
	ca_free(ca);
}

static void refuses_keys_and_claims(void **state)
{
	struct ca *ca = open_ca();
	EVP_PKEY *ec = EVP_EC_gen("P-256"), *p384 = EVP_EC_gen("P-384"), *rsa = EVP_RSA_gen(2048);
	EVP_PKEY *ed = EVP_PKEY_Q_keygen(NULL, NULL, "ED25519");
	uint8_t csr[WEFT_CSR_MAX];
	uint32_t n;

	(void)state;
	n = request(ed, ed, csr);
	assert_false(is_refused(ca, SPIFFE, csr, n, 3600));
	n = request(rsa, rsa, csr);
	assert_true(is_refused(ca, SPIFFE, csr, n, 3600));
	n = request(p384, p384, csr);
	assert_true(is_refused(ca, SPIFFE, csr, n, 3600));
	n = request(ec, p384, csr); /* somebody else's key */
	assert_true(is_refused(ca, SPIFFE, csr, n, 3600));
	n = request(ec, ec, csr);
	assert_false(is_refused(ca, SPIFFE, csr, n, 3600));
	assert_true(is_refused(ca, "spiffe://other/ns/default/sa/orders", csr, n, 3600));
	assert_true(is_refused(ca, "https://cluster.local/ns/default/sa/orders", csr, n, 3600));
	assert_true(is_refused(ca, SPIFFE, csr, n, CA_TTL_MIN_S - 1));
	assert_true(is_refused(ca, SPIFFE, csr, n, CA_TTL_MAX_S + 1));
	assert_true(is_refused(ca, SPIFFE, csr, 0, 3600));
	for (uint32_t cut = 1; cut < n; cut += 7)
		assert_true(is_refused(ca, SPIFFE, csr, cut, 3600));
	EVP_PKEY_free(ec);
	EVP_PKEY_free(p384);
	EVP_PKEY_free(rsa);
	EVP_PKEY_free(ed);
	ca_free(ca);
}

static void answers_bytes_that_are_no_request(void **state)
{
	struct ca *ca = open_ca();
	const uint8_t junk[] = { 0x81, 0x04, 0x05 };
	uint8_t *out;
	size_t len;

	(void)state;
	assert_int_equal(ca_sign(ca, junk, sizeof(junk), &out, &len), 0);
	assert_true(len > 0);
	free(out);
	ca_free(ca);
}

static void root_is_kept(void **state)
{
	struct ca *ca = open_ca();
	size_t len, again;
	uint8_t *first;
	char path[96];
	struct stat st;

	(void)state;
	const uint8_t *root = ca_root(ca, &len);
	first = malloc(len);
	memcpy(first, root, len);
	ca_free(ca);
	snprintf(path, sizeof(path), "%s/ca.key", dir);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	ca = open_ca();
	root = ca_root(ca, &again);
	assert_int_equal(len, again);
	assert_memory_equal(first, root, len);
	free(first);
	ca_free(ca);
}

static void folder_of_another_domain_is_refused(void **state)
{
	struct ca *ca = open_ca();
	const char *why = NULL;
	char path[96];

	(void)state;
	ca_free(ca);
	assert_int_equal(ca_open(&ca, dir, "other.example", &why), -EINVAL);
	assert_non_null(strstr(why, "trust domain"));
	snprintf(path, sizeof(path), "%s/ca.crt", dir);
	assert_int_equal(truncate(path, 100), 0);
	assert_int_equal(ca_open(&ca, dir, "cluster.local", &why), -EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(signs_by_the_profile, make_folder, remove_folder),
		cmocka_unit_test_setup_teardown(refuses_keys_and_claims, make_folder,
						remove_folder),
		cmocka_unit_test_setup_teardown(answers_bytes_that_are_no_request, make_folder,
						remove_folder),
		cmocka_unit_test_setup_teardown(root_is_kept, make_folder, remove_folder),
		cmocka_unit_test_setup_teardown(folder_of_another_domain_is_refused, make_folder,
						remove_folder),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
