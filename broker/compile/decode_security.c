/* PeerAuthentication, AuthorizationPolicy and MeshConfig. */
#include <string.h>

#include "compile/document.h"
#include "compile/value.h"
#include "weft/env.h"
#include "weft/ident.h"

#define RULES_MAX 512 /* Istio's bounds */
#define SERVICE_ACCOUNTS_MAX 16

static enum weft_mtls decode_mtls(const json_t *o)
{
	return (enum weft_mtls)decode_word(o, "mode", "UNSET|DISABLE|PERMISSIVE|STRICT",
					   WEFT_MTLS_UNSET);
}

void decode_peer_authentication(struct decode *d, const json_t *spec)
{
	struct peer_authentication *p = &d->doc->peer_authentication;
	json_t *ports = json_object_get(spec, "portLevelMtls"), *x;
	size_t mark = errors_push(&d->path, "portLevelMtls");
	const char *key;

	decode_labels(d, json_object_get(spec, "selector"), "matchLabels", &p->selector);
	p->mtls = decode_mtls(json_object_get(spec, "mtls"));
	p->ports = arena_array(d->arena, json_object_size(ports), sizeof(*p->ports));
	json_object_foreach(ports, key, x)
	{
		int port = value_port(key);

		if (port < 0)
			decode_error(d, ERRORS_VALUE, key, "\"%.64s\" is not a port number", key);
		else if (p->ports)
			p->ports[p->n_ports++] =
				(struct wire_port_mtls){ (uint64_t)port, decode_mtls(x) };
	}
	if (json_object_size(ports) && !p->selector.n)
		decode_error(d, ERRORS_RULE, NULL,
			     "ports are those of a workload: name it by selector.matchLabels");
	errors_pop(&d->path, mark);
}

static void check_port(struct decode *d, const char *s)
{
	if (value_port(s) < 0)
		decode_error(d, ERRORS_VALUE, NULL, "\"%.64s\" is not a port number", s);
}

static void check_block(struct decode *d, const char *s)
{
	struct weft_cidr cidr;

	if (cidr_parse(&cidr, s) < 0)
		decode_error(d, ERRORS_VALUE, NULL, "\"%.64s\" is not an address or CIDR block", s);
}

/* A list of texts that may not be empty, each passed to `check` (which may be NULL). */
static struct wire_strs decode_strs(struct decode *d, const json_t *o, const char *field,
				    void (*check)(struct decode *, const char *))
{
	const json_t *list = json_object_get(o, field);
	size_t n = json_array_size(list), mark = errors_push(&d->path, field);
	struct wire_strs out = { arena_array(d->arena, n, sizeof(*out.v)), 0 };

	for (size_t i = 0; out.v && i < n; i++) {
		const char *s = json_string_value(json_array_get(list, i));
		size_t at = errors_push_index(&d->path, i);

		if (!s || !*s)
			decode_error(d, ERRORS_VALUE, NULL, "is empty");
		else if (check)
			check(d, s);
		out.v[out.n++] = wire_str_of(arena_strdup(d->arena, s ? s : ""));
		errors_pop(&d->path, at);
	}
	errors_pop(&d->path, mark);
	return out;
}

static void check_account(struct decode *d, const char *s)
{
	const char *slash = strchr(s, '/'), *name = slash ? slash + 1 : s;

	if (!label_is_valid(name, strlen(name)) ||
	    (slash && !label_is_valid(s, (size_t)(slash - s))))
		decode_error(d, ERRORS_VALUE, NULL, "\"%.64s\" is not a name or namespace/name", s);
}

/* Bare ones are of the policy's namespace. */
static void qualify_accounts(struct decode *d, struct wire_strs *accounts)
{
	for (uint32_t i = 0; i < accounts->n; i++)
		if (!strchr(accounts->v[i].p, '/')) {
			const char *full = arena_printf(d->arena, "%s/%s", d->ns, accounts->v[i].p);

			accounts->v[i] = wire_str_of(full ? full : "");
		}
}

static struct wire_strs decode_accounts(struct decode *d, const json_t *o, const char *field)
{
	struct wire_strs out = decode_strs(d, o, field, check_account);

	if (out.n > SERVICE_ACCOUNTS_MAX)
		decode_error(d, ERRORS_VALUE, field, "at most %d", SERVICE_ACCOUNTS_MAX);
	qualify_accounts(d, &out);
	return out;
}

