/* Where a new connection goes: ports, routes, subsets, policies, identities. */
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

static struct wire_label web_labels[] = { { { "app", 3 }, { "web", 3 } },
					  { { "version", 7 }, { "v1", 2 } } };
static const struct caller web = { "web.default", "default", "h1", 7, web_labels, 2 };

static int ask_as(struct model *m, const struct caller *c, const char *service, unsigned port,
		  const char *address, bool exact, struct wire_service *out)
{
	struct weft_addr a;
	struct wire_ask ask = { .service = wire_str_of(service), .port = port, .exact = exact };

	addr_parse(&a, address);
	ask.address = (struct wire_bin){ a.ip, sizeof(a.ip) };
	return model_service(m, c, &ask, &arena, out);
}

static struct wire_service ask(struct model *m, const char *service, unsigned port)
{
	struct wire_service s;

	assert_int_equal(ask_as(m, &web, service, port, "239.240.0.1", false, &s), 0);
	return s;
}

static bool has(const struct wire_cluster *c, const char *address, unsigned port)
{
	struct weft_addr a;

	addr_parse(&a, address);
	for (uint32_t i = 0; i < c->endpoints.n; i++)
		if (memcmp(c->endpoints.v[i].address.p, a.ip, 16) == 0 &&
		    c->endpoints.v[i].port == port)
			return true;
	return false;
}

static void test_ports(void **state)
{
	struct model *m = *state;
	struct wire_service s;

	announce(m, "o1", "orders", "v1", "10.0.0.1", 8081, true);
	announce(m, "o2", "orders", "v2", "10.0.0.2", 8082, true);
	announce(m, "o3", "orders", "v2", "10.0.0.3", 9000, false);
	s = ask(m, "orders.default", 80); /* from 80: the main ports */
	assert_int_equal(s.clusters.n, 1);
	assert_int_equal(s.clusters.v[0].endpoints.n, 2);
	assert_true(has(&s.clusters.v[0], "10.0.0.1", 8081));
	assert_true(has(&s.clusters.v[0], "10.0.0.2", 8082));
	s = ask(m, "orders.default", 9000); /* the same number */
	assert_int_equal(s.clusters.v[0].endpoints.n, 1);
	assert_true(has(&s.clusters.v[0], "10.0.0.3", 9000));
	s = ask(m, "orders.default", 443); /* neither: refused */
	assert_int_equal(s.clusters.n, 0);
	assert_int_equal(s.reason, WEFT_REASON_NO_ENDPOINT);

	put(m, "weft:ServiceEntry:orders",
	    "{'hosts': ['orders'], 'ports': [{'number': 443, 'name': 'x', 'targetPort': 8081}, "
	    "{'number': 80, 'name': 'http'}]}");
	s = ask(m, "orders.default", 443); /* targetPort, where somebody listens on it */
	assert_int_equal(s.clusters.v[0].endpoints.n, 1);
	assert_true(has(&s.clusters.v[0], "10.0.0.1", 8081));
	s = ask(m, "orders.default", 80);
	assert_int_equal(s.clusters.v[0].endpoints.n, 2);
	assert_int_equal(s.external, 0);
}

static void test_defaults(void **state)
{
	struct model *m = *state;
	struct wire_service s;
	const struct wire_cluster *c;

	announce(m, "o1", "orders", "v1", "10.0.0.1", 80, true);
	s = ask(m, "orders.default", 80);
	c = &s.clusters.v[0];
	assert_string_equal(c->host.p, "orders.default");
	assert_string_equal(c->sni.p, "orders.default");
	assert_int_equal(c->lb, WEFT_LB_LEAST_REQUEST);
	assert_int_equal(c->tls, WEFT_TLS_AUTO);
	assert_int_equal(c->connect_timeout_ms, 10000);
	assert_int_equal(c->identities.n, 1);
	assert_string_equal(c->identities.v[0].p, "spiffe://cluster.local/ns/default/sa/orders");
	assert_int_equal(c->endpoints.v[0].tls, 1);
	assert_int_equal(c->endpoints.v[0].weight, 1);
	assert_string_equal(c->endpoints.v[0].entry.p, "default/o1");
	assert_string_equal(c->endpoints.v[0].version.p, "v1");
	assert_int_equal(s.depends.n, 0);
	put(m, "weft:MeshConfig:default", "{'connectTimeout': '3s'}");
	s = ask(m, "orders.default", 80);
	assert_int_equal(s.clusters.v[0].connect_timeout_ms, 3000);
}

