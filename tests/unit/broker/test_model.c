/* Documents over time: last good version, conflicts, what a change touches, names, groups. */
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

static enum model_state state_of(struct model *m, const char *key, struct model_document *d)
{
	assert_int_equal(model_document(m, key, d), 0);
	return d->state;
}

static void test_last_good(void **state)
{
	struct model *m = *state;
	const char *key = "weft:PeerAuthentication:default";
	struct model_document d;
	char good[DOC_REVISION + 1];

	assert_int_equal(model_document(m, key, &d), -ENOENT);
	refuse(m, key, "{'mtls': 1}", "mtls", "expected an object");
	assert_int_equal(state_of(m, key, &d), MODEL_REFUSED);
	assert_null(d.json);
	assert_string_equal(d.in_force, "");
	put(m, key, "{'mtls': {'mode': 'STRICT'}}");
	assert_int_equal(state_of(m, key, &d), MODEL_ACCEPTED);
	assert_string_equal(d.revision, d.in_force);
	memcpy(good, d.in_force, sizeof(good));
	refuse(m, key, "{'mtls': {'mode': 'STRIKT'}}", "mtls.mode", "STRIKT");
	assert_int_equal(state_of(m, key, &d), MODEL_REFUSED);
	assert_string_equal(d.in_force, good);
	assert_string_not_equal(d.revision, good);
	assert_int_equal(d.errors->n, 1);
	assert_non_null(strstr(d.json, "STRICT"));
}

/* Appends a word and a blank to a text of LIST_MAX bytes. */
#define LIST_MAX 512
static void append(char *list, const char *word)
{
	size_t n = strlen(list);

	snprintf(list + n, LIST_MAX - n, "%s ", word);
}

static int list_keys(void *arg, const struct model_document *d)
{
	append(arg, d->key);
	return 0;
}

static void test_order(void **state)
{
	struct model *m = *state;
	char keys[LIST_MAX] = "";

	put(m, "weft:VirtualService:b",
	    "{'hosts': ['b'], 'tcp': [{'route': [{'destination': {'host': 'b'}}]}]}");
	put(m, "weft:DestinationRule:z", "{'host': 'z'}");
	put(m, "weft:DestinationRule:a", "{'host': 'a'}");
	put(m, "weft:MeshConfig:default", "{}");
	assert_int_equal(model_each_document(m, NULL, list_keys, keys), 0);
	assert_string_equal(keys, "weft:DestinationRule:a weft:DestinationRule:z "
				  "weft:MeshConfig:default weft:VirtualService:b ");
	keys[0] = '\0';
	model_each_document(m, "DestinationRule", list_keys, keys);
	assert_string_equal(keys, "weft:DestinationRule:a weft:DestinationRule:z ");
	assert_int_equal(model_each_document(m, "Nothing", list_keys, keys), 0);
}

static void test_conflicts(void **state)
{
	struct model *m = *state;
	struct model_document d;

	put(m, "weft:DestinationRule:b", "{'host': 'orders.default.svc.cluster.local'}");
	assert_int_equal(state_of(m, "weft:DestinationRule:b", &d), MODEL_ACCEPTED);
	put(m, "weft:DestinationRule:a", "{'host': 'orders'}");
	assert_int_equal(state_of(m, "weft:DestinationRule:a", &d), MODEL_ACCEPTED);
	assert_int_equal(state_of(m, "weft:DestinationRule:b", &d), MODEL_CONFLICT);
	assert_string_equal(d.errors->v[0].message, "conflicts with weft:DestinationRule:a");
	put(m, "weft:DestinationRule:c", "{'host': '*.default'}");
	assert_int_equal(state_of(m, "weft:DestinationRule:c", &d), MODEL_ACCEPTED);
	model_del(m, "weft:DestinationRule:a");
	assert_int_equal(state_of(m, "weft:DestinationRule:b", &d), MODEL_ACCEPTED);

	/* A loser holds no host: of three in a chain the first and the last are in force. */
	put(m, "weft:ServiceEntry:a", "{'hosts': ['h1.x.y']}");
	put(m, "weft:ServiceEntry:b", "{'hosts': ['h1.x.y', 'h2.x.y']}");
	put(m, "weft:ServiceEntry:c", "{'hosts': ['h2.x.y']}");
	assert_int_equal(state_of(m, "weft:ServiceEntry:b", &d), MODEL_CONFLICT);
	assert_int_equal(state_of(m, "weft:ServiceEntry:c", &d), MODEL_ACCEPTED);
	model_del(m, "weft:ServiceEntry:a");
	assert_int_equal(state_of(m, "weft:ServiceEntry:b", &d), MODEL_ACCEPTED);
	assert_int_equal(state_of(m, "weft:ServiceEntry:c", &d), MODEL_CONFLICT);

	put(m, "weft:PeerAuthentication:one", "{}");
	put(m, "weft:PeerAuthentication:two", "{}");
	put(m, "weft:PeerAuthentication:three", "{'selector': {'matchLabels': {'app': 'x'}}}");
	assert_int_equal(state_of(m, "weft:PeerAuthentication:one", &d), MODEL_ACCEPTED);
	assert_int_equal(state_of(m, "weft:PeerAuthentication:two", &d), MODEL_CONFLICT);
	assert_int_equal(state_of(m, "weft:PeerAuthentication:three", &d), MODEL_ACCEPTED);

	put(m, "weft:AuthorizationPolicy:default/p", "{}");
	put(m, "weft:AuthorizationPolicy:p", "{}");
	assert_int_equal(state_of(m, "weft:AuthorizationPolicy:p", &d), MODEL_CONFLICT);
}

