/* The answer to SERVICE: which route applies to this caller, and the endpoints behind it. */
#include <errno.h>
#include <string.h>

#include "compile/members.h"
#include "weft/ident.h"

#define IDENTITIES_MAX 256 /* different service accounts behind one destination */

struct query {
	struct model *m;
	struct arena *arena;
	const struct caller *caller;
	struct weft_addr dialled; /* address and port */
	bool exact;
};

struct target { /* one destination of the route */
	const char *host, *subset;
	uint16_t port;
	uint32_t weight;
};

struct gather { /* fills one cluster */
	const struct query *q;
	const struct service_entry *entry;
	const struct labels *subset;
	const char *host;
	uint16_t port;
	bool original; /* PASSTHROUGH: the dialled address and no other */
	struct wire_cluster *cluster;
	uint32_t room;
};

static struct wire_str copy(struct arena *a, const char *s)
{
	const char *p = arena_strdup(a, s);

	return wire_str_of(p ? p : "");
}

static bool shares_netns(const struct query *q, const struct instance *i)
{
	return strcmp(i->host, q->caller->host) == 0 && (!i->netns || i->netns == q->caller->netns);
}

/* The address at which the caller reaches this member, or NULL. */
static const struct weft_addr *reach(const struct query *q, const struct member *mb)
{
	const struct instance *i = mb->instance;
	bool wild = addr_is_v4(&q->dialled) ? i->wildcard4 : i->wildcard6;

	if (member_is_confined(mb) && !shares_netns(q, i))
		return NULL;
	if (!q->exact || addr_equal_ip(&i->address, &q->dialled))
		return &i->address;
	return wild && addr_is_loopback(&q->dialled) && shares_netns(q, i) ? &q->dialled : NULL;
}

static bool add_identity(struct gather *g, const char *spiffe)
{
	struct wire_strs *ids = &g->cluster->identities;

	for (uint32_t i = 0; i < ids->n; i++)
		if (strcmp(ids->v[i].p, spiffe) == 0)
			return true;
	if (ids->n >= IDENTITIES_MAX)
		return false;
	ids->v[ids->n++] = copy(g->q->arena, spiffe);
	return true;
}

/* Without a service account a member is the service itself: the first label of its name. False: it has no room. */
static bool add_member_identity(struct gather *g, const char *account, const char *ns)
{
	const char *td = g->q->m->trust_domain, *service = g->host;
	int len = *account ? (int)strlen(account) : (int)strcspn(service, ".");
	char text[WEFT_SPIFFE_MAX + 1];

	snprintf(text, sizeof(text), "spiffe://%s/ns/%s/sa/%.*s", td, ns, len,
		 *account ? account : service);
	return add_identity(g, text);
}

static void put_endpoint(struct gather *g, const struct weft_addr *addr, uint16_t port,
			 const struct member *mb)
{
	struct wire_endpoint *e = &g->cluster->endpoints.v[g->cluster->endpoints.n];
	uint8_t *ip = arena_alloc(g->q->arena, sizeof(addr->ip));

	if (!ip)
		return;
	memcpy(ip, addr->ip, sizeof(addr->ip));
	*e = (struct wire_endpoint){ .address = { ip, sizeof(addr->ip) },
				     .port = port,
				     .weight = 1 };
	if (mb) {
		e->weight = mb->instance->weight;
		e->tls = member_tls(mb);
		e->entry = copy(g->q->arena, mb->item->label);
		e->version =
			copy(g->q->arena, labels_get(&mb->instance->labels, MODEL_LABEL_VERSION));
	}
	g->cluster->endpoints.n++;
}

static int add_member(void *arg, const struct member *mb)
{
	struct gather *g = arg;
	const struct weft_addr *addr = reach(g->q, mb);
	uint16_t port;

	if (g->cluster->endpoints.n >= g->room)
		return 1;
	if (addr && g->original && !addr_equal_ip(addr, &g->q->dialled))
		return 0;
	if (!addr ||
	    (g->subset && !labels_match(g->subset, mb->instance->labels.v, mb->instance->labels.n)))
		return 0;
	port = g->q->exact ? g->q->dialled.port : member_port(g->entry, mb, g->port);
	if (g->q->exact && mb->instance->n_ports && !member_listens(mb, port))
		return 0;
	if (port && add_member_identity(g, mb->instance->service_account, mb->item->id.ns))
		put_endpoint(g, addr, port, mb);
	return 0;
}

