/* The registry without Redis: processes, listeners, identities, and all of them again after a restart. */
#include <dirent.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>
#include <ev.h>
#include <ftw.h>
#include <openssl/x509.h>

#include "ca/ca.h"
#include "health/proc.h"
#include "registry/process.h"
#include "registry/registry.h"
#include "registry/strmap.h"
#include "store/target.h"

static char dir[64], socket_path[96], state_dir[96];
static struct ev_loop *loop;

static int make_folder(void **state)
{
	(void)state;
	snprintf(dir, sizeof(dir), "/tmp/weft-test-XXXXXX");
	if (!mkdtemp(dir))
		return -1;
	snprintf(socket_path, sizeof(socket_path), "%s/run/weftd.sock", dir);
	snprintf(state_dir, sizeof(state_dir), "%s/state", dir);
	loop = ev_loop_new(0);
	return loop ? 0 : -1;
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *at)
{
	(void)st;
	(void)type;
	(void)at;
	return remove(path);
}

static int remove_folder(void **state)
{
	(void)state;
	ev_loop_destroy(loop);
	return nftw(dir, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

static void on_ready(void *arg)
{
	*(bool *)arg = true;
	ev_break(loop, EVBREAK_ALL);
}

/* The store answers never: ready comes by itself. */
static struct registry *start(void)
{
	static struct store_target nowhere = { .path = "/nonexistent/redis.sock" };
	const struct registry_options o = {
		.state_dir = state_dir,
		.socket = socket_path,
		.trust_domain = "cluster.local",
		.zone = "",
		.vip_cidr = "239.240.0.0/16",
		.advertise = "",
		.target = &nowhere,
	};
	struct registry *r = NULL;
	const char *why = "";
	bool ready = false;

	assert_int_equal(registry_open(loop, &o, on_ready, &ready, &r, &why), 0);
	ev_run(loop, 0);
	assert_true(ready);
	return r;
}

static void run_for(double seconds)
{
	for (double end = ev_time() + seconds; ev_time() < end; usleep(10000))
		ev_run(loop, EVRUN_NOWAIT);
}

struct guest {
	struct proc_facts facts;
	struct process *p;
	void *family;
	struct weft_identity_mem *memory;
	int listener;
	struct wire_listener ask;
	uint8_t ip[16];
};

static void hello(struct registry *r, struct guest *g)
{
	int fds[4], pidfd = proc_pidfd(getpid());

	assert_int_equal(proc_read(&g->facts, getpid()), 0);
	g->facts.uid = getuid();
	g->p = registry_find(r, &g->facts, pidfd, true);
	if (!g->p) {
		const struct grant grant = { .service = "orders.default",
					     .ns = "default",
					     .account = "orders",
					     .version = "v1",
					     .why = "",
					     .ceiling = WEFT_MODE_ENFORCE };
		assert_int_equal(registry_attach(r, &g->facts, pidfd, &grant, &g->p), 0);
	}
	assert_int_equal(registry_descriptors(r, g->p, fds), 0);
	g->family = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fds[3], 0);
	g->memory = mmap(NULL, sizeof(*g->memory), PROT_READ, MAP_SHARED, fds[2], 0);
	assert_true(g->family != MAP_FAILED && g->memory != MAP_FAILED);
	close(fds[2]);
	close(pidfd);
}

static void enrol(struct registry *r, struct guest *g)
{
	EVP_PKEY *key = EVP_EC_gen("P-256");
	X509_REQ *req = X509_REQ_new();
	uint8_t *der = NULL, *bytes, *answer;
	struct ca *ca = NULL;
	const char *why;
	size_t len;

	X509_REQ_set_pubkey(req, key);
	X509_REQ_sign(req, key, EVP_sha256());
	struct wire_bin csr = { NULL, (uint32_t)i2d_X509_REQ(req, &der) };
	csr.p = der;
	struct wire_sign ask = { .spiffe = wire_str_of(g->p->spiffe), .csr = csr, .ttl_s = 3600 };
	assert_int_equal(ca_open(&ca, state_dir, "cluster.local", &why), 0);
	assert_int_equal(wire_encode(&wire_schema_sign, &ask, WEFT_REQUEST_MAX, &bytes, &len), 0);
	assert_int_equal(ca_sign(ca, bytes, len, &answer, &len), 0);
	assert_int_equal(registry_enrol(r, g->p, &csr, answer, len), 0);
	free(bytes);
	free(answer);
	OPENSSL_free(der);
	X509_REQ_free(req);
	EVP_PKEY_free(key);
	ca_free(ca);
}

static void open_listener(struct guest *g)
{
	struct sockaddr_in sa = { .sin_family = AF_INET,
				  .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof(sa), size = sizeof(g->ask.cookie);
	struct weft_addr a;

	g->listener = socket(AF_INET, SOCK_STREAM, 0);
	assert_int_equal(bind(g->listener, (struct sockaddr *)&sa, len), 0);
	assert_int_equal(listen(g->listener, 8), 0);
	assert_int_equal(getsockname(g->listener, (struct sockaddr *)&sa, &len), 0);
	assert_int_equal(getsockopt(g->listener, SOL_SOCKET, SO_COOKIE, &g->ask.cookie, &size), 0);
	addr_from_sockaddr(&a, (struct sockaddr *)&sa, len);
	memcpy(g->ip, a.ip, 16);
	g->ask.address = (struct wire_bin){ g->ip, 16 };
	g->ask.port = a.port;
}

static size_t count_endpoints(const struct registry *r)
{
	struct registry_info info;

	registry_info(r, &info);
	return info.endpoints;
}

static void leave(struct guest *g)
{
	munmap(g->family, 4096);
	munmap(g->memory, sizeof(*g->memory));
}

static void listener_is_believed_if_the_kernel_shows_it(void **state)
{
	struct registry *r = start();
	struct guest g = { 0 };
	struct wire_listener lie;
	const char *entry, *why;

	(void)state;
	hello(r, &g);
	open_listener(&g);
	lie = g.ask;
	lie.cookie += 100000;
	assert_int_equal(registry_listen(r, g.p, &g.facts, &lie, &entry, &why), -EACCES);
	lie = g.ask;
	lie.port ^= 1;
	assert_int_equal(registry_listen(r, g.p, &g.facts, &lie, &entry, &why), -EACCES);
	assert_int_equal(count_endpoints(r), 0);
	assert_int_equal(registry_listen(r, g.p, &g.facts, &g.ask, &entry, &why), 0);
	assert_int_equal(strncmp(entry, "default/orders-", 15), 0);
	assert_int_equal(count_endpoints(r), 1);
	close(g.listener);
	run_for(0.7);
	assert_int_equal(count_endpoints(r), 0);
	leave(&g);
	registry_close(r);
}

static void guest_lives_through_a_restart(void **state)
{
	struct registry *r = start();
	struct guest g = { 0 }, again = { 0 };
	const char *entry, *why;
	char id[PROCESS_ID + 1], serial[48];

	(void)state;
	hello(r, &g);
	enrol(r, &g);
	open_listener(&g);
	assert_int_equal(registry_listen(r, g.p, &g.facts, &g.ask, &entry, &why), 0);
	memcpy(id, g.p->id, sizeof(id));
	memcpy(serial, g.p->serial, sizeof(serial));
	assert_true(atomic_load(&g.memory->seq) == 1);
	registry_close(r); /* as kill -9 leaves it: nothing is withdrawn */

	r = start();
	assert_int_equal(count_endpoints(r), 1);
	hello(r, &again);
	assert_string_equal(again.p->id, id);
	assert_string_equal(again.p->serial, serial);
	assert_string_equal(again.p->service, "orders.default");
	assert_true(atomic_load(&g.memory->seq) == 1); /* nothing changed, nothing written */
	leave(&again);
	leave(&g);
	close(g.listener);
	registry_close(r);

	r = start(); /* the program that attached is gone: its maps say so */
	assert_int_equal(count_endpoints(r), 0);
	struct registry_info info;
	registry_info(r, &info);
	assert_int_equal(info.processes, 0);
	registry_close(r);
}

static void map_stays_sorted(void **state)
{
	static const char *const keys[] = { "m", "a", "z", "c", "b", "y" };
	struct strmap map = { 0 };

	(void)state;
	for (size_t i = 0; i < 6; i++)
		assert_int_equal(strmap_add(&map, (void *)(uintptr_t)&keys[i]), 0);
	for (size_t i = 1; i < map.n; i++)
		assert_true(strcmp(*(char **)map.v[i - 1], *(char **)map.v[i]) < 0);
	assert_ptr_equal(strmap_find(&map, "c"), &keys[3]);
	assert_ptr_equal(strmap_remove(&map, "c"), &keys[3]);
	assert_null(strmap_find(&map, "c"));
	assert_null(strmap_remove(&map, "c"));
	assert_int_equal(map.n, 5);
	free(map.v);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(map_stays_sorted),
		cmocka_unit_test_setup_teardown(listener_is_believed_if_the_kernel_shows_it,
						make_folder, remove_folder),
		cmocka_unit_test_setup_teardown(guest_lives_through_a_restart, make_folder,
						remove_folder),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
