/* What a server demands of its peers: PeerAuthentication and AuthorizationPolicy for one workload. */
#include <errno.h>
#include <string.h>

#include "compile/index.h"
#include "weft/env.h"

struct inbound {
	struct model *m;
	const struct workload *w;
	struct arena *arena;
	const char *root_ns;
	const struct peer_authentication *mesh, *ns, *own;
	struct wire_inbound *out;
	size_t room;
};

static bool selects(const struct labels *selector, const struct workload *w)
{
	return labels_match(selector, w->labels, w->n_labels);
}

/* Of several that select a workload the first key counts; the namespace-wide one is unique by its scope. */
static int find_authentication(void *arg, struct item *e)
{
	struct inbound *in = arg;
	const struct peer_authentication *p;

	if (!e->doc || index_conflict(in->m, e))
		return 0;
	p = &e->doc->peer_authentication;
	if (!p->selector.n && strcmp(e->id.ns, in->root_ns) == 0)
		in->mesh = p;
	if (strcmp(e->id.ns, in->w->ns) != 0)
		return 0;
	if (!p->selector.n)
		in->ns = p;
	else if (!in->own && selects(&p->selector, in->w))
		in->own = p;
	return 0;
}

static int set_mtls(struct inbound *in)
{
	const struct peer_authentication *scopes[] = { in->own, in->ns, in->mesh };
	enum weft_mtls mode = WEFT_MTLS_UNSET;

	for (size_t i = 0; i < 3 && mode == WEFT_MTLS_UNSET; i++)
		if (scopes[i])
			mode = scopes[i]->mtls;
	in->out->mtls = mode == WEFT_MTLS_UNSET ? WEFT_MTLS_PERMISSIVE : mode;
	if (!in->own || !in->own->n_ports)
		return 0;
	in->out->ports.v = arena_array(in->arena, in->own->n_ports, sizeof(*in->out->ports.v));
	if (!in->out->ports.v)
		return -ENOMEM;
	for (size_t i = 0; i < in->own->n_ports; i++)
		if (in->own->ports[i].mode != WEFT_MTLS_UNSET)
			in->out->ports.v[in->out->ports.n++] = in->own->ports[i];
	return 0;
}

/* --- copies that outlive the model --- */

static struct wire_str copy_str(struct arena *a, struct wire_str s)
{
	const char *p = arena_strndup(a, s.p, s.n);

	return wire_str_of(p ? p : "");
}

static struct wire_strs copy_strs(struct arena *a, const struct wire_strs *from)
{
	struct wire_strs to = { arena_array(a, from->n, sizeof(*to.v)), 0 };

	while (to.v && to.n < from->n) {
		to.v[to.n] = copy_str(a, from->v[to.n]);
		to.n++;
	}
	return to;
}

static void copy_source(struct arena *a, const struct wire_source *from, struct wire_source *to)
{
	*to = (struct wire_source){
		.principals = copy_strs(a, &from->principals),
		.not_principals = copy_strs(a, &from->not_principals),
		.namespaces = copy_strs(a, &from->namespaces),
		.not_namespaces = copy_strs(a, &from->not_namespaces),
		.ip_blocks = copy_strs(a, &from->ip_blocks),
		.not_ip_blocks = copy_strs(a, &from->not_ip_blocks),
		.service_accounts = copy_strs(a, &from->service_accounts),
		.not_service_accounts = copy_strs(a, &from->not_service_accounts),
		.trust_domains = copy_strs(a, &from->trust_domains),
		.not_trust_domains = copy_strs(a, &from->not_trust_domains),
		.needs_http = from->needs_http,
	};
}

static void copy_condition(struct arena *a, const struct wire_condition *from,
			   struct wire_condition *to)
{
	*to = (struct wire_condition){
		.key = copy_str(a, from->key),
		.values = copy_strs(a, &from->values),
		.not_values = copy_strs(a, &from->not_values),
		.needs_http = from->needs_http,
	};
}