/* --- DestinationRule --- */

static void overlay(struct traffic_policy *p, const struct traffic_policy *over)
{
	if (over->has_lb) {
		p->has_lb = true;
		p->lb = over->lb;
	}
	if (over->has_pool) {
		p->has_pool = true;
		p->connect_ms = over->connect_ms;
	}
	if (over->has_tls) {
		p->has_tls = true;
		p->tls = over->tls;
	}
}

/* Istio: a policy for the port stands alone, what it leaves out takes the default and not the wider policy. */
static void apply_rule(struct traffic_policy *p, const struct traffic_rule *r, uint16_t port)
{
	overlay(p, &r->policy);
	for (size_t i = 0; i < r->n_ports; i++)
		if (r->ports[i].port == port)
			*p = r->ports[i].policy;
}

static const struct subset *find_subset(const struct destination_rule *r, const char *name)
{
	for (size_t i = 0; r && i < r->n_subsets; i++)
		if (strcmp(r->subsets[i].name, name) == 0)
			return &r->subsets[i];
	return NULL;
}

static void set_policy(const struct query *q, const struct destination_rule *r,
		       const struct subset *s, uint16_t port, struct wire_cluster *c)
{
	const struct mesh_config *mesh = index_mesh(q->m);
	struct traffic_policy p = { .has_lb = false };

	if (r)
		apply_rule(&p, &r->rule, port);
	if (s)
		apply_rule(&p, &s->rule, port);
	c->lb = p.has_lb ? p.lb : WEFT_LB_LEAST_REQUEST;
	c->tls = p.has_tls ? p.tls : WEFT_TLS_AUTO;
	c->connect_timeout_ms = p.connect_ms               ? p.connect_ms
				: mesh && mesh->connect_ms ? mesh->connect_ms
							   : WEFT_CONNECT_TIMEOUT_MS;
}

/* --- clusters --- */

static bool is_virtual(const struct weft_addr *a, const struct node *n)
{
	return addr_is_any(a) || addr_is_vip(a) ||
	       (n && (addr_equal_ip(a, &n->vip4) || addr_equal_ip(a, &n->vip6)));
}

/* Whether the caller's own address is the destination: PASSTHROUGH, or resolution NONE without endpoints. */
static bool passes_through(const struct gather *g, const struct node *n)
{
	const struct service_entry *s = g->entry;

	if (g->original)
		return !g->cluster->endpoints.n;
	return s && s->passthrough && !s->selects && !s->n_endpoints && !n->slot[SLOT_INSTANCE].n;
}

static int build_cluster(const struct query *q, const struct target *t, struct wire_cluster *c)
{
	const struct node *n = index_node(q->m, TREE_SERVICE, t->host);
	const struct item *rule = index_find(q->m, t->host, SLOT_RULE);
	const struct destination_rule *r = rule ? &rule->doc->destination_rule : NULL;
	const struct subset *s = find_subset(r, t->subset);
	struct gather g = { .q = q,
			    .subset = s ? &s->labels : NULL,
			    .host = t->host,
			    .port = t->port,
			    .cluster = c };
	size_t members = q->exact ? 1 : members_count(q->m, n) + 1;

	g.entry = members_entry(q->m, n);
	g.room = members < WEFT_ENDPOINTS_MAX ? (uint32_t)members : WEFT_ENDPOINTS_MAX;
	c->host = c->sni = copy(q->arena, t->host);
	c->subset = copy(q->arena, t->subset);
	c->weight = t->weight;
	c->endpoints.v = arena_array(q->arena, g.room, sizeof(*c->endpoints.v));
	c->identities.v = arena_array(q->arena, IDENTITIES_MAX, sizeof(*c->identities.v));
	set_policy(q, r, s, t->port, c);
	if (q->arena->failed)
		return -ENOMEM;
	if (*t->subset && !s)
		return 0; /* Istio: a subset that nobody defines has no endpoints */
	g.original = !q->exact && c->lb == WEFT_LB_PASSTHROUGH && !is_virtual(&q->dialled, n);
	members_each(q->m, n, add_member, &g);
	if (!q->exact && !is_virtual(&q->dialled, n) && passes_through(&g, n))
		put_endpoint(&g, &q->dialled, g.port, NULL);
	if (g.entry && g.entry->identities.n)
		c->identities.n = 0;
	for (size_t i = 0; g.entry && i < g.entry->identities.n; i++)
		add_identity(&g, g.entry->identities.v[i]);
	return q->arena->failed ? -ENOMEM : 0;
}

