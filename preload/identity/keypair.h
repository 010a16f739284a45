/* The key of the process, as OpenSSL takes it. identity.h has what other rooms may use. */
#ifndef IDENTITY_KEYPAIR_H
#define IDENTITY_KEYPAIR_H

#include <openssl/evp.h>

#include "identity/identity.h"

struct keypair {
	EVP_PKEY *key;
};

#endif