static void copy_rule(struct arena *a, const struct wire_rule *from, struct wire_rule *to)
{
	to->from.v = arena_array(a, from->from.n, sizeof(*to->from.v));
	to->to.v = arena_array(a, from->to.n, sizeof(*to->to.v));
	to->when.v = arena_array(a, from->when.n, sizeof(*to->when.v));
	if (!to->from.v || !to->to.v || !to->when.v)
		return;
	for (; to->from.n < from->from.n; to->from.n++)
		copy_source(a, &from->from.v[to->from.n], &to->from.v[to->from.n]);
	for (; to->to.n < from->to.n; to->to.n++) {
		const struct wire_operation *o = &from->to.v[to->to.n];

		to->to.v[to->to.n] = (struct wire_operation){
			.ports = copy_strs(a, &o->ports),
			.not_ports = copy_strs(a, &o->not_ports),
			.needs_http = o->needs_http,
		};
	}
	for (; to->when.n < from->when.n; to->when.n++)
		copy_condition(a, &from->when.v[to->when.n], &to->when.v[to->when.n]);
}

/* --- AuthorizationPolicy: those of the root namespace, then those of the workload's own, that select it --- */

static bool applies(const struct inbound *in, struct item *e, const char *ns)
{
	return e->doc && strcmp(e->id.ns, ns) == 0 && !index_conflict(in->m, e) &&
	       selects(&e->doc->authorization_policy.selector, in->w);
}

static int count_policy(void *arg, struct item *e)
{
	struct inbound *in = arg;

	in->room += applies(in, e, in->root_ns) || applies(in, e, in->w->ns);
	return 0;
}

static int add_policy(struct inbound *in, struct item *e, const char *ns)
{
	const struct wire_authz *from;
	struct wire_authz *to;

	if (!applies(in, e, ns) || in->out->policies.n >= in->room)
		return 0;
	from = &e->doc->authorization_policy.authz;
	to = &in->out->policies.v[in->out->policies.n++];
	to->name = copy_str(in->arena, from->name);
	to->action = from->action;
	to->dry_run = from->dry_run;
	to->rules.v = arena_array(in->arena, from->rules.n, sizeof(*to->rules.v));
	if (!to->rules.v)
		return -ENOMEM;
	for (; to->rules.n < from->rules.n; to->rules.n++)
		copy_rule(in->arena, &from->rules.v[to->rules.n], &to->rules.v[to->rules.n]);
	return in->arena->failed ? -ENOMEM : 0;
}

static int add_root(void *arg, struct item *e)
{
	struct inbound *in = arg;

	return add_policy(in, e, in->root_ns);
}

static int add_own(void *arg, struct item *e)
{
	struct inbound *in = arg;

	return strcmp(in->w->ns, in->root_ns) == 0 ? 0 : add_policy(in, e, in->w->ns);
}

int model_inbound(struct model *m, const struct workload *w, struct arena *arena,
		  struct wire_inbound *out)
{
	const struct table_kind *policies = &table_kinds[KIND_AuthorizationPolicy];
	const struct mesh_config *mesh = index_mesh(m);
	struct inbound in = { .m = m, .w = w, .arena = arena, .out = out };
	const char *td = arena_strdup(arena, m->trust_domain);
	size_t n = mesh ? mesh->aliases.n : 0;

	in.root_ns = mesh ? mesh->root_ns : WEFT_NAMESPACE_ROOT;
	*out = (struct wire_inbound){ .trust_domain = wire_str_of(td ? td : ""),
				      .sniff_ms = mesh ? mesh->sniff_ms : 0 };
	out->trust_domain_aliases.v = arena_array(arena, n, sizeof(*out->trust_domain_aliases.v));
	for (size_t i = 0; out->trust_domain_aliases.v && i < n; i++)
		out->trust_domain_aliases.v[out->trust_domain_aliases.n++] =
			copy_str(arena, wire_str_of(mesh->aliases.v[i]));
	index_each_item(m, &table_kinds[KIND_PeerAuthentication], find_authentication, &in);
	if (set_mtls(&in) < 0)
		return -ENOMEM;
	index_each_item(m, policies, count_policy, &in);
	out->policies.v = arena_array(arena, in.room, sizeof(*out->policies.v));
	if (arena->failed || index_each_item(m, policies, add_root, &in) ||
	    index_each_item(m, policies, add_own, &in))
		return -ENOMEM;
	return 0;
}
