#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <string.h>

#include "weft/policy.h"

/* One list of strings each. */
#define STRS(...)                                                                         \
	{                                                                                 \
		.v = (struct wire_str[]){ __VA_ARGS__ },                                  \
		.n = sizeof((struct wire_str[]){ __VA_ARGS__ }) / sizeof(struct wire_str) \
	}
#define S(text)                                  \
	{                                        \
		.p = text, .n = sizeof(text) - 1 \
	}
#define LIST(type, ...)                                                                         \
	{                                                                                       \
		.v = (struct wire_##type[]){ __VA_ARGS__ },                                     \
		.n = sizeof((struct wire_##type[]){ __VA_ARGS__ }) / sizeof(struct wire_##type) \
	}
#define FROM(...)                                     \
	{                                             \
		.from = LIST(source, { __VA_ARGS__ }) \
	}
#define TO(...)                                        \
	{                                              \
		.to = LIST(operation, { __VA_ARGS__ }) \
	}
#define WHEN(...)                                        \
	{                                                \
		.when = LIST(condition, { __VA_ARGS__ }) \
	}

#define WEB "cluster.local/ns/default/sa/web"

static struct inbound_verdict ask(const struct wire_inbound *in, const char *principal)
{
	struct inbound_facts f = { .principal = principal };

	assert_int_equal(addr_parse(&f.source, "10.0.0.9"), 0);
	f.source.port = 40000;
	assert_int_equal(addr_parse(&f.local, "192.168.1.1"), 0);
	f.local.port = 8080;
	return inbound_authorize(in, &f);
}

/* Does a rule match a connection from `principal`? Asked by an ALLOW policy that holds it alone. */
static bool allows(struct wire_rule rule, const char *principal)
{
	struct wire_authz a = { .name = S("default/p"), .rules = { .v = &rule, .n = 1 } };
	struct wire_inbound in = { .policies = { .v = &a, .n = 1 },
				   .trust_domain = S("cluster.local") };

	return ask(&in, principal).allowed;
}

static bool denies(struct wire_rule rule, const char *principal)
{
	struct wire_authz a = { .name = S("default/p"),
				.action = WEFT_ACTION_DENY,
				.rules = { .v = &rule, .n = 1 } };
	struct wire_inbound in = { .policies = { .v = &a, .n = 1 },
				   .trust_domain = S("cluster.local") };

	return !ask(&in, principal).allowed;
}

static void modes(void **state)
{
	(void)state;
	assert_int_equal(mode_parse("enforce"), WEFT_MODE_ENFORCE);
	assert_int_equal(mode_parse("observe"), WEFT_MODE_OBSERVE);
	assert_int_equal(mode_parse("off"), WEFT_MODE_OFF);
	assert_int_equal(mode_parse("Enforce"), -EINVAL);
	assert_int_equal(mode_parse(""), -EINVAL);
	assert_string_equal(mode_name(WEFT_MODE_OBSERVE), "observe");
	assert_string_equal(mode_name((enum weft_mode)77), "unknown");
}

static void mtls_by_port(void **state)
{
	struct wire_inbound in = {
		.mtls = WEFT_MTLS_STRICT,
		.ports = LIST(port_mtls, { .port = 80, .mode = WEFT_MTLS_DISABLE }, { .port = 81 },
			      { .port = 82, .mode = 99 }),
	};

	(void)state;
	assert_int_equal(inbound_mtls(&in, 80), WEFT_MTLS_DISABLE);
	assert_int_equal(inbound_mtls(&in, 81), WEFT_MTLS_STRICT);
	assert_int_equal(inbound_mtls(&in, 82), WEFT_MTLS_STRICT);
	assert_int_equal(inbound_mtls(&in, 9), WEFT_MTLS_STRICT);
	in.mtls = WEFT_MTLS_UNSET;
	assert_int_equal(inbound_mtls(&in, 9), WEFT_MTLS_PERMISSIVE);
	in.mtls = 42;
	assert_int_equal(inbound_mtls(&in, 9), WEFT_MTLS_PERMISSIVE);
}

static void strings(void **state)
{
	(void)state;
	assert_true(string_match("abc", "abc"));
	assert_false(string_match("abc", "abcd"));
	assert_true(string_match("abc*", "abcd"));
	assert_true(string_match("abc*", "abc"));
	assert_false(string_match("abc*", "ab"));
	assert_true(string_match("*abc", "xabc"));
	assert_true(string_match("*abc", "abc"));
	assert_false(string_match("*abc", "bc"));
	assert_true(string_match("*", "x"));
	assert_false(string_match("*", ""));
	assert_false(string_match("a*c", "abc")); /* a star in the middle is a star */
	assert_true(string_match("a*c", "a*c"));
}

static void order_of_actions(void **state)
{
	struct wire_rule always = { 0 }, never = FROM(.principals = STRS(S("nobody")));
	struct wire_authz deny = { .name = S("default/deny"),
				   .action = WEFT_ACTION_DENY,
				   .rules = { &always, 1 } };
	struct wire_authz allow = { .name = S("default/allow"), .rules = { &always, 1 } };
	struct wire_authz other = { .name = S("default/other"), .rules = { &never, 1 } };
	struct wire_inbound in = { 0 };
	struct inbound_verdict v;

	(void)state;
	assert_true(ask(&in, WEB).allowed); /* no policy */
	assert_true(ask(&in, NULL).allowed);

	in = (struct wire_inbound){ .policies = LIST(authz, allow, deny) };
	v = ask(&in, WEB);
	assert_false(v.allowed);
	assert_string_equal(v.policy, "default/deny");

	in = (struct wire_inbound){ .policies = LIST(authz, other, allow) };
	v = ask(&in, WEB);
	assert_true(v.allowed);
	assert_string_equal(v.policy, "default/allow");

	in = (struct wire_inbound){ .policies = LIST(authz, other) };
	v = ask(&in, WEB);
	assert_false(v.allowed);
	assert_null(v.policy);

	deny.rules.v = &never;
	in = (struct wire_inbound){ .policies = LIST(authz, deny) };
	assert_true(ask(&in, WEB).allowed); /* no ALLOW policy: allowed */
}

static void empty_forms(void **state)
{
	struct wire_rule always = { 0 };
	struct wire_authz nothing = { .name = S("default/nothing") };
	struct wire_authz all = { .name = S("default/all"), .rules = { &always, 1 } };
	struct wire_authz deny_nothing = { .name = S("default/dn"), .action = WEFT_ACTION_DENY };
	struct wire_inbound in = { .policies = LIST(authz, nothing) };

	(void)state;
	assert_false(ask(&in, WEB).allowed); /* {} denies all */
	in = (struct wire_inbound){ .policies = LIST(authz, nothing, all) };
	assert_true(ask(&in, NULL).allowed); /* rules: [{}] allows all */
	in = (struct wire_inbound){ .policies = LIST(authz, deny_nothing) };
	assert_true(ask(&in, WEB).allowed);
}

static void dry_run_and_audit(void **state)
{
	struct wire_rule always = { 0 };
	struct wire_authz deny = {
		.name = S("d/d"), .action = WEFT_ACTION_DENY, .dry_run = 1, .rules = { &always, 1 }
	};
	struct wire_authz allow = { .name = S("d/a"), .dry_run = 1 };
	struct wire_authz audit = { .name = S("d/u"),
				    .action = WEFT_ACTION_AUDIT,
				    .rules = { &always, 1 } };
	struct wire_authz newer = { .name = S("d/n"), .action = 9 };
	struct wire_inbound in = { .policies = LIST(authz, deny) };
	struct inbound_verdict v = ask(&in, WEB);

	(void)state;
	assert_true(v.allowed && v.dry_run_denied && !v.audited);
	in = (struct wire_inbound){ .policies = LIST(authz, allow) };
	v = ask(&in, WEB);
	assert_true(v.allowed && v.dry_run_denied); /* a dry ALLOW does not make the others deny */
	in = (struct wire_inbound){ .policies = LIST(authz, audit) };
	v = ask(&in, WEB);
	assert_true(v.allowed && v.audited && !v.dry_run_denied);
	in = (struct wire_inbound){ .policies = LIST(authz, newer) };
	v = ask(&in, WEB);
	assert_false(v.allowed);
	assert_string_equal(v.policy, "d/n");
}

static void sources(void **state)
{
	struct wire_rule any = FROM(.principals = STRS(S("*")));
	struct wire_rule web = FROM(.principals = STRS(S("x"), S(WEB)));
	struct wire_rule suffix = FROM(.principals = STRS(S("*/sa/web")));
	struct wire_rule not_web = FROM(.not_principals = STRS(S(WEB)));
	struct wire_rule ns = FROM(.namespaces = STRS(S("def*")));
	struct wire_rule not_ns = FROM(.not_namespaces = STRS(S("default")));
	struct wire_rule account = FROM(.service_accounts = STRS(S("default/web")));
	struct wire_rule td = FROM(.trust_domains = STRS(S("cluster.local")));
	struct wire_rule ip = FROM(.ip_blocks = STRS(S("10.0.0.0/8")));
	struct wire_rule not_ip = FROM(.not_ip_blocks = STRS(S("10.0.0.9")));
	struct wire_rule broken = FROM(.ip_blocks = STRS(S("10.0.0.0/99")));
	struct wire_rule both =
		FROM(.namespaces = STRS(S("default")), .ip_blocks = STRS(S("11.0.0.0/8")));
	struct wire_rule either = { .from = LIST(source, { .namespaces = STRS(S("other")) },
						 { .ip_blocks = STRS(S("10.0.0.0/8")) }) };

	(void)state;
	assert_true(allows(any, WEB));
	assert_false(allows(any, NULL)); /* needs a certificate */
	assert_false(allows(any, ""));
	assert_true(allows(web, WEB));
	assert_false(allows(web, "cluster.local/ns/default/sa/webb"));
	assert_true(allows(suffix, "other/ns/x/sa/web"));
	assert_false(allows(not_web, WEB));
	assert_true(allows(not_web, NULL));
	assert_true(allows(ns, WEB));
	assert_false(allows(ns, "cluster.local/ns/shop/sa/web"));
	assert_false(allows(ns, NULL));
	assert_false(allows(not_ns, WEB));
	assert_true(allows(account, WEB));
	assert_false(allows(account, "cluster.local/ns/default/sa/other"));
	assert_false(allows(account, NULL));
	assert_true(allows(td, WEB));
	assert_false(allows(td, "evil/ns/default/sa/web"));
	assert_true(allows(ip, NULL));
	assert_false(allows(not_ip, NULL));
	assert_false(allows(broken, NULL));
	assert_false(allows(both, WEB));
	assert_true(allows(either, WEB));
}

/* A principal that is a SPIFFE ID but not of Istio's form has no namespace and no account. */
static void foreign_principals(void **state)
{
	struct wire_rule ns = FROM(.namespaces = STRS(S("*")));
	struct wire_rule td = FROM(.trust_domains = STRS(S("td")));
	static const char *const odd[] = { "td/x", "td/ns/a", "td/ns//sa/b", "td/ns/a/sa/",
					   "td/ns/a/sa/b/c" };

	(void)state;
	for (size_t i = 0; i < sizeof(odd) / sizeof(odd[0]); i++) {
		assert_false(allows(ns, odd[i]));
		assert_true(allows(td, odd[i]));
	}
	assert_false(allows(ns, "td"));
}

static void trust_domain_aliases(void **state)
{
	struct wire_rule local = FROM(.principals = STRS(S("cluster.local/ns/default/sa/web")));
	struct wire_rule old = FROM(.principals = STRS(S("old.org/ns/default/sa/*")));
	struct wire_rule foreign = FROM(.principals = STRS(S("foreign/ns/default/sa/web")));
	struct wire_authz a = { .rules = { &local, 1 } };
	struct wire_inbound in = {
		.policies = { .v = &a, .n = 1 },
		.trust_domain = S("new.org"),
		.trust_domain_aliases = STRS(S("old.org")),
	};

	(void)state;
	assert_true(ask(&in, "new.org/ns/default/sa/web").allowed);
	assert_true(ask(&in, "old.org/ns/default/sa/web").allowed);
	assert_false(ask(&in, "foreign/ns/default/sa/web").allowed);
	assert_false(ask(&in, "new.org/ns/default/sa/other").allowed);
	a.rules.v = &old;
	assert_true(ask(&in, "new.org/ns/default/sa/web").allowed);
	assert_false(ask(&in, "foreign/ns/default/sa/web").allowed);
	assert_false(ask(&in, NULL).allowed);
	a.rules.v = &foreign;
	assert_true(ask(&in, "foreign/ns/default/sa/web").allowed);
	assert_false(ask(&in, "new.org/ns/default/sa/web").allowed);
}

static void operations_and_conditions(void **state)
{
	struct wire_rule port = TO(.ports = STRS(S("80"), S("8080")));
	struct wire_rule other = TO(.ports = STRS(S("808")));
	struct wire_rule not_port = TO(.not_ports = STRS(S("8080")));
	struct wire_rule junk = TO(.ports = STRS(S("8080x")));
	struct wire_rule dst = WHEN(.key = S("destination.port"), .values = STRS(S("8080")));
	struct wire_rule src = WHEN(.key = S("source.ip"), .not_values = STRS(S("10.0.0.0/24")));
	struct wire_rule local =
		WHEN(.key = S("destination.ip"), .values = STRS(S("192.168.0.0/16")));
	struct wire_rule principal = WHEN(.key = S("source.principal"), .values = STRS(S("*/web")));
	struct wire_rule all = {
		.from = LIST(source, { .namespaces = STRS(S("default")) }),
		.to = LIST(operation, { .ports = STRS(S("8080")) }),
		.when = LIST(condition,
			     { .key = S("source.namespace"), .values = STRS(S("default")) },
			     { .key = S("source.ip"), .values = STRS(S("10.0.0.9/32")) }),
	};

	(void)state;
	assert_true(allows(port, NULL));
	assert_false(allows(other, NULL));
	assert_false(allows(not_port, NULL));
	assert_false(allows(junk, NULL));
	assert_true(allows(dst, NULL));
	assert_false(allows(src, NULL));
	assert_true(allows(local, NULL));
	assert_true(allows(principal, WEB));
	assert_true(allows(all, WEB));
	assert_false(allows(all, "cluster.local/ns/shop/sa/web"));
}

/* What only a request has: ALLOW never matches, DENY leaves it out. */
static void http_fails_closed(void **state)
{
	struct wire_rule op = TO(.ports = STRS(S("8080")), .needs_http = 1);
	struct wire_rule op_other = TO(.ports = STRS(S("9090")), .needs_http = 1);
	struct wire_rule src = FROM(.principals = STRS(S(WEB)), .needs_http = 1);
	struct wire_rule when = WHEN(.key = S("request.headers[x]"), .needs_http = 1);
	struct wire_rule unknown = WHEN(.key = S("something.new"), .values = STRS(S("x")));
	struct wire_rule half = { .to = LIST(operation,
					     { .ports = STRS(S("8080")), .needs_http = 1 },
					     { .ports = STRS(S("8080")) }) };

	(void)state;
	assert_false(allows(op, WEB));
	assert_true(denies(op, WEB));
	assert_false(denies(op_other, WEB));
	assert_false(allows(src, WEB));
	assert_true(denies(src, WEB));
	assert_false(denies(src, "cluster.local/ns/default/sa/other"));
	assert_false(allows(when, WEB));
	assert_true(denies(when, WEB));
	assert_false(allows(unknown, WEB));
	assert_true(denies(unknown, WEB));
	assert_true(allows(half, WEB)); /* the other operation suffices */
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(modes),
		cmocka_unit_test(mtls_by_port),
		cmocka_unit_test(strings),
		cmocka_unit_test(order_of_actions),
		cmocka_unit_test(empty_forms),
		cmocka_unit_test(dry_run_and_audit),
		cmocka_unit_test(sources),
		cmocka_unit_test(foreign_principals),
		cmocka_unit_test(trust_domain_aliases),
		cmocka_unit_test(operations_and_conditions),
		cmocka_unit_test(http_fails_closed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