static void test_unknown(void **state)
{
	struct model *m = *state;
	struct wire_service s;
	struct weft_addr vip;

	assert_int_equal(ask_as(m, &web, "none.default", 80, "239.240.0.1", false, &s), -ENOENT);
	assert_int_equal(s.reason, WEFT_REASON_UNKNOWN_VIP);
	addr_parse(&vip, "239.240.0.9");
	model_vip(m, "none.default", &vip, NULL);
	s = ask(m, "none.default", 80);
	assert_int_equal(s.reason, WEFT_REASON_NO_ENDPOINT);
}

static void test_loopback(void **state)
{
	struct model *m = *state;
	const struct caller other_ns = { "web.default", "default", "h1", 8, NULL, 0 };
	const struct caller other_host = { "web.default", "default", "h2", 7, NULL, 0 };
	struct wire_service s;

	announce(m, "o1", "orders", "v1", "127.0.0.1", 8081, true);
	s = ask(m, "orders.default", 80);
	assert_int_equal(s.clusters.v[0].endpoints.n, 1);
	assert_int_equal(ask_as(m, &other_ns, "orders.default", 80, "239.240.0.1", false, &s), 0);
	assert_int_equal(s.reason, WEFT_REASON_NO_ENDPOINT);
	assert_int_equal(ask_as(m, &other_host, "orders.default", 80, "239.240.0.1", false, &s), 0);
	assert_int_equal(s.reason, WEFT_REASON_NO_ENDPOINT);
}

static void test_exact(void **state)
{
	struct model *m = *state;
	const struct caller other = { "web.default", "default", "h2", 7, NULL, 0 };
	struct wire_service s;

	announce(m, "o1", "orders", "v1", "10.0.0.1", 8081, true);
	announce(m, "o2", "orders", "v2", "10.0.0.2", 8081, true);
	put(m, "weft:VirtualService:orders",
	    "{'hosts': ['orders'], 'tcp': [{'route': [{'destination': {'host': 'web'}}]}]}");
	assert_int_equal(ask_as(m, &web, "orders.default", 8081, "10.0.0.2", true, &s), 0);
	assert_int_equal(s.clusters.n, 1);
	assert_int_equal(s.clusters.v[0].endpoints.n, 1);
	assert_true(has(&s.clusters.v[0], "10.0.0.2", 8081));
	assert_string_equal(s.clusters.v[0].identities.v[0].p,
			    "spiffe://cluster.local/ns/default/sa/orders");
	assert_int_equal(ask_as(m, &web, "orders.default", 80, "10.0.0.2", true, &s), 0);
	assert_int_equal(s.reason, WEFT_REASON_NO_ENDPOINT);

	put(m, "weft:WorkloadEntry:default/o3",
	    "{'metadata': {'annotations': {'weft/host': 'h1', 'weft/netns': '7', 'weft/wildcard': "
	    "'4'}}, 'spec': {'address': "
	    "'10.0.0.3', 'ports': {'a': 8083}, 'labels': {'app': 'orders'}}}");
	assert_int_equal(ask_as(m, &web, "orders.default", 8083, "127.0.0.1", true, &s), 0);
	assert_true(has(&s.clusters.v[0], "127.0.0.1", 8083));
	assert_int_equal(ask_as(m, &web, "orders.default", 8083, "::1", true, &s), 0);
	assert_int_equal(s.reason, WEFT_REASON_NO_ENDPOINT);
	assert_int_equal(ask_as(m, &other, "orders.default", 8083, "127.0.0.1", true, &s), 0);
	assert_int_equal(s.reason, WEFT_REASON_NO_ENDPOINT);
}

