/* Inbound policy: PeerAuthentication by port, and AuthorizationPolicy on a connection (L4). */
#include <errno.h>
#include <stddef.h>
#include <string.h>

#include "weft/env.h"
#include "weft/limits.h"
#include "weft/policy.h"

static const char *const mode_names[] = {
	[WEFT_MODE_OFF] = "off", [WEFT_MODE_OBSERVE] = "observe", [WEFT_MODE_ENFORCE] = "enforce"
};

const char *mode_name(enum weft_mode m)
{
	return (unsigned)m <= WEFT_MODE_ENFORCE ? mode_names[m] : "unknown";
}

int mode_parse(const char *text)
{
	for (int m = WEFT_MODE_OFF; m <= WEFT_MODE_ENFORCE; m++)
		if (strcmp(text, mode_names[m]) == 0)
			return m;
	return -EINVAL;
}

static bool mtls_is_set(uint64_t m)
{
	return m > WEFT_MTLS_UNSET && m <= WEFT_MTLS_STRICT;
}

enum weft_mtls inbound_mtls(const struct wire_inbound *in, uint16_t port)
{
	for (uint32_t i = 0; i < in->ports.n; i++)
		if (in->ports.v[i].port == port && mtls_is_set(in->ports.v[i].mode))
			return (enum weft_mtls)in->ports.v[i].mode;
	return mtls_is_set(in->mtls) ? (enum weft_mtls)in->mtls : WEFT_MTLS_PERMISSIVE;
}

bool string_match(const char *pattern, const char *value)
{
	size_t p = strlen(pattern), v = strlen(value);

	if (strcmp(pattern, "*") == 0)
		return v > 0;
	if (p && pattern[p - 1] == '*')
		return strncmp(pattern, value, p - 1) == 0;
	if (pattern[0] == '*')
		return v >= p - 1 && strcmp(pattern + 1, value + v - (p - 1)) == 0;
	return strcmp(pattern, value) == 0;
}

/* --- the peer, taken apart once per connection --- */

struct peer {
	const struct wire_inbound *in;
	const struct inbound_facts *facts;
	const char *principal; /* "" for a plaintext peer */
	const char *path;      /* of the principal, from its first '/'; "" if there is none */
	char trust_domain[WEFT_HOST_MAX + 1];
	char ns[WEFT_LABEL_MAX + 1];
	char account[2 * WEFT_LABEL_MAX + 2]; /* "ns/sa" */
};

/* Namespace and account stay empty for a principal that is not of Istio's form. */
static void peer_init(struct peer *p, const struct wire_inbound *in, const struct inbound_facts *f)
{
	const char *ns, *sa;
	size_t td, ns_len;

	*p = (struct peer){
		.in = in, .facts = f, .principal = f->principal ? f->principal : "", .path = ""
	};
	td = strcspn(p->principal, "/");
	if (!td || td >= sizeof(p->trust_domain))
		return;
	memcpy(p->trust_domain, p->principal, td);
	p->path = p->principal + td;
	if (strncmp(p->path, "/ns/", 4) != 0)
		return;
	ns = p->path + 4;
	ns_len = strcspn(ns, "/");
	if (!ns_len || ns_len > WEFT_LABEL_MAX || strncmp(ns + ns_len, "/sa/", 4) != 0)
		return;
	sa = ns + ns_len + 4;
	if (!*sa || strlen(sa) > WEFT_LABEL_MAX || strchr(sa, '/'))
		return;
	memcpy(p->ns, ns, ns_len);
	memcpy(p->account, ns, ns_len);
	p->account[ns_len] = '/';
	memcpy(p->account + ns_len + 1, sa, strlen(sa));
}

static bool is_our_domain(const struct wire_inbound *in, const char *td, size_t n)
{
	if (in->trust_domain.n == n && memcmp(in->trust_domain.p, td, n) == 0)
		return true;
	for (uint32_t i = 0; i < in->trust_domain_aliases.n; i++)
		if (in->trust_domain_aliases.v[i].n == n &&
		    memcmp(in->trust_domain_aliases.v[i].p, td, n) == 0)
			return true;
	return false;
}

/* Istio's aliases: a full principal that names our trust domain, one of its aliases, or
 * "cluster.local" (which means ours) is meant for all of them. */
static bool principal_matches(const struct peer *p, const char *pattern)
{
	size_t td = strcspn(pattern, "/");

	if (string_match(pattern, p->principal))
		return true;
	if (!pattern[td] || !is_our_domain(p->in, p->trust_domain, strlen(p->trust_domain)))
		return false;
	if (!is_our_domain(p->in, pattern, td) &&
	    (td != strlen(WEFT_TRUST_DOMAIN_DEFAULT) ||
	     memcmp(pattern, WEFT_TRUST_DOMAIN_DEFAULT, td) != 0))
		return false;
	return string_match(pattern + td, p->path);
}

static bool ns_matches(const struct peer *p, const char *pattern)
{
	return string_match(pattern, p->ns);
}

static bool account_matches(const struct peer *p, const char *pattern)
{
	return *p->account && strcmp(pattern, p->account) == 0;
}

static bool trust_domain_matches(const struct peer *p, const char *pattern)
{
	return string_match(pattern, p->trust_domain);
}

/* The validator refuses what is no block; if one comes through all the same, it holds nobody. */
static bool block_contains(const char *block, const struct weft_addr *a)
{
	struct weft_cidr c;

	return cidr_parse(&c, block) == 0 && cidr_contains(&c, a);
}

static bool source_ip_matches(const struct peer *p, const char *block)
{
	return block_contains(block, &p->facts->source);
}

