#include "identity/keypair.h"

#include <errno.h>
#include <openssl/bn.h>
#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/x509.h>
#include <stdatomic.h>

#include "identity/crypto.h"
#include "identity/vault.h"
#include "sys/lock.h"
#include "weft/limits.h"

#define SCALAR_SIZE 32 /* of a P-256 private key */

static struct keypair keypair;
static struct lock keypair_lock;
static _Atomic(struct keypair *) keypair_ready;

static EVP_PKEY *make_key(const struct crypto *c)
{
	EVP_PKEY *key;

	/* The first is thrown away: what OpenSSL looks up and keeps for ever on that way is none of the vault's. */
	EVP_PKEY_free(EVP_PKEY_Q_keygen(c->lib, NULL, "EC", "P-256"));
	vault_open();
	key = EVP_PKEY_Q_keygen(c->lib, NULL, "EC", "P-256");
	vault_close();
	return key;
}

struct keypair *keypair_get(void)
{
	struct keypair *k = atomic_load_explicit(&keypair_ready, memory_order_acquire);
	const struct crypto *c = k ? NULL : crypto_get();

	if (k || !c || lock_take(&keypair_lock) == -EDEADLK)
		return k;
	if (!keypair.key)
		keypair.key = make_key(c);
	if (keypair.key)
		atomic_store_explicit(&keypair_ready, k = &keypair, memory_order_release);
	else
		ERR_clear_error();
	lock_drop(&keypair_lock);
	return k;
}

/* Only the number goes: a thread that shakes hands while the process exits fails, and does not crash. */
void keypair_wipe(void)
{
	struct keypair *k = atomic_load_explicit(&keypair_ready, memory_order_acquire);
	uint8_t scalar[SCALAR_SIZE];
	BIGNUM *d = NULL;

	/* In memory it lies in BIGNUM's order, least significant limb first. */
	if (k && EVP_PKEY_get_bn_param(k->key, OSSL_PKEY_PARAM_PRIV_KEY, &d) &&
	    BN_bn2lebinpad(d, scalar, sizeof(scalar)) == sizeof(scalar))
		vault_forget(scalar, sizeof(scalar));
	BN_clear_free(d);
	OPENSSL_cleanse(scalar, sizeof(scalar));
}

int keypair_csr(struct keypair *k, uint8_t *out)
{
	const struct crypto *c = crypto_get();
	X509_REQ *req = c ? X509_REQ_new_ex(c->lib, NULL) : NULL;
	int len = -1;

	if (req && X509_REQ_set_version(req, X509_REQ_VERSION_1) &&
	    X509_REQ_set_pubkey(req, k->key) && X509_REQ_sign(req, k->key, EVP_sha256()) > 0)
		len = i2d_X509_REQ(req, NULL);
	if (len > 0 && len <= WEFT_CSR_MAX)
		len = i2d_X509_REQ(req, &out);
	X509_REQ_free(req);
	ERR_clear_error();
	return len > 0 && len <= WEFT_CSR_MAX ? len : -EIO;
}
