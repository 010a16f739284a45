#include "compile/model.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "compile/index.h"
#include "weft/env.h"

struct model *model_new(const char *trust_domain)
{
	struct model *m = calloc(1, sizeof(*m));

	if (!m)
		return NULL;
	m->version = 1; /* an item starts with judged 0 */
	m->trust_domain =
		strdup(trust_domain && *trust_domain ? trust_domain : WEFT_TRUST_DOMAIN_DEFAULT);
	if (!m->trust_domain) {
		free(m);
		return NULL;
	}
	return m;
}

void model_free(struct model *m)
{
	if (!m)
		return;
	index_free(m);
	free(m->trust_domain);
	free(m);
}

/* Keeps the errors in the item and gives a copy to the caller. */
static void keep_errors(struct item *e, struct doc_errors *found, struct doc_errors *out)
{
	doc_errors_free(&e->errors);
	if (out)
		for (size_t i = 0; i < found->n; i++)
			errors_copy(out, &found->v[i]);
	e->errors = *found;
}

/* Puts `doc` in force. Out of memory, the version before is gone too: the caller will read everything again. */
static int replace(struct model *m, struct item *e, struct document *doc)
{
	int r;

	index_unlink(m, e);
	document_free(e->doc);
	e->doc = doc;
	r = index_link(m, e);
	if (r < 0) {
		document_free(doc);
		e->doc = NULL;
	}
	return r;
}

int model_put(struct model *m, const char *key, const char *json, size_t len,
	      struct doc_errors *errors)
{
	struct doc_errors found = { 0 };
	struct document *doc = NULL;
	char revision[DOC_REVISION + 1];
	struct document_key id;
	struct item *e;
	bool broker = false;
	int r = document_key_parse(&id, key);

	if (r == -ENOENT)
		return r;
	if (r < 0) {
		errors_add(&found, ERRORS_KEY, NULL, "the key is not weft:%s:[<namespace>/]<name>",
			   id.kind->name);
		doc_revision(json, len, revision);
	} else {
		r = document_read(&id, m->trust_domain, json, len, &doc, &broker, revision, &found);
	}
	e = r == -ENOMEM ? NULL : index_item_add(m, &id, key);
	if (!e) {
		document_free(doc);
		doc_errors_free(&found);
		return -ENOMEM;
	}
	keep_errors(e, &found, errors);
	memcpy(e->revision, revision, sizeof(e->revision));
	e->refused = r < 0;
	e->broker = broker;
	return r < 0 ? r : replace(m, e, doc);
}

int model_del(struct model *m, const char *key)
{
	struct document_key id;
	struct item *e =
		document_key_parse(&id, key) == -ENOENT ? NULL : index_item(m, id.kind, key);

	if (!e)
		return -ENOENT;
	index_unlink(m, e);
	index_item_drop(m, e);
	return 0;
}

int model_vip(struct model *m, const char *service, const struct weft_addr *vip4,
	      const struct weft_addr *vip6)
{
	const struct weft_addr none = { .port = 0 };
	struct node *n = vip4 || vip6 ? index_node_add(m, TREE_SERVICE, service)
				      : index_node(m, TREE_SERVICE, service);

	if (!n)
		return vip4 || vip6 ? -ENOMEM : 0;
	n->vip4 = vip4 ? *vip4 : none;
	n->vip6 = vip6 ? *vip6 : none;
	index_node_settle(m, TREE_SERVICE, n);
	return 0;
}

unsigned model_touches(const char *key)
{
	struct document_key id;

	return document_key_parse(&id, key) == -ENOENT ? 0 : id.kind->touches;
}

static void show(struct model *m, struct item *e, struct model_document *out)
{
	const struct item *rival = e->refused ? NULL : index_conflict(m, e);

	*out = (struct model_document){
		.key = e->key,
		.kind = e->id.kind->name,
		.ns = e->id.ns,
		.name = e->id.name,
		.state = e->refused ? MODEL_REFUSED
			 : rival    ? MODEL_CONFLICT
				    : MODEL_ACCEPTED,
		.broker = e->broker,
		.dry_run = e->doc && e->doc->dry_run,
		.revision = e->revision,
		.json = e->doc ? e->doc->json : NULL,
		.len = e->doc ? e->doc->len : 0,
		.in_force = e->doc ? e->doc->revision : "",
		.errors = &e->errors,
	};
	doc_errors_free(&e->conflict);
	if (rival) {
		errors_add(&e->conflict, ERRORS_CONFLICT, NULL, "conflicts with %s", rival->key);
		out->errors = &e->conflict;
	}
}

int model_document(struct model *m, const char *key, struct model_document *out)
{
	struct document_key id;
	struct item *e =
		document_key_parse(&id, key) == -ENOENT ? NULL : index_item(m, id.kind, key);

	if (!e)
		return -ENOENT;
	show(m, e, out);
	return 0;
}

struct each_document {
	struct model *m;
	int (*fn)(void *arg, const struct model_document *);
	void *arg;
};

static int show_item(void *arg, struct item *e)
{
	struct each_document *each = arg;
	struct model_document d;

	show(each->m, e, &d);
	return each->fn(each->arg, &d);
}

/* The kind whose name follows `after` in alphabetical order, as keys do; NULL past the last. */
static const struct table_kind *next_kind(const struct table_kind *after)
{
	const struct table_kind *best = NULL;

	for (size_t i = 0; i < KIND_MAX; i++) {
		const struct table_kind *k = &table_kinds[i];

		if ((!after || strcmp(k->name, after->name) > 0) &&
		    (!best || strcmp(k->name, best->name) < 0))
			best = k;
	}
	return best;
}

int model_each_document(struct model *m, const char *kind,
			int (*fn)(void *arg, const struct model_document *), void *arg)
{
	struct each_document each = { m, fn, arg };
	const struct table_kind *k = kind ? table_kind(kind, strlen(kind)) : NULL;
	int r = 0;

	if (kind)
		return k ? index_each_item(m, k, show_item, &each) : 0;
	while (r == 0 && (k = next_kind(k)))
		r = index_each_item(m, k, show_item, &each);
	return r;
}
