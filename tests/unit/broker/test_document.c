/* What the validator takes and refuses, and where it says the error is. */
#include "documents.h"

static int setup(void **state)
{
	*state = model_new("cluster.local");
	return *state ? 0 : -1;
}

static int teardown(void **state)
{
	model_free(*state);
	return 0;
}

static void test_keys(void **state)
{
	struct model *m = *state;

	assert_int_equal(put_errors(m, "weft:Nothing:x", "{}", NULL), -ENOENT);
	assert_int_equal(put_errors(m, "weft:VIP:239.240.0.1", "{}", NULL), -ENOENT);
	assert_int_equal(put_errors(m, "other", "{}", NULL), -ENOENT);
	refuse(m, "weft:PeerAuthentication:UPPER/x", "{}", "", "the key is not");
	refuse(m, "weft:PeerAuthentication:a/b/c", "{}", "", "the key is not");
	refuse(m, "weft:PeerAuthentication:", "{}", "", "the key is not");
	put(m, "weft:PeerAuthentication:shop/x.y", "{}");
	assert_int_equal(model_del(m, "weft:PeerAuthentication:shop/x.y"), 0);
	assert_int_equal(model_del(m, "weft:PeerAuthentication:shop/x.y"), -ENOENT);
}

static void test_manifest(void **state)
{
	struct model *m = *state;
	const char *key = "weft:PeerAuthentication:foo/default";

	put(m, key,
	    "{'apiVersion': 'security.istio.io/v1', 'kind': 'PeerAuthentication', 'metadata': "
	    "{'name': 'default', "
	    "'namespace': 'foo', 'resourceVersion': '3'}, 'spec': {'mtls': {'mode': 'STRICT'}}}");
	refuse(m, key, "{'kind': 'Peerauthentication', 'spec': {}}", "kind",
	       "the key says \"PeerAuthentication\"");
	refuse(m, key, "{'metadata': {'namespace': 'bar'}, 'spec': {}}", "metadata.namespace",
	       "the key says \"foo\"");
	refuse(m, key, "{'spec': {'mtls': {'mode': 'STRONG'}}}", "spec.mtls.mode",
	       "is not one of UNSET, DISABLE");
	refuse(m, key, "{'spec': []}", "spec", "expected an object");
	refuse(m, key, "{'speck': {}, 'kind': 'PeerAuthentication'}", "speck",
	       "did you mean \"spec\"?");
}

static void test_json(void **state)
{
	struct model *m = *state;
	const char *key = "weft:PeerAuthentication:default";
	struct doc_errors errors = { 0 };
	size_t size = 10u << 20;
	char *big = malloc(size);

	refuse(m, key, "{'mtls': \n {'mode' 'STRICT'}}", "", "line 2, column ");
	refuse(m, key, "", "", "not JSON");
	refuse(m, key, "[]", "", "expected an object, found a list");
	refuse(m, key, "{'mtls': {}, 'mtls': {}}", "", "duplicate");
	refuse(m, key, "{'mtls': {}} x", "", "not JSON");
	refuse(m, key, "{'a\\u0000': 1}", "", "not JSON");
	assert_int_equal(model_put(m, key, "{\"\xff\": 1}", 8, NULL), -EINVAL);
	memset(big, ' ', size);
	memcpy(big, "{}", 2);
	assert_int_equal(model_put(m, key, big, size, &errors), -EINVAL);
	assert_non_null(strstr(errors.v[0].message, "10485760 bytes"));
	doc_errors_free(&errors);
	memset(big, '[', 1u << 20);
	assert_int_equal(model_put(m, key, big, 1u << 20, &errors), -EINVAL);
	assert_string_equal(errors.v[0].code, "WEFT0102");
	doc_errors_free(&errors);
	memset(big, '"', 1u << 20);
	assert_int_equal(model_put(m, key, big, 1u << 20, NULL), -EINVAL);
	free(big);
}

