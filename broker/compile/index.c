#include "compile/index.h"

#include <errno.h>
#include <search.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int compare(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

static void **kind_tree(struct model *m, const struct table_kind *kind)
{
	return &m->items[kind - table_kinds];
}

static void *find(void *const *tree, const char *name)
{
	void **found = tfind(&name, tree, compare);

	return found ? *found : NULL;
}

struct item *index_item(const struct model *m, const struct table_kind *kind, const char *key)
{
	return find(&m->items[kind - table_kinds], key);
}

static void item_free(void *item)
{
	struct item *e = item;

	doc_errors_free(&e->errors);
	doc_errors_free(&e->conflict);
	document_free(e->doc);
	free(e->label);
	free(e->key);
	free(e);
}

struct item *index_item_add(struct model *m, const struct document_key *id, const char *key)
{
	struct item *e = index_item(m, id->kind, key);
	size_t size = strlen(id->ns) + strlen(id->name) + 2;

	if (e)
		return e;
	e = calloc(1, sizeof(*e));
	if (!e)
		return NULL;
	e->id = *id;
	e->key = strdup(key);
	e->label = malloc(size);
	if (!e->key || !e->label || !tsearch(e, kind_tree(m, id->kind), compare)) {
		item_free(e);
		return NULL;
	}
	snprintf(e->label, size, "%s/%s", id->ns, id->name);
	return e;
}

void index_item_drop(struct model *m, struct item *e)
{
	tdelete(e, kind_tree(m, e->id.kind), compare);
	item_free(e);
}

struct node *index_node(const struct model *m, enum index_tree tree, const char *name)
{
	return find(&m->nodes[tree], name);
}

struct node *index_node_add(struct model *m, enum index_tree tree, const char *name)
{
	struct node *n = index_node(m, tree, name);

	if (n)
		return n;
	n = calloc(1, sizeof(*n));
	if (n)
		n->name = strdup(name);
	if (n && n->name && tsearch(n, &m->nodes[tree], compare))
		return n;
	if (n)
		free(n->name);
	free(n);
	return NULL;
}

static void node_free(void *node)
{
	struct node *n = node;

	for (size_t i = 0; i < SLOT_MAX; i++)
		free(n->slot[i].v);
	free(n->name);
	free(n);
}

void index_node_settle(struct model *m, enum index_tree tree, struct node *n)
{
	for (size_t i = 0; i < SLOT_MAX; i++)
		if (n->slot[i].n)
			return;
	if (!addr_is_any(&n->vip4) || !addr_is_any(&n->vip6))
		return;
	tdelete(n, &m->nodes[tree], compare);
	node_free(n);
}

void index_free(struct model *m)
{
	for (size_t i = 0; i < KIND_MAX; i++)
		tdestroy(m->items[i], item_free);
	for (size_t i = 0; i < TREE_MAX; i++)
		tdestroy(m->nodes[i], node_free);
	free(m->selecting.v);
}

struct walk {
	int (*item)(void *, struct item *);
	int (*node)(void *, struct node *);
	void *arg;
	int result;
};

static void walk_step(const void *at, VISIT order, void *closure)
{
	struct walk *w = closure;
	void *found = *(void *const *)at;

	if ((order != postorder && order != leaf) || w->result)
		return;
	w->result = w->item ? w->item(w->arg, found) : w->node(w->arg, found);
}

int index_each_item(const struct model *m, const struct table_kind *kind,
		    int (*fn)(void *, struct item *), void *arg)
{
	struct walk w = { .item = fn, .arg = arg };

	twalk_r(m->items[kind - table_kinds], walk_step, &w);
	return w.result;
}

int index_each_node(const struct model *m, enum index_tree tree, int (*fn)(void *, struct node *),
		    void *arg)
{
	struct walk w = { .node = fn, .arg = arg };

	twalk_r(m->nodes[tree], walk_step, &w);
	return w.result;
}

/* Index of the first entry whose key is not before `key`. */
static size_t lower_bound(const struct items *s, const char *key)
{
	size_t low = 0, high = s->n;

	while (low < high) {
		size_t mid = low + (high - low) / 2;

		if (strcmp(s->v[mid]->key, key) < 0)
			low = mid + 1;
		else
			high = mid;
	}
	return low;
}

static int items_add(struct items *s, struct item *e)
{
	size_t at = lower_bound(s, e->key);

	if (at < s->n && s->v[at] == e)
		return 0;
	if (s->n == s->room) {
		size_t room = s->room ? 2 * s->room : 2;
		struct item **v = reallocarray(s->v, room, sizeof(struct item *));

		if (!v)
			return -ENOMEM;
		s->v = v;
		s->room = room;
	}
	memmove(s->v + at + 1, s->v + at, (s->n - at) * sizeof(struct item *));
	s->v[at] = e;
	s->n++;
	return 0;
}

static void items_remove(struct items *s, const struct item *e)
{
	size_t at = lower_bound(s, e->key);

	if (at < s->n && s->v[at] == e) {
		s->n--;
		memmove(s->v + at, s->v + at + 1, (s->n - at) * sizeof(struct item *));
	}
}

static bool claim_host(struct claim *c, enum index_slot slot, const char *host)
{
	c->tree = host[0] == '*' ? TREE_GLOB : TREE_SERVICE;
	c->slot = slot;
	snprintf(c->name, sizeof(c->name), "%s", host);
	return true;
}

static bool claim_text(struct claim *c, enum index_tree tree, enum index_slot slot,
		       const char *name, const char *more)
{
	c->tree = tree;
	c->slot = slot;
	return snprintf(c->name, sizeof(c->name), "%s/%s", name, more) > 0;
}

