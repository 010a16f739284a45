#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "weft/policy.h"

#define N 100000

static uint64_t rng;

static int seed(void **state)
{
	(void)state;
	rng = 20240229;
	return 0;
}

/* xorshift64*: another family than the one inside pick.c */
static uint64_t rnd(void)
{
	rng ^= rng >> 12;
	rng ^= rng << 25;
	rng ^= rng >> 27;
	return rng * UINT64_C(2685821657736338717);
}

/* `count` of N draws is within 5 sigma of probability p. */
static void assert_share(unsigned count, double p)
{
	double off = count - N * p;

	if (off * off > 25 * N * p * (1 - p))
		fail_msg("%u of %d is not %g", count, N, p);
}

static void route_by_weight(void **state)
{
	struct wire_cluster c[3] = { { .weight = 90 }, { .weight = 0 }, { .weight = 10 } };
	struct wire_service s = { .clusters = { c, 3 } };
	unsigned count[3] = { 0 };

	(void)state;
	for (int i = 0; i < N; i++)
		count[route_pick(&s, rnd())]++;
	assert_share(count[0], 0.9);
	assert_int_equal(count[1], 0);
	assert_share(count[2], 0.1);
	assert_int_equal(route_pick(&s, 0), 0);
	assert_int_equal(route_pick(&s, UINT64_MAX), 2);
}

static void route_without_weight(void **state)
{
	struct wire_cluster c[2] = { { .weight = 0 }, { .weight = 0 } };
	struct wire_service s = { .clusters = { c, 2 } };

	(void)state;
	assert_int_equal(route_pick(&s, rnd()), -ENOENT);
	s.clusters.n = 0;
	assert_int_equal(route_pick(&s, rnd()), -ENOENT);
	c[0].weight = c[1].weight = UINT64_MAX; /* a sum that would overflow */
	s.clusters.n = 2;
	unsigned first = 0;
	for (int i = 0; i < N; i++)
		first += route_pick(&s, rnd()) == 0;
	assert_share(first, 0.5);
}

struct cluster {
	struct wire_cluster c;
	struct wire_endpoint e[1000];
	uint32_t active[1000];
	struct balance b;
};

static struct cluster *cluster_new(uint32_t n, enum weft_lb lb)
{
	struct cluster *c = calloc(1, sizeof(*c));

	c->c = (struct wire_cluster){ .lb = lb, .endpoints = { c->e, n } };
	c->b = (struct balance){ .n = n, .active = c->active };
	for (uint32_t i = 0; i < n; i++)
		c->e[i].weight = 1;
	return c;
}

static void weights_hold_under_every_policy(void **state)
{
	static const enum weft_lb all[] = { WEFT_LB_LEAST_REQUEST, WEFT_LB_ROUND_ROBIN,
					    WEFT_LB_RANDOM };

	(void)state;
	for (size_t k = 0; k < 3; k++) {
		struct cluster *c = cluster_new(4, all[k]);
		unsigned count[4] = { 0 };

		c->e[0].weight = 0; /* as 1 */
		c->e[1].weight = 2;
		c->e[2].weight = 6;
		for (int i = 0; i < N; i++)
			count[endpoint_pick(&c->c, &c->b, NULL, rnd())]++;
		assert_share(count[0], 0.1);
		assert_share(count[1], 0.2);
		assert_share(count[2], 0.6);
		assert_share(count[3], 0.1);
		free(c);
	}
}

/* One heavy endpoint among a thousand light ones: the quick draw gives up often, the shares stay.
 */
static void weights_far_apart(void **state)
{
	struct cluster *c = cluster_new(1000, WEFT_LB_RANDOM);
	unsigned heavy = 0, half = 0;

	(void)state;
	c->e[500].weight = 999;
	for (int i = 0; i < N; i++) {
		int e = endpoint_pick(&c->c, &c->b, NULL, rnd());

		heavy += e == 500;
		half += e < 500;
	}
	assert_share(heavy, 0.5);
	assert_share(half, 500.0 / 1998);
	free(c);
}

