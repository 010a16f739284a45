/* Services by what was asked for. An entry outlives its answers: connections that hold an older answer find the present one
 * through it, so that the number of open connections to an endpoint stays right when its service is compiled anew. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "control/internal.h"

#define ENTRIES_MAX 1024
#define BUCKETS 256 /* a power of two */

struct entry {
	struct service_key key;
	unsigned refs; /* the cache, and each service made for it; under the lock, as all below */
	struct entry *next;
	struct answer *present; /* the cache's reference; NULL once the entry is dropped */
	uint64_t used;
};

/* A counter of the board that the answer depends on. */
struct stamp {
	uint32_t bucket, generation;
};

struct answer {
	struct service service; /* first: what others hold */
	struct wire_service wire;
	void *block;
	struct entry *entry;
	uint64_t epoch;
	uint32_t n_stamps;
	struct stamp *stamps;
};

static struct entry **buckets; /* under the lock, as all below */
static unsigned n_entries;
static uint64_t ticks;

static uint64_t mix(uint64_t h, const void *data, size_t n)
{
	const uint8_t *p = data;

	for (size_t i = 0; i < n; i++)
		h = (h ^ p[i]) * UINT64_C(1099511628211);
	return h;
}

int service_key_make(struct service_key *k, const char *name, const struct weft_addr *dialled,
		     bool exact)
{
	size_t n = strlen(name);

	if (n > WEFT_SERVICE_MAX)
		return -EINVAL;
	memset(k, 0, sizeof(*k));
	memcpy(k->name, name, n);
	memcpy(k->dialled.ip, dialled->ip, 16);
	k->dialled.port = dialled->port;
	k->exact = exact;
	k->hash = mix(mix(mix(UINT64_C(14695981039346656037), name, n), dialled->ip, 16),
		      &dialled->port, sizeof(dialled->port)) ^
		  exact;
	return 0;
}

static bool key_equal(const struct service_key *a, const struct service_key *b)
{
	return a->hash == b->hash && a->exact == b->exact && addr_equal(&a->dialled, &b->dialled) &&
	       strcmp(a->name, b->name) == 0;
}

/* --- answers --- */

static void balance_free(struct answer *a)
{
	for (uint32_t i = 0; a->service.balance && i < a->wire.clusters.n; i++)
		free(a->service.balance[i].active);
	free(a->service.balance);
}

static void answer_free(struct answer *a)
{
	balance_free(a);
	free(a->stamps);
	free(a->block);
	free(a);
}

static bool make_balance(struct answer *a)
{
	a->service.balance = calloc(a->wire.clusters.n + 1, sizeof(struct balance));
	if (!a->service.balance)
		return false;
	for (uint32_t i = 0; i < a->wire.clusters.n; i++) {
		struct balance *b = &a->service.balance[i];
		uint32_t n = a->wire.clusters.v[i].endpoints.n;

		/* Short-lived processes must not all begin with the first endpoint. */
		*b = (struct balance){ .next = (uint32_t)control_random(),
				       .n = n,
				       .active = calloc(n + 1, 4) };
		if (!b->active)
			return false;
	}
	return true;
}

static bool make_stamps(struct answer *a, const struct service_key *k, const uint32_t *generations)
{
	a->stamps = calloc((size_t)a->wire.depends.n + 1, sizeof(*a->stamps));
	if (!a->stamps)
		return false;
	a->stamps[0].bucket = weft_bucket(k->name);
	a->stamps[0].generation = (uint32_t)a->wire.generation;
	for (uint32_t i = 0; i < a->wire.depends.n; i++) {
		uint32_t bucket = weft_bucket(a->wire.depends.v[i].p);

		a->stamps[i + 1] =
			(struct stamp){ .bucket = bucket, .generation = generations[bucket] };
	}
	a->n_stamps = a->wire.depends.n + 1;
	return true;
}

