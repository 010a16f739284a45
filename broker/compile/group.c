/* WorkloadGroups, and the mode that is in force. */
#include <string.h>

#include "compile/index.h"

struct each_group {
	const struct model *m;
	const char *service;
	int (*fn)(void *arg, const struct model_group *);
	void *arg;
};

static int show_group(void *arg, struct item *e)
{
	struct each_group *each = arg;
	struct claim c;
	const struct node *n;

	if (!e->doc || !index_claim(e, 0, &c))
		return 0;
	n = index_node(each->m, c.tree, c.name);
	if (!n || n->slot[c.slot].v[0] != e) /* the same group under its other spelling */
		return 0;
	if (each->service && strcmp(e->doc->group.service, each->service) != 0)
		return 0;
	return each->fn(each->arg, &e->doc->group);
}

int model_groups(const struct model *m, const char *service,
		 int (*fn)(void *arg, const struct model_group *), void *arg)
{
	struct each_group each = { m, service, fn, arg };

	return index_each_item(m, &table_kinds[KIND_WorkloadGroup], show_group, &each);
}

static int take_mode(void *arg, const struct model_group *g)
{
	if (g->mode < 0)
		return 0;
	*(enum weft_mode *)arg = (enum weft_mode)g->mode;
	return 1;
}

enum weft_mode model_mode(const struct model *m, const char *service)
{
	const struct mesh_config *mesh = index_mesh(m);
	enum weft_mode mode = mesh ? mesh->mode : WEFT_MODE_ENFORCE;

	if (service)
		model_groups(m, service, take_mode, &mode);
	return mode;
}
