/* Policy: enums that the wire carries, and the pure evaluators of preload/policy/ that shim, weftd and the
 * command line share. No fd, clock, log or global: facts, a clock value and random bits in, a verdict out. */
#ifndef WEFT_POLICY_H
#define WEFT_POLICY_H

#include <stdbool.h>
#include <stdint.h>

#include "weft/addr.h"
#include "weft/reason.h"
#include "weft/wire.h"

enum weft_mode { WEFT_MODE_OFF, WEFT_MODE_OBSERVE, WEFT_MODE_ENFORCE };
enum weft_mtls { WEFT_MTLS_UNSET, WEFT_MTLS_DISABLE, WEFT_MTLS_PERMISSIVE, WEFT_MTLS_STRICT };
enum weft_action { WEFT_ACTION_ALLOW, WEFT_ACTION_DENY, WEFT_ACTION_AUDIT };
enum weft_lb { WEFT_LB_LEAST_REQUEST, WEFT_LB_ROUND_ROBIN, WEFT_LB_RANDOM, WEFT_LB_PASSTHROUGH };
/* How to speak to an endpoint: as it announces itself, never TLS, always our mutual TLS. */
enum weft_tls { WEFT_TLS_AUTO, WEFT_TLS_DISABLE, WEFT_TLS_MUTUAL };

const char *mode_name(enum weft_mode m); /* "off", "observe", "enforce" */
int mode_parse(const char *text);        /* enum weft_mode or -EINVAL */

/* --- inbound --- */

/* mTLS mode for a local port: portLevelMtls, else the workload's. Never UNSET: PERMISSIVE is the default. */
enum weft_mtls inbound_mtls(const struct wire_inbound *in, uint16_t port);

struct inbound_facts {
	const char *
		principal; /* "<td>/ns/<ns>/sa/<sa>" without scheme; NULL or "" for a plaintext peer */
	struct weft_addr source;
	struct weft_addr local; /* address and port that the peer connected to */
};
struct inbound_verdict {
	bool allowed;
	bool dry_run_denied; /* a dryRun policy would have denied */
	const char *policy;  /* "<ns>/<name>" that decided, or NULL; points into `in` */
	bool audited;
};
/* Istio's order: DENY, then ALLOW if any ALLOW policy exists, else allow. Empty forms: rules absent = never
 * matches (ALLOW then denies all), rules: [{}] = always. L7 fields on a connection fail closed:
 * an ALLOW rule that needs one never matches, a DENY rule ignores it. */
struct inbound_verdict inbound_authorize(const struct wire_inbound *in,
					 const struct inbound_facts *f);

/* Istio's string match: "*" any non-empty, "abc*" prefix, "*abc" suffix, else exact. */
bool string_match(const char *pattern, const char *value);

/* --- outbound --- */

/* State of one process for one cluster of a cached service; zero-initialised. Its numbers are read and written with
 * relaxed atomics: several threads may pick at once. */
struct balance {
	uint32_t next;       /* ROUND_ROBIN cursor */
	uint32_t n;          /* elements of `active`: endpoints of the cluster */
	uint32_t weight_max; /* kept by endpoint_pick: the largest weight of the cluster */
	uint32_t *
		active; /* open connections of this process by endpoint index; owned by the caller */
};

/* Which cluster a new connection takes, by the weights of the route. `random` is uniform.
 * Index into s->clusters, or -ENOENT where no route applies (weights all 0 or no cluster). */
int route_pick(const struct wire_service *s, uint64_t random);

/* Which endpoint, leaving out those whose bit in `tried` (by index, n bits) is set; tried may be NULL.
 * LEAST_REQUEST is power of two choices (Envoy): two draws by weight, the one with fewer connections for its weight.
 * b may be NULL (no counters). Index into c->endpoints, or -ENOENT. */
int endpoint_pick(const struct wire_cluster *c, struct balance *b, const uint64_t *tried,
		  uint64_t random);

#endif