static void test_every_error(void **state)
{
	struct doc_errors errors = { 0 };
	char *json;

	assert_int_equal(put_errors(*state, "weft:VirtualService:orders",
				    "{'spec': {'hosts': ['orders', 7], 'gateway': 1, 'http': [], "
				    "'tcp': [{'match': [{'port': 0}], "
				    "'route': [{'destination': {'host': 'orders'}, 'weight': 90}, "
				    "{'weight': '10'}]}]}}",
				    &errors),
			 -EINVAL);
	json = doc_errors_json(&errors);
	assert_int_equal(errors.n, 6);
	assert_non_null(strstr(
		json,
		"\"path\":\"spec.hosts[1]\",\"message\":\"expected a text, found a number\""));
	assert_non_null(strstr(json, "\"path\":\"spec.gateway\",\"message\":\"unknown field, did "
				     "you mean \\\"gateways\\\"?\""));
	assert_non_null(strstr(
		json,
		"\"path\":\"spec.http\",\"message\":\"http is not supported yet by this release"));
	assert_non_null(strstr(
		json,
		"\"path\":\"spec.tcp[0].match[0].port\",\"message\":\"0 is not from 1 to 65535\""));
	assert_non_null(strstr(json, "\"path\":\"spec.tcp[0].route[1].weight\",\"message\":"
				     "\"expected a whole number, found a text\""));
	assert_non_null(strstr(json, "\"path\":\"spec.tcp[0].route[1].destination\",\"message\":"
				     "\"destination is required"));
	free(json);
	doc_errors_free(&errors);
}

static void test_errors_are_bounded(void **state)
{
	struct doc_errors errors = { 0 };
	char text[8192] = "{";
	size_t n = 1;

	for (int i = 0; i < 200; i++)
		n += (size_t)snprintf(text + n, sizeof(text) - n, "'x%d\\n': %d, ", i, i);
	snprintf(text + n, sizeof(text) - n, "'y': 1}");
	assert_int_equal(put_errors(*state, "weft:MeshConfig:default", text, &errors), -EINVAL);
	assert_int_equal(errors.n, DOC_ERRORS_MAX);
	assert_string_equal(errors.v[DOC_ERRORS_MAX - 1].message, "there are more errors");
	assert_null(strchr(errors.v[0].path, '\n'));
	assert_string_not_equal(doc_code_help(errors.v[0].code), "");
	doc_errors_free(&errors);
}

static void test_service_entry(void **state)
{
	struct model *m = *state;
	const char *key = "weft:ServiceEntry:db";

	put(m, key,
	    "{'hosts': ['db.example.com'], 'addresses': ['10.9.0.0/16', '10.1.2.3', 'fd00::1'], "
	    "'location': "
	    "'MESH_EXTERNAL', 'resolution': 'STATIC', 'exportTo': ['*'], 'ports': [{'number': "
	    "5432, 'name': 'tcp-pg', "
	    "'protocol': 'TCP', 'targetPort': 15432}], 'endpoints': [{'address': '10.0.0.1', "
	    "'ports': {'tcp-pg': 5433}, "
	    "'weight': 3, 'locality': 'a/b'}]}");
	refuse(m, key, "{'hosts': []}", "hosts", "hosts is required");
	refuse(m, key, "{'hosts': null}", "hosts", "hosts is required");
	refuse(m, key, "{'hosts': ['*.example.com']}", "hosts[0]",
	       "wildcard hosts are not supported yet");
	refuse(m, key, "{'hosts': ['a b']}", "hosts[0]", "is not a host name");
	refuse(m, key, "{'hosts': ['a', 'a.default.svc']}", "hosts[1]",
	       "the same host as at index 0");
	refuse(m, key, "{'hosts': ['a'], 'addresses': ['10.0.0.1/33']}", "addresses[0]",
	       "is not an address or CIDR block");
	refuse(m, key, "{'hosts': ['a'], 'resolution': 'DNS'}", "resolution",
	       "DNS is not supported yet by this release, only NONE, STATIC");
	refuse(m, key, "{'hosts': ['a'], 'exportTo': ['.']}", "exportTo[0]", "not supported yet");
	refuse(m, key, "{'hosts': ['a'], 'exportTo': ['ns1']}", "exportTo[0]", "is not one of *");
	refuse(m, key, "{'hosts': ['a'], 'endpoints': [{'address': 'x.example.com'}]}",
	       "endpoints[0].address", "is not an IPv4 or IPv6 address");
	refuse(m, key, "{'hosts': ['a'], 'endpoints': [{'address': '239.240.0.1'}]}",
	       "endpoints[0].address", "no endpoint can have");
	refuse(m, key, "{'hosts': ['a'], 'endpoints': [{'address': '1.2.3.4', 'ports': {'x': 1}}]}",
	       "endpoints[0].ports.x", "no port of the service");
	refuse(m, key,
	       "{'hosts': ['a'], 'endpoints': [{'address': '1.2.3.4'}], 'workloadSelector': "
	       "{'labels': {'app': 'a'}}}",
	       "endpoints", "only one of");
	refuse(m, key,
	       "{'hosts': ['a'], 'ports': [{'number': 80, 'name': 'a'}, {'number': 80, 'name': "
	       "'a'}]}",
	       "ports[1].name", "the same name");
	refuse(m, key, "{'hosts': ['a'], 'ports': [{'number': 70000, 'name': 'a'}]}",
	       "ports[0].number", "70000 is not from 1 to 65535");
	refuse(m, key, "{'hosts': ['a'], 'subjectAltNames': ['a.example.com']}",
	       "subjectAltNames[0]", "is not a SPIFFE ID");
	refuse(m, key, "{'hosts': ['a'], 'host': ['a']}", "host", "did you mean \"hosts\"?");
}

