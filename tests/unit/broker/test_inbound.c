/* What a server demands: scopes of PeerAuthentication, scope and order of AuthorizationPolicy, and what the shared
 * evaluator makes of the compiled form. */
#include "documents.h"

static struct arena arena;

static int setup(void **state)
{
	*state = model_new("cluster.local");
	return *state ? 0 : -1;
}

static int teardown(void **state)
{
	model_free(*state);
	arena_free(&arena);
	return 0;
}

static struct wire_label httpbin_labels[] = { { { "app", 3 }, { "httpbin", 7 } },
					      { { "version", 7 }, { "v1", 2 } } };
static const struct workload httpbin = { "httpbin.foo", "foo", httpbin_labels, 2 };

static struct wire_inbound inbound(struct model *m, const struct workload *w)
{
	struct wire_inbound in;

	assert_int_equal(model_inbound(m, w, &arena, &in), 0);
	return in;
}

static enum weft_mtls mtls(struct model *m, uint16_t port)
{
	struct wire_inbound in = inbound(m, &httpbin);

	return inbound_mtls(&in, port);
}

/* istio.io, "PeerAuthentication": mesh, namespace, workload, port. */
static void test_peer_authentication(void **state)
{
	struct model *m = *state;

	assert_int_equal(mtls(m, 80), WEFT_MTLS_PERMISSIVE);
	put(m, "weft:PeerAuthentication:istio-system/default", "{'mtls': {'mode': 'STRICT'}}");
	assert_int_equal(mtls(m, 80), WEFT_MTLS_STRICT);
	put(m, "weft:PeerAuthentication:bar/default", "{'mtls': {'mode': 'DISABLE'}}");
	assert_int_equal(mtls(m, 80), WEFT_MTLS_STRICT);
	put(m, "weft:PeerAuthentication:foo/default", "{'mtls': {'mode': 'PERMISSIVE'}}");
	assert_int_equal(mtls(m, 80), WEFT_MTLS_PERMISSIVE);
	put(m, "weft:PeerAuthentication:foo/httpbin",
	    "{'selector': {'matchLabels': {'app': 'httpbin'}}, 'mtls': {'mode': 'STRICT'}, "
	    "'portLevelMtls': {'8080': {'mode': 'DISABLE'}, '8081': {'mode': 'UNSET'}}}");
	assert_int_equal(mtls(m, 80), WEFT_MTLS_STRICT);
	assert_int_equal(mtls(m, 8080), WEFT_MTLS_DISABLE);
	assert_int_equal(mtls(m, 8081), WEFT_MTLS_STRICT);
	put(m, "weft:PeerAuthentication:foo/httpbin",
	    "{'selector': {'matchLabels': {'app': 'httpbin'}}, 'mtls': {'mode': 'UNSET'}}");
	assert_int_equal(mtls(m, 80), WEFT_MTLS_PERMISSIVE);
	put(m, "weft:PeerAuthentication:foo/default", "{}"); /* UNSET inherits from the mesh */
	assert_int_equal(mtls(m, 80), WEFT_MTLS_STRICT);
	put(m, "weft:PeerAuthentication:foo/other",
	    "{'selector': {'matchLabels': {'app': 'other'}}, 'mtls': {'mode': 'DISABLE'}}");
	put(m, "weft:PeerAuthentication:istio-system/sel",
	    "{'selector': {'matchLabels': {'app': 'httpbin'}}, 'mtls': {'mode': 'DISABLE'}}");
	assert_int_equal(
		mtls(m, 80),
		WEFT_MTLS_STRICT); /* a selector of the root namespace is for that namespace */
	put(m, "weft:PeerAuthentication:foo/a",
	    "{'selector': {'matchLabels': {'version': 'v1'}}, 'mtls': {'mode': 'DISABLE'}}");
	assert_int_equal(mtls(m, 80),
			 WEFT_MTLS_DISABLE); /* of two that select it the first key counts */
}

static bool allowed(struct model *m, const char *principal, const char *source, uint16_t port)
{
	struct wire_inbound in = inbound(m, &httpbin);
	struct inbound_facts f = { .principal = principal };

	addr_parse(&f.source, source);
	addr_parse(&f.local, "10.1.1.1");
	f.local.port = port;
	return inbound_authorize(&in, &f).allowed;
}

