/* What is mesh and what is not: the arrays that names_build() takes, and the views of services and endpoints. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "compile/members.h"

struct builder {
	struct model *m;
	struct arena *arena;
	const char *host;
	struct model_names *out;
	uint32_t room_services, room_addresses;
	const struct service_entry *entry; /* of the service in hand */
	const struct member *member;
};

/* Makes room for one more; arrays double in the arena, which keeps the old ones until it is freed. */
static bool grow(struct arena *a, void **v, uint32_t n, uint32_t *room, size_t size)
{
	uint32_t more = *room ? 2 * *room : 64;
	void *p;

	if (n < *room)
		return true;
	p = more > *room ? arena_array(a, more, size) : NULL;
	if (!p)
		return false;
	if (n)
		memcpy(p, *v, n * size);
	*v = p;
	*room = more;
	return true;
}

static int add_address(struct builder *b, const struct weft_names_address *address)
{
	void *v = b->out->addresses;

	if (!grow(b->arena, &v, b->out->n_addresses, &b->room_addresses, sizeof(*address)))
		return -ENOMEM;
	b->out->addresses = v;
	b->out->addresses[b->out->n_addresses++] = *address;
	return 0;
}

static int add_single(struct builder *b, const struct weft_addr *addr, uint16_t port,
		      enum weft_names_kind kind, uint64_t netns)
{
	struct weft_names_address a = {
		.port = port, .kind = kind, .netns = netns, .service = b->out->n_services - 1
	};

	memcpy(a.cidr.ip, addr->ip, sizeof(a.cidr.ip));
	a.cidr.bits = 128;
	return add_address(b, &a);
}

static int add_port(void *arg, uint16_t port)
{
	static const struct weft_addr loopback4 = {
		{ [10] = 0xff, [11] = 0xff, [12] = 127, [15] = 1 }, 0
	};
	static const struct weft_addr loopback6 = { { [15] = 1 }, 0 };
	struct builder *b = arg;
	const struct instance *i = b->member->instance;
	bool local = strcmp(i->host, b->host) == 0;
	int r = 0;

	if (local || !member_is_confined(b->member))
		r = add_single(b, &i->address, port, WEFT_NAMES_ENDPOINT,
			       member_is_confined(b->member) ? i->netns : 0);
	if (r == 0 && local && i->wildcard4)
		r = add_single(b, &loopback4, port, WEFT_NAMES_ENDPOINT, i->netns);
	if (r == 0 && local && i->wildcard6)
		r = add_single(b, &loopback6, port, WEFT_NAMES_ENDPOINT, i->netns);
	return r;
}

static int add_endpoints(void *arg, const struct member *mb)
{
	struct builder *b = arg;

	/* An instance that a ServiceEntry selects stays an endpoint of its own service. */
	if (b->entry && b->entry->selects && *mb->instance->service &&
	    strcmp(mb->instance->service, b->out->services[b->out->n_services - 1].name) != 0)
		return 0;
	b->member = mb;
	return member_each_port(b->entry, mb, add_port, b);
}

static int add_entry_addresses(struct builder *b)
{
	const struct service_entry *s = b->entry;
	int r = 0;

	for (size_t i = 0; s && i < s->n_addresses; i++) {
		struct weft_names_address a = { .cidr = s->addresses[i],
						.kind = WEFT_NAMES_ADDRESS,
						.service = b->out->n_services - 1 };

		if (!s->n_ports)
			r = add_address(b, &a);
		for (size_t k = 0; r == 0 && k < s->n_ports; k++) {
			a.port = s->ports[k].number;
			r = add_address(b, &a);
		}
	}
	return r;
}

/* An instance that a selecting ServiceEntry took from its own service is still reached at its address. */
static int add_unselected(struct builder *b, const struct node *n)
{
	int r = 0;

	for (size_t i = 0; r == 0 && b->entry && b->entry->selects && i < n->slot[SLOT_INSTANCE].n;
	     i++) {
		const struct item *e = n->slot[SLOT_INSTANCE].v[i];
		struct member mb = { &e->doc->workload_entry, e,
				     *e->doc->workload_entry.host ? MEMBER_BROKER : MEMBER_STATIC };

		if (labels_match(&b->entry->selector, mb.instance->labels.v, mb.instance->labels.n))
			continue;
		b->member = &mb;
		r = member_each_port(b->entry, &mb, add_port, b);
	}
	return r;
}

