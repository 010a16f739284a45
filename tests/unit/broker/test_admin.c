/* The admin page over a real socket, with a registry made up here. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <ev.h>
#include <jansson.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "admin/admin.h"
#include "registry/registry.h"

/* --- the registry --- */

static enum registry_feed feed = REGISTRY_FEED_LIVE;
static int n_services = 3;

const char *registry_feed_name(enum registry_feed f)
{
	return f == REGISTRY_FEED_LIVE ? "live" : "down";
}

void registry_info(const struct registry *r, struct registry_info *out)
{
	(void)r;
	*out = (struct registry_info){
		.version = "0.1.0",
		.host = "h1",
		.mesh = "m1",
		.trust_domain = "cluster.local",
		.attest = "open",
		.zone = "",
		.advertise = "10.0.0.1",
		.socket = "/s",
		.state_dir = "/d",
		.store = "unix:/r",
		.store_error = feed == REGISTRY_FEED_LIVE ? "" : "refused\xff",
		.feed = feed,
		.ready = true,
		.services = 3,
		.mode = WEFT_MODE_ENFORCE,
	};
}

int registry_each_service(const struct registry *r,
			  int (*fn)(void *, const struct registry_service *), void *arg)
{
	char name[32];
	int e = 0;

	(void)r;
	for (int i = 0; !e && i < n_services; i++) {
		struct registry_service s = { .name = name };

		snprintf(name, sizeof(name), "s%05d.default", i);
		e = fn(arg, &s);
	}
	return e;
}

int registry_each_endpoint(const struct registry *r, const char *service,
			   int (*fn)(void *, const struct registry_endpoint *), void *arg)
{
	struct registry_endpoint e = { .entry = "default/o1",
				       .service = "orders.default",
				       .version = "v1",
				       .host = "h1",
				       .tls = true,
				       .local = true,
				       .pid = 42 };

	(void)r;
	addr_parse(&e.address, "10.0.0.1");
	e.address.port = 8081;
	return service && strcmp(service, e.service) != 0 ? 0 : fn(arg, &e);
}

int registry_each_identity(const struct registry *r,
			   int (*fn)(void *, const struct registry_identity *), void *arg)
{
	const struct registry_identity i = { .id = "i1",
					     .service = "orders.default",
					     .version = "",
					     .spiffe = "",
					     .why = "taken",
					     .exe = "/bin/\xc3\x28",
					     .serial = "",
					     .mode = WEFT_MODE_OFF };

	(void)r;
	return fn(arg, &i);
}

int registry_each_document(const struct registry *r, const char *kind,
			   int (*fn)(void *, const struct registry_document *), void *arg)
{
	const struct registry_document d = { .key = "weft:DestinationRule:x",
					     .json = "{\"host\":\"x\"}",
					     .len = 12,
					     .accepted = true,
					     .revision = "r",
					     .in_force = "r",
					     .errors = "[]" };

	(void)r;
	return kind && strcmp(kind, "DestinationRule") != 0 ? 0 : fn(arg, &d);
}

/* --- a client --- */

struct fixture {
	struct ev_loop *loop;
	struct admin *admin;
	char path[64], reply[4u << 20];
};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	char address[80];
	const char *why;

	snprintf(f->path, sizeof(f->path), "/tmp/weft-test-admin.%d", (int)getpid());
	snprintf(address, sizeof(address), "unix:%s", f->path);
	f->loop = ev_loop_new(0);
	feed = REGISTRY_FEED_LIVE;
	n_services = 3;
	*state = f;
	return admin_start(f->loop, address, NULL, &f->admin, &why);
}

static int teardown(void **state)
{
	struct fixture *f = *state;
	struct stat st;

	admin_stop(f->admin);
	ev_loop_destroy(f->loop);
	assert_int_equal(stat(f->path, &st), -1);
	free(f);
	return 0;
}

/* Sends the request, runs the loop until the server closes, and returns the status, 0 without an
 * answer. */
static int exchange(struct fixture *f, const char *request)
{
	struct sockaddr_un sun = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);
	size_t n = 0;
	ssize_t r = -1;

	memcpy(sun.sun_path, f->path, sizeof(f->path));
	assert_int_equal(connect(fd, (struct sockaddr *)&sun, sizeof(sun)), 0);
	assert_int_equal(write(fd, request, strlen(request)), strlen(request));
	for (int i = 0; i < 5000 && r != 0; i++) {
		ev_run(f->loop, EVRUN_NOWAIT);
		while ((r = recv(fd, f->reply + n, sizeof(f->reply) - 1 - n, MSG_DONTWAIT)) > 0)
			n += (size_t)r;
	}
	close(fd);
	f->reply[n] = '\0';
	assert_int_equal(r, 0);
	return n > strlen("HTTP/1.1 ") ? atoi(f->reply + strlen("HTTP/1.1 ")) : 0;
}

