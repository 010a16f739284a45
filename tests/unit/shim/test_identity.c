/* The keypair and what identity_build takes and refuses of what weftd wrote. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <unistd.h>

#include <cmocka.h>

#include "pki.h"

#define URI "spiffe://cluster.local/ns/default/sa/orders"

static struct pki_ca ca;

static int setup(void **state)
{
	(void)state;
	assert_non_null(keypair_get());
	ca = pki_ca("root", NULL);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	pki_ca_done(&ca);
	return 0;
}

static void one_key(void **state)
{
	uint8_t a[WEFT_CSR_MAX], b[WEFT_CSR_MAX];
	struct keypair *k = keypair_get();
	EVP_PKEY *key = pki_own_key(), *again = pki_own_key(); /* verifies the requests */

	(void)state;
	assert_ptr_equal(k, keypair_get());
	assert_true(keypair_csr(k, a) > 100 && keypair_csr(k, b) > 100);
	assert_int_equal(EVP_PKEY_eq(key, again), 1);
	assert_true(EVP_PKEY_is_a(key, "EC"));
	assert_int_equal(EVP_PKEY_get_bits(key), 256);
	EVP_PKEY_free(key), EVP_PKEY_free(again);
}

static void good(void **state)
{
	struct identity *id = pki_identity(URI, &ca, 1);

	(void)state;
	assert_non_null(id);
	assert_int_equal(id->seq, 7);
	assert_string_equal(id->wire->spiffe.p, URI);
	assert_non_null(id->wire->inbound);
	assert_int_equal(id->wire->inbound->mtls, 3);
	assert_non_null(id->client);
	assert_non_null(id->server);
	assert_ptr_equal(identity_ref(id), id);
	assert_null(identity_unref(id));
	assert_string_equal(id->wire->spiffe.p, URI);
	assert_null(identity_unref(id));
	assert_null(identity_unref(NULL));
}

/* Builds from `e` and expects refusal with `part` in the reason. Takes `e`. */
static void refused(struct pki_identity e, const char *part)
{
	struct identity *id = NULL;
	const char *why = NULL;

	assert_int_equal(identity_build(keypair_get(), e.bytes, e.len, 1, &id, &why), -EPROTO);
	assert_null(id);
	if (!why || !strstr(why, part))
		fail_msg("'%s' for '%s'", why ? why : "(null)", part);
	free(e.bytes);
}

static void wrong_leaf(void **state)
{
	EVP_PKEY *own = pki_own_key(), *foreign = EVP_EC_gen("P-256");
	X509 *leaf = pki_sign(&ca, foreign, &(struct pki_leaf){ .san = "URI:" URI });

	(void)state;
	refused(pki_encode(URI, "cluster.local", leaf, &ca, 1), "another key");
	X509_free(leaf);
	leaf = pki_sign(&ca, own, &(struct pki_leaf){ .san = "URI:" URI "2" });
	refused(pki_encode(URI, "cluster.local", leaf, &ca, 1), "another SPIFFE ID");
	X509_free(leaf);
	leaf = pki_sign(&ca, own, &(struct pki_leaf){ .san = "DNS:orders" });
	refused(pki_encode(URI, "cluster.local", leaf, &ca, 1), "another SPIFFE ID");
	X509_free(leaf);
	EVP_PKEY_free(own), EVP_PKEY_free(foreign);
}

static struct pki_identity encode(const struct wire_identity *w)
{
	struct pki_identity e;

	assert_int_equal(
		wire_encode(&wire_schema_identity, w, WEFT_IDENTITY_HALF, &e.bytes, &e.len), 0);
	return e;
}

static void wrong_form(void **state)
{
	uint8_t junk[64] = { 0x30, 0x3e }, *large = calloc(1, WEFT_CERT_MAX + 1);
	struct wire_bin many[WEFT_CHAIN_MAX + 1], der = pki_der(ca.cert),
						  trailing = { malloc(der.n + 1), der.n + 1 };
	struct wire_anchor anchors[WEFT_BUNDLE_MAX + 1];
	struct wire_identity w = { .spiffe = wire_str_of(URI) };

	(void)state;
	refused(encode(&w), "trust bundle");
	for (int i = 0; i <= WEFT_BUNDLE_MAX; i++)
		anchors[i] = (struct wire_anchor){ wire_str_of("cluster.local"), der };
	w.bundle.v = anchors, w.bundle.n = WEFT_BUNDLE_MAX + 1;
	refused(encode(&w), "trust bundle");
	w.bundle.n = 1;
	refused(encode(&w), "chain");
	for (int i = 0; i <= WEFT_CHAIN_MAX; i++)
		many[i] = der;
	w.chain.v = many, w.chain.n = WEFT_CHAIN_MAX + 1;
	refused(encode(&w), "chain");
	w.chain.n = 1, many[0] = (struct wire_bin){ junk, sizeof(junk) };
	refused(encode(&w), "chain");
	many[0] = (struct wire_bin){ large, WEFT_CERT_MAX + 1 };
	refused(encode(&w), "chain");
	anchors[0].der = (struct wire_bin){ junk, sizeof(junk) };
	refused(encode(&w), "trust anchor");
	memcpy((uint8_t *)(uintptr_t)trailing.p, der.p, der.n);
	((uint8_t *)(uintptr_t)trailing.p)[der.n] = 0;
	anchors[0].der = trailing;
	refused(encode(&w), "trust anchor");
	refused((struct pki_identity){ calloc(1, 9), 9 }, "");
	OPENSSL_free((void *)(uintptr_t)der.p);
	free((void *)(uintptr_t)trailing.p);
	free(large);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(one_key),
		cmocka_unit_test(good),
		cmocka_unit_test(wrong_leaf),
		cmocka_unit_test(wrong_form),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
