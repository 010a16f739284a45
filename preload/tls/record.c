#include "tls/record.h"

#include <errno.h>
#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/kdf.h>
#include <openssl/params.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "identity/crypto.h"

#define RECORD_TAG 16
#define RECORD_IV 12
#define RECORD_KEY_MAX 32
#define INNER_MIN (RECORD_OVERHEAD - RECORD_HEADER) /* content type and tag */
#define INNER_MAX (WEFT_RECORD_MAX + 256)

/* RFC 8446 section 5.5 lets an AES-GCM key seal 2^24.5 full records; from here on only the KeyUpdate itself and alerts. */
#define GCM_DATA_MAX (UINT64_C(1) << 24)
#define GCM_ALL_MAX (GCM_DATA_MAX + (GCM_DATA_MAX >> 2))

/* Below this, plaintext is copied next to its content type, so that one call of EVP does for both. */
#define GATHER_MAX 4096

struct record_aead {
	EVP_CIPHER_CTX *ctx;
	uint16_t suite;              /* 0: `ctx` is not keyed */
	uint8_t key[RECORD_KEY_MAX]; /* that `ctx` is keyed with */
	uint8_t tag[RECORD_TAG];
	OSSL_PARAM tag_param[2]; /* leads to `tag` */
};

struct suite {
	uint16_t id;
	uint8_t key_len, secret_len;
	const char *digest;
	size_t cipher; /* offset in struct crypto */
};

static const struct suite suites[] = {
	{ 0x1301, 16, 32, "SHA256", offsetof(struct crypto, aes128_gcm) },
	{ 0x1302, 32, 48, "SHA384", offsetof(struct crypto, aes256_gcm) },
	{ 0x1303, 32, 32, "SHA256", offsetof(struct crypto, chacha20_poly1305) },
};

static const struct suite *suite_find(uint16_t id)
{
	for (size_t i = 0; i < sizeof(suites) / sizeof(*suites); i++)
		if (suites[i].id == id)
			return &suites[i];
	return NULL;
}

static OSSL_PARAM param_bytes(const char *name, const void *bytes, size_t n)
{
	/* OpenSSL only reads these, but has one type for both directions. */
	return OSSL_PARAM_construct_octet_string(name, (void *)(uintptr_t)bytes, n);
}

/* HKDF-Expand-Label(secret, label, "", n), RFC 8446 section 7.1. */
static int expand_label(const struct suite *s, const uint8_t *secret, const char *label,
			uint8_t *out, size_t n)
{
	const struct crypto *c = crypto_get();
	int mode = EVP_KDF_HKDF_MODE_EXPAND_ONLY;
	OSSL_PARAM params[] = {
		OSSL_PARAM_construct_int(OSSL_KDF_PARAM_MODE, &mode),
		OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST,
						 (char *)(uintptr_t)s->digest, 0),
		param_bytes(OSSL_KDF_PARAM_KEY, secret, s->secret_len),
		param_bytes(OSSL_KDF_PARAM_PREFIX, "tls13 ", 6),
		param_bytes(OSSL_KDF_PARAM_LABEL, label, strlen(label)),
		OSSL_PARAM_construct_end(),
	};
	EVP_KDF_CTX *kdf = c ? EVP_KDF_CTX_new(c->tls13_kdf) : NULL;
	int r = kdf && EVP_KDF_derive(kdf, out, n, params) > 0 ? 0 : -EIO;

	EVP_KDF_CTX_free(kdf);
	if (r < 0)
		ERR_clear_error();
	return r;
}

static int keys_derive(struct record_keys *k, const struct suite *s)
{
	k->seq = 0;
	memset(k->key, 0, sizeof(k->key));
	if (expand_label(s, k->secret, "key", k->key, s->key_len) < 0)
		return -EIO;
	return expand_label(s, k->secret, "iv", k->iv, sizeof(k->iv));
}

int record_keys_set(struct record_keys *k, uint16_t suite, const uint8_t *secret, size_t len)
{
	const struct suite *s = suite_find(suite);

	if (!s || len != s->secret_len)
		return -EPROTONOSUPPORT;
	*k = (struct record_keys){ .suite = suite, .secret_len = s->secret_len };
	memcpy(k->secret, secret, len);
	return keys_derive(k, s);
}