static void test_destination_rule(void **state)
{
	struct model *m = *state;
	const char *key = "weft:DestinationRule:orders";

	put(m, key,
	    "{'host': 'orders', 'trafficPolicy': {'loadBalancer': {'simple': 'ROUND_ROBIN'}, "
	    "'connectionPool': {'tcp': "
	    "{'connectTimeout': '1.5s'}}, 'tls': {'mode': 'ISTIO_MUTUAL'}, 'portLevelSettings': "
	    "[{'port': {'number': 80}, "
	    "'loadBalancer': {'simple': 'RANDOM'}}]}, 'subsets': [{'name': 'v1', 'labels': "
	    "{'version': 'v1'}}]}");
	refuse(m, key, "{}", "host", "host is required");
	refuse(m, key, "{'host': 'orders', 'trafficPolicy': {'outlierDetection': {}}}",
	       "trafficPolicy.outlierDetection", "not supported yet by this release");
	refuse(m, key, "{'host': 'orders', 'trafficPolicy': {'tls': {'mode': 'SIMPLE'}}}",
	       "trafficPolicy.tls.mode", "SIMPLE is not supported yet");
	refuse(m, key, "{'host': 'orders', 'subsets': [{'name': 'a'}, {'name': 'a'}]}",
	       "subsets[1].name", "the same name");
	refuse(m, key, "{'host': 'orders', 'subsets': [{'labels': {'a b': 'c'}}]}",
	       "subsets[0].labels[\"a b\"]", "is not a label name");
	for (const char *const *t =
		     (const char *const[]){ "0s", "1", "s", "1h1ms", "1.5", "-1s", "1us", "1.0001s",
					    "99999999999999999h", "", NULL };
	     *t; t++) {
		char text[256];

		snprintf(text, sizeof(text),
			 "{'host': 'o', 'trafficPolicy': {'connectionPool': {'tcp': "
			 "{'connectTimeout': '%s'}}}}",
			 *t);
		refuse(m, key, text, "trafficPolicy.connectionPool.tcp.connectTimeout",
		       "is not a duration");
	}
	refuse(m, key,
	       "{'host': 'o', 'trafficPolicy': {'connectionPool': {'tcp': {'connectTimeout': "
	       "10}}}}",
	       "trafficPolicy.connectionPool.tcp.connectTimeout",
	       "expected a duration, found a number");
}