static json_t *get(struct fixture *f, const char *url)
{
	char request[256];
	json_t *o;

	snprintf(request, sizeof(request),
		 "GET %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", url);
	assert_int_equal(exchange(f, request), 200);
	o = json_loads(strstr(f->reply, "\r\n\r\n") + 4, 0, NULL);
	assert_non_null(o);
	return o;
}

static size_t count(struct fixture *f, const char *url, const char *name)
{
	json_t *o = get(f, url);
	size_t n = json_array_size(json_object_get(o, name));

	json_decref(o);
	return n;
}

static void test_status(void **state)
{
	struct fixture *f = *state;
	json_t *o = get(f, "/status");

	assert_true(json_is_true(json_object_get(o, "healthy")));
	assert_string_equal(json_string_value(json_object_get(o, "trustDomain")), "cluster.local");
	assert_int_equal(json_integer_value(json_object_get(o, "services")), 3);
	json_decref(o);
	feed = REGISTRY_FEED_DOWN;
	o = get(f, "/status");
	assert_true(json_is_false(json_object_get(o, "healthy")));
	assert_int_equal(json_array_size(json_object_get(o, "problems")), 1);
	json_decref(o);
}

static void test_lists(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(count(f, "/services", "services"), 3);
	assert_int_equal(count(f, "/services?limit=2", "services"), 2);
	assert_non_null(strstr(f->reply, "\"truncated\":true"));
	assert_int_equal(count(f, "/services?after=s00001.default", "services"), 1);
	assert_int_equal(count(f, "/endpoints?service=orders", "endpoints"), 1);
	assert_non_null(strstr(f->reply, "\"address\":\"10.0.0.1:8081\""));
	assert_int_equal(count(f, "/endpoints?service=other", "endpoints"), 0);
	assert_int_equal(count(f, "/endpoints?service=..", "endpoints"), 0);
	assert_int_equal(count(f, "/identities", "identities"), 1);
	assert_int_equal(count(f, "/documents", "documents"), 1);
	assert_non_null(strstr(f->reply, "\"document\":{\"host\":\"x\"}"));
	assert_int_equal(count(f, "/documents?kind=MeshConfig", "documents"), 0);
	json_decref(get(f, "/version"));
}

static void test_bound(void **state)
{
	struct fixture *f = *state;

	n_services = ADMIN_LIMIT + 5;
	assert_int_equal(count(f, "/services?limit=99999999", "services"), ADMIN_LIMIT);
	assert_non_null(strstr(f->reply, "\"truncated\":true"));
}

static void test_refusals(void **state)
{
	struct fixture *f = *state;
	char big[40000];

	assert_int_equal(exchange(f, "GET /nothing HTTP/1.0\r\n\r\n"), 404);
	assert_int_equal(exchange(f, "GET /status/ HTTP/1.0\r\n\r\n"), 404);
	assert_int_equal(
		exchange(f, "POST /status HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nConnection: "
			    "close\r\n\r\n{}"),
		405);
	assert_non_null(strstr(f->reply, "Allow: GET, HEAD"));
	assert_int_equal(exchange(f, "DELETE /x HTTP/1.0\r\n\r\n"), 405);
	assert_int_equal(exchange(f, "HEAD /status HTTP/1.0\r\n\r\n"), 200);
	assert_null(strstr(f->reply, "healthy"));
	assert_int_not_equal(exchange(f, "\r\n\r\ngarbage\r\n\r\n"), 200);
	memset(big, 'a', sizeof(big));
	memcpy(big, "GET /", 5);
	memcpy(big + sizeof(big) - 14, " HTTP/1.0\r\n\r\n", 14);
	assert_int_equal(exchange(f, big) / 100, 4);
}

static void test_addresses(void **state)
{
	struct fixture *f = *state;
	struct admin *a;
	const char *why;
	const char *const bad[] = { "",
				    "x",
				    "1.2.3.4",
				    "127.0.0.1:0",
				    "127.0.0.1:70000",
				    "127.0.0.1:1x",
				    "unix:relative",
				    "host.example:80" };
	char address[80];

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		assert_int_equal(admin_start(f->loop, bad[i], NULL, &a, &why), -EINVAL);
		assert_true(*why);
	}
	assert_int_equal(admin_start(f->loop, "off", NULL, &a, &why), 0);
	assert_null(a);
	snprintf(address, sizeof(address), "unix:%s", f->path); /* somebody answers there */
	assert_int_equal(admin_start(f->loop, address, NULL, &a, &why), -EADDRINUSE);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(test_status), T(test_lists), T(test_bound), T(test_refusals), T(test_addresses),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