/* --- routes --- */

static bool match_subnets(const struct tcp_match *t, const struct weft_addr *dialled)
{
	for (size_t i = 0; i < t->n_subnets; i++)
		if (cidr_contains(&t->subnets[i], dialled))
			return true;
	return !t->n_subnets;
}

static bool route_matches(const struct query *q, const struct tcp_route *r)
{
	for (size_t i = 0; i < r->n_matches; i++) {
		const struct tcp_match *t = &r->matches[i];

		if ((!t->port || t->port == q->dialled.port) && match_subnets(t, &q->dialled) &&
		    labels_match(&t->source_labels, q->caller->labels, q->caller->n_labels) &&
		    (!*t->source_ns || strcmp(t->source_ns, q->caller->ns) == 0))
			return true;
	}
	return !r->n_matches;
}

static const struct tcp_route *find_route(const struct query *q, const char *service)
{
	const struct item *e = q->exact ? NULL : index_find(q->m, service, SLOT_ROUTE);
	const struct virtual_service *v = e ? &e->doc->virtual_service : NULL;

	for (size_t i = 0; v && i < v->n_routes; i++)
		if (route_matches(q, &v->routes[i]))
			return &v->routes[i];
	return NULL;
}

static void add_depends(const struct query *q, const char *host, struct wire_service *out)
{
	if (strcmp(host, out->name.p) == 0)
		return;
	for (uint32_t i = 0; i < out->depends.n; i++)
		if (strcmp(out->depends.v[i].p, host) == 0)
			return;
	out->depends.v[out->depends.n++] = copy(q->arena, host);
}

static int build_clusters(const struct query *q, const struct tcp_route *r,
			  struct wire_service *out)
{
	const struct target self = { out->name.p, "", q->dialled.port, 1 };
	size_t n = r ? r->n_destinations : 1;
	bool any = false;

	out->clusters.v = arena_array(q->arena, n, sizeof(*out->clusters.v));
	out->depends.v = arena_array(q->arena, n, sizeof(*out->depends.v));
	if (q->arena->failed)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++) {
		const struct destination *d = r ? &r->destinations[i] : NULL;
		struct target t = self;

		if (d)
			t = (struct target){ d->host, d->subset,
					     d->port ? d->port : q->dialled.port, d->weight };
		if (build_cluster(q, &t, &out->clusters.v[out->clusters.n++]) < 0)
			return -ENOMEM;
		add_depends(q, t.host, out);
		any |= out->clusters.v[i].endpoints.n > 0;
	}
	if (!any) {
		out->clusters.n = 0;
		out->reason = WEFT_REASON_NO_ENDPOINT;
	}
	return q->arena->failed ? -ENOMEM : 0;
}

int model_service(struct model *m, const struct caller *caller, const struct wire_ask *ask,
		  struct arena *arena, struct wire_service *out)
{
	struct query q = { .m = m, .arena = arena, .caller = caller, .exact = ask->exact };
	const struct node *n = index_node(m, TREE_SERVICE, ask->service.p);

	q.dialled.port = ask->port <= 65535 ? (uint16_t)ask->port : 0;
	if (ask->address.n == sizeof(q.dialled.ip))
		memcpy(q.dialled.ip, ask->address.p, sizeof(q.dialled.ip));
	*out = (struct wire_service){ .name = copy(arena, ask->service.p) };
	out->external = members_external(m, n);
	if (arena->failed)
		return -ENOMEM;
	if (!members_exist(m, n)) {
		bool held = n && (!addr_is_any(&n->vip4) || !addr_is_any(&n->vip6));

		out->reason = held ? WEFT_REASON_NO_ENDPOINT : WEFT_REASON_UNKNOWN_VIP;
		if (!held)
			return -ENOENT;
	}
	return build_clusters(&q, find_route(&q, ask->service.p), out);
}
