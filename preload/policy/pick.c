/* Which destination a connection takes: the route by weight, then the endpoint by load-balancing
 * policy. */
#include <errno.h>
#include <stddef.h>

#include "weft/limits.h"
#include "weft/policy.h"

#define DRAWS 16 /* of the quick weighted draw before the exact one */

/* splitmix64: spreads the caller's random bits over several draws. */
static uint64_t next_random(uint64_t *state)
{
	uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);

	z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
	return z ^ z >> 31;
}

/* Uniform in 0..n-1, without the bias of a remainder (Lemire). */
static uint64_t below(uint64_t random, uint64_t n)
{
	return (uint64_t)(((unsigned __int128)random * n) >> 64);
}

static uint64_t clamp(uint64_t weight)
{
	return weight < UINT32_MAX ? weight : UINT32_MAX;
}

int route_pick(const struct wire_service *s, uint64_t random)
{
	uint64_t total = 0, at;

	for (uint32_t i = 0; i < s->clusters.n; i++)
		total += clamp(s->clusters.v[i].weight);
	if (!total)
		return -ENOENT;
	at = below(random, total);
	for (uint32_t i = 0; i < s->clusters.n; i++) {
		uint64_t w = clamp(s->clusters.v[i].weight);

		if (at < w)
			return (int)i;
		at -= w;
	}
	return -ENOENT;
}

/* --- endpoints --- */

struct pick {
	const struct wire_cluster *c;
	struct balance *b;
	const uint64_t *tried;
	uint64_t weight_max;
	uint64_t random;
};

static bool is_tried(const struct pick *p, uint32_t i)
{
	return p->tried && (p->tried[i / 64] >> (i % 64) & 1);
}

/* An endpoint without a weight has one of 1. */
static uint64_t weight_of(const struct pick *p, uint32_t i)
{
	uint64_t w = p->c->endpoints.v[i].weight;

	return w ? clamp(w) : 1;
}

static uint32_t active_of(const struct pick *p, uint32_t i)
{
	if (!p->b || !p->b->active || i >= p->b->n)
		return 0;
	return __atomic_load_n(&p->b->active[i], __ATOMIC_RELAXED);
}

/* The largest weight, found once: the cluster never changes. */
static uint64_t weight_max(const struct pick *p)
{
	uint32_t max = p->b ? __atomic_load_n(&p->b->weight_max, __ATOMIC_RELAXED) : 0;

	if (max)
		return max;
	for (uint32_t i = 0; i < p->c->endpoints.n; i++)
		if (weight_of(p, i) > max)
			max = (uint32_t)weight_of(p, i);
	if (p->b)
		__atomic_store_n(&p->b->weight_max, max, __ATOMIC_RELAXED);
	return max;
}

/* By weight among those not tried, in one pass over all. */
static int draw_exact(struct pick *p)
{
	uint64_t total = 0, at;

	for (uint32_t i = 0; i < p->c->endpoints.n; i++)
		total += is_tried(p, i) ? 0 : weight_of(p, i);
	if (!total)
		return -ENOENT;
	at = below(next_random(&p->random), total);
	for (uint32_t i = 0; i < p->c->endpoints.n; i++) {
		uint64_t w = is_tried(p, i) ? 0 : weight_of(p, i);

		if (at < w)
			return (int)i;
		at -= w;
	}
	return -ENOENT;
}

/* By weight among those not tried. Draws evenly and keeps the draw with probability weight /
 * weight_max, which takes no pass over the endpoints where weights are alike. */
static int draw(struct pick *p)
{
	for (int n = 0; n < DRAWS; n++) {
		uint32_t i = (uint32_t)below(next_random(&p->random), p->c->endpoints.n);

		if (!is_tried(p, i) &&
		    below(next_random(&p->random), p->weight_max) < weight_of(p, i))
			return (int)i;
	}
	return draw_exact(p);
}

/* Power of two choices, as Envoy: of two drawn by weight, the one with fewer connections for its
 * weight. */
static int pick_least_request(struct pick *p)
{
	int first = draw(p), second;
	uint64_t load1, load2;

	if (first < 0)
		return first;
	second = draw(p);
	load1 = active_of(p, (uint32_t)first) * weight_of(p, (uint32_t)second);
	load2 = active_of(p, (uint32_t)second) * weight_of(p, (uint32_t)first);
	return load2 < load1 ? second : first;
}

/* A cursor runs round the endpoints; in each round an endpoint takes part as often as its weight
 * says, spread evenly (the static stride scheduler of gRPC). That with the largest weight takes
 * part in every round. */
static int pick_round_robin(struct pick *p)
{
	uint32_t n = p->c->endpoints.n;

	for (uint64_t step = 0; p->b && step < 2 * (uint64_t)n; step++) {
		uint64_t cursor = __atomic_fetch_add(&p->b->next, 1, __ATOMIC_RELAXED);
		uint32_t i = (uint32_t)(cursor % n);
		uint64_t w = weight_of(p, i);
		uint64_t phase = (w * (cursor / n) + i * (p->weight_max / 2)) % p->weight_max;

		if (phase >= p->weight_max - w && !is_tried(p, i))
			return (int)i;
	}
	return draw_exact(p);
}

int endpoint_pick(const struct wire_cluster *c, struct balance *b, const uint64_t *tried,
		  uint64_t random)
{
	struct pick p = { .c = c, .b = b, .tried = tried, .random = random };

	if (!c->endpoints.n)
		return -ENOENT;
	p.weight_max = weight_max(&p);
	switch (c->lb) {
	case WEFT_LB_ROUND_ROBIN:
		return pick_round_robin(&p);
	case WEFT_LB_RANDOM:
	case WEFT_LB_PASSTHROUGH:
		return draw(&p);
	default:
		return pick_least_request(&p);
	}
}