int record_keys_update(struct record_keys *k)
{
	const struct suite *s = suite_find(k->suite);
	uint8_t next[sizeof(k->secret)];
	int r;

	if (!s)
		return -EPROTONOSUPPORT;
	r = expand_label(s, k->secret, "traffic upd", next, s->secret_len);
	if (!r) {
		memcpy(k->secret, next, s->secret_len);
		k->updates++;
		r = keys_derive(k, s);
	}
	OPENSSL_cleanse(next, sizeof(next));
	return r;
}

bool record_keys_sound(const struct record_keys *k)
{
	const struct suite *s = suite_find(k->suite);

	return s && k->secret_len == s->secret_len;
}

void record_keys_wipe(struct record_keys *k)
{
	OPENSSL_cleanse(k, sizeof(*k));
}

struct record_aead *record_aead_new(void)
{
	struct record_aead *a = calloc(1, sizeof(*a));

	if (a)
		a->tag_param[0] = OSSL_PARAM_construct_octet_string(OSSL_CIPHER_PARAM_AEAD_TAG,
								    a->tag, RECORD_TAG);
	return a;
}

struct record_aead *record_aead_free(struct record_aead *a)
{
	if (a) {
		EVP_CIPHER_CTX_free(a->ctx);
		OPENSSL_cleanse(a, sizeof(*a));
		free(a);
	}
	return NULL;
}

/* Another suite than the last one: forget everything that was set up. */
static int aead_choose(struct record_aead *a, const struct suite *s, int seal)
{
	const struct crypto *c = crypto_get();
	EVP_CIPHER *const *cipher;

	if (!s || !c)
		return -EIO;
	if (!a->ctx)
		a->ctx = EVP_CIPHER_CTX_new();
	cipher = (EVP_CIPHER *const *)(const void *)((const uint8_t *)c + s->cipher);
	return a->ctx && EVP_CipherInit_ex2(a->ctx, *cipher, NULL, NULL, seal, NULL) ? 0 : -EIO;
}

/* Makes `a` ready for the next record of `k`; for opening, a->tag is what the record must have. */
static int aead_begin(struct record_aead *a, const struct record_keys *k, int seal)
{
	uint8_t nonce[RECORD_IV];
	const uint8_t *key = NULL;

	if (!a->suite || a->suite != k->suite || memcmp(a->key, k->key, RECORD_KEY_MAX) != 0) {
		if ((!a->suite || a->suite != k->suite) &&
		    aead_choose(a, suite_find(k->suite), seal) < 0)
			return -EIO;
		a->suite = 0;
		key = k->key;
	}
	memcpy(nonce, k->iv, RECORD_IV);
	for (int i = 0; i < 8; i++)
		nonce[4 + i] ^= (uint8_t)(k->seq >> (56 - 8 * i));
	if (!EVP_CipherInit_ex2(a->ctx, NULL, key, nonce, seal, seal ? NULL : a->tag_param))
		return -EIO;
	if (key) {
		memcpy(a->key, key, RECORD_KEY_MAX);
		a->suite = k->suite;
	}
	return 0;
}

static bool key_is_spent(const struct record_keys *k, enum record_type type)
{
	if (k->suite == 0x1303)
		return k->seq == UINT64_MAX;
	return k->seq >= (type == RECORD_DATA ? GCM_DATA_MAX : GCM_ALL_MAX);
}

/* Copies `n` bytes of `iov` from `skip` on and seals them, the content type behind them, where they then lie. */
static bool seal_gathered(EVP_CIPHER_CTX *ctx, uint8_t type, const struct iovec *iov, size_t skip,
			  size_t n, uint8_t *out)
{
	size_t done = 0;
	int len;

	for (; done < n; iov++) {
		size_t part = iov->iov_len - skip < n - done ? iov->iov_len - skip : n - done;

		memcpy(out + done, (const uint8_t *)iov->iov_base + skip, part);
		done += part;
		skip = 0;
	}
	out[n] = type;
	return EVP_EncryptUpdate(ctx, out, &len, out, (int)n + 1);
}

