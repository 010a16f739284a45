#include "identity/verified.h"

#include <errno.h>
#include <string.h>

#include "identity/crypto.h"

bool verified_digest(X509 *cert, bool as_server, uint8_t out[static VERIFIED_DIGEST])
{
	unsigned n;

	if (!X509_digest(cert, crypto_get()->sha256, out, &n) || n != VERIFIED_DIGEST)
		return false;
	out[VERIFIED_DIGEST - 1] = (uint8_t)((out[VERIFIED_DIGEST - 1] & 0xfe) | as_server);
	return true;
}

/* The two roles of one certificate have different slots. */
static struct verified_slot *slot_of(struct verified *v, const uint8_t *digest)
{
	return &v->slots[(digest[0] ^ digest[VERIFIED_DIGEST - 1]) % VERIFIED_SLOTS];
}

bool verified_has(struct verified *v, const uint8_t digest[static VERIFIED_DIGEST])
{
	struct verified_slot *s = slot_of(v, digest);
	time_t now = time(NULL);
	bool found;

	if (lock_take(&v->lock) == -EDEADLK)
		return false;
	found = s->since <= now && now < s->until && !memcmp(s->digest, digest, VERIFIED_DIGEST);
	lock_drop(&v->lock);
	return found;
}

/* Seconds from now to `t`; false for what is no time. */
static bool seconds_to(const ASN1_TIME *t, time_t *out)
{
	int days, seconds;

	if (!ASN1_TIME_diff(&days, &seconds, NULL, t))
		return false;
	*out = (time_t)days * 86400 + seconds;
	return true;
}

void verified_add(struct verified *v, const uint8_t digest[static VERIFIED_DIGEST],
		  const STACK_OF(X509) * chain)
{
	struct verified_slot *s = slot_of(v, digest), new = { .since = 0 };
	time_t now = time(NULL), from, until;

	for (int i = 0; i < sk_X509_num(chain); i++) {
		const X509 *cert = sk_X509_value(chain, i);

		if (!seconds_to(X509_get0_notBefore(cert), &from) ||
		    !seconds_to(X509_get0_notAfter(cert), &until))
			return;
		new.since = !i || now + from > new.since ? now + from : new.since;
		new.until = !i || now + until < new.until ? now + until : new.until;
	}
	memcpy(new.digest, digest, VERIFIED_DIGEST);
	if (lock_take(&v->lock) == -EDEADLK)
		return;
	*s = new;
	lock_drop(&v->lock);
}
