#include "compile/members.h"

#include <stdio.h>
#include <string.h>

#define HTTP_PORT 80

const struct service_entry *members_entry(struct model *m, const struct node *n)
{
	const struct item *e = index_in_force(m, n, SLOT_SERVICE);

	return e ? &e->doc->service_entry : NULL;
}

static struct member instance_member(const struct item *e)
{
	enum member_origin origin = *e->doc->workload_entry.host ? MEMBER_BROKER : MEMBER_STATIC;

	return (struct member){ &e->doc->workload_entry, e, origin };
}

static int each_selected(struct model *m, const struct item *entry,
			 int (*fn)(void *arg, const struct member *), void *arg)
{
	char scope[WEFT_LABEL_MAX + 2];
	const struct node *ns;
	int r = 0;

	snprintf(scope, sizeof(scope), "%s/", entry->id.ns);
	ns = index_node(m, TREE_NS, scope);
	for (size_t i = 0; r == 0 && ns && i < ns->slot[SLOT_INSTANCE].n; i++) {
		struct member mb = instance_member(ns->slot[SLOT_INSTANCE].v[i]);

		if (labels_match(&entry->doc->service_entry.selector, mb.instance->labels.v,
				 mb.instance->labels.n))
			r = fn(arg, &mb);
	}
	return r;
}

int members_each(struct model *m, const struct node *n, int (*fn)(void *arg, const struct member *),
		 void *arg)
{
	const struct item *entry = index_in_force(m, n, SLOT_SERVICE);
	int r = 0;

	if (entry && entry->doc->service_entry.selects)
		return each_selected(m, entry, fn, arg);
	for (size_t i = 0; r == 0 && n && i < n->slot[SLOT_INSTANCE].n; i++) {
		struct member mb = instance_member(n->slot[SLOT_INSTANCE].v[i]);

		r = fn(arg, &mb);
	}
	for (size_t i = 0; r == 0 && entry && i < entry->doc->service_entry.n_endpoints; i++) {
		struct member mb = { &entry->doc->service_entry.endpoints[i], entry,
				     MEMBER_INLINE };

		r = fn(arg, &mb);
	}
	return r;
}

static int count(void *arg, const struct member *mb)
{
	(void)mb;
	++*(size_t *)arg;
	return 0;
}

size_t members_count(struct model *m, const struct node *n)
{
	size_t total = 0;

	members_each(m, n, count, &total);
	return total;
}

static int is_registered(void *arg, const struct member *mb)
{
	(void)arg;
	return mb->origin != MEMBER_INLINE;
}

bool members_external(struct model *m, const struct node *n)
{
	const struct service_entry *s = members_entry(m, n);

	if (!s || s->location != LOCATION_AUTO)
		return s && s->location == LOCATION_EXTERNAL;
	return !members_each(m, n, is_registered, NULL);
}

bool members_exist(struct model *m, const struct node *n)
{
	return n && (n->slot[SLOT_INSTANCE].n || members_entry(m, n));
}

bool member_listens(const struct member *mb, uint16_t port)
{
	for (size_t i = 0; i < mb->instance->n_ports; i++)
		if (mb->instance->ports[i].port == port)
			return true;
	return false;
}

static const struct service_port *find_port(const struct service_entry *s, uint16_t number)
{
	for (size_t i = 0; s && i < s->n_ports; i++)
		if (s->ports[i].number == number)
			return &s->ports[i];
	return NULL;
}

static uint16_t named_port(const struct instance *i, const char *name)
{
	for (size_t k = 0; k < i->n_ports; k++)
		if (strcmp(i->ports[k].name, name) == 0)
			return i->ports[k].port;
	return 0;
}

/* Where no ServiceEntry says anything: the same number, or from 80 the main port. */
static uint16_t plain_port(const struct member *mb, uint16_t dialled)
{
	if (member_listens(mb, dialled) || (mb->origin == MEMBER_STATIC && !mb->instance->n_ports))
		return dialled;
	return dialled == HTTP_PORT ? mb->instance->main_port : 0;
}

uint16_t member_port(const struct service_entry *s, const struct member *mb, uint16_t dialled)
{
	const struct service_port *p = find_port(s, dialled);
	uint16_t named, target;

	if (!p)
		return mb->origin != MEMBER_INLINE ? plain_port(mb, dialled)
		       : s && !s->n_ports          ? dialled
						   : 0;
	named = named_port(mb->instance, p->name);
	if (named)
		return named;
	target = p->target ? p->target : p->number;
	if (mb->origin != MEMBER_BROKER || member_listens(mb, target))
		return target;
	return p->target ? 0 : plain_port(mb, dialled);
}

int member_each_port(const struct service_entry *s, const struct member *mb,
		     int (*fn)(void *arg, uint16_t port), void *arg)
{
	const struct instance *in = mb->instance;
	int r = 0;

	for (size_t i = 0; r == 0 && i < in->n_ports; i++)
		r = fn(arg, in->ports[i].port);
	for (size_t i = 0; r == 0 && s && i < s->n_ports; i++) {
		uint16_t port = member_port(s, mb, s->ports[i].number);

		if (port && !member_listens(mb, port))
			r = fn(arg, port);
	}
	return r;
}

bool member_tls(const struct member *mb)
{
	return strcmp(labels_get(&mb->instance->labels, MODEL_LABEL_TLS), "istio") == 0;
}

bool member_is_confined(const struct member *mb)
{
	return *mb->instance->host && addr_is_loopback(&mb->instance->address);
}
