#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "weft/ident.h"

static void spiffe_round_trip(void **state)
{
	const char *text = "spiffe://cluster.local/ns/default/sa/orders";
	char out[WEFT_SPIFFE_MAX + 1];
	struct weft_spiffe id;

	(void)state;
	assert_int_equal(spiffe_parse(&id, text, strlen(text)), 0);
	assert_string_equal(id.trust_domain, "cluster.local");
	assert_string_equal(id.ns, "default");
	assert_string_equal(id.service, "orders");
	assert_int_equal(spiffe_format(&id, out, sizeof(out)), strlen(text));
	assert_string_equal(out, text);
	assert_int_equal(spiffe_format(&id, out, strlen(text)), -ENAMETOOLONG);
}

static void spiffe_refuses(void **state)
{
	static const char *const bad[] = {
		"",
		"spiffe://",
		"http://td/ns/a/sa/b",
		"spiffe:///ns/a/sa/b",
		"spiffe://td/ns/a/sa/",
		"spiffe://td/ns//sa/b",
		"spiffe://td/ns/a/sa/b/",
		"spiffe://td/ns/a/sa/b/c",
		"spiffe://td/sa/b/ns/a",
		"spiffe://TD/ns/a/sa/b",
		"spiffe://td:80/ns/a/sa/b",
		"spiffe://user@td/ns/a/sa/b",
		"spiffe://td/ns/a/sa/b?x",
		"spiffe://td/ns/a/sa/b#x",
		"spiffe://td/ns/../sa/b",
		"spiffe://td/ns/a/sa/%62",
		"SPIFFE://td/ns/a/sa/b",
	};
	struct weft_spiffe id;
	char longer[700];

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_int_equal(spiffe_parse(&id, bad[i], strlen(bad[i])), -EINVAL);
	/* NUL inside: what follows it must not be lost silently. */
	assert_int_equal(spiffe_parse(&id, "spiffe://td/ns/a/sa/b\0c", 23), -EINVAL);
	memset(longer, 'a', sizeof(longer));
	memcpy(longer, "spiffe://td/ns/a/sa/", 20);
	assert_int_equal(spiffe_parse(&id, longer, sizeof(longer)), -EINVAL);
	assert_int_equal(spiffe_parse(&id, longer, 20 + 64), -EINVAL);
	assert_int_equal(spiffe_parse(&id, longer, 20 + 63), 0);
}

static void claims(void **state)
{
	const char *why = NULL;
	struct weft_claim c;

	(void)state;
	assert_int_equal(claim_parse(&c, "orders", &why), 0);
	assert_string_equal(c.name, "orders");
	assert_string_equal(c.ns, "");
	assert_string_equal(c.version, "");
	assert_int_equal(c.n_ports, 0);
	assert_int_equal(claim_parse(&c, "shop/orders@v1.2:8080,9090", &why), 0);
	assert_string_equal(c.ns, "shop");
	assert_string_equal(c.name, "orders");
	assert_string_equal(c.version, "v1.2");
	assert_int_equal(c.n_ports, 2);
	assert_int_equal(c.ports[1], 9090);
}

static void claims_refused(void **state)
{
	static const char *const bad[] = {
		"",   "Orders", "a.b",     "/a",      "a/",      "a/b/c", "a@",    "a@-v",
		"a:", "a:0",    "a:65536", "a:80,",   "a:,80",   "a:x",   "a:80 ", "a:0000080",
		"-a", "a-",     "a b",     "a@v1@v2", "a:80:81", "a:-1",
	};
	char many[600] = "a:1";
	struct weft_claim c = { .name = "kept" };

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		const char *why = NULL;

		assert_int_equal(claim_parse(&c, bad[i], &why), -EINVAL);
		assert_non_null(why);
	}
	assert_string_equal(c.name, "kept");
	for (int i = 0; i < WEFT_PORTS_MAX; i++)
		memcpy(many + 3 + 2 * i, ",1", 3);
	const char *why = NULL;
	assert_int_equal(claim_parse(&c, many, &why), -EINVAL);
	assert_string_equal(why, "too many ports");
}

static void canonical(void **state)
{
	static const struct {
		const char *name, *ns, *want;
	} cases[] = {
		{ "orders", "shop", "orders.shop" },
		{ "Orders", NULL, "orders.default" },
		{ "orders.", "", "orders.default" },
		{ "orders.shop", "x", "orders.shop" },
		{ "orders.shop.svc", "x", "orders.shop" },
		{ "orders.shop.svc.cluster.local", "x", "orders.shop" },
		{ "ORDERS.SHOP.SVC.CLUSTER.LOCAL.", "x", "orders.shop" },
		{ "orders.weft", "shop", "orders.shop" },
		{ "orders.shop.weft", "x", "orders.shop" },
		{ "api.example.com", "x", "api.example.com" },
		{ "a.b.c.svc", "x", "a.b.c.svc" },
		{ "a.svc.cluster.local", "x", "a.svc.cluster.local" },
		{ "a.b.c.weft", "x", "a.b.c.weft" },
		{ "weft", "x", "weft.x" },
		{ "under_score.example", "x", "under_score.example" },
	};
	static const char *const bad[] = { "",    ".",   "..",  "a..b", ".a",
					   "a b", "a/b", "a:b", "*",    "a\x80" };
	char out[WEFT_SERVICE_MAX + 1], longer[400];

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		assert_int_equal(name_canonical(out, cases[i].name, cases[i].ns, "cluster.local"),
				 0);
		assert_string_equal(out, cases[i].want);
	}
	assert_int_equal(name_canonical(out, "a.b.svc.other.org", "x", "other.org"), 0);
	assert_string_equal(out, "a.b");
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_int_equal(name_canonical(out, bad[i], "x", "cluster.local"), -EINVAL);
	memset(longer, 'a', sizeof(longer));
	longer[64] = '\0';
	assert_int_equal(name_canonical(out, longer, "x", ""), -EINVAL);
	longer[64] = 'a';
	for (int i = 60; i < 399; i += 60)
		longer[i] = '.';
	longer[399] = '\0';
	assert_int_equal(name_canonical(out, longer, "x", ""), -EINVAL);
	longer[253] = '\0';
	assert_int_equal(name_canonical(out, longer, "x", ""), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(spiffe_round_trip),
		cmocka_unit_test(spiffe_refuses),
		cmocka_unit_test(claims),
		cmocka_unit_test(claims_refused),
		cmocka_unit_test(canonical),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