static bool local_ip_matches(const struct peer *p, const char *block)
{
	return block_contains(block, &p->facts->local);
}

static bool local_port_matches(const struct peer *p, const char *text)
{
	unsigned port = 0;

	if (!*text || strlen(text) > 5)
		return false;
	for (; *text; text++) {
		if (*text < '0' || *text > '9')
			return false;
		port = port * 10 + (unsigned)(*text - '0');
	}
	return port == p->facts->local.port;
}

typedef bool match_fn(const struct peer *p, const char *value);

/* One of `yes` (an empty list demands nothing) and none of `no`. */
static bool lists_match(const struct peer *p, match_fn *match, const struct wire_strs *yes,
			const struct wire_strs *no)
{
	bool found = !yes->n;

	for (uint32_t i = 0; i < yes->n && !found; i++)
		found = match(p, yes->v[i].p);
	for (uint32_t i = 0; i < no->n && found; i++)
		found = !match(p, no->v[i].p);
	return found;
}

/* --- rules --- */

static bool source_matches(const struct peer *p, const struct wire_source *s)
{
	return lists_match(p, principal_matches, &s->principals, &s->not_principals) &&
	       lists_match(p, ns_matches, &s->namespaces, &s->not_namespaces) &&
	       lists_match(p, source_ip_matches, &s->ip_blocks, &s->not_ip_blocks) &&
	       lists_match(p, account_matches, &s->service_accounts, &s->not_service_accounts) &&
	       lists_match(p, trust_domain_matches, &s->trust_domains, &s->not_trust_domains);
}

static const struct {
	const char *key;
	match_fn *match;
} conditions[] = {
	{ "source.ip", source_ip_matches },
	{ "remote.ip", source_ip_matches }, /* the same thing on a connection */
	{ "source.namespace", ns_matches },
	{ "source.principal", principal_matches },
	{ "source.serviceAccount", account_matches },
	{ "destination.ip", local_ip_matches },
	{ "destination.port", local_port_matches },
};

/* `http`: what to answer for a condition that only a request can meet. A key that we do not know is
 * one. */
static bool condition_matches(const struct peer *p, const struct wire_condition *c, bool http)
{
	if (c->needs_http)
		return http;
	for (size_t i = 0; i < sizeof(conditions) / sizeof(conditions[0]); i++)
		if (strcmp(conditions[i].key, c->key.p) == 0)
			return lists_match(p, conditions[i].match, &c->values, &c->not_values);
	return http;
}

/* An element of `from` or `to` that names something of a request: under ALLOW it never matches,
 * under DENY and AUDIT that something is left out and the rest decides. */
static bool rule_matches(const struct peer *p, const struct wire_rule *r, bool http)
{
	bool from = !r->from.n, to = !r->to.n;

	for (uint32_t i = 0; i < r->from.n && !from; i++)
		from = (http || !r->from.v[i].needs_http) && source_matches(p, &r->from.v[i]);
	for (uint32_t i = 0; i < r->to.n && !to; i++)
		to = (http || !r->to.v[i].needs_http) &&
		     lists_match(p, local_port_matches, &r->to.v[i].ports, &r->to.v[i].not_ports);
	for (uint32_t i = 0; i < r->when.n; i++)
		if (!condition_matches(p, &r->when.v[i], http))
			return false;
	return from && to;
}

static bool policy_matches(const struct peer *p, const struct wire_authz *a)
{
	for (uint32_t i = 0; i < a->rules.n; i++)
		if (rule_matches(p, &a->rules.v[i], a->action != WEFT_ACTION_ALLOW))
			return true;
	return false;
}

/* --- the order: DENY, then ALLOW --- */

/* The first policy of this action that matches, *any set if there is one of this action at all. */
static const struct wire_authz *first_match(const struct peer *p, enum weft_action action,
					    bool dry_run, bool *any)
{
	const struct wire_inbound *in = p->in;

	*any = false;
	for (uint32_t i = 0; i < in->policies.n; i++) {
		const struct wire_authz *a = &in->policies.v[i];

		if (a->action != (uint64_t)action || !!a->dry_run != dry_run)
			continue;
		*any = true;
		if (policy_matches(p, a))
			return a;
	}
	return NULL;
}

/* An action from a newer weftd, which this release cannot judge, is not passed over. */
static const struct wire_authz *unknown_action(const struct wire_inbound *in)
{
	for (uint32_t i = 0; i < in->policies.n; i++)
		if (in->policies.v[i].action > WEFT_ACTION_AUDIT && !in->policies.v[i].dry_run)
			return &in->policies.v[i];
	return NULL;
}

static bool decide(const struct peer *p, bool dry_run, const struct wire_authz **by)
{
	bool any;

	*by = first_match(p, WEFT_ACTION_DENY, dry_run, &any);
	if (*by)
		return false;
	*by = first_match(p, WEFT_ACTION_ALLOW, dry_run, &any);
	return *by || !any;
}

struct inbound_verdict inbound_authorize(const struct wire_inbound *in,
					 const struct inbound_facts *f)
{
	const struct wire_authz *by, *dry;
	struct inbound_verdict v = { 0 };
	struct peer p;
	bool any;

	peer_init(&p, in, f);
	by = unknown_action(in);
	v.allowed = !by && decide(&p, false, &by);
	v.policy = by ? by->name.p : NULL;
	v.dry_run_denied = !decide(&p, true, &dry);
	v.audited = first_match(&p, WEFT_ACTION_AUDIT, false, &any) != NULL;
	return v;
}