static struct answer *answer_new(const struct service_key *k, const struct wire_service *wire,
				 void *block, const uint32_t *generations, uint64_t epoch)
{
	struct answer *a = calloc(1, sizeof(*a));

	if (!a) {
		free(block);
		return NULL;
	}
	a->wire = *wire;
	a->block = block;
	a->epoch = epoch;
	a->service.refs = 1;
	a->service.wire = &a->wire;
	if (make_balance(a) && make_stamps(a, k, generations))
		return a;
	answer_free(a);
	return NULL;
}

static bool is_current(const struct answer *a)
{
	if (a->epoch != board_epoch())
		return false;
	for (uint32_t i = 0; i < a->n_stamps; i++)
		if (board_generation(a->stamps[i].bucket) != a->stamps[i].generation)
			return false;
	return true;
}

/* --- connections of the present answer --- */

static bool same_endpoint(const struct wire_endpoint *a, const struct wire_endpoint *b)
{
	return a->port == b->port && memcmp(a->address.p, b->address.p, 16) == 0 &&
	       strcmp(a->entry.p, b->entry.p) == 0;
}

static bool same_cluster(const struct wire_cluster *a, const struct wire_cluster *b)
{
	return strcmp(a->host.p, b->host.p) == 0 && strcmp(a->subset.p, b->subset.p) == 0;
}

/* Index in `c` of an endpoint; looked for from `hint` on, as the order hardly changes. c->endpoints.n: not there. */
static uint32_t find_endpoint(const struct wire_cluster *c, const struct wire_endpoint *e,
			      uint32_t hint)
{
	uint32_t n = c->endpoints.n;

	for (uint32_t i = 0; i < n; i++)
		if (same_endpoint(&c->endpoints.v[(hint + i) % n], e))
			return (hint + i) % n;
	return n;
}

static uint32_t find_cluster(const struct answer *a, const struct wire_cluster *c)
{
	uint32_t i = 0;

	while (i < a->wire.clusters.n && !same_cluster(&a->wire.clusters.v[i], c))
		i++;
	return i;
}

static void add_active(struct answer *a, uint32_t cluster, uint32_t endpoint, int delta)
{
	uint32_t *active = &a->service.balance[cluster].active[endpoint];

	if (delta > 0 || __atomic_load_n(active, __ATOMIC_RELAXED))
		__atomic_add_fetch(active, (uint32_t)delta, __ATOMIC_RELAXED);
}

/* What is open to the endpoints of `from` is open to the same ones of `to`. */
static void carry_over(struct answer *to, const struct answer *from)
{
	for (uint32_t c = 0; c < from->wire.clusters.n; c++) {
		const struct wire_cluster *old = &from->wire.clusters.v[c];
		uint32_t at = find_cluster(to, old), hint = 0;

		for (uint32_t e = 0; at < to->wire.clusters.n && e < old->endpoints.n; e++) {
			uint32_t open = from->service.balance[c].active[e], i;

			if (!open)
				continue;
			i = find_endpoint(&to->wire.clusters.v[at], &old->endpoints.v[e], hint + 1);
			if (i == to->wire.clusters.v[at].endpoints.n)
				continue;
			to->service.balance[at].active[i] = open;
			hint = i;
		}
	}
}

void service_active(struct service *s, uint32_t cluster, uint32_t endpoint, int delta)
{
	struct answer *a = (struct answer *)s, *present;
	const struct wire_cluster *c;
	struct quiet q;

	if (cluster >= a->wire.clusters.n || endpoint >= a->wire.clusters.v[cluster].endpoints.n)
		return;
	c = &a->wire.clusters.v[cluster];
	control_lock(&q);
	add_active(a, cluster, endpoint, delta);
	present = a->entry->present;
	if (present && present != a) {
		uint32_t at = find_cluster(present, c), i = 0;

		if (at < present->wire.clusters.n)
			i = find_endpoint(&present->wire.clusters.v[at], &c->endpoints.v[endpoint],
					  endpoint);
		if (at < present->wire.clusters.n && i < present->wire.clusters.v[at].endpoints.n)
			add_active(present, at, i, delta);
	}
	control_unlock(&q);
}