/* The same from where the bytes are. */
static bool seal_direct(EVP_CIPHER_CTX *ctx, uint8_t type, const struct iovec *iov, size_t skip,
			size_t n, uint8_t *out)
{
	size_t done = 0;
	int len;

	for (; done < n; iov++) {
		size_t part = iov->iov_len - skip < n - done ? iov->iov_len - skip : n - done;

		if (part && !EVP_EncryptUpdate(ctx, out + done, &len,
					       (const uint8_t *)iov->iov_base + skip, (int)part))
			return false;
		done += part;
		skip = 0;
	}
	return EVP_EncryptUpdate(ctx, out + n, &len, &type, 1);
}

ssize_t record_seal(struct record_aead *a, struct record_keys *k, enum record_type type,
		    const struct iovec *iov, size_t skip, size_t n, uint8_t *out)
{
	size_t inner = n + 1 + RECORD_TAG;
	bool ok;
	int len;

	if (n > WEFT_RECORD_MAX)
		return -EIO;
	if (key_is_spent(k, type))
		return -EKEYEXPIRED;
	for (; n && skip >= iov->iov_len; iov++)
		skip -= iov->iov_len;
	out[0] = RECORD_DATA, out[1] = 3, out[2] = 3, out[3] = (uint8_t)(inner >> 8),
	out[4] = (uint8_t)inner;
	ok = aead_begin(a, k, 1) == 0 &&
	     EVP_EncryptUpdate(a->ctx, NULL, &len, out, RECORD_HEADER) &&
	     (n <= GATHER_MAX ? seal_gathered : seal_direct)(a->ctx, type, iov, skip, n,
							     out + RECORD_HEADER) &&
	     EVP_EncryptFinal_ex(a->ctx, out + RECORD_HEADER + n + 1, &len) &&
	     EVP_CIPHER_CTX_get_params(a->ctx, a->tag_param);
	if (!ok) {
		/* What plaintext was gathered must not be sent by mistake. */
		OPENSSL_cleanse(out, n + RECORD_OVERHEAD);
		a->suite = 0;
		ERR_clear_error();
		return -EIO;
	}
	memcpy(out + RECORD_HEADER + n + 1, a->tag, RECORD_TAG);
	k->seq++;
	return (ssize_t)(RECORD_HEADER + inner);
}

ssize_t record_wire_length(const uint8_t h[RECORD_HEADER])
{
	size_t inner = (size_t)h[3] << 8 | h[4];

	if (h[0] != RECORD_DATA || h[1] != 3 || h[2] != 3 || inner < INNER_MIN || inner > INNER_MAX)
		return -EPROTO;
	return (ssize_t)(RECORD_HEADER + inner);
}

/* RFC 8446 section 5.2: content, its type, then zeros; `last` is the byte that follows the n in `inner`. Returns the
 * length of the content. */
static ssize_t inner_parse(const uint8_t *inner, size_t n, uint8_t last, uint8_t *type)
{
	while (!last && n)
		last = inner[--n];
	*type = last;
	if (n > WEFT_RECORD_MAX ||
	    (*type != RECORD_DATA && *type != RECORD_HANDSHAKE && *type != RECORD_ALERT))
		return -EPROTO;
	return !n && *type != RECORD_DATA ? -EPROTO : (ssize_t)n;
}

ssize_t record_open(struct record_aead *a, struct record_keys *k, const uint8_t *rec, size_t len,
		    uint8_t *out, uint8_t *type)
{
	size_t n = len - RECORD_OVERHEAD;
	const uint8_t *body = rec + RECORD_HEADER;
	uint8_t end[RECORD_TAG], last;
	int part;

	if (len < RECORD_OVERHEAD || record_wire_length(rec) != (ssize_t)len ||
	    k->seq == UINT64_MAX)
		return -EPROTO;
	memcpy(a->tag, rec + len - RECORD_TAG, RECORD_TAG);
	if (aead_begin(a, k, 0) < 0 ||
	    !EVP_DecryptUpdate(a->ctx, NULL, &part, rec, RECORD_HEADER) ||
	    (n && !EVP_DecryptUpdate(a->ctx, out, &part, body, (int)n)) ||
	    !EVP_DecryptUpdate(a->ctx, &last, &part, body + n, 1) ||
	    !EVP_DecryptFinal_ex(a->ctx, end, &part)) {
		OPENSSL_cleanse(out, n);
		ERR_clear_error();
		return -EBADMSG;
	}
	k->seq++;
	return inner_parse(out, n, last, type);
}
