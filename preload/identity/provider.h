/* OpenSSL's default provider without the decoders that weft never uses. OpenSSL 3.0 goes through every decoder and every
 * key type of a library context for each certificate it parses: a quarter of a handshake, for a key that three of them can
 * read. */
#ifndef IDENTITY_PROVIDER_H
#define IDENTITY_PROVIDER_H

#include <openssl/types.h>

/* A library context with that provider; never freed. NULL: no memory. Once per process. */
OSSL_LIB_CTX *provider_context(void);

#endif