static int add_service(void *arg, struct node *n)
{
	struct builder *b = arg;
	void *v = b->out->services;
	struct weft_names_service *s;
	bool vip4 = !addr_is_any(&n->vip4), vip6 = !addr_is_any(&n->vip6);
	int r = 0;

	if (!vip4 && !vip6 && !members_exist(b->m, n))
		return 0;
	if (strlen(n->name) > WEFT_SERVICE_MAX)
		return 0;
	if (!grow(b->arena, &v, b->out->n_services, &b->room_services, sizeof(*s)))
		return -ENOMEM;
	b->out->services = v;
	s = &b->out->services[b->out->n_services++];
	*s = (struct weft_names_service){ .vip4 = n->vip4,
					  .vip6 = n->vip6,
					  .external = members_external(b->m, n) };
	memcpy(s->name, n->name, strlen(n->name) + 1);
	b->entry = members_entry(b->m, n);
	if (vip4)
		r = add_single(b, &n->vip4, 0, WEFT_NAMES_VIP, 0);
	if (r == 0 && vip6)
		r = add_single(b, &n->vip6, 0, WEFT_NAMES_VIP, 0);
	if (r == 0)
		r = add_entry_addresses(b);
	if (r == 0 && !s->external)
		r = members_each(b->m, n, add_endpoints, b);
	return r ? r : add_unselected(b, n);
}

int model_names(struct model *m, const char *host, struct arena *arena, struct model_names *out)
{
	struct builder b = { .m = m, .arena = arena, .host = host, .out = out };

	*out = (struct model_names){ .n_services = 0 };
	return index_each_node(m, TREE_SERVICE, add_service, &b);
}

/* --- views --- */

struct each_service {
	struct model *m;
	int (*fn)(void *arg, const struct model_service *);
	void *arg;
};

static int show_service(void *arg, struct node *n)
{
	struct each_service *each = arg;
	struct model_service s = { .name = n->name, .vip4 = n->vip4, .vip6 = n->vip6 };

	s.exists = members_exist(each->m, n);
	if (!s.exists && addr_is_any(&n->vip4) && addr_is_any(&n->vip6))
		return 0; /* a name that only policies speak of */
	s.external = members_external(each->m, n);
	s.endpoints = members_count(each->m, n);
	return each->fn(each->arg, &s);
}

int model_each_service(struct model *m, int (*fn)(void *arg, const struct model_service *),
		       void *arg)
{
	struct each_service each = { m, fn, arg };

	return index_each_node(m, TREE_SERVICE, show_service, &each);
}

struct each_endpoint {
	struct model *m;
	int (*fn)(void *arg, const struct model_endpoint *);
	void *arg;
	const struct node *node;
	const struct member *member;
};

static int show_endpoint(void *arg, uint16_t port)
{
	struct each_endpoint *each = arg;
	const struct instance *i = each->member->instance;
	struct model_endpoint e = {
		.entry = each->member->item->label,
		.service = each->node->name,
		.version = labels_get(&i->labels, MODEL_LABEL_VERSION),
		.host = i->host,
		.address = i->address,
		.netns = member_is_confined(each->member) ? i->netns : 0,
		.tls = member_tls(each->member),
		.main_port = port && port == i->main_port,
	};

	e.address.port = port;
	return each->fn(each->arg, &e);
}

static int show_member(void *arg, const struct member *mb)
{
	struct each_endpoint *each = arg;
	const struct service_entry *s = members_entry(each->m, each->node);

	each->member = mb;
	if (!mb->instance->n_ports && !(s && s->n_ports))
		return show_endpoint(each, 0); /* every port */
	return member_each_port(s, mb, show_endpoint, each);
}

static int show_members(void *arg, struct node *n)
{
	struct each_endpoint *each = arg;

	each->node = n;
	return members_each(each->m, n, show_member, each);
}

int model_each_endpoint(struct model *m, const char *service,
			int (*fn)(void *arg, const struct model_endpoint *), void *arg)
{
	struct each_endpoint each = { .m = m, .fn = fn, .arg = arg };
	struct node *n = service ? index_node(m, TREE_SERVICE, service) : NULL;

	if (service)
		return n ? show_members(&each, n) : 0;
	return index_each_node(m, TREE_SERVICE, show_members, &each);
}
