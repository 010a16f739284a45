/* The names memory: two hash tables (names, addresses) and a short list of CIDR blocks.
 *
 * A half is its header, then arrays one after the other whose places follow from the counts in the
 * header; so the reader checks the sum of them against the half, and later only indices and the
 * place of a string. Chains are walked for at most as many steps as there are records: a cycle
 * ends. */
#include "weft/shm.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "weft/ident.h"

#define NO_RECORD UINT32_MAX
#define RETRIES 64 /* of a reader that the writer keeps overtaking */

struct half_header {
	uint32_t used; /* bytes of the half, all arrays included */
	uint32_t services, addresses, cidrs;
	uint32_t name_buckets, addr_buckets; /* powers of two */
	uint32_t strings;                    /* bytes */
	uint32_t reserved;
	char trust_domain[WEFT_HOST_MAX + 3];
};

struct service_record {
	uint8_t vip4[16], vip6[16];
	uint32_t name, name_len; /* in the strings, with a NUL after it */
	uint32_t next;           /* of the same bucket */
	uint32_t external;
};

struct address_record {
	uint64_t netns;
	uint8_t ip[16];
	uint32_t service;
	uint32_t next;
	uint16_t port;
	uint8_t bits, kind;
	uint32_t reserved;
};

/* Where the arrays begin. */
struct places {
	uint64_t services, addresses, cidrs, names, addrs, strings, end;
};

static bool is_power_of_two(uint32_t n)
{
	return n && !(n & (n - 1));
}

static struct places places_of(const struct half_header *h)
{
	struct places p;

	p.services = sizeof(*h);
	p.addresses = p.services + (uint64_t)h->services * sizeof(struct service_record);
	p.cidrs = p.addresses + (uint64_t)h->addresses * sizeof(struct address_record);
	p.names = p.cidrs + (uint64_t)h->cidrs * sizeof(struct address_record);
	p.addrs = p.names + (uint64_t)h->name_buckets * sizeof(uint32_t);
	p.strings = p.addrs + (uint64_t)h->addr_buckets * sizeof(uint32_t);
	p.end = p.strings + h->strings;
	return p;
}

static uint32_t fnv1a(uint32_t h, const void *data, size_t n)
{
	const uint8_t *p = data;

	for (size_t i = 0; i < n; i++)
		h = (h ^ p[i]) * 16777619u;
	return h;
}

static uint32_t hash_name(const char *name, size_t n)
{
	return fnv1a(2166136261u, name, n);
}

static uint32_t hash_addr(const uint8_t ip[16], uint16_t port)
{
	uint8_t p[2] = { (uint8_t)(port >> 8), (uint8_t)port };

	return fnv1a(fnv1a(2166136261u, ip, 16), p, 2);
}

uint32_t weft_bucket(const char *service)
{
	uint32_t h = hash_name(service, strlen(service));

	return (h ^ h >> 16) & (WEFT_GENERATIONS - 1);
}

/* --- building --- */

struct builder {
	uint8_t *half;
	struct half_header *h;
	struct places at;
	uint32_t strings;
};

static uint32_t buckets_for(uint32_t n)
{
	uint32_t b = 1;

	while (b < n && b < UINT32_C(1) << 24)
		b <<= 1;
	return b;
}

static void put_service(struct builder *b, uint32_t i, const struct weft_names_service *s)
{
	struct service_record *rec =
		(struct service_record *)(void *)(b->half + b->at.services) + i;
	uint32_t *buckets = (uint32_t *)(void *)(b->half + b->at.names);
	size_t n = strlen(s->name);
	uint32_t *head = &buckets[hash_name(s->name, n) & (b->h->name_buckets - 1)];

	memcpy(rec->vip4, s->vip4.ip, 16);
	memcpy(rec->vip6, s->vip6.ip, 16);
	rec->name = b->strings;
	rec->name_len = (uint32_t)n;
	rec->external = s->external;
	memcpy(b->half + b->at.strings + b->strings, s->name, n + 1);
	b->strings += (uint32_t)n + 1;
	rec->next = *head;
	*head = i;
}