/* istio.io, "TCP Traffic Shifting": virtual-service-tcp-echo-20-v2 and its DestinationRule. */
static void test_weights_and_subsets(void **state)
{
	struct model *m = *state;
	struct wire_service s;

	announce(m, "t1", "tcp-echo", "v1", "10.0.0.1", 9000, true);
	announce(m, "t2", "tcp-echo", "v2", "10.0.0.2", 9000, true);
	put(m, "weft:DestinationRule:tcp-echo-destination",
	    "{'apiVersion': 'networking.istio.io/v1', 'kind': 'DestinationRule', 'metadata': "
	    "{'name': 'tcp-echo-destination'}, "
	    "'spec': {'host': 'tcp-echo', 'subsets': [{'name': 'v1', 'labels': {'version': 'v1'}}, "
	    "{'name': 'v2', 'labels': {'version': 'v2'}}]}}");
	put(m, "weft:VirtualService:tcp-echo",
	    "{'apiVersion': 'networking.istio.io/v1', 'kind': 'VirtualService', 'metadata': "
	    "{'name': 'tcp-echo'}, 'spec': {'hosts': "
	    "['tcp-echo'], 'gateways': ['mesh'], 'tcp': [{'match': [{'port': 9000}], 'route': "
	    "[{'destination': {'host': "
	    "'tcp-echo', 'port': {'number': 9000}, 'subset': 'v1'}, 'weight': 80}, {'destination': "
	    "{'host': 'tcp-echo', "
	    "'port': {'number': 9000}, 'subset': 'v2'}, 'weight': 20}]}]}}");
	s = ask(m, "tcp-echo.default", 9000);
	assert_int_equal(s.clusters.n, 2);
	assert_int_equal(s.clusters.v[0].weight, 80);
	assert_int_equal(s.clusters.v[1].weight, 20);
	assert_string_equal(s.clusters.v[0].subset.p, "v1");
	assert_int_equal(s.clusters.v[0].endpoints.n, 1);
	assert_true(has(&s.clusters.v[0], "10.0.0.1", 9000));
	assert_true(has(&s.clusters.v[1], "10.0.0.2", 9000));

	/* Without its subset one share has nowhere to go; the other stands. */
	put(m, "weft:DestinationRule:tcp-echo-destination",
	    "{'host': 'tcp-echo', 'subsets': [{'name': 'v1', 'labels': {'version': 'v1'}}]}");
	s = ask(m, "tcp-echo.default", 9000);
	assert_int_equal(s.clusters.n, 2);
	assert_int_equal(s.clusters.v[1].endpoints.n, 0);
}

/* istio.io, VirtualService reference: bookinfo-mongo. */
static void test_other_host(void **state)
{
	struct model *m = *state;
	struct wire_service s;

	announce(m, "m1", "mongo", "v1", "10.0.0.1", 27017, true);
	announce(m, "b1", "backup", "v1", "10.0.0.2", 5555, true);
	put(m, "weft:VirtualService:bookinfo-mongo",
	    "{'hosts': ['mongo.default.svc.cluster.local'], 'tcp': [{'match': [{'port': 27017}], "
	    "'route': [{'destination': {'host': 'backup.default.svc.cluster.local', 'port': "
	    "{'number': 5555}}}]}]}");
	s = ask(m, "mongo.default", 27017);
	assert_int_equal(s.clusters.n, 1);
	assert_string_equal(s.clusters.v[0].host.p, "backup.default");
	assert_string_equal(s.clusters.v[0].sni.p, "backup.default");
	assert_string_equal(s.clusters.v[0].identities.v[0].p,
			    "spiffe://cluster.local/ns/default/sa/backup");
	assert_true(has(&s.clusters.v[0], "10.0.0.2", 5555));
	assert_int_equal(s.depends.n, 1);
	assert_string_equal(s.depends.v[0].p, "backup.default");
	s = ask(m, "mongo.default", 80); /* Istio: no route matches, so the service itself */
	assert_true(has(&s.clusters.v[0], "10.0.0.1", 27017));
}