/* --- references --- */

struct service *service_ref(struct service *s)
{
	__atomic_add_fetch(&s->refs, 1, __ATOMIC_RELAXED);
	return s;
}

static void entry_put(struct entry *e)
{
	if (--e->refs == 0)
		free(e);
}

struct service *service_unref(struct service *s)
{
	struct answer *a = (struct answer *)s;
	struct quiet q;

	if (!s || __atomic_sub_fetch(&s->refs, 1, __ATOMIC_ACQ_REL))
		return NULL;
	control_lock(&q);
	entry_put(a->entry);
	control_unlock(&q);
	answer_free(a);
	return NULL;
}

/* --- the cache; all under the lock --- */

static struct entry **place_of(const struct service_key *k)
{
	struct entry **p = &buckets[k->hash & (BUCKETS - 1)];

	while (*p && !key_equal(&(*p)->key, k))
		p = &(*p)->next;
	return p;
}

/* Takes the entry out of the cache. The answer it held is the caller's to drop, after the lock. */
static struct answer *take_out(struct entry **p)
{
	struct entry *e = *p;
	struct answer *a = e->present;

	*p = e->next;
	e->present = NULL;
	n_entries--;
	entry_put(e);
	return a;
}

static struct answer *evict_oldest(void)
{
	struct entry **oldest = NULL;

	for (unsigned i = 0; i < BUCKETS; i++)
		for (struct entry **p = &buckets[i]; *p; p = &(*p)->next)
			if (!oldest || (*p)->used < (*oldest)->used)
				oldest = p;
	return oldest ? take_out(oldest) : NULL;
}

static struct entry *entry_get(const struct service_key *k, struct answer **evicted)
{
	struct entry *e, **p;

	if (!buckets)
		buckets = calloc(BUCKETS, sizeof(*buckets));
	if (!buckets)
		return NULL;
	if (*(p = place_of(k)))
		return *p;
	if (n_entries >= ENTRIES_MAX)
		*evicted = evict_oldest();
	e = calloc(1, sizeof(*e));
	if (!e)
		return NULL;
	e->key = *k;
	e->refs = 1;
	p = place_of(k);
	*p = e;
	n_entries++;
	return e;
}

struct service *cache_get(const struct service_key *k, bool *current)
{
	struct service *s = NULL;
	struct entry *e;
	struct quiet q;

	control_lock(&q);
	e = buckets ? *place_of(k) : NULL;
	if (e && e->present) {
		e->used = ++ticks;
		s = service_ref(&e->present->service);
		*current = is_current(e->present);
	}
	control_unlock(&q);
	return s;
}

struct service *cache_put(const struct service_key *k, const struct wire_service *wire, void *block,
			  const uint32_t *generations, uint64_t epoch)
{
	struct answer *a = answer_new(k, wire, block, generations, epoch), *evicted = NULL,
		      *former = NULL;
	struct entry *e;
	struct quiet q;

	if (!a)
		return NULL;
	control_lock(&q);
	e = entry_get(k, &evicted);
	if (e) {
		former = e->present;
		if (former)
			carry_over(a, former);
		a->entry = e;
		e->refs++;
		e->present = a;
		e->used = ++ticks;
		service_ref(&a->service); /* one for the cache, one for the caller */
	}
	control_unlock(&q);
	service_unref(former ? &former->service : NULL);
	service_unref(evicted ? &evicted->service : NULL);
	if (e)
		return &a->service;
	answer_free(a);
	return NULL;
}

void cache_drop(const struct service_key *k)
{
	struct answer *dropped = NULL;
	struct entry **p;
	struct quiet q;

	control_lock(&q);
	p = buckets ? place_of(k) : NULL;
	if (p && *p)
		dropped = take_out(p);
	control_unlock(&q);
	service_unref(dropped ? &dropped->service : NULL);
}
