/* Which services' answers hang on a document. */
#include <errno.h>
#include <string.h>

#include "compile/members.h"

struct affected {
	struct model *m;
	void (*fn)(void *arg, const char *service);
	void *arg;
	const char *glob;
};

static int tell(void *arg, struct node *n)
{
	struct affected *a = arg;

	if (!a->glob || index_glob_matches(a->m, a->glob, n->name))
		a->fn(a->arg, n->name);
	return 0;
}

static void tell_host(struct affected *a, const char *host)
{
	a->glob = host[0] == '*' ? host : NULL;
	if (a->glob)
		index_each_node(a->m, TREE_SERVICE, tell, a);
	else
		a->fn(a->arg, host);
}

/* A document that goes may let another one in that conflicted with it, and that one's other hosts too. */
static void tell_claims(struct affected *a, struct item *e, unsigned depth)
{
	struct claim c;

	if (e->visited == a->m->visit || depth > 64)
		return;
	e->visited = a->m->visit;
	for (size_t i = 0; index_claim(e, i, &c); i++) {
		const struct node *n = index_node(a->m, c.tree, c.name);

		tell_host(a, c.name);
		for (size_t k = 0; n && k < n->slot[c.slot].n; k++)
			tell_claims(a, n->slot[c.slot].v[k], depth + 1);
	}
}

static void tell_instance(struct affected *a, const struct item *e)
{
	const struct instance *w = &e->doc->workload_entry;

	if (*w->service)
		a->fn(a->arg, w->service);
	for (size_t i = 0; i < a->m->selecting.n; i++) {
		const struct item *s = a->m->selecting.v[i];
		const struct service_entry *entry = &s->doc->service_entry;

		if (strcmp(s->id.ns, e->id.ns) != 0 ||
		    !labels_match(&entry->selector, w->labels.v, w->labels.n))
			continue;
		for (size_t k = 0; k < entry->hosts.n; k++)
			a->fn(a->arg, entry->hosts.v[k]);
	}
}

void model_affected(struct model *m, const char *key, void (*fn)(void *arg, const char *service),
		    void *arg)
{
	struct affected a = { .m = m, .fn = fn, .arg = arg };
	struct document_key id;
	struct item *e =
		document_key_parse(&id, key) == -ENOENT ? NULL : index_item(m, id.kind, key);

	if (!e || !e->doc || !(e->id.kind->touches & MODEL_SERVICES))
		return;
	if (id.kind == &table_kinds[KIND_MeshConfig]) {
		index_each_node(m, TREE_SERVICE, tell, &a);
	} else if (id.kind == &table_kinds[KIND_WorkloadEntry]) {
		tell_instance(&a, e);
	} else {
		m->visit++;
		tell_claims(&a, e, 0);
	}
}