static void test_matches(void **state)
{
	struct model *m = *state;
	const struct caller cron = { "cron.jobs", "jobs", "h1", 7, NULL, 0 };
	struct wire_service s;

	announce(m, "a1", "a", "v1", "10.0.0.1", 80, true);
	announce(m, "b1", "b", "v1", "10.0.0.2", 80, true);
	announce(m, "c1", "c", "v1", "10.0.0.3", 80, true);
	put(m, "weft:VirtualService:a",
	    "{'hosts': ['a'], 'tcp': [{'match': [{'sourceLabels': {'app': 'web', 'version': 'v1'}, "
	    "'port': 80}], 'route': "
	    "[{'destination': {'host': 'b'}}]}, {'match': [{'sourceNamespace': 'jobs', "
	    "'destinationSubnets': ['10.0.0.0/8']}, "
	    "{'port': 81}], 'route': [{'destination': {'host': 'c'}}]}]}");
	s = ask(m, "a.default", 80);
	assert_string_equal(s.clusters.v[0].host.p, "b.default");
	assert_int_equal(ask_as(m, &cron, "a.default", 80, "10.3.0.1", false, &s), 0);
	assert_string_equal(s.clusters.v[0].host.p, "c.default");
	assert_int_equal(ask_as(m, &cron, "a.default", 80, "239.240.0.1", false, &s), 0);
	assert_string_equal(s.clusters.v[0].host.p, "a.default");
}

static void test_policies(void **state)
{
	struct model *m = *state;
	struct wire_service s;

	announce(m, "o1", "orders", "v1", "10.0.0.1", 80, true);
	put(m, "weft:DestinationRule:wild",
	    "{'host': '*.default.svc.cluster.local', 'trafficPolicy': {'tls': {'mode': "
	    "'DISABLE'}}}");
	s = ask(m, "orders.default", 80);
	assert_int_equal(s.clusters.v[0].tls, WEFT_TLS_DISABLE);
	put(m, "weft:DestinationRule:orders",
	    "{'host': 'orders', 'trafficPolicy': {'loadBalancer': {'simple': 'RANDOM'}, "
	    "'connectionPool': {'tcp': {'connectTimeout': "
	    "'250ms'}}, 'tls': {'mode': 'ISTIO_MUTUAL'}, 'portLevelSettings': [{'port': {'number': "
	    "8080}, 'loadBalancer': "
	    "{'simple': 'ROUND_ROBIN'}}]}, 'subsets': [{'name': 'v1', 'labels': {'version': 'v1'}, "
	    "'trafficPolicy': "
	    "{'loadBalancer': {'simple': 'LEAST_CONN'}}}]}");
	s = ask(m, "orders.default", 80); /* the specific host beats the wildcard */
	assert_int_equal(s.clusters.v[0].tls, WEFT_TLS_MUTUAL);
	assert_int_equal(s.clusters.v[0].lb, WEFT_LB_RANDOM);
	assert_int_equal(s.clusters.v[0].connect_timeout_ms, 250);
	put(m, "weft:VirtualService:orders",
	    "{'hosts': ['orders'], 'tcp': [{'match': [{'port': 80}], 'route': [{'destination': "
	    "{'host': 'orders', 'subset': 'v1'}}]}, {'route': [{'destination': {'host': "
	    "'orders'}}]}]}");
	s = ask(m, "orders.default", 80); /* a subset overrides part by part */
	assert_int_equal(s.clusters.v[0].lb, WEFT_LB_LEAST_REQUEST);
	assert_int_equal(s.clusters.v[0].tls, WEFT_TLS_MUTUAL);
	assert_int_equal(s.clusters.v[0].connect_timeout_ms, 250);
	announce(m, "o2", "orders", "v1", "10.0.0.1", 8080, false);
	s = ask(m, "orders.default", 8080); /* a port replaces everything */
	assert_int_equal(s.clusters.v[0].lb, WEFT_LB_ROUND_ROBIN);
	assert_int_equal(s.clusters.v[0].tls, WEFT_TLS_AUTO);
	assert_int_equal(s.clusters.v[0].connect_timeout_ms, 10000);
}

