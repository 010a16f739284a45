#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "weft/shm.h"

static struct weft_names_mem *mem;

static int map_memory(void **state)
{
	(void)state;
	mem = mmap(NULL, sizeof(*mem), PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (mem == MAP_FAILED)
		return -1;
	mem->shm = (struct weft_shm){ .magic = WEFT_SHM_NAMES,
				      .layout = WEFT_SHM_LAYOUT,
				      .size = sizeof(*mem) };
	return 0;
}

static int unmap_memory(void **state)
{
	(void)state;
	return munmap(mem, sizeof(*mem));
}

static struct weft_names_address address(const char *cidr, uint16_t port, enum weft_names_kind kind,
					 uint32_t service)
{
	struct weft_names_address a = { .port = port, .kind = kind, .service = service };

	assert_int_equal(cidr_parse(&a.cidr, cidr), 0);
	return a;
}

/* Fills the half that is not in force and puts it in force. */
static int64_t publish(const struct weft_names_service *s, uint32_t n,
		       const struct weft_names_address *a, uint32_t m)
{
	uint64_t seq = atomic_load(&mem->seq);
	int64_t r =
		names_build(mem->half[(seq + 1) & 1], WEFT_NAMES_HALF, "cluster.local", s, n, a, m);

	if (r > 0)
		atomic_store(&mem->seq, seq + 1);
	return r;
}

static const char *by_name(const char *name, const char *ns)
{
	static struct weft_names_service out;
	int r = names_find(mem, sizeof(*mem), name, ns, &out);

	return r ? NULL : out.name;
}

static const char *by_addr(const char *text, uint16_t port, uint64_t netns,
			   enum weft_names_kind *kind)
{
	static struct weft_names_service out;
	struct weft_addr a;
	int r;

	assert_int_equal(addr_parse(&a, text), 0);
	a.port = port;
	r = names_find_addr(mem, sizeof(*mem), &a, netns, &out, kind);
	return r ? NULL : out.name;
}

static void names_in_all_forms(void **state)
{
	struct weft_names_service s[] = {
		{ .name = "orders.default", .external = false },
		{ .name = "orders.shop" },
		{ .name = "api.example.com", .external = true },
		{ .name = "orders.default", .external = true }, /* second of two: never found */
	};
	struct weft_names_service out;

	(void)state;
	assert_int_equal(addr_parse(&s[0].vip4, "239.240.0.1"), 0);
	assert_int_equal(addr_parse(&s[0].vip6, "ff3e:7765:6674::1"), 0);
	assert_null(by_name("orders", NULL)); /* nothing written yet */
	assert_true(publish(s, 4, NULL, 0) > 0);
	assert_string_equal(by_name("orders", NULL), "orders.default");
	assert_string_equal(by_name("orders", "shop"), "orders.shop");
	assert_string_equal(by_name("ORDERS.Default.", "shop"), "orders.default");
	assert_string_equal(by_name("orders.default.svc.cluster.local", "shop"), "orders.default");
	assert_string_equal(by_name("orders.weft", "shop"), "orders.shop");
	assert_string_equal(by_name("api.example.com", "shop"), "api.example.com");
	assert_null(by_name("orders", "elsewhere"));
	assert_null(by_name("", NULL));
	assert_null(by_name(".", NULL));
	assert_null(by_name("no such name", NULL));
	assert_int_equal(names_find(mem, sizeof(*mem), "orders", NULL, &out), 0);
	assert_false(out.external);
	assert_true(addr_equal_ip(&out.vip4, &s[0].vip4));
	assert_true(addr_equal_ip(&out.vip6, &s[0].vip6));
}

static void addresses_by_precedence(void **state)
{
	struct weft_names_service s[] = { { .name = "a.default" },
					  { .name = "b.default" },
					  { .name = "c.default" } };
	struct weft_names_address v[] = {
		address("10.0.0.1", 80, WEFT_NAMES_ENDPOINT, 0),
		address("10.0.0.1", 80, WEFT_NAMES_ADDRESS, 1),
		address("10.0.0.1", 0, WEFT_NAMES_ADDRESS, 2),
		address("10.0.0.0/8", 0, WEFT_NAMES_ADDRESS, 0),
		address("10.0.0.0/24", 0, WEFT_NAMES_ADDRESS, 1),
		address("10.0.0.0/24", 443, WEFT_NAMES_ADDRESS, 2),
		address("239.240.0.1", 0, WEFT_NAMES_VIP, 0),
		address("fd00::1", 9, WEFT_NAMES_ENDPOINT, 1),
	};
	enum weft_names_kind kind;

	(void)state;
	assert_true(publish(s, 3, v, 8) > 0);
	assert_string_equal(by_addr("10.0.0.1", 80, 0, &kind),
			    "b.default"); /* meant before found */
	assert_int_equal(kind, WEFT_NAMES_ADDRESS);
	assert_string_equal(by_addr("10.0.0.1", 81, 0, &kind), "c.default");
	assert_string_equal(by_addr("10.0.0.2", 80, 0, &kind), "b.default");
	assert_string_equal(by_addr("10.0.0.2", 443, 0, &kind), "c.default");
	assert_string_equal(by_addr("10.9.0.2", 443, 0, &kind), "a.default");
	assert_null(by_addr("11.0.0.1", 80, 0, &kind));
	assert_string_equal(by_addr("239.240.0.1", 1234, 0, &kind), "a.default");
	assert_int_equal(kind, WEFT_NAMES_VIP);
	assert_string_equal(by_addr("::ffff:239.240.0.1", 1, 0, &kind), "a.default");
	assert_string_equal(by_addr("fd00::1", 9, 0, &kind), "b.default");
	assert_null(by_addr("fd00::1", 10, 0, &kind));
}

static void loopback_is_seen_in_its_namespace_only(void **state)
{
	struct weft_names_service s[] = { { .name = "a.default" }, { .name = "b.default" } };
	struct weft_names_address v[] = {
		address("127.0.0.1", 80, WEFT_NAMES_ENDPOINT, 0),
		address("127.0.0.1", 80, WEFT_NAMES_ENDPOINT, 1),
	};
	enum weft_names_kind kind;

	(void)state;
	v[0].netns = 111;
	v[1].netns = 222;
	assert_true(publish(s, 2, v, 2) > 0);
	assert_string_equal(by_addr("127.0.0.1", 80, 111, &kind), "a.default");
	assert_string_equal(by_addr("127.0.0.1", 80, 222, &kind), "b.default");
	assert_null(by_addr("127.0.0.1", 80, 333, &kind));
}

static void many(void **state)
{
	enum { N = 10000 };
	struct weft_names_service *s = calloc(N, sizeof(*s)), out;
	struct weft_names_address *v = calloc(2 * N, sizeof(*v));
	enum weft_names_kind kind;

	(void)state;
	for (uint32_t i = 0; i < N; i++) {
		char ip[32];

		snprintf(s[i].name, sizeof(s[i].name), "service-%u.default", i);
		snprintf(ip, sizeof(ip), "239.240.%u.%u", i >> 8, i & 255);
		v[2 * i] = address(ip, 0, WEFT_NAMES_VIP, i);
		v[2 * i + 1] = address("127.0.0.1", (uint16_t)(1000 + i), WEFT_NAMES_ENDPOINT, i);
	}
	assert_true(publish(s, N, v, 2 * N) > 0);
	for (uint32_t i = 0; i < N; i++) {
		struct weft_addr a = { .port = 80 };

		assert_int_equal(names_find(mem, sizeof(*mem), s[i].name, NULL, &out), 0);
		assert_string_equal(out.name, s[i].name);
		memcpy(a.ip, v[2 * i].cidr.ip, 16);
		assert_int_equal(names_find_addr(mem, sizeof(*mem), &a, 0, &out, &kind), 0);
		assert_string_equal(out.name, s[i].name);
		assert_string_equal(by_addr("127.0.0.1", (uint16_t)(1000 + i), 0, &kind),
				    s[i].name);
	}
	free(s);
	free(v);
}

static void build_is_bounded(void **state)
{
	struct weft_names_service s = { .name = "a.default" };
	struct weft_names_address v = address("10.0.0.1", 80, WEFT_NAMES_ENDPOINT, 0);
	uint8_t *half = aligned_alloc(8, 4096);
	int64_t full = names_build(half, 4096, "cluster.local", &s, 1, &v, 1);

	(void)state;
	assert_true(full > 0);
	for (size_t size = 0; size < (size_t)full; size++)
		assert_int_equal(names_build(half, size, "cluster.local", &s, 1, &v, 1), -ENOSPC);
	assert_int_equal(names_build(half, (size_t)full, "cluster.local", &s, 1, &v, 1), full);
	v.service = 1;
	assert_int_equal(names_build(half, 4096, "cluster.local", &s, 1, &v, 1), -EINVAL);
	v.service = 0;
	v.kind = 7;
	assert_int_equal(names_build(half, 4096, "cluster.local", &s, 1, &v, 1), -EINVAL);
	free(half);
}

static void foreign_memory(void **state)
{
	struct weft_names_service out;
	struct weft_shm good = mem->shm;

	(void)state;
	assert_int_equal(names_find(mem, sizeof(*mem) - 1, "a", NULL, &out), -EPROTO);
	mem->shm.magic ^= 1;
	assert_int_equal(names_find(mem, sizeof(*mem), "a", NULL, &out), -EPROTO);
	mem->shm = good;
	mem->shm.layout++;
	assert_int_equal(names_find(mem, sizeof(*mem), "a", NULL, &out), -EPROTO);
	mem->shm = good;
	mem->shm.size = 4096;
	assert_int_equal(names_find(mem, sizeof(*mem), "a", NULL, &out), -EPROTO);
	mem->shm = good;
}

static uint64_t rng = 42;
static uint32_t rnd(void)
{
	rng = rng * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
	return (uint32_t)(rng >> 33);
}

/* Any byte of the memory may be wrong: no read outside it, no endless chain (a sanitizer and the
 * clock watch). */
static void damaged_memory(void **state)
{
	struct weft_names_service s[64], out;
	struct weft_names_address v[64];
	uint8_t good[16384];
	enum weft_names_kind kind;
	int64_t n;

	(void)state;
	memset(s, 0, sizeof(s));
	for (uint32_t i = 0; i < 64; i++) {
		char ip[32];

		snprintf(s[i].name, sizeof(s[i].name), "service-%u.default", i);
		snprintf(ip, sizeof(ip), i % 8 ? "10.0.0.%u" : "10.%u.0.0/16", i);
		v[i] = address(ip, (uint16_t)(i & 1 ? 80 : 0), WEFT_NAMES_ADDRESS, i);
	}
	n = publish(s, 64, v, 64);
	assert_in_range(n, 1, sizeof(good));
	uint8_t *half = mem->half[mem->seq & 1];
	memcpy(good, half, (size_t)n);
	for (int i = 0; i < 100000; i++) {
		struct weft_addr a;
		char ip[32], name[64];

		memcpy(half, good, (size_t)n);
		for (int k = 0; k < 4; k++) {
			uint32_t at = rnd() % (uint32_t)n;

			/* Half of the damage goes into header and tables, where it hurts. */
			if (k & 1)
				at = rnd() % 32;
			half[at] = (uint8_t)(rnd() & 1 ? rnd() : 0xff);
		}
		snprintf(ip, sizeof(ip), "10.0.0.%u", rnd() % 64);
		snprintf(name, sizeof(name), "service-%u", rnd() % 70);
		assert_int_equal(addr_parse(&a, ip), 0);
		a.port = 80;
		(void)names_find_addr(mem, sizeof(*mem), &a, 0, &out, &kind);
		if (names_find(mem, sizeof(*mem), name, NULL, &out) == 0)
			assert_true(strnlen(out.name, sizeof(out.name)) < sizeof(out.name));
	}
	memcpy(half, good, (size_t)n);
}

#ifndef __SANITIZE_THREAD__ /* reads that race on purpose and are thrown away are races all the same */
static atomic_bool stop;

static void *writer(void *arg)
{
	struct weft_names_service s[2] = { { .name = "even.default" }, { .name = "same.default" } };

	for (unsigned i = 0; !atomic_load(&stop); i++) {
		snprintf(s[0].name, sizeof(s[0].name), "%s.default", i & 1 ? "odd" : "even");
		s[1].external = i & 1;
		s[1].vip4.ip[0] = s[1].vip4.ip[15] = (uint8_t)i;
		publish(s, 2, NULL, 0);
	}
	return arg;
}

/* While the writer turns the halves over as fast as it can, a reader sees one version or the other,
 * never a mixture. */
static void readers_beside_a_writer(void **state)
{
	struct weft_names_service s[1] = { { .name = "same.default" } }, out;
	pthread_t t;
	int found = 0;

	(void)state;
	assert_true(publish(s, 1, NULL, 0) > 0);
	atomic_store(&stop, false);
	assert_int_equal(pthread_create(&t, NULL, writer, NULL), 0);
	for (int i = 0; i < 100000; i++) {
		int r = names_find(mem, sizeof(*mem), "same", NULL, &out);

		/* -EPROTO: overtaken 64 times in a row, as only such a writer can */
		assert_true(r == 0 || r == -EPROTO);
		if (r == 0) {
			assert_string_equal(out.name, "same.default");
			assert_int_equal(out.vip4.ip[0], out.vip4.ip[15]);
			found++;
		}
	}
	atomic_store(&stop, true);
	pthread_join(t, NULL);
	assert_true(found > 1000);
}
#endif

static void buckets(void **state)
{
	unsigned seen[WEFT_GENERATIONS] = { 0 }, most = 0;
	char name[64];

	(void)state;
	for (int i = 0; i < 4096; i++) {
		snprintf(name, sizeof(name), "service-%d.default", i);
		uint32_t b = weft_bucket(name);

		assert_true(b < WEFT_GENERATIONS);
		if (++seen[b] > most)
			most = seen[b];
	}
	assert_true(most < 16);
	assert_int_equal(weft_bucket("orders.default"), weft_bucket("orders.default"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(names_in_all_forms, map_memory, unmap_memory),
		cmocka_unit_test_setup_teardown(addresses_by_precedence, map_memory, unmap_memory),
		cmocka_unit_test_setup_teardown(loopback_is_seen_in_its_namespace_only, map_memory,
						unmap_memory),
		cmocka_unit_test_setup_teardown(many, map_memory, unmap_memory),
		cmocka_unit_test(build_is_bounded),
		cmocka_unit_test_setup_teardown(foreign_memory, map_memory, unmap_memory),
		cmocka_unit_test_setup_teardown(damaged_memory, map_memory, unmap_memory),
#ifndef __SANITIZE_THREAD__
		cmocka_unit_test_setup_teardown(readers_beside_a_writer, map_memory, unmap_memory),
#endif
		cmocka_unit_test(buckets),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