static void fill_address(struct address_record *rec, const struct weft_names_address *a)
{
	*rec = (struct address_record){
		.netns = a->netns,
		.service = a->service,
		.next = NO_RECORD,
		.port = a->port,
		.bits = a->cidr.bits,
		.kind = (uint8_t)a->kind,
	};
	memcpy(rec->ip, a->cidr.ip, 16);
}

/* Last to first, and the weakest kind first: each goes to the head of its chain. */
static void put_addresses(struct builder *b, const struct weft_names_address *v, uint32_t n)
{
	struct address_record *recs = (struct address_record *)(void *)(b->half + b->at.addresses);
	uint32_t *buckets = (uint32_t *)(void *)(b->half + b->at.addrs);
	uint32_t used = 0;

	for (int kind = WEFT_NAMES_ENDPOINT; kind >= WEFT_NAMES_VIP; kind--) {
		for (uint32_t i = n; i-- > 0;) {
			uint32_t *head = &buckets[hash_addr(v[i].cidr.ip, v[i].port) &
						  (b->h->addr_buckets - 1)];

			if (v[i].cidr.bits != 128 || (int)v[i].kind != kind)
				continue;
			fill_address(&recs[used], &v[i]);
			recs[used].next = *head;
			*head = used++;
		}
	}
}

/* Longest prefix first, of equal ones that with a port; the order given decides the rest. */
static void put_cidrs(struct builder *b, const struct weft_names_address *v, uint32_t n)
{
	struct address_record *recs = (struct address_record *)(void *)(b->half + b->at.cidrs);
	uint32_t used = 0;

	for (int bits = 127; bits >= 0 && used < b->h->cidrs; bits--)
		for (int with_port = 1; with_port >= 0; with_port--)
			for (uint32_t i = 0; i < n; i++)
				if (v[i].cidr.bits == bits && !!v[i].port == with_port)
					fill_address(&recs[used++], &v[i]);
}

static int count(struct half_header *h, const struct weft_names_service *services,
		 uint32_t n_services, const struct weft_names_address *addresses,
		 uint32_t n_addresses)
{
	uint64_t strings = 0;

	for (uint32_t i = 0; i < n_services; i++)
		strings += strlen(services[i].name) + 1;
	if (strings > WEFT_NAMES_HALF || n_services >= NO_RECORD || n_addresses >= NO_RECORD)
		return -ENOSPC;
	for (uint32_t i = 0; i < n_addresses; i++) {
		const struct weft_names_address *a = &addresses[i];

		if (a->service >= n_services || a->cidr.bits > 128 || a->kind < WEFT_NAMES_VIP ||
		    a->kind > WEFT_NAMES_ENDPOINT)
			return -EINVAL;
		h->cidrs += a->cidr.bits < 128;
	}
	h->services = n_services;
	h->addresses = n_addresses - h->cidrs;
	h->name_buckets = buckets_for(h->services);
	h->addr_buckets = buckets_for(h->addresses);
	h->strings = (uint32_t)strings;
	return 0;
}

int64_t names_build(uint8_t *half, size_t size, const char *trust_domain,
		    const struct weft_names_service *services, uint32_t n_services,
		    const struct weft_names_address *addresses, uint32_t n_addresses)
{
	struct half_header h = { 0 };
	struct builder b = { .half = half, .h = &h };
	size_t td = strlen(trust_domain);
	int err = count(&h, services, n_services, addresses, n_addresses);

	if (err)
		return err;
	if (td > WEFT_HOST_MAX)
		return -EINVAL;
	memcpy(h.trust_domain, trust_domain, td);
	b.at = places_of(&h);
	if (b.at.end > size || b.at.end > UINT32_MAX)
		return -ENOSPC;
	h.used = (uint32_t)b.at.end;
	memcpy(half, &h, sizeof(h));
	memset(half + b.at.names, 0xff, b.at.strings - b.at.names); /* NO_RECORD */
	for (uint32_t i = n_services; i-- > 0;)
		put_service(&b, i, &services[i]);
	put_addresses(&b, addresses, n_addresses);
	put_cidrs(&b, addresses, n_addresses);
	return h.used;
}

