#include "identity/provider.h"

#include <openssl/core_dispatch.h>
#include <openssl/crypto.h>
#include <openssl/provider.h>
#include <stdbool.h>
#include <string.h>

#define LIST_MAX 32

/* The default provider in a context of its own; its algorithms find each other there. */
static OSSL_PROVIDER *whole;
static OSSL_ALGORITHM decoders[LIST_MAX], encoders[LIST_MAX], keys[LIST_MAX];

/* "EC:id-ecPublicKey:1.2.840.10045.2.1": is one of `wanted` its first name? */
static bool is_wanted(const char *names, const char *const *wanted)
{
	size_t n = strcspn(names, ":");

	for (; *wanted; wanted++)
		if (strlen(*wanted) == n && !strncmp(names, *wanted, n))
			return true;
	return false;
}

/* What certificates of a mesh hold, and what TLS 1.3 exchanges; "DER" tells which of them it is. */
static void select_from(int operation, OSSL_ALGORITHM *out, const char *property)
{
	int no_cache;
	const OSSL_ALGORITHM *all = OSSL_PROVIDER_query_operation(whole, operation, &no_cache);
	static const char *const wanted[] = { "EC",    "RSA",    "RSA-PSS", "ED25519",
					      "ED448", "X25519", "DER",     NULL };
	size_t n = 0;

	for (; all && all->algorithm_names && n < LIST_MAX - 1; all++)
		if (is_wanted(all->algorithm_names, wanted) &&
		    strstr(all->property_definition, property))
			out[n++] = *all;
	out[n] = (OSSL_ALGORITHM){ NULL };
}

static const OSSL_ALGORITHM *query(void *provctx, int operation, int *no_cache)
{
	(void)provctx;
	*no_cache = 0;
	switch (operation) {
	case OSSL_OP_DECODER:
		return decoders;
	case OSSL_OP_KEYMGMT:
		return keys;
	case OSSL_OP_ENCODER:
		return encoders;
	case OSSL_OP_STORE:
		return NULL;
	default:
		return OSSL_PROVIDER_query_operation(whole, operation, no_cache);
	}
}

/* The groups of TLS, for one. */
static int capabilities(void *provctx, const char *capability, OSSL_CALLBACK *cb, void *arg)
{
	(void)provctx;
	return OSSL_PROVIDER_get_capabilities(whole, capability, cb, arg);
}

static int provider_init(const OSSL_CORE_HANDLE *handle, const OSSL_DISPATCH *in,
			 const OSSL_DISPATCH **out, void **provctx)
{
	static const OSSL_DISPATCH functions[] = {
		{ OSSL_FUNC_PROVIDER_QUERY_OPERATION, (void (*)(void))query },
		{ OSSL_FUNC_PROVIDER_GET_CAPABILITIES, (void (*)(void))capabilities },
		{ 0, NULL },
	};

	(void)handle, (void)in;
	*out = functions;
	*provctx = OSSL_PROVIDER_get0_provider_ctx(whole);
	return 1;
}

static bool whole_load(void)
{
	OSSL_LIB_CTX *inner = whole ? NULL : OSSL_LIB_CTX_new();

	if (inner)
		whole = OSSL_PROVIDER_load(inner, "default");
	if (!whole)
		OSSL_LIB_CTX_free(inner);
	return whole;
}

OSSL_LIB_CTX *provider_context(void)
{
	OSSL_LIB_CTX *lib = whole_load() ? OSSL_LIB_CTX_new() : NULL;

	if (!lib)
		return NULL;
	select_from(OSSL_OP_DECODER, decoders, "der,structure=SubjectPublicKeyInfo");
	select_from(OSSL_OP_ENCODER, encoders, "der,structure=SubjectPublicKeyInfo");
	select_from(OSSL_OP_KEYMGMT, keys, "");
	if (OSSL_PROVIDER_add_builtin(lib, "weft", provider_init) &&
	    OSSL_PROVIDER_load(lib, "weft"))
		return lib;
	OSSL_LIB_CTX_free(lib);
	return NULL;
}
