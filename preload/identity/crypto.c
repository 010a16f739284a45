#include "identity/crypto.h"

#include <errno.h>
#include <openssl/kdf.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

#include "identity/provider.h"
#include "identity/vault.h"
#include "sys/lock.h"

static struct crypto crypto;
static struct lock crypto_lock;
static atomic_bool crypto_ready;

static bool crypto_fetch(struct crypto *c)
{
	c->tls13_kdf = EVP_KDF_fetch(c->lib, "TLS13-KDF", NULL);
	c->aes128_gcm = EVP_CIPHER_fetch(c->lib, "AES-128-GCM", NULL);
	c->aes256_gcm = EVP_CIPHER_fetch(c->lib, "AES-256-GCM", NULL);
	c->chacha20_poly1305 = EVP_CIPHER_fetch(c->lib, "ChaCha20-Poly1305", NULL);
	c->sha256 = EVP_MD_fetch(c->lib, "SHA2-256", NULL);
	return c->sha256 && c->tls13_kdf && c->aes128_gcm && c->aes256_gcm && c->chacha20_poly1305;
}

static void crypto_drop(struct crypto *c)
{
	EVP_KDF_free(c->tls13_kdf);
	EVP_MD_free(c->sha256);
	EVP_CIPHER_free(c->aes128_gcm);
	EVP_CIPHER_free(c->aes256_gcm);
	EVP_CIPHER_free(c->chacha20_poly1305);
	OSSL_LIB_CTX_free(c->lib);
	*c = (struct crypto){ NULL };
}

static bool crypto_start(struct crypto *c)
{
	/* Before anything of OpenSSL allocates, else the hook-up of the vault is refused. */
	vault_start();
	if (!OPENSSL_init_ssl(OPENSSL_INIT_NO_LOAD_CONFIG | OPENSSL_INIT_NO_ATEXIT, NULL))
		return false;
	c->lib = provider_context();
	if (c->lib && crypto_fetch(c))
		return true;
	crypto_drop(c);
	ERR_clear_error();
	return false;
}

const struct crypto *crypto_get(void)
{
	if (atomic_load_explicit(&crypto_ready, memory_order_acquire))
		return &crypto;
	if (lock_take(&crypto_lock) == -EDEADLK)
		return NULL; /* a signal handler on top of the first call */
	if (!crypto_ready && crypto_start(&crypto))
		atomic_store_explicit(&crypto_ready, true, memory_order_release);
	lock_drop(&crypto_lock);
	return crypto_ready ? &crypto : NULL;
}
