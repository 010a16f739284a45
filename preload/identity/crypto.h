/* OpenSSL as the shim uses it: a library context of its own, no configuration file, nothing left to run at exit, and each
 * algorithm looked up once. Everything that touches OpenSSL begins with crypto_get(). */
#ifndef IDENTITY_CRYPTO_H
#define IDENTITY_CRYPTO_H

#include <openssl/evp.h>
#include <openssl/kdf.h>
#include <stdint.h>

struct crypto {
	OSSL_LIB_CTX *lib;
	EVP_KDF *tls13_kdf;
	EVP_MD *sha256;
	EVP_CIPHER *aes128_gcm, *aes256_gcm, *chacha20_poly1305;
};

/* Made at the first call, by any thread; lives as long as the process. NULL: no memory. */
const struct crypto *crypto_get(void);

#endif