/* --- reading --- */

struct view {
	const uint8_t *half;
	struct half_header h; /* a copy: the memory may change under us */
	struct places at;
};

static int view_open(struct view *v, const uint8_t *half)
{
	v->half = half;
	memcpy(&v->h, half, offsetof(struct half_header, trust_domain));
	v->at = places_of(&v->h);
	if (v->at.end > WEFT_NAMES_HALF || !is_power_of_two(v->h.name_buckets) ||
	    !is_power_of_two(v->h.addr_buckets))
		return -EPROTO;
	return 0;
}

static uint32_t load_u32(const struct view *v, uint64_t array, uint32_t index)
{
	uint32_t x;

	memcpy(&x, v->half + array + (uint64_t)index * sizeof(x), sizeof(x));
	return x;
}

static int load_service(const struct view *v, uint32_t i, struct service_record *rec)
{
	if (i >= v->h.services)
		return -EPROTO;
	memcpy(rec, v->half + v->at.services + (uint64_t)i * sizeof(*rec), sizeof(*rec));
	if (rec->name_len > WEFT_SERVICE_MAX || rec->name > v->h.strings ||
	    rec->name_len > v->h.strings - rec->name)
		return -EPROTO;
	return 0;
}

static void copy_service(const struct view *v, const struct service_record *rec,
			 struct weft_names_service *out)
{
	*out = (struct weft_names_service){ .external = rec->external };
	memcpy(out->name, v->half + v->at.strings + rec->name, rec->name_len);
	memcpy(out->vip4.ip, rec->vip4, 16);
	memcpy(out->vip6.ip, rec->vip6, 16);
}

static int find_exact(const struct view *v, const char *name, struct weft_names_service *out)
{
	size_t n = strlen(name);
	uint32_t i = load_u32(v, v->at.names, hash_name(name, n) & (v->h.name_buckets - 1));
	struct service_record rec;

	for (uint32_t steps = 0; i != NO_RECORD; steps++, i = rec.next) {
		if (steps > v->h.services || load_service(v, i, &rec) < 0)
			return -EPROTO;
		if (rec.name_len == n && memcmp(v->half + v->at.strings + rec.name, name, n) == 0) {
			copy_service(v, &rec, out);
			return 0;
		}
	}
	return -ENOENT;
}

struct name_query {
	const char *folded, *ns;
};

/* The name as it is, then its canonical form. */
static int find_name(const struct view *v, const void *query, struct weft_names_service *out,
		     enum weft_names_kind *kind)
{
	const struct name_query *q = query;
	char canonical[WEFT_SERVICE_MAX + 1], td[sizeof(v->h.trust_domain)];
	int r = find_exact(v, q->folded, out);

	(void)kind;
	if (r != -ENOENT)
		return r;
	memcpy(td, v->half + offsetof(struct half_header, trust_domain), sizeof(td));
	td[WEFT_HOST_MAX] = '\0';
	if (name_canonical(canonical, q->folded, q->ns, td) < 0 ||
	    strcmp(canonical, q->folded) == 0)
		return -ENOENT;
	return find_exact(v, canonical, out);
}

static bool record_applies(const struct address_record *rec, const struct weft_addr *a,
			   uint16_t port, uint64_t netns)
{
	struct weft_cidr cidr = { .bits = rec->bits };

	memcpy(cidr.ip, rec->ip, 16);
	return rec->port == port && (!rec->netns || rec->netns == netns) && cidr_contains(&cidr, a);
}

static int take_address(const struct view *v, const struct address_record *rec,
			struct weft_names_service *out, enum weft_names_kind *kind)
{
	struct service_record service;

	if (rec->kind < WEFT_NAMES_VIP || rec->kind > WEFT_NAMES_ENDPOINT ||
	    load_service(v, rec->service, &service) < 0)
		return -EPROTO;
	copy_service(v, &service, out);
	*kind = rec->kind;
	return 0;
}

struct addr_query {
	const struct weft_addr *addr;
	uint64_t netns;
};