static bool instance_claim(const struct item *e, size_t i, struct claim *c)
{
	const char *service = e->doc->workload_entry.service;

	if (i == 0) {
		claim_text(c, TREE_NS, SLOT_INSTANCE, e->id.ns, "");
		return true;
	}
	return i == 1 && *service && claim_host(c, SLOT_INSTANCE, service);
}

bool index_claim(const struct item *e, size_t i, struct claim *c)
{
	const struct document *d = e->doc;

	switch (e->id.kind - table_kinds) {
	case KIND_ServiceEntry:
		return i < d->service_entry.hosts.n &&
		       claim_host(c, SLOT_SERVICE, d->service_entry.hosts.v[i]);
	case KIND_DestinationRule:
		return i == 0 && claim_host(c, SLOT_RULE, d->destination_rule.host);
	case KIND_VirtualService:
		return i < d->virtual_service.hosts.n &&
		       claim_host(c, SLOT_ROUTE, d->virtual_service.hosts.v[i]);
	case KIND_WorkloadEntry:
		return instance_claim(e, i, c);
	case KIND_PeerAuthentication:
		if (i == 1 && !d->peer_authentication.selector.n)
			return claim_text(c, TREE_SCOPE, SLOT_SCOPE, e->id.ns, "");
		break;
	default:
		break;
	}
	/* weft:<Kind>:default/x and weft:<Kind>:x are one document. */
	return i == 0 && claim_text(c, TREE_SCOPE, SLOT_SCOPE, e->id.kind->name, e->label);
}

int index_link(struct model *m, struct item *e)
{
	struct claim c;

	m->version++;
	for (size_t i = 0; index_claim(e, i, &c); i++) {
		struct node *n = index_node_add(m, c.tree, c.name);

		if (!n || items_add(&n->slot[c.slot], e) < 0)
			goto fail;
	}
	if (e->id.kind == &table_kinds[KIND_ServiceEntry] && e->doc->service_entry.selects &&
	    items_add(&m->selecting, e) < 0)
		goto fail;
	return 0;
fail:
	index_unlink(m, e);
	return -ENOMEM;
}

void index_unlink(struct model *m, struct item *e)
{
	struct claim c;

	if (!e->doc)
		return;
	m->version++;
	for (size_t i = 0; index_claim(e, i, &c); i++) {
		struct node *n = index_node(m, c.tree, c.name);

		if (!n)
			continue;
		items_remove(&n->slot[c.slot], e);
		index_node_settle(m, c.tree, n);
	}
	items_remove(&m->selecting, e);
}

#define CHAIN_MAX 256 /* documents in a chain of conflicts; beyond, the earlier key wins unseen */

static const struct item *judge(struct model *m, struct item *e, unsigned depth)
{
	const struct item *rival = NULL;
	struct claim c;

	if (e->judged == m->version)
		return e->rival;
	for (size_t i = 0; !rival && index_claim(e, i, &c); i++) {
		const struct node *n =
			c.slot == SLOT_INSTANCE ? NULL : index_node(m, c.tree, c.name);

		for (size_t k = 0; n && !rival && k < n->slot[c.slot].n; k++) {
			struct item *other = n->slot[c.slot].v[k];

			if (other == e)
				break;
			if (depth >= CHAIN_MAX || !judge(m, other, depth + 1))
				rival = other;
		}
	}
	e->rival = rival;
	e->judged = m->version;
	return rival;
}

const struct item *index_conflict(struct model *m, struct item *e)
{
	return e->doc ? judge(m, e, 0) : NULL;
}

struct item *index_in_force(struct model *m, const struct node *n, enum index_slot slot)
{
	for (size_t i = 0; n && i < n->slot[slot].n; i++)
		if (!index_conflict(m, n->slot[slot].v[i]))
			return n->slot[slot].v[i];
	return NULL;
}

const struct mesh_config *index_mesh(const struct model *m)
{
	const struct node *n = index_node(m, TREE_SCOPE, "MeshConfig/default/default");

	return n ? &n->slot[SLOT_SCOPE].v[0]->doc->mesh_config : NULL;
}

static bool ends_with(const char *s, const char *suffix)
{
	size_t n = strlen(s), k = strlen(suffix);

	return n > k && strcmp(s + n - k, suffix) == 0;
}

bool index_glob_matches(const struct model *m, const char *glob, const char *service)
{
	char full[WEFT_SERVICE_MAX + WEFT_HOST_MAX + 8];
	const char *dot = strchr(service, '.');

	if (!glob[1] || ends_with(service, glob + 1))
		return true;
	if (!dot || strchr(dot + 1, '.'))
		return false; /* a host of its own, not <service>.<namespace> */
	snprintf(full, sizeof(full), "%s.svc.%s", service, m->trust_domain);
	return ends_with(full, glob + 1);
}

struct glob_search {
	struct model *m;
	const char *service;
	enum index_slot slot;
	struct item *found;
	size_t length;
};

static int try_glob(void *arg, struct node *n)
{
	struct glob_search *s = arg;
	struct item *e = index_in_force(s->m, n, s->slot);

	if (e && strlen(n->name) > s->length && index_glob_matches(s->m, n->name, s->service)) {
		s->found = e;
		s->length = strlen(n->name);
	}
	return 0;
}

struct item *index_find(struct model *m, const char *service, enum index_slot slot)
{
	struct glob_search s = { .m = m, .service = service, .slot = slot };
	struct item *e = index_in_force(m, index_node(m, TREE_SERVICE, service), slot);

	if (e)
		return e;
	index_each_node(m, TREE_GLOB, try_glob, &s);
	return s.found;
}