static void test_virtual_service(void **state)
{
	struct model *m = *state;
	const char *key = "weft:VirtualService:orders";

	put(m, key,
	    "{'hosts': ['orders'], 'gateways': ['mesh'], 'tcp': [{'match': [{'port': 80, "
	    "'destinationSubnets': "
	    "['10.0.0.0/8'], 'sourceLabels': {'app': 'web'}, 'sourceNamespace': 'default'}], "
	    "'route': [{'destination': "
	    "{'host': 'orders', 'subset': 'v1', 'port': {'number': 81}}, 'weight': 90}, "
	    "{'destination': {'host': "
	    "'orders', 'subset': 'v2'}, 'weight': 10}]}]}");
	refuse(m, key, "{'hosts': ['a'], 'gateways': ['ingress'], 'tcp': []}", "gateways[0]",
	       "\"ingress\" is not one of mesh");
	refuse(m, key, "{'hosts': ['*'], 'tcp': [{'route': [{'destination': {'host': 'a'}}]}]}",
	       "hosts", "* is not allowed");
	refuse(m, key, "{'hosts': ['a']}", "tcp", "without routes does nothing");
	refuse(m, key, "{'hosts': ['a'], 'tcp': [{'route': []}]}", "tcp[0].route",
	       "route is required");
	refuse(m, key,
	       "{'hosts': ['a'], 'tcp': [{'route': [{'destination': {'host': 'a'}}, "
	       "{'destination': {'host': 'b'}}]}]}",
	       "tcp[0].route", "the weights add up to 0");
	refuse(m, key,
	       "{'hosts': ['a'], 'tcp': [{'route': [{'destination': {'host': 'a'}, 'weight': "
	       "-1}]}]}",
	       "tcp[0].route[0].weight", "-1 is not from 0");
	refuse(m, key,
	       "{'hosts': ['a'], 'tls': [], 'tcp': [{'route': [{'destination': {'host': 'a'}}]}]}",
	       "tls", "not supported yet");
}

static void test_workloads(void **state)
{
	struct model *m = *state;

	put(m, "weft:WorkloadEntry:vm1",
	    "{'address': '10.0.0.1', 'ports': {'http': 8080}, 'labels': {'app': 'a'}, 'network': "
	    "'n', 'locality': 'l'}");
	refuse(m, "weft:WorkloadEntry:vm1", "{'address': '10.0.0.1', 'novel': 1}", "novel",
	       "unknown field");
	put(m, "weft:WorkloadEntry:vm1",
	    "{'metadata': {'annotations': {'weft/host': 'h1', 'weft/more': 'x'}, 'novel': 1}, "
	    "'spec': {'address': '10.0.0.1', 'novel': 1}}");
	refuse(m, "weft:WorkloadEntry:vm1",
	       "{'metadata': {'annotations': {'weft/host': 'h1'}}, 'spec': {'address': 'x'}}",
	       "spec.address", "is not an IPv4");
	put(m, "weft:WorkloadGroup:orders",
	    "{'metadata': {'labels': {'app': 'orders'}}, 'template': {'serviceAccount': 'orders', "
	    "'ports': {'http': 8080}}, 'selectors': ['unix:uid:1000', "
	    "'unix:path:/usr/sbin/nginx'], 'hosts': ['h1'], 'mode': 'observe'}");
	refuse(m, "weft:WorkloadGroup:orders", "{'selectors': ['unix:path:/bin/x']}", "selectors",
	       "only narrow");
	refuse(m, "weft:WorkloadGroup:orders", "{'selectors': ['uid:1']}", "selectors[0]",
	       "is not unix:uid:N");
	refuse(m, "weft:WorkloadGroup:orders", "{'probe': {}}", "probe", "not supported yet");
	refuse(m, "weft:WorkloadGroup:orders", "{'mode': 'on'}", "mode",
	       "is not one of off, observe, enforce");
}