#define SLEEP "cluster.local/ns/default/sa/sleep"
#define TEST "cluster.local/ns/test/sa/x"
#define PROD "cluster.local/ns/prod/sa/x"

/* istio.io, "AuthorizationPolicy": allow-nothing, allow-all, deny from outside, and the order of actions. */
static void test_order(void **state)
{
	struct model *m = *state;

	assert_true(allowed(m, SLEEP, "10.0.0.1", 80));
	put(m, "weft:AuthorizationPolicy:foo/allow-nothing", "{}");
	assert_false(allowed(m, SLEEP, "10.0.0.1", 80));
	put(m, "weft:AuthorizationPolicy:foo/allow-all", "{'rules': [{}]}");
	assert_true(allowed(m, SLEEP, "10.0.0.1", 80));
	assert_true(allowed(m, "", "10.0.0.1", 80));
	put(m, "weft:AuthorizationPolicy:foo/deny",
	    "{'action': 'DENY', 'rules': [{'from': [{'source': {'notNamespaces': "
	    "['default']}}]}]}");
	assert_true(allowed(m, SLEEP, "10.0.0.1", 80));
	assert_false(allowed(m, TEST, "10.0.0.1", 80));
	put(m, "weft:AuthorizationPolicy:foo/deny",
	    "{'action': 'DENY', 'rules': [{'from': [{'source': {'notNamespaces': ['default']}}]}], "
	    "'dryRun': true}");
	assert_true(allowed(m, TEST, "10.0.0.1", 80));
}

static void test_scope(void **state)
{
	struct model *m = *state;
	struct wire_inbound in;

	put(m, "weft:AuthorizationPolicy:foo/own",
	    "{'selector': {'matchLabels': {'app': 'httpbin', 'version': 'v1'}}}");
	put(m, "weft:AuthorizationPolicy:foo/other",
	    "{'selector': {'matchLabels': {'app': 'other'}}}");
	put(m, "weft:AuthorizationPolicy:bar/elsewhere", "{}");
	put(m, "weft:AuthorizationPolicy:istio-system/mesh", "{'action': 'DENY', 'rules': [{}]}");
	put(m, "weft:AuthorizationPolicy:istio-system/sel",
	    "{'selector': {'matchLabels': {'app': 'httpbin'}}}");
	put(m, "weft:AuthorizationPolicy:istio-system/no",
	    "{'selector': {'matchLabels': {'app': 'no'}}}");
	in = inbound(m, &httpbin);
	assert_int_equal(in.policies.n, 3);
	assert_string_equal(in.policies.v[0].name.p, "istio-system/mesh");
	assert_string_equal(in.policies.v[1].name.p, "istio-system/sel");
	assert_string_equal(in.policies.v[2].name.p, "foo/own");
	put(m, "weft:MeshConfig:default",
	    "{'rootNamespace': 'bar', 'trustDomainAliases': ['old.example']}");
	in = inbound(m, &httpbin);
	assert_int_equal(in.policies.n, 2);
	assert_string_equal(in.policies.v[0].name.p, "bar/elsewhere");
	assert_string_equal(in.trust_domain.p, "cluster.local");
	assert_string_equal(in.trust_domain_aliases.v[0].p, "old.example");
}

