/* DestinationRule and VirtualService. */
#include <string.h>

#include "compile/document.h"

static void decode_policy(const json_t *o, struct traffic_policy *p)
{
	static const enum weft_lb lbs[] = { WEFT_LB_LEAST_REQUEST, WEFT_LB_LEAST_REQUEST,
					    WEFT_LB_ROUND_ROBIN,   WEFT_LB_RANDOM,
					    WEFT_LB_PASSTHROUGH,   WEFT_LB_LEAST_REQUEST };
	const json_t *lb = json_object_get(o, "loadBalancer"),
		     *pool = json_object_get(o, "connectionPool");
	const json_t *tls = json_object_get(o, "tls");
	int word = decode_word(
		lb, "simple", "UNSPECIFIED|LEAST_REQUEST|ROUND_ROBIN|RANDOM|PASSTHROUGH|LEAST_CONN",
		0);

	p->has_lb = json_is_object(lb);
	p->lb = lbs[word];
	p->has_pool = json_is_object(pool);
	p->connect_ms = decode_millis(json_object_get(pool, "tcp"), "connectTimeout");
	p->has_tls = json_is_object(tls);
	p->tls = decode_word(tls, "mode", "DISABLE|ISTIO_MUTUAL", 0) ? WEFT_TLS_MUTUAL
								     : WEFT_TLS_DISABLE;
}

static void decode_rule(struct decode *d, const json_t *owner, struct traffic_rule *r)
{
	const json_t *o = json_object_get(owner, "trafficPolicy"),
		     *list = json_object_get(o, "portLevelSettings");
	size_t n = json_array_size(list);

	decode_policy(o, &r->policy);
	r->ports = arena_array(d->arena, n, sizeof(*r->ports));
	for (r->n_ports = 0; r->ports && r->n_ports < n; r->n_ports++) {
		const json_t *p = json_array_get(list, r->n_ports);

		r->ports[r->n_ports].port =
			(uint16_t)decode_number(json_object_get(p, "port"), "number", 0);
		decode_policy(p, &r->ports[r->n_ports].policy);
	}
}

void decode_destination_rule(struct decode *d, const json_t *spec)
{
	struct destination_rule *r = &d->doc->destination_rule;
	const json_t *list = json_object_get(spec, "subsets");
	size_t n = json_array_size(list), mark = errors_push(&d->path, "host");

	r->host = decode_host(d, json_string_value(json_object_get(spec, "host")));
	errors_pop(&d->path, mark);
	decode_rule(d, spec, &r->rule);
	r->subsets = arena_array(d->arena, n, sizeof(*r->subsets));
	mark = errors_push(&d->path, "subsets");
	for (size_t i = 0; r->subsets && i < n; i++) {
		const json_t *o = json_array_get(list, i);
		struct subset *s = &r->subsets[r->n_subsets++];
		size_t at = errors_push_index(&d->path, i);

		s->name = decode_text(d, o, "name");
		decode_labels(d, o, "labels", &s->labels);
		decode_rule(d, o, &s->rule);
		if (!*s->name)
			decode_error(d, ERRORS_VALUE, "name", "is empty");
		for (size_t k = 0; k < i; k++)
			if (strcmp(r->subsets[k].name, s->name) == 0)
				decode_error(d, ERRORS_RULE, "name",
					     "the same name as at index %zu", k);
		errors_pop(&d->path, at);
	}
	errors_pop(&d->path, mark);
}

static void decode_matches(struct decode *d, const json_t *o, struct tcp_route *r)
{
	const json_t *list = json_object_get(o, "match");
	size_t n = json_array_size(list);

	r->matches = arena_array(d->arena, n, sizeof(*r->matches));
	for (r->n_matches = 0; r->matches && r->n_matches < n; r->n_matches++) {
		const json_t *x = json_array_get(list, r->n_matches);
		struct tcp_match *m = &r->matches[r->n_matches];

		m->port = (uint16_t)decode_number(x, "port", 0);
		decode_cidrs(d, x, "destinationSubnets", &m->subnets, &m->n_subnets);
		decode_labels(d, x, "sourceLabels", &m->source_labels);
		m->source_ns = decode_text(d, x, "sourceNamespace");
	}
}

static void decode_destination(struct decode *d, const json_t *o, bool alone,
			       struct destination *out)
{
	const json_t *to = json_object_get(o, "destination");
	size_t mark = errors_push(&d->path, "destination"), at = errors_push(&d->path, "host");

	out->host = decode_host(d, json_string_value(json_object_get(to, "host")));
	errors_pop(&d->path, at);
	errors_pop(&d->path, mark);
	out->subset = decode_text(d, to, "subset");
	out->port = (uint16_t)decode_number(json_object_get(to, "port"), "number", 0);
	out->weight = decode_number(o, "weight", 0);
	if (alone)
		out->weight = 1; /* Istio: one destination takes everything, whatever its weight */
}

static void decode_destinations(struct decode *d, const json_t *o, struct tcp_route *r)
{
	const json_t *list = json_object_get(o, "route");
	size_t n = json_array_size(list), mark = errors_push(&d->path, "route");
	uint64_t sum = 0;

	if (n > WEFT_CLUSTERS_MAX)
		decode_error(d, ERRORS_VALUE, NULL, "%zu destinations, at most %d", n,
			     WEFT_CLUSTERS_MAX);
	r->destinations = arena_array(d->arena, n, sizeof(*r->destinations));
	for (size_t i = 0; r->destinations && i < n; i++) {
		size_t at = errors_push_index(&d->path, i);

		decode_destination(d, json_array_get(list, i), n == 1, &r->destinations[i]);
		sum += r->destinations[i].weight;
		r->n_destinations++;
		errors_pop(&d->path, at);
	}
	if (!sum)
		decode_error(d, ERRORS_RULE, NULL, "the weights add up to 0");
	else if (sum > UINT32_MAX)
		decode_error(d, ERRORS_VALUE, NULL, "the weights add up to more than 4294967295");
	errors_pop(&d->path, mark);
}

void decode_virtual_service(struct decode *d, const json_t *spec)
{
	struct virtual_service *v = &d->doc->virtual_service;
	const json_t *list = json_object_get(spec, "tcp");
	size_t n = json_array_size(list), mark;

	decode_hosts(d, spec, "hosts", &v->hosts);
	for (size_t i = 0; i < v->hosts.n; i++)
		if (strcmp(v->hosts.v[i], "*") == 0)
			decode_error(d, ERRORS_VALUE, "hosts",
				     "* is not allowed: name a domain such as *.default");
	if (!n)
		decode_error(d, ERRORS_MISSING, "tcp",
			     "tcp is required: a VirtualService without routes does nothing");
	v->routes = arena_array(d->arena, n, sizeof(*v->routes));
	mark = errors_push(&d->path, "tcp");
	for (size_t i = 0; v->routes && i < n; i++) {
		const json_t *o = json_array_get(list, i);
		size_t at = errors_push_index(&d->path, i);

		decode_matches(d, o, &v->routes[i]);
		decode_destinations(d, o, &v->routes[i]);
		v->n_routes++;
		errors_pop(&d->path, at);
	}
	errors_pop(&d->path, mark);
}