static void test_security(void **state)
{
	struct model *m = *state;
	const char *key = "weft:AuthorizationPolicy:p";

	put(m, key, "{}");
	put(m, key, "{'rules': [{}]}");
	put(m, key, "{'action': 'AUDIT', 'dryRun': true, 'rules': null}");
	refuse(m, key, "{'action': 'DENY'}", "rules", "never denies");
	refuse(m, key, "{'action': 'CUSTOM', 'provider': {'name': 'x'}}", "action",
	       "CUSTOM is not supported yet");
	refuse(m, key, "{'rules': [{'from': []}]}", "rules[0].from", "is empty");
	refuse(m, key, "{'rules': [{'from': [{}]}]}", "rules[0].from[0].source",
	       "source is required");
	refuse(m, key, "{'rules': [{'from': [{'source': {}}]}]}", "rules[0].from[0].source",
	       "at least one condition");
	refuse(m, key, "{'rules': [{'to': [{'operation': {'ports': ['http']}}]}]}",
	       "rules[0].to[0].operation.ports[0]", "is not a port number");
	refuse(m, key, "{'rules': [{'to': [{'operation': {'ports': [80]}}]}]}",
	       "rules[0].to[0].operation.ports[0]", "expected a text, found a number");
	refuse(m, key, "{'rules': [{'from': [{'source': {'ipBlocks': ['10.0.0.0/40']}}]}]}",
	       "rules[0].from[0].source.ipBlocks[0]", "CIDR");
	refuse(m, key, "{'rules': [{'from': [{'source': {'principals': ['']}}]}]}",
	       "rules[0].from[0].source.principals[0]", "is empty");
	refuse(m, key, "{'rules': [{'when': [{'key': 'source.namespaces', 'values': ['a']}]}]}",
	       "rules[0].when[0].key", "did you mean \"source.namespace\"?");
	refuse(m, key, "{'rules': [{'when': [{'key': 'source.ip'}]}]}", "rules[0].when[0]",
	       "at least one of values and notValues");
	refuse(m, key, "{'rules': [{'form': []}]}", "rules[0].form", "did you mean \"from\"?");
	refuse(m, key, "{'selector': {'app': 'x'}}", "selector.app", "unknown field");
	refuse(m, key, "{'targetRefs': []}", "targetRefs", "not supported yet");
	refuse(m, "weft:PeerAuthentication:p", "{'portLevelMtls': {'80': {'mode': 'STRICT'}}}",
	       "portLevelMtls", "name it by selector");
	refuse(m, "weft:PeerAuthentication:p",
	       "{'selector': {'matchLabels': {'app': 'a'}}, 'portLevelMtls': {'http': {'mode': "
	       "'STRICT'}}}",
	       "portLevelMtls.http", "is not a port number");
}

static void test_other_kinds(void **state)
{
	struct model *m = *state;

	refuse(m, "weft:EnvoyFilter:x", "{}", "", "there is no Envoy");
	refuse(m, "weft:RateLimit:x", "{}", "", "RateLimit is not supported yet by this release");
	put(m, "weft:MeshConfig:default",
	    "{'trustDomainAliases': ['old.example'], 'connectTimeout': '3s', 'mode': 'observe', "
	    "'enableAutoMtls': true, 'outboundTrafficPolicy': {'mode': 'ALLOW_ANY'}, "
	    "'trustDomain': 'cluster.local'}");
	refuse(m, "weft:MeshConfig:other", "{}", "", "one MeshConfig");
	refuse(m, "weft:MeshConfig:default", "{'trustDomain': 'x'}", "trustDomain",
	       "--trust-domain");
	refuse(m, "weft:MeshConfig:default", "{'enableAutoMtls': false}", "enableAutoMtls",
	       "is not one of true");
	refuse(m, "weft:MeshConfig:default", "{'outboundTrafficPolicy': {'mode': 'REGISTRY_ONLY'}}",
	       "outboundTrafficPolicy.mode", "not supported yet");
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(test_keys),
		T(test_manifest),
		T(test_json),
		T(test_every_error),
		T(test_errors_are_bounded),
		T(test_service_entry),
		T(test_destination_rule),
		T(test_virtual_service),
		T(test_workloads),
		T(test_security),
		T(test_other_kinds),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
