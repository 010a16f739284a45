/* Documents that are accepted but look wrong beside the others. */
#include <errno.h>
#include <string.h>

#include "compile/members.h"

struct warnings {
	struct model *m;
	struct doc_errors *out;
	struct errors_path path;
	const struct labels *selector;
};

static void warn_host(struct warnings *w, const char *host, const char *subset)
{
	const struct item *rule = index_find(w->m, host, SLOT_RULE);
	const struct destination_rule *r = rule ? &rule->doc->destination_rule : NULL;
	size_t mark;

	if (!members_exist(w->m, index_node(w->m, TREE_SERVICE, host))) {
		mark = errors_push(&w->path, "host");
		errors_add(w->out, ERRORS_NO_HOST, &w->path,
			   "no instance and no ServiceEntry has the name %s", host);
		errors_pop(&w->path, mark);
	}
	for (size_t i = 0; r && i < r->n_subsets; i++)
		if (strcmp(r->subsets[i].name, subset) == 0)
			return;
	if (!*subset)
		return;
	mark = errors_push(&w->path, "subset");
	errors_add(w->out, ERRORS_NO_SUBSET, &w->path,
		   "no DestinationRule of %s defines the subset \"%s\"", host, subset);
	errors_pop(&w->path, mark);
}

static void warn_routes(struct warnings *w, const struct virtual_service *v)
{
	bool all = false;

	errors_push(&w->path, "tcp");
	for (size_t i = 0; i < v->n_routes; i++) {
		size_t mark = errors_push_index(&w->path, i);

		if (all)
			errors_add(w->out, ERRORS_UNREACHED, &w->path, "no connection gets here");
		all |= !v->routes[i].n_matches;
		for (size_t k = 0; k < v->routes[i].n_destinations; k++) {
			size_t at = errors_push(&w->path, "route");

			errors_push_index(&w->path, k);
			errors_push(&w->path, "destination");
			warn_host(w, v->routes[i].destinations[k].host,
				  v->routes[i].destinations[k].subset);
			errors_pop(&w->path, at);
		}
		errors_pop(&w->path, mark);
	}
}

static int selected(void *arg, struct item *e)
{
	const struct warnings *w = arg;

	return e->doc && labels_match(w->selector, e->doc->workload_entry.labels.v,
				      e->doc->workload_entry.labels.n);
}

static void warn_selector(struct warnings *w, const struct labels *selector)
{
	size_t mark = errors_push(&w->path, "selector");

	w->selector = selector;
	if (selector->n && !index_each_item(w->m, &table_kinds[KIND_WorkloadEntry], selected, w))
		errors_add(w->out, ERRORS_NO_WORKLOAD, &w->path,
			   "no instance carries these labels");
	errors_pop(&w->path, mark);
}

int model_warnings(struct model *m, const char *key, struct doc_errors *out)
{
	struct warnings w = { .m = m, .out = out };
	struct document_key id;
	struct item *e =
		document_key_parse(&id, key) == -ENOENT ? NULL : index_item(m, id.kind, key);

	if (!e)
		return -ENOENT;
	if (!e->doc || index_conflict(m, e))
		return 0;
	if (e->doc->manifest)
		errors_push(&w.path, "spec");
	switch (id.kind - table_kinds) {
	case KIND_VirtualService:
		warn_routes(&w, &e->doc->virtual_service);
		break;
	case KIND_DestinationRule:
		if (e->doc->destination_rule.host[0] != '*')
			warn_host(&w, e->doc->destination_rule.host, "");
		break;
	case KIND_PeerAuthentication:
		warn_selector(&w, &e->doc->peer_authentication.selector);
		break;
	case KIND_AuthorizationPolicy:
		warn_selector(&w, &e->doc->authorization_policy.selector);
		if (e->doc->authorization_policy.needs_http)
			errors_add(out, ERRORS_HTTP_RULE, NULL, "a rule names parts of a request");
		break;
	default:
		break;
	}
	return 0;
}