/* istio.io, AuthorizationPolicy reference: principals or a namespace, with conditions. */
static void test_rules(void **state)
{
	struct model *m = *state;

	put(m, "weft:AuthorizationPolicy:foo/httpbin",
	    "{'selector': {'matchLabels': {'app': 'httpbin', 'version': 'v1'}}, 'action': 'ALLOW', "
	    "'rules': [{'from': [{'source': "
	    "{'principals': ['cluster.local/ns/default/sa/sleep']}}, {'source': {'namespaces': "
	    "['test']}}], 'to': [{'operation': "
	    "{'ports': ['80']}}], 'when': [{'key': 'source.ip', 'values': ['10.0.0.0/8'], "
	    "'notValues': ['10.0.0.9']}]}]}");
	assert_true(allowed(m, SLEEP, "10.0.0.1", 80));
	assert_true(allowed(m, TEST, "10.0.0.1", 80));
	assert_false(allowed(m, PROD, "10.0.0.1", 80));
	assert_false(allowed(m, "", "10.0.0.1", 80));
	assert_false(allowed(m, SLEEP, "10.0.0.1", 81));
	assert_false(allowed(m, SLEEP, "10.0.0.9", 80));
	assert_false(allowed(m, SLEEP, "11.0.0.1", 80));
	put(m, "weft:AuthorizationPolicy:foo/httpbin",
	    "{'rules': [{'from': [{'source': {'principals': ['*']}}]}]}");
	assert_true(allowed(m, PROD, "10.0.0.1", 80));
	assert_false(allowed(m, "", "10.0.0.1", 80));
	put(m, "weft:AuthorizationPolicy:foo/httpbin",
	    "{'rules': [{'from': [{'source': {'serviceAccounts': ['x', 'default/sleep']}}]}]}");
	assert_true(allowed(m, SLEEP, "10.0.0.1", 80));
	assert_true(allowed(m, "cluster.local/ns/foo/sa/x", "10.0.0.1", 80));
	assert_false(allowed(m, TEST, "10.0.0.1", 80));
}

static void test_request_fields(void **state)
{
	struct model *m = *state;

	put(m, "weft:AuthorizationPolicy:foo/p",
	    "{'rules': [{'from': [{'source': {'namespaces': ['default']}}], 'to': [{'operation': "
	    "{'methods': ['GET'], 'paths': ['/info*']}}]}]}");
	assert_false(
		allowed(m, SLEEP, "10.0.0.1", 80)); /* ALLOW with a request's field never matches */
	put(m, "weft:AuthorizationPolicy:foo/p", "{'rules': [{}]}");
	put(m, "weft:AuthorizationPolicy:foo/q",
	    "{'action': 'DENY', 'rules': [{'from': [{'source': {'namespaces': ['default']}}], "
	    "'to': [{'operation': {'methods': ['GET']}}]}]}");
	assert_false(allowed(m, SLEEP, "10.0.0.1", 80)); /* DENY matches without it */
	assert_true(allowed(m, TEST, "10.0.0.1", 80));
}

/* istio.io, "Trust Domain Migration". */
static void test_trust_domain(void **state)
{
	struct model *m = *state;

	put(m, "weft:AuthorizationPolicy:foo/p",
	    "{'rules': [{'from': [{'source': {'principals': "
	    "['old-td/ns/sleep-allow/sa/sleep']}}]}]}");
	assert_false(allowed(m, "cluster.local/ns/sleep-allow/sa/sleep", "10.0.0.1", 80));
	put(m, "weft:MeshConfig:default", "{'trustDomainAliases': ['old-td']}");
	assert_true(allowed(m, "cluster.local/ns/sleep-allow/sa/sleep", "10.0.0.1", 80));
	assert_true(allowed(m, "old-td/ns/sleep-allow/sa/sleep", "10.0.0.1", 80));
	assert_false(allowed(m, "other-td/ns/sleep-allow/sa/sleep", "10.0.0.1", 80));
}

static void test_encodes(void **state)
{
	struct model *m = *state;
	struct wire_inbound in, back;
	const char *why;
	uint8_t *bytes;
	size_t len;
	void *block;

	put(m, "weft:AuthorizationPolicy:foo/p",
	    "{'spec': {'rules': [{'from': [{'source': {'principals': ['a', 'b']}}]}]}, 'metadata': "
	    "{'annotations': {'istio.io/dry-run': 'true'}}}");
	in = inbound(m, &httpbin);
	assert_int_equal(wire_encode(&wire_schema_inbound, &in, WEFT_IDENTITY_HALF, &bytes, &len),
			 0);
	assert_int_equal(wire_decode(&wire_schema_inbound, bytes, len, &back, &block, &why), 0);
	assert_int_equal(back.policies.v[0].dry_run, 1);
	assert_string_equal(back.policies.v[0].rules.v[0].from.v[0].principals.v[1].p, "b");
	free(block);
	free(bytes);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(test_peer_authentication), T(test_order),        T(test_scope),   T(test_rules),
		T(test_request_fields),      T(test_trust_domain), T(test_encodes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