static void least_request_prefers_the_idle(void **state)
{
	struct cluster *c = cluster_new(2, WEFT_LB_LEAST_REQUEST);
	unsigned busy = 0;

	(void)state;
	c->active[0] = 5;
	for (int i = 0; i < N; i++)
		busy += endpoint_pick(&c->c, &c->b, NULL, rnd()) == 0;
	assert_share(busy, 0.25); /* only if both draws were the busy one */
	c->e[0].weight = 10;      /* ten times the weight may hold ten times the connections */
	c->b.weight_max = 0;
	c->active[1] = 1;
	busy = 0;
	for (int i = 0; i < N; i++)
		busy += endpoint_pick(&c->c, &c->b, NULL, rnd()) == 0;
	assert_true(busy > N * 0.95);
	free(c);
}

/* Connections that stay open: power of two choices keeps the fullest close to the mean, as plain
 * chance does not. */
static void least_request_spreads(void **state)
{
	struct cluster *c = cluster_new(100, WEFT_LB_LEAST_REQUEST);
	uint32_t most = 0;

	(void)state;
	for (int i = 0; i < 100 * 50; i++)
		c->active[endpoint_pick(&c->c, &c->b, NULL, rnd())]++;
	for (int i = 0; i < 100; i++)
		most = c->active[i] > most ? c->active[i] : most;
	assert_in_range(most, 50, 54);
	free(c);
}

static void round_robin_takes_turns(void **state)
{
	struct cluster *c = cluster_new(3, WEFT_LB_ROUND_ROBIN);

	(void)state;
	c->b.next = 7;
	for (int i = 0; i < 30; i++)
		assert_int_equal(endpoint_pick(&c->c, &c->b, NULL, 0), (7 + i) % 3);
	/* 1:3 comes interleaved, and exactly so. */
	c->c.endpoints.n = 2;
	c->e[1].weight = 3;
	c->b = (struct balance){ .n = 2, .active = c->active };
	int turns = 0, run = 0, longest = 0;
	for (int i = 0; i < 400; i++) {
		int e = endpoint_pick(&c->c, &c->b, NULL, 0);

		turns += e;
		run = e ? run + 1 : 0;
		longest = run > longest ? run : longest;
	}
	assert_in_range(turns, 299, 301);
	assert_in_range(longest, 3, 4);
	free(c);
}

static void tried_ones_are_left_out(void **state)
{
	static const enum weft_lb all[] = { WEFT_LB_LEAST_REQUEST, WEFT_LB_ROUND_ROBIN,
					    WEFT_LB_RANDOM, WEFT_LB_PASSTHROUGH, (enum weft_lb)99 };

	(void)state;
	for (size_t k = 0; k < sizeof(all) / sizeof(all[0]); k++) {
		struct cluster *c = cluster_new(130, all[k]);
		uint64_t tried[3] = { 0 };

		c->e[64].weight = 100000;
		for (int i = 0; i < 130; i++) {
			int e = endpoint_pick(&c->c, &c->b, tried, rnd());

			assert_in_range(e, 0, 129);
			assert_false(tried[e / 64] >> (e % 64) & 1);
			tried[e / 64] |= UINT64_C(1) << (e % 64);
		}
		assert_int_equal(endpoint_pick(&c->c, &c->b, tried, rnd()), -ENOENT);
		free(c);
	}
}

static void nothing_to_pick(void **state)
{
	struct cluster *c = cluster_new(0, WEFT_LB_LEAST_REQUEST);

	(void)state;
	assert_int_equal(endpoint_pick(&c->c, &c->b, NULL, rnd()), -ENOENT);
	c->c.endpoints.n = 1;
	assert_int_equal(endpoint_pick(&c->c, NULL, NULL, rnd()), 0); /* no counters */
	c->c.lb = WEFT_LB_ROUND_ROBIN;
	assert_int_equal(endpoint_pick(&c->c, NULL, NULL, rnd()), 0);
	c->b = (struct balance){ .n = 0 }; /* fewer counters than endpoints */
	c->c.lb = WEFT_LB_LEAST_REQUEST;
	assert_int_equal(endpoint_pick(&c->c, &c->b, NULL, rnd()), 0);
	free(c);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(route_by_weight, seed),
		cmocka_unit_test_setup(route_without_weight, seed),
		cmocka_unit_test_setup(weights_hold_under_every_policy, seed),
		cmocka_unit_test_setup(weights_far_apart, seed),
		cmocka_unit_test_setup(least_request_prefers_the_idle, seed),
		cmocka_unit_test_setup(least_request_spreads, seed),
		cmocka_unit_test_setup(round_robin_takes_turns, seed),
		cmocka_unit_test_setup(tried_ones_are_left_out, seed),
		cmocka_unit_test_setup(nothing_to_pick, seed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