static bool decode_source(struct decode *d, const json_t *o, struct wire_source *s)
{
	struct wire_strs http[] = { decode_strs(d, o, "remoteIpBlocks", NULL),
				    decode_strs(d, o, "notRemoteIpBlocks", NULL),
				    decode_strs(d, o, "requestPrincipals", NULL),
				    decode_strs(d, o, "notRequestPrincipals", NULL) };
	bool accounts;

	s->principals = decode_strs(d, o, "principals", NULL);
	s->not_principals = decode_strs(d, o, "notPrincipals", NULL);
	s->namespaces = decode_strs(d, o, "namespaces", NULL);
	s->not_namespaces = decode_strs(d, o, "notNamespaces", NULL);
	s->ip_blocks = decode_strs(d, o, "ipBlocks", NULL);
	s->not_ip_blocks = decode_strs(d, o, "notIpBlocks", NULL);
	s->service_accounts = decode_accounts(d, o, "serviceAccounts");
	s->not_service_accounts = decode_accounts(d, o, "notServiceAccounts");
	s->trust_domains = decode_strs(d, o, "trustDomains", NULL);
	s->not_trust_domains = decode_strs(d, o, "notTrustDomains", NULL);
	s->needs_http = http[0].n || http[1].n || http[2].n || http[3].n;
	accounts = s->service_accounts.n || s->not_service_accounts.n;
	if (accounts &&
	    (s->principals.n || s->not_principals.n || s->namespaces.n || s->not_namespaces.n))
		decode_error(d, ERRORS_RULE, NULL,
			     "serviceAccounts goes with neither principals nor namespaces");
	if (!accounts && !s->principals.n && !s->not_principals.n && !s->namespaces.n &&
	    !s->not_namespaces.n && !s->ip_blocks.n && !s->not_ip_blocks.n && !s->trust_domains.n &&
	    !s->not_trust_domains.n && !s->needs_http)
		decode_error(d, ERRORS_RULE, NULL, "must have at least one condition");
	return s->needs_http;
}

static bool decode_operation(struct decode *d, const json_t *o, struct wire_operation *out)
{
	static const char *const http[] = { "hosts",      "notHosts", "methods",
					    "notMethods", "paths",    "notPaths" };

	out->ports = decode_strs(d, o, "ports", check_port);
	out->not_ports = decode_strs(d, o, "notPorts", check_port);
	for (size_t i = 0; i < sizeof(http) / sizeof(http[0]); i++)
		out->needs_http |= decode_strs(d, o, http[i], NULL).n > 0;
	if (!out->ports.n && !out->not_ports.n && !out->needs_http)
		decode_error(d, ERRORS_RULE, NULL, "must have at least one condition");
	return out->needs_http;
}

static const struct condition_key {
	const char *name;
	bool http, prefix;
	void (*check)(struct decode *, const char *);
} condition_keys[] = {
	{ "source.ip", false, false, check_block },
	{ "source.namespace", false, false, NULL },
	{ "source.principal", false, false, NULL },
	{ "source.serviceAccount", false, false, check_account },
	{ "destination.ip", false, false, check_block },
	{ "destination.port", false, false, check_port },
	{ "remote.ip", false, false, check_block }, /* on a connection the same as source.ip */
	{ "request.headers[", true, true, NULL },
	{ "request.auth.", true, true, NULL },
};

static const char *key_name(const void *list, size_t i)
{
	return ((const struct condition_key *)list)[i].name;
}

static const struct condition_key *find_key(struct decode *d, const char *name)
{
	const size_t n = sizeof(condition_keys) / sizeof(condition_keys[0]);
	const char *near;

	for (size_t i = 0; i < n; i++) {
		const struct condition_key *k = &condition_keys[i];

		if (k->prefix ? strncmp(name, k->name, strlen(k->name)) == 0
			      : strcmp(name, k->name) == 0)
			return k;
	}
	near = table_nearest(name, key_name, condition_keys, n);
	if (strcmp(name, "connection.sni") == 0 || strncmp(name, "experimental.", 13) == 0)
		decode_error(d, ERRORS_LATER, "key", "%.64s is not supported yet by this release",
			     name);
	else
		decode_error(d, ERRORS_VALUE, "key", "unknown key \"%.64s\"%s%s%s", name,
			     near ? ", did you mean \"" : "", near ? near : "", near ? "\"?" : "");
	return NULL;
}

static bool decode_condition(struct decode *d, const json_t *o, struct wire_condition *out)
{
	const char *name = decode_text(d, o, "key");
	const struct condition_key *key = find_key(d, name);

	out->key = wire_str_of(name);
	out->values = decode_strs(d, o, "values", key ? key->check : NULL);
	out->not_values = decode_strs(d, o, "notValues", key ? key->check : NULL);
	if (!out->values.n && !out->not_values.n)
		decode_error(d, ERRORS_RULE, NULL,
			     "at least one of values and notValues must be given");
	if (key && key->check == check_account) {
		qualify_accounts(d, &out->values);
		qualify_accounts(d, &out->not_values);
	}
	out->needs_http = key && key->http;
	return out->needs_http;
}

