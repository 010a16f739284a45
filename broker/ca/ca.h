/* The certificate authority: the root of the mesh in the state folder, and the signing of identities.
 *
 * A weftd that attests and the one that signs talk in bytes, struct wire_sign to struct wire_signature, also where both
 * are one process. Certificate profile: design section 3, "Identity". */
#ifndef CA_CA_H
#define CA_CA_H

#include <stddef.h>
#include <stdint.h>

#define CA_TTL_MIN_S 10
#define CA_TTL_MAX_S (90 * 86400)
#define CA_BACKDATE_S 300 /* clocks of two hosts differ */
#define CA_SERIAL_TEXT 41

struct ca;

/* Opens the root in `state_dir` (ca.key, mode 0600, and ca.crt), or creates it: EC P-256, ten years.
 * 0; -errno; -EINVAL with *why (static text) for files that do not belong together or to this trust domain. */
int ca_open(struct ca **out, const char *state_dir, const char *trust_domain, const char **why);
void ca_free(struct ca *ca); /* NULL-safe */

/* Decodes a wire_sign, decides, signs; *answer is an encoded wire_signature (with `refused` set where it says no),
 * malloc'ed. 0, or -ENOMEM. Takes about 0.2 ms. */
int ca_sign(struct ca *ca, const uint8_t *request, size_t len, uint8_t **answer,
	    size_t *answer_len);

/* The root, DER; lives as long as the ca. */
const uint8_t *ca_root(const struct ca *ca, size_t *len);

/* Serial number (hex) and end of a certificate in DER. 0 or -EINVAL. */
int ca_inspect(const uint8_t *der, size_t len, char serial[static CA_SERIAL_TEXT],
	       uint64_t *not_after);

#endif
