/* Names of services and their SPIFFE identities. Pure; implemented in preload/base/ident.c.
 * Source: SPIFFE-ID section 2; Istio's form spiffe://<trust-domain>/ns/<namespace>/sa/<service>. */
#ifndef WEFT_IDENT_H
#define WEFT_IDENT_H

#include <stdbool.h>
#include <stddef.h>

#include "weft/limits.h"

struct weft_spiffe {
	char trust_domain[WEFT_HOST_MAX + 1];
	char ns[WEFT_LABEL_MAX + 1];
	char service[WEFT_LABEL_MAX + 1];
};

/* Parses and checks a SPIFFE URI of Istio's form. 0, or -EINVAL. `text` need not be NUL-terminated. */
int spiffe_parse(struct weft_spiffe *id, const char *text, size_t len);
/* Returns the length written without NUL, or -ENAMETOOLONG. */
int spiffe_format(const struct weft_spiffe *id, char *out, size_t size);

/* RFC 1123 label: [a-z0-9]([-a-z0-9]*[a-z0-9])?, at most 63 bytes. */
bool label_is_valid(const char *s, size_t len);

/* What WEFT_SERVICE claims: [ns/]name[@version][:port,...]. Empty ns and version where not given. */
struct weft_claim {
	char ns[WEFT_LABEL_MAX + 1];
	char name[WEFT_LABEL_MAX + 1];
	char version[WEFT_LABEL_MAX + 1];
	unsigned short ports[WEFT_PORTS_MAX];
	unsigned n_ports;
};
/* 0, or -EINVAL with *why set to a static text. */
int claim_parse(struct weft_claim *c, const char *text, const char **why);

/* Canonical key of a mesh name: "orders", "orders.ns", "orders.ns.svc", "orders.ns.svc.<trust-domain>",
 * "orders.weft" and "orders.ns.weft" all become "orders.<ns>" (lower case, no trailing dot).
 * A bare name takes `ns`. Other dotted names come back as they are, lower-cased (a ServiceEntry's host).
 * The caller looks the raw lower-cased form up first, then this one. Returns 0, or -EINVAL for what is no host name. */
int name_canonical(char out[static WEFT_SERVICE_MAX + 1], const char *name, const char *ns,
		   const char *trust_domain);

#endif