/* istio.io, ServiceEntry reference: external-svc-mongocluster, and one with static endpoints and identities. */
static void test_service_entries(void **state)
{
	struct model *m = *state;
	struct wire_service s;

	put(m, "weft:ServiceEntry:external-svc-mongocluster",
	    "{'hosts': ['mymongodb.somedomain'], 'addresses': ['192.192.192.192/24'], 'ports': "
	    "[{'number': 27018, 'name': "
	    "'mongodb', 'protocol': 'MONGO'}], 'location': 'MESH_INTERNAL', 'resolution': "
	    "'STATIC', 'endpoints': [{'address': "
	    "'2.2.2.2'}, {'address': '3.3.3.3', 'ports': {'mongodb': 27019}, 'weight': 4, "
	    "'serviceAccount': 'mongo', 'labels': "
	    "{'security.istio.io/tlsMode': 'istio'}}]}");
	assert_int_equal(ask_as(m, &web, "mymongodb.somedomain", 27018, "192.192.192.5", false, &s),
			 0);
	assert_int_equal(s.external, 0);
	assert_true(has(&s.clusters.v[0], "2.2.2.2", 27018));
	assert_true(has(&s.clusters.v[0], "3.3.3.3", 27019));
	assert_int_equal(s.clusters.v[0].endpoints.v[1].weight, 4);
	assert_int_equal(s.clusters.v[0].endpoints.v[0].tls, 0);
	assert_int_equal(s.clusters.v[0].endpoints.v[1].tls, 1);
	assert_int_equal(ask_as(m, &web, "mymongodb.somedomain", 1, "192.192.192.5", false, &s), 0);
	assert_int_equal(s.reason, WEFT_REASON_NO_ENDPOINT);

	put(m, "weft:ServiceEntry:external-svc-httpbin",
	    "{'hosts': ['httpbin.com'], 'location': 'MESH_EXTERNAL', 'ports': [{'number': 80, "
	    "'name': 'http', 'protocol': 'HTTP'}], "
	    "'resolution': 'STATIC', 'endpoints': [{'address': '4.4.4.4'}], 'subjectAltNames': "
	    "['spiffe://cluster.local/ns/httpbin-ns/sa/httpbin-service-account']}");
	s = ask(m, "httpbin.com", 80);
	assert_int_equal(s.external, 1);
	assert_int_equal(s.clusters.v[0].identities.n, 1);
	assert_string_equal(s.clusters.v[0].identities.v[0].p,
			    "spiffe://cluster.local/ns/httpbin-ns/sa/httpbin-service-account");

	put(m, "weft:ServiceEntry:pass",
	    "{'hosts': ['pass.example.com'], 'addresses': ['5.5.5.0/24'], 'ports': [{'number': "
	    "443, 'name': 'tls', 'protocol': 'TLS'}], 'resolution': 'NONE'}");
	assert_int_equal(ask_as(m, &web, "pass.example.com", 443, "5.5.5.7", false, &s), 0);
	assert_true(has(&s.clusters.v[0], "5.5.5.7", 443));
	assert_int_equal(s.external, 1);
	s = ask(m, "pass.example.com", 443); /* by its VIP there is no original destination */
	assert_int_equal(s.reason, WEFT_REASON_NO_ENDPOINT);
}