/* Opens a list of a rule: Istio refuses one that is there but empty. Returns its length, *mark for errors_pop(). */
static size_t open_list(struct decode *d, const json_t *o, const char *field, const json_t **list,
			size_t *mark)
{
	size_t n;

	*list = json_object_get(o, field);
	*mark = errors_push(&d->path, field);
	n = json_array_size(*list);
	if (json_is_array(*list) && !n)
		decode_error(d, ERRORS_RULE, NULL, "is empty: leave it out to match everything");
	if (n > RULES_MAX)
		decode_error(d, ERRORS_VALUE, NULL, "%zu elements, at most %d", n, RULES_MAX);
	return n;
}

static bool decode_rule(struct decode *d, const json_t *o, struct wire_rule *r)
{
	const json_t *list;
	size_t mark, at, n;
	bool http = false;

	n = open_list(d, o, "from", &list, &mark);
	r->from.v = arena_array(d->arena, n, sizeof(*r->from.v));
	for (size_t i = 0; r->from.v && i < n; i++) {
		at = errors_push_index(&d->path, i);
		errors_push(&d->path, "source");
		http |= decode_source(d, json_object_get(json_array_get(list, i), "source"),
				      &r->from.v[r->from.n++]);
		errors_pop(&d->path, at);
	}
	errors_pop(&d->path, mark);
	n = open_list(d, o, "to", &list, &mark);
	r->to.v = arena_array(d->arena, n, sizeof(*r->to.v));
	for (size_t i = 0; r->to.v && i < n; i++) {
		at = errors_push_index(&d->path, i);
		errors_push(&d->path, "operation");
		http |= decode_operation(d, json_object_get(json_array_get(list, i), "operation"),
					 &r->to.v[r->to.n++]);
		errors_pop(&d->path, at);
	}
	errors_pop(&d->path, mark);
	n = open_list(d, o, "when", &list, &mark);
	r->when.v = arena_array(d->arena, n, sizeof(*r->when.v));
	for (size_t i = 0; r->when.v && i < n; i++) {
		at = errors_push_index(&d->path, i);
		http |= decode_condition(d, json_array_get(list, i), &r->when.v[r->when.n++]);
		errors_pop(&d->path, at);
	}
	errors_pop(&d->path, mark);
	return http;
}

void decode_authorization_policy(struct decode *d, const json_t *spec)
{
	struct authorization_policy *p = &d->doc->authorization_policy;
	const json_t *list = json_object_get(spec, "rules");
	size_t n = json_array_size(list), mark;

	decode_labels(d, json_object_get(spec, "selector"), "matchLabels", &p->selector);
	if (json_is_true(json_object_get(spec, "dryRun")))
		d->doc->dry_run = true;
	p->authz.name = wire_str_of(arena_printf(d->arena, "%s/%s", d->ns, d->name));
	p->authz.action =
		(uint64_t)decode_word(spec, "action", "ALLOW|DENY|AUDIT", WEFT_ACTION_ALLOW);
	p->authz.dry_run = d->doc->dry_run;
	p->authz.rules.v = arena_array(d->arena, n, sizeof(*p->authz.rules.v));
	mark = errors_push(&d->path, "rules");
	if (n > RULES_MAX)
		decode_error(d, ERRORS_VALUE, NULL, "%zu elements, at most %d", n, RULES_MAX);
	for (size_t i = 0; p->authz.rules.v && i < n; i++) {
		size_t at = errors_push_index(&d->path, i);

		p->needs_http |= decode_rule(d, json_array_get(list, i),
					     &p->authz.rules.v[p->authz.rules.n++]);
		errors_pop(&d->path, at);
	}
	errors_pop(&d->path, mark);
	if (!n && p->authz.action == WEFT_ACTION_DENY)
		decode_error(d, ERRORS_RULE, "rules",
			     "a DENY without rules never denies: use [{}] to deny everything");
}

void decode_mesh_config(struct decode *d, const json_t *spec)
{
	struct mesh_config *c = &d->doc->mesh_config;
	const char *trust_domain = json_string_value(json_object_get(spec, "trustDomain"));

	if (strcmp(d->name, "default") != 0 || strcmp(d->ns, WEFT_NAMESPACE_DEFAULT) != 0)
		decode_error(d, ERRORS_KEY, NULL,
			     "a mesh has one MeshConfig, weft:MeshConfig:default");
	if (trust_domain && strcmp(trust_domain, d->trust_domain) != 0)
		decode_error(d, ERRORS_VALUE, "trustDomain",
			     "weftd was started with \"%s\" (--trust-domain)", d->trust_domain);
	decode_texts(d, spec, "trustDomainAliases", &c->aliases);
	c->root_ns = decode_text(d, spec, "rootNamespace");
	if (!*c->root_ns)
		c->root_ns = WEFT_NAMESPACE_ROOT;
	c->connect_ms = decode_millis(spec, "connectTimeout");
	c->sniff_ms = decode_millis(spec, "protocolDetectionTimeout");
	c->mode =
		(enum weft_mode)decode_word(spec, "mode", "off|observe|enforce", WEFT_MODE_ENFORCE);
}