static void note_service(void *arg, const char *service)
{
	append(arg, service);
}

static void assert_affected(struct model *m, const char *key, const char *want)
{
	char got[LIST_MAX] = "";

	model_affected(m, key, note_service, got);
	for (const char *s = want; *s; s += strcspn(s, " ") + 1) {
		char name[128] = " ";

		strncat(name, s, strcspn(s, " ") + 1);
		if (!strstr(got, name + 1))
			fail_msg("%s: \"%s\" lacks %s", key, got, name);
	}
	if (!*want)
		assert_string_equal(got, "");
}

static void test_affected(void **state)
{
	struct model *m = *state;

	announce(m, "o1", "orders", "v1", "10.0.0.1", 8081, true);
	announce(m, "w1", "web", "v1", "10.0.0.2", 8082, true);
	assert_affected(m, "weft:WorkloadEntry:default/o1", "orders.default ");
	put(m, "weft:ServiceEntry:s",
	    "{'hosts': ['shop.example.com'], 'workloadSelector': {'labels': {'app': 'orders'}}}");
	assert_affected(m, "weft:WorkloadEntry:default/o1", "orders.default shop.example.com ");
	put(m, "weft:DestinationRule:all", "{'host': '*.local'}");
	assert_affected(m, "weft:DestinationRule:all", "orders.default web.default ");
	put(m, "weft:VirtualService:a",
	    "{'hosts': ['a', 'b'], 'tcp': [{'route': [{'destination': {'host': 'b'}}]}]}");
	put(m, "weft:VirtualService:b",
	    "{'hosts': ['b', 'c'], 'tcp': [{'route': [{'destination': {'host': 'b'}}]}]}");
	assert_affected(m, "weft:VirtualService:a", "a.default b.default c.default ");
	put(m, "weft:MeshConfig:default", "{}");
	assert_affected(m, "weft:MeshConfig:default", "orders.default web.default ");
	put(m, "weft:PeerAuthentication:x", "{}");
	assert_affected(m, "weft:PeerAuthentication:x", "");
	assert_affected(m, "weft:Nothing:x", "");
	assert_int_equal(model_touches("weft:PeerAuthentication:x"), MODEL_INBOUND);
	assert_int_equal(model_touches("weft:VIP:239.240.0.1"), 0);
}

static int find_address(const struct model_names *n, const char *addr, unsigned port,
			uint64_t netns, enum weft_names_kind kind, const char *service)
{
	struct weft_cidr want;
	int found = 0;

	assert_int_equal(cidr_parse(&want, addr), 0);
	for (uint32_t i = 0; i < n->n_addresses; i++) {
		const struct weft_names_address *a = &n->addresses[i];

		found += memcmp(&a->cidr, &want, sizeof(want)) == 0 && a->port == port &&
			 a->netns == netns && a->kind == kind &&
			 strcmp(n->services[a->service].name, service) == 0;
	}
	return found;
}

static void test_names(void **state)
{
	struct model *m = *state;
	struct arena arena = { 0 };
	struct model_names n;
	struct weft_addr vip;

	announce(m, "o1", "orders", "v1", "10.0.0.1", 8081, true);
	announce(m, "o2", "orders", "v2", "127.0.0.1", 8082, true);
	put(m, "weft:WorkloadEntry:default/o3",
	    "{'metadata': {'annotations': {'weft/host': 'h1', 'weft/netns': '9', 'weft/wildcard': "
	    "'46'}}, 'spec': {'address': "
	    "'10.0.0.3', 'ports': {'a': 1, 'b': 2}, 'labels': {'app': 'orders'}}}");
	put(m, "weft:ServiceEntry:db",
	    "{'hosts': ['db.example.com'], 'addresses': ['10.9.0.0/16'], 'ports': [{'number': "
	    "5432, 'name': 'pg'}]}");
	put(m, "weft:DestinationRule:ghost", "{'host': 'ghost'}");
	addr_parse(&vip, "239.240.0.5");
	model_vip(m, "orders.default", &vip, NULL);
	model_vip(m, "gone.default", &vip, NULL);
	assert_int_equal(model_names(m, "h1", &arena, &n), 0);
	assert_int_equal(n.n_services, 3); /* db, gone (its VIP), orders; not ghost */
	assert_int_equal(find_address(&n, "239.240.0.5", 0, 0, WEFT_NAMES_VIP, "orders.default"),
			 1);
	assert_int_equal(find_address(&n, "239.240.0.5", 0, 0, WEFT_NAMES_VIP, "gone.default"), 1);
	assert_int_equal(
		find_address(&n, "10.0.0.1", 8081, 0, WEFT_NAMES_ENDPOINT, "orders.default"), 1);
	assert_int_equal(
		find_address(&n, "127.0.0.1", 8082, 7, WEFT_NAMES_ENDPOINT, "orders.default"), 1);
	assert_int_equal(find_address(&n, "127.0.0.1", 2, 9, WEFT_NAMES_ENDPOINT, "orders.default"),
			 1);
	assert_int_equal(find_address(&n, "::1", 1, 9, WEFT_NAMES_ENDPOINT, "orders.default"), 1);
	assert_int_equal(
		find_address(&n, "10.9.0.0/16", 5432, 0, WEFT_NAMES_ADDRESS, "db.example.com"), 1);
	arena_free(&arena);
	assert_int_equal(model_names(m, "h2", &arena, &n), 0);
	assert_int_equal(
		find_address(&n, "127.0.0.1", 8082, 7, WEFT_NAMES_ENDPOINT, "orders.default"), 0);
	assert_int_equal(find_address(&n, "127.0.0.1", 2, 9, WEFT_NAMES_ENDPOINT, "orders.default"),
			 0);
	assert_int_equal(find_address(&n, "10.0.0.3", 2, 0, WEFT_NAMES_ENDPOINT, "orders.default"),
			 1);
	model_vip(m, "gone.default", NULL, NULL);
	arena_free(&arena);
	model_names(m, "h2", &arena, &n);
	assert_int_equal(n.n_services, 2);
	arena_free(&arena);
}