/* istio.io, ServiceEntry reference: details-svc with a workloadSelector over VMs and instances. */
static void test_workload_selector(void **state)
{
	struct model *m = *state;
	struct wire_service s;

	put(m, "weft:WorkloadEntry:details-vm-1",
	    "{'serviceAccount': 'details', 'address': '2.2.2.2', 'labels': {'app': 'details', "
	    "'instance-id': 'vm1'}}");
	put(m, "weft:WorkloadEntry:details-vm-2",
	    "{'serviceAccount': 'details', 'address': '3.3.3.3', 'labels': {'app': 'details', "
	    "'instance-id': 'vm2'}, 'ports': {'http': 8080}}");
	put(m, "weft:WorkloadEntry:other/details-vm-3",
	    "{'address': '4.4.4.4', 'labels': {'app': 'details'}}");
	put(m, "weft:ServiceEntry:details-svc",
	    "{'hosts': ['details.bookinfo.com'], 'location': 'MESH_INTERNAL', 'ports': [{'number': "
	    "80, 'name': 'http', 'protocol': 'HTTP', 'targetPort': 9080}], 'resolution': 'STATIC', "
	    "'workloadSelector': {'labels': {'app': 'details'}}}");
	s = ask(m, "details.bookinfo.com", 80);
	assert_int_equal(s.clusters.v[0].endpoints.n, 2);
	assert_true(has(&s.clusters.v[0], "2.2.2.2", 9080));
	assert_true(has(&s.clusters.v[0], "3.3.3.3", 8080));
	assert_int_equal(s.clusters.v[0].identities.n, 1);
	assert_string_equal(s.clusters.v[0].identities.v[0].p,
			    "spiffe://cluster.local/ns/default/sa/details");
	s = ask(m, "details.default", 9080); /* they are a service by their label, too */
	assert_true(has(&s.clusters.v[0], "2.2.2.2", 9080));
}

static void test_passthrough(void **state)
{
	struct model *m = *state;
	struct wire_service s;

	put(m, "weft:ServiceEntry:db",
	    "{'hosts': ['db.example.com'], 'addresses': ['6.6.6.0/24'], 'resolution': 'STATIC', "
	    "'endpoints': [{'address': '6.6.6.1'}, {'address': '6.6.6.2'}]}");
	put(m, "weft:DestinationRule:db",
	    "{'host': 'db.example.com', 'trafficPolicy': {'loadBalancer': {'simple': "
	    "'PASSTHROUGH'}}}");
	assert_int_equal(ask_as(m, &web, "db.example.com", 5432, "6.6.6.2", false, &s), 0);
	assert_int_equal(s.clusters.v[0].endpoints.n, 1);
	assert_true(has(&s.clusters.v[0], "6.6.6.2", 5432));
	assert_int_equal(ask_as(m, &web, "db.example.com", 5432, "6.6.6.9", false, &s), 0);
	assert_true(has(&s.clusters.v[0], "6.6.6.9", 5432));
}

static void test_withdrawal(void **state)
{
	struct model *m = *state;
	struct wire_service s;

	announce(m, "o1", "orders", "v1", "10.0.0.1", 80, true);
	announce(m, "o2", "orders", "v1", "10.0.0.2", 80, true);
	model_del(m, "weft:WorkloadEntry:default/o1");
	s = ask(m, "orders.default", 80);
	assert_int_equal(s.clusters.v[0].endpoints.n, 1);
	announce(m, "o2", "orders2", "v1", "10.0.0.2", 80,
		 true); /* the entry moves to another service */
	assert_int_equal(ask_as(m, &web, "orders.default", 80, "239.240.0.1", false, &s), -ENOENT);
	s = ask(m, "orders2.default", 80);
	assert_int_equal(s.clusters.v[0].endpoints.n, 1);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(test_ports),
		T(test_defaults),
		T(test_unknown),
		T(test_loopback),
		T(test_exact),
		T(test_weights_and_subsets),
		T(test_other_host),
		T(test_matches),
		T(test_policies),
		T(test_service_entries),
		T(test_workload_selector),
		T(test_passthrough),
		T(test_withdrawal),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
