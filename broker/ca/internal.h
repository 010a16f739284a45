/* Of ca/ alone. */
#ifndef CA_INTERNAL_H
#define CA_INTERNAL_H

#include <openssl/evp.h>
#include <openssl/x509v3.h>

#include "weft/limits.h"

struct ca {
	char trust_domain[WEFT_HOST_MAX + 1];
	EVP_PKEY *key;
	X509 *root;
	uint8_t *root_der;
	int root_len;
};

/* profile.c: what certificates of the mesh look like. NULL where OpenSSL fails. */
X509 *profile_root(EVP_PKEY *key, const char *trust_domain);
X509 *profile_leaf(const struct ca *ca, EVP_PKEY *subject, const char *spiffe, long ttl_s);
/* "spiffe://<trust domain>" of a root made here. 0 or -EINVAL. */
int profile_root_domain(X509 *root, char out[static WEFT_HOST_MAX + 1]);

#endif
