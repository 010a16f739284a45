/* Who is accepted as a peer: other kinds of keys, and peers that come again. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "foreign.h"

#define ORDERS "spiffe://cluster.local/ns/default/sa/orders"

static struct pki_ca ca, rsa_ca;

static int setup(void **state)
{
	(void)state;
	assert_non_null(keypair_get());
	ca = pki_ca("root", NULL);
	rsa_ca = pki_ca_with("root", NULL, EVP_RSA_gen(2048));
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	pki_ca_done(&ca);
	pki_ca_done(&rsa_ca);
	return 0;
}

/* One handshake of `id` with a peer that presents `leaf` and `key`; the reason why it was refused. */
static enum weft_reason meet(struct identity *id, bool we_serve, X509 *leaf, EVP_PKEY *key,
			     const char *groups)
{
	struct handshake_client to = { .sni = "orders.default" };
	struct handshake *h = we_serve ? handshake_new_server(id) : handshake_new_client(id, &to);
	enum weft_reason reason;
	struct foreign f;
	int fd[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fd), 0);
	EVP_PKEY_up_ref(key);
	foreign_start(&f, !we_serve, NULL, NULL, key, fd[1], NULL);
	assert_true(SSL_use_certificate(f.ssl, leaf) && SSL_use_PrivateKey(f.ssl, key));
	if (groups)
		assert_true(SSL_set1_groups_list(f.ssl, groups));
	run_against(h, fd[0], &f);
	reason = handshake_reason(h);
	handshake_free(h);
	foreign_done(&f);
	close(fd[0]), close(fd[1]);
	return reason;
}

static void other_keys(void **state)
{
	EVP_PKEY *keys[] = { EVP_EC_gen("P-256"), EVP_EC_gen("P-384"), EVP_RSA_gen(2048),
			     EVP_PKEY_Q_keygen(NULL, NULL, "ED25519") };
	const struct pki_ca *signers[] = { &ca, &rsa_ca };

	(void)state;
	for (size_t i = 0; i < 8; i++) {
		struct identity *id = pki_identity(ORDERS, signers[i / 4], 1);
		EVP_PKEY *key = keys[i % 4];
		X509 *leaf =
			pki_sign(signers[i / 4], key, &(struct pki_leaf){ .san = "URI:" ORDERS });

		assert_int_equal(meet(id, true, leaf, key, NULL), WEFT_REASON_NONE);
		assert_int_equal(meet(id, false, leaf, key, NULL), WEFT_REASON_NONE);
		X509_free(leaf);
		identity_unref(id);
	}
	for (size_t k = 0; k < 4; k++)
		EVP_PKEY_free(keys[k]);
}

/* An identity of ours and one peer's certificate, for the tests that follow. */
struct pair {
	struct identity *id;
	EVP_PKEY *key;
	X509 *leaf;
};

static struct pair pair_new(const struct pki_leaf *l)
{
	struct pair p = { .id = pki_identity(ORDERS, &ca, 1), .key = EVP_EC_gen("P-256") };

	p.leaf = pki_sign(&ca, p.key, l);
	return p;
}

static void pair_done(struct pair *p)
{
	X509_free(p->leaf);
	EVP_PKEY_free(p->key);
	identity_unref(p->id);
}

/* P-256 alone: a client of ours is asked for another key share. */
static void other_group(void **state)
{
	struct pair p = pair_new(&(struct pki_leaf){ .san = "URI:" ORDERS });

	(void)state;
	for (int serve = 0; serve < 2; serve++) {
		assert_int_equal(meet(p.id, serve, p.leaf, p.key, "P-256"), WEFT_REASON_NONE);
		assert_int_equal(meet(p.id, serve, p.leaf, p.key, "P-384"),
				 WEFT_REASON_HANDSHAKE_FAILED);
	}
	pair_done(&p);
}

/* A certificate that was verified is not trusted in another role, nor by another identity. */
static void seen_before(void **state)
{
	struct pair p = pair_new(&(struct pki_leaf){ .san = "URI:" ORDERS, .eku = "serverAuth" });
	struct identity *other = pki_identity(ORDERS, &rsa_ca, 1);

	(void)state;
	for (int i = 0; i < 3; i++) {
		assert_int_equal(meet(p.id, false, p.leaf, p.key, NULL), WEFT_REASON_NONE);
		assert_int_equal(meet(p.id, true, p.leaf, p.key, NULL), WEFT_REASON_CERT_UNTRUSTED);
		assert_int_equal(meet(other, false, p.leaf, p.key, NULL),
				 WEFT_REASON_CERT_UNTRUSTED);
	}
	identity_unref(other);
	pair_done(&p);
}

/* ... nor for longer than it is valid. */
static void seen_before_and_expired(void **state)
{
	struct pair p = pair_new(&(struct pki_leaf){ .san = "URI:" ORDERS, .until = 2 });

	(void)state;
	assert_int_equal(meet(p.id, false, p.leaf, p.key, NULL), WEFT_REASON_NONE);
	assert_int_equal(meet(p.id, false, p.leaf, p.key, NULL), WEFT_REASON_NONE);
	sleep(3);
	assert_int_equal(meet(p.id, false, p.leaf, p.key, NULL), WEFT_REASON_CERT_EXPIRED);
	pair_done(&p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(other_keys),
		cmocka_unit_test(other_group),
		cmocka_unit_test(seen_before),
		cmocka_unit_test(seen_before_and_expired),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