static int find_port(const struct view *v, const struct addr_query *q, uint16_t port,
		     struct weft_names_service *out, enum weft_names_kind *kind)
{
	uint32_t i =
		load_u32(v, v->at.addrs, hash_addr(q->addr->ip, port) & (v->h.addr_buckets - 1));
	struct address_record rec;

	for (uint32_t steps = 0; i != NO_RECORD; steps++, i = rec.next) {
		if (steps > v->h.addresses || i >= v->h.addresses)
			return -EPROTO;
		memcpy(&rec, v->half + v->at.addresses + (uint64_t)i * sizeof(rec), sizeof(rec));
		if (rec.bits != 128)
			return -EPROTO;
		if (record_applies(&rec, q->addr, port, q->netns))
			return take_address(v, &rec, out, kind);
	}
	return -ENOENT;
}

static int find_cidr(const struct view *v, const struct addr_query *q,
		     struct weft_names_service *out, enum weft_names_kind *kind)
{
	struct address_record rec;

	for (uint32_t i = 0; i < v->h.cidrs; i++) {
		memcpy(&rec, v->half + v->at.cidrs + (uint64_t)i * sizeof(rec), sizeof(rec));
		if (record_applies(&rec, q->addr, rec.port ? q->addr->port : 0, q->netns))
			return take_address(v, &rec, out, kind);
	}
	return -ENOENT;
}

/* The address with this port, then with any, then the blocks. */
static int find_addr(const struct view *v, const void *query, struct weft_names_service *out,
		     enum weft_names_kind *kind)
{
	const struct addr_query *q = query;
	int r = find_port(v, q, q->addr->port, out, kind);

	if (r == -ENOENT && q->addr->port)
		r = find_port(v, q, 0, out, kind);
	return r == -ENOENT ? find_cidr(v, q, out, kind) : r;
}

typedef int find_fn(const struct view *v, const void *query, struct weft_names_service *out,
		    enum weft_names_kind *kind);

/* Runs `find` on the half in force, and again if the writer came round meanwhile. */
static int look_up(const struct weft_names_mem *mem, size_t size, find_fn *find, const void *query,
		   struct weft_names_service *out, enum weft_names_kind *kind)
{
	struct weft_names_service found;
	enum weft_names_kind k = WEFT_NAMES_VIP;
	struct view v;

	if (size < sizeof(*mem) || mem->shm.magic != WEFT_SHM_NAMES ||
	    mem->shm.layout != WEFT_SHM_LAYOUT || mem->shm.size < sizeof(*mem))
		return -EPROTO;
	for (int i = 0; i < RETRIES; i++) {
		uint64_t seq = atomic_load_explicit(&mem->seq, memory_order_acquire);
		int r;

		if (!seq)
			return -ENOENT;
		r = view_open(&v, mem->half[seq & 1]);
		if (!r)
			r = find(&v, query, &found, &k);
		if (!weft_shm_unchanged(&mem->seq, seq))
			continue;
		if (!r) {
			*out = found;
			if (kind)
				*kind = k;
		}
		return r;
	}
	return -EPROTO;
}

int names_find(const struct weft_names_mem *mem, size_t size, const char *name, const char *ns,
	       struct weft_names_service *out)
{
	char folded[WEFT_HOST_MAX + 1];
	size_t n = strnlen(name, WEFT_HOST_MAX + 2);

	if (n && name[n - 1] == '.')
		n--;
	if (!n || n > WEFT_HOST_MAX)
		return -ENOENT;
	for (size_t i = 0; i < n; i++)
		folded[i] =
			(char)(name[i] >= 'A' && name[i] <= 'Z' ? name[i] + ('a' - 'A') : name[i]);
	folded[n] = '\0';
	return look_up(mem, size, find_name, &(struct name_query){ .folded = folded, .ns = ns },
		       out, NULL);
}

int names_find_addr(const struct weft_names_mem *mem, size_t size, const struct weft_addr *addr,
		    uint64_t netns, struct weft_names_service *out, enum weft_names_kind *kind)
{
	return look_up(mem, size, find_addr, &(struct addr_query){ .addr = addr, .netns = netns },
		       out, kind);
}
