/* Between the part that attests and the part that signs go bytes: a wire_sign and a wire_signature. Both are in this
 * process; the same bytes can go through Redis to a weftd that signs elsewhere. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ca/ca.h"
#include "session/internal.h"

#define RENEWALS_A_TURN 32 /* each takes 0.2 ms: exchanges must not wait for long */

static int ask_ca(struct session *s, const struct process *p, const struct proc_facts *f,
		  const struct wire_bin *csr, uint8_t **answer, size_t *len)
{
	char facts[4][96];
	struct wire_str selectors[4];
	uint8_t *request = NULL;
	size_t request_len = 0;
	struct wire_sign ask = {
		.host = wire_str_of(registry_host(s->o.registry)),
		.spiffe = wire_str_of(p->spiffe),
		.csr = *csr,
		.ttl_s = (uint64_t)s->o.ttl_s,
		.selectors = { selectors, 3 },
	};

	attest_selectors(f, facts);
	for (int i = 0; i < 3; i++)
		selectors[i] = wire_str_of(facts[i]);
	int e = wire_encode(&wire_schema_sign, &ask, WEFT_REQUEST_MAX, &request, &request_len);
	if (e == 0)
		e = ca_sign(s->o.ca, request, request_len, answer, len);
	free(request);
	return e;
}

/* Why the signer said no. 0 if it did not. */
static int check_refusal(const uint8_t *answer, size_t len, char *why, size_t size)
{
	struct wire_signature sig;
	void *block = NULL;
	const char *text = "";
	int e = wire_decode(&wire_schema_signature, answer, len, &sig, &block, &text);

	if (e == 0 && sig.refused) {
		snprintf(why, size, "%s", sig.refused->text.p);
		e = -EACCES;
	}
	free(block);
	return e;
}

int enrol_sign(struct session *s, struct process *p, const struct proc_facts *f,
	       const struct wire_bin *csr, char *why, size_t size)
{
	uint8_t *answer = NULL;
	size_t len = 0;

	snprintf(why, size, "this weftd is no CA (--ca) and cannot reach one");
	if (!s->o.ca)
		return -EACCES;
	int e = ask_ca(s, p, f, csr, &answer, &len);
	snprintf(why, size, "the certificate could not be made");
	if (e == 0)
		e = check_refusal(answer, len, why, size);
	if (e == 0)
		e = registry_enrol(s->o.registry, p, csr, answer, len);
	free(answer);
	return e;
}

void enrol_renew(struct session *s)
{
	struct process *p;
	char why[160];

	for (int i = 0; i < RENEWALS_A_TURN && (p = registry_due(s->o.registry)); i++) {
		struct wire_bin csr = { p->csr, (uint32_t)p->csr_len };
		int e = enrol_sign(s, p, &p->facts, &csr, why, sizeof(why));
		if (e == 0) {
			log_info("certificate of %s (pid %d) renewed", p->spiffe,
				 (int)p->facts.pid);
			continue;
		}
		log_warn("certificate of %s (pid %d) not renewed: %s", p->spiffe, (int)p->facts.pid,
			 why);
		registry_defer(s->o.registry, p);
	}
}
