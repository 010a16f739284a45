/* Inside of the model: documents by key, and who claims which host. Pure.
 *
 * An item is one key with its newest version's state and the version in force. A node is a name that documents speak
 * of: a service, a wildcard host, a namespace, or a scope that only one document may have. A node lists the items
 * that claim it, in order of key; the first one that is not itself in conflict elsewhere is in force. */
#ifndef COMPILE_INDEX_H
#define COMPILE_INDEX_H

#include "compile/document.h"

enum index_slot { SLOT_SERVICE, SLOT_RULE, SLOT_ROUTE, SLOT_SCOPE, SLOT_INSTANCE, SLOT_MAX };
enum index_tree { TREE_SERVICE, TREE_GLOB, TREE_SCOPE, TREE_NS, TREE_MAX };

struct item {
	char *key;   /* first: trees compare it */
	char *label; /* "<ns>/<name>" */
	struct document_key id;
	struct document *doc; /* in force but for conflicts; NULL if no version ever was accepted */
	struct doc_errors errors, conflict;
	char revision[DOC_REVISION + 1];
	bool refused, broker;
	const struct item *rival; /* of conflict_of(), as of `judged` */
	uint64_t judged, visited;
};
struct items {
	struct item **v;
	size_t n, room;
};
struct node {
	char *name; /* first: trees compare it */
	struct items slot[SLOT_MAX];
	struct weft_addr vip4, vip6;
};

struct model {
	char *trust_domain;
	void *items[KIND_MAX];  /* tsearch() trees of struct item */
	void *nodes[TREE_MAX];  /* of struct node */
	struct items selecting; /* ServiceEntries with a workloadSelector */
	uint64_t version;       /* of the claims */
	uint64_t visit;
};

struct item *index_item(const struct model *m, const struct table_kind *kind, const char *key);
struct item *index_item_add(struct model *m, const struct document_key *id,
			    const char *key);          /* found or new; NULL */
void index_item_drop(struct model *m, struct item *e); /* unlinked before */
struct node *index_node(const struct model *m, enum index_tree tree, const char *name);
struct node *index_node_add(struct model *m, enum index_tree tree,
			    const char *name); /* found or new; NULL */
void index_node_settle(struct model *m, enum index_tree tree,
		       struct node *n); /* frees it if nothing is left of it */

void index_free(struct model *m); /* everything in it */

/* Each in order of name or key until `fn` returns non-zero, which is returned. `fn` must not change the tree. */
int index_each_item(const struct model *m, const struct table_kind *kind,
		    int (*fn)(void *, struct item *), void *arg);
int index_each_node(const struct model *m, enum index_tree tree, int (*fn)(void *, struct node *),
		    void *arg);

/* What a document claims. false past its last claim. `name` is filled. */
struct claim {
	enum index_tree tree;
	enum index_slot slot;
	char name[2 * WEFT_SERVICE_MAX];
};
bool index_claim(const struct item *e, size_t i, struct claim *c);
int index_link(struct model *m, struct item *e); /* of e->doc; -ENOMEM leaves nothing linked */
void index_unlink(struct model *m, struct item *e);

/* The item that keeps `e` out of force, or NULL. */
const struct item *index_conflict(struct model *m, struct item *e);
/* The document in force in this slot of a node, which may be NULL. */
struct item *index_in_force(struct model *m, const struct node *n, enum index_slot slot);
/* The same for a service, by its name or else the longest wildcard (slots RULE and ROUTE). */
struct item *index_find(struct model *m, const char *service, enum index_slot slot);
/* The one MeshConfig, or NULL. */
const struct mesh_config *index_mesh(const struct model *m);
bool index_glob_matches(const struct model *m, const char *glob, const char *service);

#endif