static int check_group(void *arg, const struct model_group *g)
{
	++*(int *)arg;
	assert_string_equal(g->service, "orders.default");
	assert_string_equal(g->service_account, "orders-sa");
	assert_int_equal(g->n_selectors, 1);
	assert_string_equal(g->selectors[0], "unix:uid:1000");
	assert_int_equal(g->n_labels, 2);
	assert_int_equal(g->ports[0], 8080);
	return 0;
}

static void test_groups_and_modes(void **state)
{
	struct model *m = *state;
	int n = 0;

	assert_int_equal(model_mode(m, NULL), WEFT_MODE_ENFORCE);
	put(m, "weft:WorkloadGroup:orders-v1",
	    "{'metadata': {'labels': {'app': 'orders'}}, 'template': {'labels': {'version': 'v1'}, "
	    "'serviceAccount': "
	    "'orders-sa', 'ports': {'http': 8080}}, 'selectors': ['unix:uid:1000'], 'mode': "
	    "'observe'}");
	put(m, "weft:WorkloadGroup:web", "{}");
	assert_int_equal(model_groups(m, "orders.default", check_group, &n), 0);
	assert_int_equal(n, 1);
	put(m, "weft:MeshConfig:default", "{'mode': 'off'}");
	assert_int_equal(model_mode(m, NULL), WEFT_MODE_OFF);
	assert_int_equal(model_mode(m, "web.default"), WEFT_MODE_OFF);
	assert_int_equal(model_mode(m, "orders.default"), WEFT_MODE_OBSERVE);
	model_del(m, "weft:MeshConfig:default");
	assert_int_equal(model_mode(m, "web.default"), WEFT_MODE_ENFORCE);
}

static void test_warnings(void **state)
{
	struct model *m = *state;
	struct doc_errors w = { 0 };

	put(m, "weft:VirtualService:orders",
	    "{'spec': {'hosts': ['orders'], 'tcp': [{'route': [{'destination': {'host': 'orders', "
	    "'subset': 'v9'}}]}, "
	    "{'route': [{'destination': {'host': 'orders'}}]}]}}");
	assert_int_equal(model_warnings(m, "weft:VirtualService:orders", &w), 0);
	assert_int_equal(w.n, 4);
	assert_string_equal(w.v[0].path, "spec.tcp[0].route[0].destination.host");
	assert_string_equal(w.v[1].path, "spec.tcp[0].route[0].destination.subset");
	assert_string_equal(w.v[2].path, "spec.tcp[1]");
	doc_errors_free(&w);
	announce(m, "o1", "orders", "v9", "10.0.0.1", 80, true);
	put(m, "weft:DestinationRule:orders",
	    "{'host': 'orders', 'subsets': [{'name': 'v9', 'labels': {'version': 'v9'}}]}");
	assert_int_equal(model_warnings(m, "weft:VirtualService:orders", &w), 0);
	assert_int_equal(w.n, 1);
	doc_errors_free(&w);
	put(m, "weft:AuthorizationPolicy:p",
	    "{'selector': {'matchLabels': {'app': 'none'}}, 'rules': [{'to': [{'operation': "
	    "{'paths': ['/x']}}]}]}");
	assert_int_equal(model_warnings(m, "weft:AuthorizationPolicy:p", &w), 0);
	assert_int_equal(w.n, 2);
	doc_errors_free(&w);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(test_last_good), T(test_order), T(test_conflicts),
		T(test_affected),  T(test_names), T(test_groups_and_modes),
		T(test_warnings),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
