/* Each test runs in a process of its own, with its own environment and its own fake weftd. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sys/time.h>

#include "control/control.h"
#include "control/internal.h"
#include "fake_weftd.h"
#include "telemetry/log.h"

#define CHECK(what)                                                                          \
	do {                                                                                 \
		if (!(what)) {                                                               \
			fprintf(stderr, "%s:%d: not true: %s\n", __FILE__, __LINE__, #what); \
			exit(1);                                                             \
		}                                                                            \
	} while (0)

/* Runs `body` with the files of a weftd in place, and weftd itself if `runs`. */
static void in_process(void (*body)(void), bool files, bool runs)
{
	pid_t pid;
	int status;

	fake_prepare();
	fflush(NULL);
	pid = fork();
	assert_true(pid >= 0);
	if (!pid) {
		if (files)
			fake_make_files();
		if (runs)
			fake_start();
		alarm(60);
		body();
		exit(0);
	}
	waitpid(pid, &status, 0);
	if (fake->pid)
		kill(fake->pid, SIGKILL);
	fake_remove();
	munmap(fake, sizeof(*fake));
	assert_int_equal(status, 0);
}

#define TEST(name, files, runs)                       \
	static void name##_body(void);                \
	static void name(void **state)                \
	{                                             \
		(void)state;                          \
		in_process(name##_body, files, runs); \
	}                                             \
	static void name##_body(void)

static int64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static __attribute__((noinline)) unsigned count_fds(void)
{
	unsigned n = 0;

	for (int fd = 0; fd < 256; fd++)
		n += fcntl(fd, F_GETFD) >= 0;
	return n;
}

static struct weft_addr addr(const char *text, uint16_t port)
{
	struct weft_addr a;

	CHECK(addr_parse(&a, text) == 0);
	a.port = port;
	return a;
}

static int find_addr(const char *text, uint16_t port, enum weft_reason *reason)
{
	struct weft_addr a = addr(text, port);
	struct weft_names_service s;
	enum weft_names_kind kind;

	return mesh_find_addr(&a, &s, &kind, reason);
}

/* What is asked for in most tests: orders.default on its virtual address. */
static int orders(struct service **s, enum weft_reason *reason)
{
	struct weft_addr vip = addr("239.240.0.1", 80);

	return mesh_service("orders.default", &vip, false, s, reason);
}

static bool orders_works(void)
{
	enum weft_reason reason;
	struct service *s;
	int r = orders(&s, &reason);

	service_unref(s);
	return r == 0;
}

/* --- environment --- */

TEST(environment_is_read_once, false, false)
{
	setenv(WEFT_ENV_NO_BROKER, "open,wait:1500ms", 1);
	setenv(WEFT_ENV_MODE, "observe", 1);
	setenv(WEFT_ENV_SERVICE, "shop/web@v2:80", 1);
	control_start();
	CHECK(control_env.open && control_env.wait_ms == 1500);
	CHECK(control_env.ceiling == WEFT_MODE_OBSERVE);
	CHECK(control_env.claims && strcmp(control_env.ns, "shop") == 0);
	CHECK(control_env.n_sockets == 1 && strcmp(control_env.socket[0], fake->socket) == 0);
}

TEST(bad_environment_takes_defaults, false, false)
{
	static const char *const bad[] = { "",       "closed,",     "wait",          "wait:",
					   "wait:2", "wait:2h",     "wait:-1s",      "maybe",
					   ",",      "closed open", "wait:99999999s" };

	setenv(WEFT_ENV_MODE, "on", 1);
	setenv(WEFT_ENV_SERVICE, "Not A Name", 1);
	setenv(WEFT_ENV_SOCKET, "relative/weftd.sock", 1);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		setenv(WEFT_ENV_NO_BROKER, bad[i], 1);
		control_env.n_sockets = 0;
		control_start();
		CHECK(!control_env.open && control_env.wait_ms == 2000);
	}
	CHECK(control_env.ceiling == WEFT_MODE_ENFORCE && control_env.n_sockets == 0);
	CHECK(control_env.claims && strcmp(control_env.ns, "default") == 0);
}

TEST(default_sockets, false, false)
{
	unsetenv(WEFT_ENV_SOCKET);
	setenv("XDG_RUNTIME_DIR", "/run/user/1", 1);
	control_start();
	CHECK(control_env.n_sockets == 2);
	CHECK(strcmp(control_env.socket[0], "/run/weft/weftd.sock") == 0);
	CHECK(strcmp(control_env.socket[1], "/run/user/1/weft/weftd.sock") == 0);
}

TEST(mode_off_is_not_mesh, true, true)
{
	struct weft_names_service s;
	struct identity *id;
	enum weft_reason reason;

	setenv(WEFT_ENV_MODE, "off", 1);
	setenv(WEFT_ENV_SERVICE, "web", 1);
	control_start();
	CHECK(mesh_find_name("orders", &s) == -ENOENT);
	CHECK(find_addr("239.240.0.1", 80, &reason) == -ENOENT);
	CHECK(mesh_identity(&id, &reason) == -EACCES && !id);
	CHECK(mesh_accepts() == MESH_PASSES && mesh_listen(0) == MESH_PASSES);
	CHECK(fake->count[WIRE_HELLO] == 0);
}

/* --- names --- */

TEST(names_come_from_memory, true, true)
{
	unsigned fds = count_fds();
	struct weft_names_service s;
	enum weft_reason reason;

	control_start();
	errno = 1234;
	CHECK(mesh_find_name("orders", &s) == 0 && strcmp(s.name, "orders.default") == 0);
	CHECK(mesh_find_name("orders.default.svc.cluster.local", &s) == 0);
	CHECK(mesh_find_name("nobody", &s) == -ENOENT);
	CHECK(find_addr("239.240.0.1", 80, &reason) == 0);
	CHECK(find_addr("10.0.0.1", 8080, &reason) == 0);
	CHECK(find_addr("10.0.0.1", 8081, &reason) == -ENOENT);
	CHECK(find_addr("239.240.0.2", 80, &reason) == -ECONNREFUSED &&
	      reason == WEFT_REASON_UNKNOWN_VIP);
	CHECK(errno == 1234);
	CHECK(control_mode() == WEFT_MODE_ENFORCE);
	CHECK(fake->count[WIRE_HELLO] == 0);
	CHECK(count_fds() == fds);
}

TEST(mode_words_act_at_once, true, true)
{
	struct weft_names_service s;
	struct identity *id;
	enum weft_reason reason;

	setenv(WEFT_ENV_SERVICE, "web", 1);
	control_start();
	CHECK(mesh_find_name("orders", &s) == 0);
	atomic_store(&fake_board->mode, WEFT_MODE_OFF);
	CHECK(control_mode() == WEFT_MODE_OFF);
	atomic_store(&fake_board->mode, 77); /* what we do not know is not less than enforce */
	CHECK(control_mode() == WEFT_MODE_ENFORCE);
	CHECK(mesh_identity(&id, &reason) == 0);
	identity_unref(id);
	atomic_store(&fake_board->mode, WEFT_MODE_OFF);
	CHECK(control_mode() == WEFT_MODE_ENFORCE); /* the process's own word counts now */
	CHECK(mesh_accepts() == MESH_ADMITS);
	atomic_store(&fake_identity->mode, WEFT_MODE_OBSERVE);
	CHECK(control_mode() == WEFT_MODE_OBSERVE && mesh_accepts() == MESH_LOOKS);
}

/* Files that may not be opened by path come as descriptors. */
TEST(names_without_permission, true, true)
{
	struct weft_names_service s;
	char path[160];

	snprintf(path, sizeof(path), "%s/%s", fake->dir, WEFT_NAMES_NAME);
	CHECK(chmod(path, 0) == 0);
	if (geteuid() == 0)
		CHECK(setuid(65534) == 0);
	control_start();
	CHECK(mesh_find_name("orders", &s) == 0);
	CHECK(fake->count[WIRE_HELLO] == 1);
}

TEST(files_replaced_while_weftd_was_away, true, true)
{
	struct weft_names_service s;
	char path[160];

	control_start();
	CHECK(mesh_find_name("orders", &s) == 0);
	fake_kill();
	for (int i = 0; i < 2; i++) {
		snprintf(path, sizeof(path), "%s/%s", fake->dir,
			 i ? WEFT_NAMES_NAME : WEFT_BOARD_NAME);
		CHECK(unlink(path) == 0);
	}
	fake_make_files();
	struct weft_names_service other = { .name = "other.default" };
	fake_publish_names(&other, 1, NULL, 0);
	fake_restart();
	usleep(1100000); /* looked for once per second */
	CHECK(mesh_find_name("other", &s) == 0);
}

TEST(foreign_files_are_not_mapped, true, true)
{
	struct weft_names_service s;

	fake_names->shm.layout = 99;
	fake_board->shm.magic = 1;
	control_start();
	CHECK(mesh_find_name("orders", &s) == -ENOENT);
	fake_names->shm.layout = WEFT_SHM_LAYOUT;
	usleep(1100000);
	CHECK(mesh_find_name("orders", &s) == -ENOENT);
	fake_board->shm.magic = WEFT_SHM_BOARD;
	usleep(1100000);
	CHECK(mesh_find_name("orders", &s) == 0);
}

/* --- nobody answers --- */

TEST(nobody_answers_closed, false, false)
{
	struct weft_names_service s;
	enum weft_reason reason;
	int64_t t = now_ms();

	setenv(WEFT_ENV_NO_BROKER, "wait:300ms,closed", 1);
	control_start();
	CHECK(mesh_find_name("orders", &s) == -ENOENT);
	CHECK(find_addr("10.0.0.1", 80, &reason) == -ENOENT);
	CHECK(mesh_accepts() == MESH_PASSES);
	CHECK(now_ms() - t < 150); /* none of these needs weftd */
	CHECK(find_addr("239.240.0.1", 80, &reason) == -ECONNREFUSED &&
	      reason == WEFT_REASON_NO_BROKER);
	CHECK(now_ms() - t >= 300);
	t = now_ms();
	CHECK(find_addr("239.240.0.1", 80, &reason) == -ECONNREFUSED &&
	      reason == WEFT_REASON_NO_BROKER);
	CHECK(!orders_works());
	CHECK(now_ms() - t < 150); /* one wait is enough */
}

TEST(nobody_answers_a_server, false, false)
{
	int64_t t = now_ms();

	setenv(WEFT_ENV_NO_BROKER, "wait:200ms", 1);
	setenv(WEFT_ENV_SERVICE, "web", 1);
	control_start();
	CHECK(mesh_accepts() == MESH_REFUSES);
	CHECK(now_ms() - t >= 200);
	CHECK(mesh_accepts() == MESH_REFUSES);
	CHECK(now_ms() - t < 500);
}

TEST(nobody_answers_open, true, false)
{
	struct weft_addr a = addr("10.0.0.1", 8080);
	struct service *s;
	enum weft_reason reason;

	setenv(WEFT_ENV_NO_BROKER, "open,wait:50ms", 1);
	setenv(WEFT_ENV_SERVICE, "web", 1);
	control_start();
	CHECK(mesh_accepts() == MESH_PASSES);
	/* The names are known from before; the endpoint is reached as it is, a virtual address cannot be. */
	CHECK(find_addr("10.0.0.1", 8080, &reason) == 0);
	CHECK(mesh_service("orders.default", &a, true, &s, &reason) == 0);
	CHECK(s->wire->clusters.n == 1 && s->wire->clusters.v[0].tls == WEFT_TLS_DISABLE);
	CHECK(s->wire->clusters.v[0].endpoints.v[0].port == 8080);
	service_unref(s);
	CHECK(!orders_works());
}

static void *start_late(void *arg)
{
	usleep(200000);
	fake_make_files();
	fake_start();
	return arg;
}

TEST(weftd_comes_late, false, false)
{
	struct weft_names_service s;
	pthread_t t;

	setenv(WEFT_ENV_SERVICE, "web", 1);
	control_start();
	CHECK(pthread_create(&t, NULL, start_late, NULL) == 0);
	CHECK(mesh_find_name("orders", &s) == 0);
	pthread_join(t, NULL);
	CHECK(orders_works());
}

/* --- services --- */

TEST(service_is_cached_until_it_changes, true, true)
{
	unsigned fds = count_fds();
	struct weft_names_service s;

	snprintf(fake->depends, sizeof(fake->depends), "billing.default");
	control_start();
	CHECK(mesh_find_name("orders", &s) == 0);
	for (int i = 0; i < 10; i++)
		CHECK(orders_works());
	CHECK(fake->count[WIRE_SERVICE] == 1);
	atomic_fetch_add(&fake_board->generation[weft_bucket("orders.default")], 1);
	CHECK(orders_works() && orders_works());
	CHECK(fake->count[WIRE_SERVICE] == 2);
	atomic_fetch_add(&fake_board->generation[weft_bucket("billing.default")], 1);
	CHECK(orders_works() && orders_works());
	CHECK(fake->count[WIRE_SERVICE] == 3);
	atomic_fetch_add(&fake_board->generation[weft_bucket("unrelated.default")], 1);
	CHECK(orders_works());
	CHECK(fake->count[WIRE_SERVICE] == 3);
	CHECK(count_fds() == fds);
}

TEST(service_by_port_and_address, true, true)
{
	struct weft_addr a = addr("239.240.0.1", 80), b = addr("239.240.0.1", 81),
			 c = addr("10.0.0.1", 80);
	const struct weft_addr *v[] = { &a, &b, &c, &c };
	enum weft_reason reason;
	struct service *s;

	control_start();
	for (int round = 0; round < 2; round++)
		for (int i = 0; i < 4; i++) {
			CHECK(mesh_service("orders.default", v[i], i == 3, &s, &reason) == 0);
			service_unref(s);
		}
	CHECK(fake->count[WIRE_SERVICE] == 4);
}

TEST(last_good_answer_stays, true, true)
{
	struct weft_addr other = addr("239.240.0.1", 81);
	struct weft_names_service s;
	struct service *svc;
	enum weft_reason reason;
	int64_t t;

	setenv(WEFT_ENV_NO_BROKER, "wait:100ms", 1);
	control_start();
	CHECK(mesh_find_name("orders", &s) == 0 && orders_works());
	fake_kill();
	t = now_ms();
	for (int i = 0; i < 100; i++)
		CHECK(orders_works());
	CHECK(now_ms() - t < 300);
	CHECK(mesh_service("orders.default", &other, false, &svc, &reason) == -ECONNREFUSED);
	CHECK(reason == WEFT_REASON_NO_BROKER && !svc);
	fake_restart();
	usleep(1100000); /* attempts come once per second */
	CHECK(mesh_service("orders.default", &other, false, &svc, &reason) == 0);
	service_unref(svc);
	CHECK(orders_works());
	CHECK(fake->count[WIRE_SERVICE] == 3); /* the new weftd was asked anew */
}

TEST(a_hanging_weftd_delays_little, true, true)
{
	struct weft_names_service s;
	int64_t t;

	control_start();
	CHECK(mesh_find_name("orders", &s) == 0 && orders_works());
	kill(fake->pid, SIGSTOP);
	atomic_store(&fake_board->heartbeat_ms, 1);
	t = now_ms();
	for (int i = 0; i < 50; i++)
		CHECK(orders_works());
	CHECK(now_ms() - t < 800);
	kill(fake->pid, SIGCONT);
}

TEST(refusal_is_authoritative, true, true)
{
	struct weft_names_service s;
	struct service *svc;
	enum weft_reason reason;

	control_start();
	CHECK(mesh_find_name("orders", &s) == 0 && orders_works());
	fake->manner[WIRE_SERVICE] = FAKE_REFUSE;
	fake->code = ENOENT;
	CHECK(orders_works()); /* nothing changed that we were told of */
	atomic_fetch_add(&fake_board->generation[weft_bucket("orders.default")], 1);
	CHECK(orders(&svc, &reason) == -ECONNREFUSED && reason == WEFT_REASON_UNKNOWN_VIP);
	fake->code = EPERM;
	CHECK(orders(&svc, &reason) == -EACCES && reason == WEFT_REASON_NO_IDENTITY);
	fake->manner[WIRE_SERVICE] = FAKE_WELL;
	CHECK(orders_works());
	fake->manner[WIRE_SERVICE] = FAKE_REFUSE;
	fake->code = EAGAIN; /* busy is not no */
	atomic_fetch_add(&fake_board->generation[weft_bucket("orders.default")], 1);
	CHECK(orders_works());
}

TEST(answers_that_are_none, true, true)
{
	static const enum fake_manner manners[] = { FAKE_GARBAGE, FAKE_WRONG,    FAKE_SHORT,
						    FAKE_HUGE,    FAKE_NONSENSE, FAKE_BAD_ADDRESS };
	unsigned fds = count_fds();
	struct weft_names_service s;
	enum weft_reason reason;
	struct service *svc;

	setenv(WEFT_ENV_NO_BROKER, "wait:0s", 1);
	control_start();
	CHECK(mesh_find_name("orders", &s) == 0);
	for (size_t i = 0; i < sizeof(manners) / sizeof(manners[0]); i++) {
		struct weft_addr a = addr("239.240.0.1", (uint16_t)(100 + i));
		int64_t t = now_ms();

		fake->manner[WIRE_SERVICE] = (int)manners[i];
		usleep(1050000);
		CHECK(mesh_service("orders.default", &a, false, &svc, &reason) == -ECONNREFUSED);
		CHECK(reason == WEFT_REASON_NO_BROKER);
		CHECK(now_ms() - t < 1500);
	}
	CHECK(count_fds() == fds);
}

TEST(welcomes_that_are_none, true, true)
{
	static const enum fake_manner manners[] = { FAKE_NO_FDS, FAKE_GARBAGE, FAKE_NONSENSE,
						    FAKE_REFUSE };
	unsigned fds = count_fds();
	enum weft_reason reason;
	struct identity *id;

	setenv(WEFT_ENV_SERVICE, "web", 1);
	setenv(WEFT_ENV_NO_BROKER, "wait:0s", 1);
	control_start();
	for (size_t i = 0; i < sizeof(manners) / sizeof(manners[0]); i++) {
		fake->manner[WIRE_HELLO] = (int)manners[i];
		CHECK(mesh_identity(&id, &reason) < 0 && !id);
		CHECK(mesh_accepts() == MESH_REFUSES);
		usleep(1050000);
	}
	fake->manner[WIRE_HELLO] = FAKE_WELL;
	CHECK(mesh_identity(&id, &reason) == 0);
	identity_unref(id);
	CHECK(count_fds() == fds);
}

TEST(old_services_are_evicted, true, true)
{
	enum weft_reason reason;
	struct service *s;

	control_start();
	for (int i = 0; i < 1100; i++) {
		struct weft_addr a = addr("239.240.0.1", (uint16_t)(1000 + i));

		CHECK(mesh_service("orders.default", &a, false, &s, &reason) == 0);
		service_unref(s);
	}
	CHECK(fake->count[WIRE_SERVICE] == 1100);
	for (int i = 1099; i >= 0; i--) {
		struct weft_addr a = addr("239.240.0.1", (uint16_t)(1000 + i));

		CHECK(mesh_service("orders.default", &a, false, &s, &reason) == 0);
		service_unref(s);
	}
	CHECK(fake->count[WIRE_SERVICE] == 1100 + 76);
}

/* --- choice and counters --- */

static uint32_t active(const struct service *s, uint32_t endpoint)
{
	return s->balance[0].active[endpoint];
}

TEST(open_connections_outlive_a_refresh, true, true)
{
	struct weft_names_service names;
	enum weft_reason reason;
	struct service *before, *after, *later;

	fake->endpoints = 3; /* ports 9000 9001 9002 */
	control_start();
	CHECK(mesh_find_name("orders", &names) == 0);
	CHECK(orders(&before, &reason) == 0);
	service_active(before, 0, 1, +1);
	service_active(before, 0, 2, +1);
	service_active(before, 0, 2, +1);
	service_active(before, 7, 0, +1); /* no such cluster */
	service_active(before, 0, 9, +1); /* no such endpoint */
	fake->first_port = 9001;          /* 9001 9002 9003 */
	atomic_fetch_add(&fake_board->generation[weft_bucket("orders.default")], 1);
	CHECK(orders(&after, &reason) == 0 && after != before);
	CHECK(active(after, 0) == 1 && active(after, 1) == 2 && active(after, 2) == 0);
	/* A connection of the old answer ends, and one more begins: the present one knows. */
	service_active(before, 0, 2, -1);
	service_active(before, 0, 1, +1);
	CHECK(active(after, 0) == 2 && active(after, 1) == 1);
	service_active(before, 0, 0, +1); /* 9000 is gone: counted nowhere else */
	service_active(before, 0, 0, -1);
	fake->first_port = 9000;
	atomic_fetch_add(&fake_board->generation[weft_bucket("orders.default")], 1);
	CHECK(orders(&later, &reason) == 0);
	CHECK(active(later, 0) == 0 && active(later, 1) == 2 && active(later, 2) == 1);
	service_active(before, 0, 1, -1);
	service_active(after, 0, 0, -1);
	service_active(before, 0, 2, -1);
	CHECK(active(later, 1) == 0 && active(later, 2) == 0);
	service_active(before, 0, 2, -1); /* never below nothing */
	CHECK(active(later, 2) == 0);
	service_unref(before);
	service_unref(after);
	service_unref(later);
}

TEST(choice, true, true)
{
	uint64_t tried[1] = { 0 };
	uint32_t cluster, endpoint;
	enum weft_reason reason;
	struct service *s;

	control_start();
	CHECK(orders(&s, &reason) == 0);
	CHECK(service_route(s, &cluster) == 0 && cluster == 0);
	for (int i = 0; i < 2; i++) {
		CHECK(service_pick(s, tried, cluster, &endpoint) == 0 && endpoint < 2);
		CHECK(!(tried[0] >> endpoint & 1));
		tried[0] |= UINT64_C(1) << endpoint;
	}
	CHECK(service_pick(s, tried, cluster, &endpoint) == -ENOENT);
	CHECK(service_pick(s, NULL, 5, &endpoint) == -ENOENT);
	service_unref(s);
	fake->endpoints = 0;
	fake->reason = WEFT_REASON_NO_ENDPOINT;
	atomic_fetch_add(&fake_board->generation[weft_bucket("orders.default")], 1);
	usleep(10000);
	CHECK(orders(&s, &reason) == 0);
	CHECK(service_route(s, &cluster) == -ENOENT && s->wire->reason == WEFT_REASON_NO_ENDPOINT);
	service_unref(s);
	service_unref(NULL);
}

/* --- identity --- */

TEST(identity_is_enrolled_and_renewed, true, true)
{
	unsigned fds = count_fds();
	struct identity *id, *same, *next;
	enum weft_reason reason;
	uint64_t seq;

	setenv(WEFT_ENV_SERVICE, "web", 1);
	control_start();
	CHECK(mesh_identity_seq() == 0);
	CHECK(mesh_identity(&id, &reason) == 0);
	CHECK(strcmp(id->wire->spiffe.p, "spiffe://cluster.local/ns/default/sa/web") == 0);
	CHECK(mesh_identity(&same, &reason) == 0 && same == id);
	CHECK(fake->count[WIRE_HELLO] == 1 && fake->count[WIRE_ENROL] == 1);
	seq = mesh_identity_seq();
	CHECK(seq == id->seq);
	/* weftd writes the other half: the same again, as at a renewal */
	fake_write_identity(fake_identity->half[1].bytes, fake_identity->half[1].length);
	CHECK(mesh_identity_seq() != seq);
	CHECK(mesh_identity(&next, &reason) == 0 && next != id && next->seq == mesh_identity_seq());
	identity_unref(id);
	identity_unref(same);
	identity_unref(next);
	CHECK(fake->count[WIRE_ENROL] == 1);
	CHECK(count_fds() == fds);
}

TEST(identity_survives_nonsense, true, true)
{
	struct identity *id, *again;
	enum weft_reason reason;

	setenv(WEFT_ENV_SERVICE, "web", 1);
	control_start();
	CHECK(mesh_identity(&id, &reason) == 0);
	fake->manner[WIRE_ENROL] = FAKE_REFUSE;
	fake_write_identity((const uint8_t *)"\xc1", 1);
	CHECK(mesh_identity(&again, &reason) == 0 && again == id); /* the last good one */
	identity_unref(again);
	fake_identity->half[0].length = UINT32_MAX;
	fake_identity->half[1].length = UINT32_MAX;
	atomic_fetch_add(&fake_identity->seq, 1);
	CHECK(mesh_identity(&again, &reason) == 0 && again == id);
	identity_unref(again);
	identity_unref(id);
}

/* As after an exec of the same program: weftd holds the certificate of a key that is gone. */
TEST(certificate_of_another_key, true, true)
{
	const char *uri = "spiffe://cluster.local/ns/default/sa/web";
	struct pki_ca ca = pki_ca("root", NULL);
	EVP_PKEY *other = EVP_EC_gen("P-256");
	X509 *leaf = pki_sign(
		&ca, other,
		&(struct pki_leaf){ .san = "URI:spiffe://cluster.local/ns/default/sa/web" });
	struct pki_identity e = pki_encode(uri, "cluster.local", leaf, &ca, 1);
	enum weft_reason reason;
	struct identity *id;

	fake_write_identity(e.bytes, e.len);
	fake->enrolled = true;
	setenv(WEFT_ENV_SERVICE, "web", 1);
	control_start();
	CHECK(mesh_identity(&id, &reason) == 0);
	CHECK(fake->count[WIRE_ENROL] == 1);
	identity_unref(id);
	free(e.bytes);
	X509_free(leaf);
	EVP_PKEY_free(other);
	pki_ca_done(&ca);
}

TEST(no_identity_is_granted, true, true)
{
	struct identity *id;
	enum weft_reason reason;

	fake->granted[0] = '\0';
	control_start(); /* claims nothing */
	CHECK(mesh_identity(&id, &reason) == -EACCES && reason == WEFT_REASON_NO_IDENTITY && !id);
	CHECK(mesh_accepts() == MESH_PASSES);
	CHECK(fake->count[WIRE_ENROL] == 0);
}

TEST(a_claim_is_not_granted, true, true)
{
	struct identity *id;
	enum weft_reason reason;

	fake->granted[0] = '\0';
	setenv(WEFT_ENV_SERVICE, "web", 1);
	control_start();
	CHECK(mesh_accepts() == MESH_REFUSES); /* it was meant to be protected */
	CHECK(mesh_identity(&id, &reason) == -EACCES && reason == WEFT_REASON_NO_IDENTITY);
}

TEST(enrolment_is_refused, true, true)
{
	struct identity *id;
	enum weft_reason reason;

	fake->manner[WIRE_ENROL] = FAKE_REFUSE;
	setenv(WEFT_ENV_SERVICE, "web", 1);
	control_start();
	for (int i = 0; i < 20; i++)
		CHECK(mesh_identity(&id, &reason) == -EACCES && reason == WEFT_REASON_NO_IDENTITY &&
		      !id);
	CHECK(fake->count[WIRE_ENROL] == 1); /* asked again in a second, not at once */
}

/* --- listeners --- */

static int listen_on(uint16_t *port)
{
	struct sockaddr_in in = { .sin_family = AF_INET };
	socklen_t len = sizeof(in);
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	CHECK(bind(fd, (struct sockaddr *)&in, sizeof(in)) == 0 && listen(fd, 8) == 0);
	CHECK(getsockname(fd, (struct sockaddr *)&in, &len) == 0);
	*port = ntohs(in.sin_port);
	return fd;
}

static uint64_t cookie_of(int fd)
{
	uint64_t cookie = 0;
	socklen_t len = sizeof(cookie);

	CHECK(getsockopt(fd, SOL_SOCKET, SO_COOKIE, &cookie, &len) == 0);
	return cookie;
}

TEST(listeners_are_announced_and_withdrawn, true, true)
{
	uint16_t port, other;
	int fd = listen_on(&port), gone = listen_on(&other),
	    unix_fd = socket(AF_UNIX, SOCK_STREAM, 0);

	setenv(WEFT_ENV_SERVICE, "web", 1);
	control_start();
	CHECK(mesh_listen(fd) == MESH_ADMITS);
	CHECK(fake->count[WIRE_REGISTER] == 1 && fake->count[WIRE_ENROL] == 1);
	CHECK(fake->listener.port == port && fake->listener.cookie == cookie_of(fd));
	CHECK(mesh_listen(fd) == MESH_ADMITS); /* listen() again changes its backlog */
	CHECK(fake->count[WIRE_REGISTER] == 1);
	CHECK(mesh_listen(gone) == MESH_ADMITS && fake->count[WIRE_REGISTER] == 2);
	CHECK(mesh_listen(unix_fd) == MESH_PASSES);
	close(gone); /* where we do not see it */
	fake_kill();
	fake_restart();
	usleep(1100000);
	CHECK(mesh_accepts() == MESH_ADMITS);
	CHECK(fake->count[WIRE_HELLO] == 2 && fake->count[WIRE_REGISTER] == 3);
	CHECK(fake->listener.cookie == cookie_of(fd));
	mesh_unlisten(fd);
	CHECK(fake->count[WIRE_DEREGISTER] == 1);
	mesh_unlisten(fd);
	CHECK(fake->count[WIRE_DEREGISTER] == 1);
}

/* weftd is slow to answer that one is gone: the next one is announced all the same. */
TEST(a_slow_farewell_costs_no_announcement, true, true)
{
	uint16_t port, other;
	int fd = listen_on(&port), next = listen_on(&other);

	setenv(WEFT_ENV_SERVICE, "web", 1);
	control_start();
	CHECK(mesh_listen(fd) == MESH_ADMITS && fake->count[WIRE_REGISTER] == 1);
	fake->delay_ms = 300;
	mesh_unlisten(fd);
	fake->delay_ms = 0;
	CHECK(mesh_listen(next) == MESH_ADMITS && fake->count[WIRE_REGISTER] == 2);
}

/* weftd is there and answers an announcement too late: an accept announces it again, once. */
TEST(an_announcement_without_an_answer_is_made_again, true, true)
{
	uint16_t port;
	int fd = listen_on(&port);

	setenv(WEFT_ENV_SERVICE, "web", 1);
	control_start();
	fake->manner[WIRE_REGISTER] = FAKE_SILENT;
	CHECK(mesh_listen(fd) == MESH_ADMITS && fake->count[WIRE_REGISTER] == 1);
	fake->manner[WIRE_REGISTER] = FAKE_WELL;
	CHECK(mesh_accepts() == MESH_ADMITS && fake->count[WIRE_REGISTER] == 1); /* not at once */
	usleep(1100000);
	for (int i = 0; i < 3; i++)
		CHECK(mesh_accepts() == MESH_ADMITS && fake->count[WIRE_REGISTER] == 2);
	CHECK(fake->listener.cookie == cookie_of(fd));
	mesh_unlisten(fd);
	CHECK(fake->count[WIRE_DEREGISTER] == 1);
}

TEST(only_named_ports_are_announced, true, true)
{
	uint16_t port;
	int fd = listen_on(&port);

	fake->ports = 1;
	setenv(WEFT_ENV_SERVICE, "web:8080", 1);
	control_start();
	CHECK(mesh_listen(fd) == MESH_ADMITS);
	CHECK(fake->count[WIRE_REGISTER] == 0);
	mesh_unlisten(fd);
	CHECK(fake->count[WIRE_DEREGISTER] == 0);
}

/* A listener that was there before weftd is announced when it comes. */
TEST(listener_before_weftd, true, false)
{
	uint16_t port;
	int fd = listen_on(&port);

	setenv(WEFT_ENV_SERVICE, "web", 1);
	setenv(WEFT_ENV_NO_BROKER, "wait:0s", 1);
	control_start();
	CHECK(mesh_listen(fd) == MESH_REFUSES);
	fake_start();
	usleep(1100000);
	CHECK(mesh_accepts() == MESH_ADMITS);
	CHECK(fake->count[WIRE_REGISTER] == 1);
}

/* --- fork, threads, signals --- */

/* What the fork hooks of the library do. */
static pid_t fork_like_a_guest(void)
{
	pid_t pid;

	control_atfork_prepare();
	pid = fork();
	if (pid)
		control_atfork_parent();
	else
		control_atfork_child();
	return pid;
}

static void expect_child(pid_t pid)
{
	int status;

	CHECK(waitpid(pid, &status, 0) == pid && status == 0);
}

TEST(a_child_goes_on_where_its_parent_was, true, true)
{
	uint16_t port;
	int fd = listen_on(&port);
	enum weft_reason reason;
	struct identity *id;
	sigset_t before, after;
	uint64_t drawn[2];
	int pipes[2];
	pid_t pid;

	setenv(WEFT_ENV_SERVICE, "web", 1);
	control_start();
	sigprocmask(SIG_SETMASK, NULL, &before);
	CHECK(mesh_listen(fd) == MESH_ADMITS && orders_works() && pipe(pipes) == 0);
	pid = fork_like_a_guest();
	if (!pid) {
		drawn[0] = control_random();
		CHECK(write(pipes[1], drawn, sizeof(drawn[0])) == sizeof(drawn[0]));
		CHECK(mesh_identity(&id, &reason) == 0 && orders_works());
		mesh_unlisten(fd); /* the parent still listens */
		_exit(0);
	}
	expect_child(pid);
	CHECK(read(pipes[0], &drawn[0], sizeof(drawn[0])) == sizeof(drawn[0]));
	drawn[1] = control_random();
	CHECK(drawn[0] != drawn[1]);
	CHECK(fake->count[WIRE_HELLO] == 1 && fake->count[WIRE_ENROL] == 1 &&
	      fake->count[WIRE_SERVICE] == 1);
	mesh_unlisten(fd); /* a child may listen: the kernel will tell weftd */
	CHECK(fake->count[WIRE_DEREGISTER] == 0);
	sigprocmask(SIG_SETMASK, NULL, &after);
	CHECK(sigismember(&after, SIGINT) == sigismember(&before, SIGINT));
	CHECK(sigismember(&after, SIGUSR1) == 0);
}

static _Atomic bool stop;

static void *ask_all_the_time(void *arg)
{
	while (!atomic_load(&stop)) {
		atomic_fetch_add(&fake_board->generation[weft_bucket("orders.default")], 1);
		CHECK(orders_works());
	}
	return arg;
}

/* Forks while other threads are in the middle of everything: no child finds a lock taken or a descriptor left. */
TEST(forks_under_load, true, true)
{
	unsigned fds = count_fds();
	pthread_t threads[4];
	int status;

	setenv(WEFT_ENV_SERVICE, "web", 1);
	control_start();
	CHECK(orders_works());
	for (int i = 0; i < 4; i++)
		CHECK(pthread_create(&threads[i], NULL, ask_all_the_time, NULL) == 0);
	for (int i = 0; i < 100; i++) {
		pid_t pid = fork_like_a_guest();

		if (!pid) {
			alarm(10);
			CHECK(count_fds() == fds);
#ifndef __SANITIZE_ADDRESS__ /* whose allocator may stay locked in a child */
			CHECK(orders_works());
#endif
			raise(SIGKILL); /* what the other threads' stacks held is no leak */
		}
		CHECK(waitpid(pid, &status, 0) == pid && status == SIGKILL);
	}
	atomic_store(&stop, true);
	for (int i = 0; i < 4; i++)
		pthread_join(threads[i], NULL);
	CHECK(count_fds() == fds);
}

static void *ask_once(void *arg)
{
	CHECK(orders_works());
	return arg;
}

TEST(threads_that_miss_at_once_ask_once, true, true)
{
	struct weft_names_service s;
	pthread_t threads[16];

	fake->delay_ms = 50;
	setenv(WEFT_ENV_SERVICE, "web", 1);
	control_start();
	CHECK(mesh_find_name("orders", &s) == 0);
	for (int i = 0; i < 16; i++)
		CHECK(pthread_create(&threads[i], NULL, ask_once, NULL) == 0);
	for (int i = 0; i < 16; i++)
		pthread_join(threads[i], NULL);
	CHECK(fake->count[WIRE_HELLO] == 1 && fake->count[WIRE_SERVICE] == 1);
}

static sigjmp_buf jump;

static void on_alarm(int sig)
{
	(void)sig;
	siglongjmp(jump, 1);
}

/* wget leaves a slow call by longjmp out of SIGALRM. What we hold must not stay held. */
TEST(a_handler_jumps_away, true, true)
{
	struct itimerval soon = { .it_value = { .tv_usec = 100000 } };
	struct weft_names_service s;
	volatile unsigned fds;

	control_start();
	CHECK(mesh_find_name("orders", &s) == 0);
	fds = count_fds();
	fake->manner[WIRE_SERVICE] = FAKE_SILENT;
	signal(SIGALRM, on_alarm);
	if (!sigsetjmp(jump, 1)) {
		setitimer(ITIMER_REAL, &soon, NULL);
		for (;;)
			orders_works();
	}
	fake->manner[WIRE_SERVICE] = FAKE_WELL;
	usleep(1100000);
	CHECK(orders_works());
	CHECK(count_fds() == fds);
}

/* --- log --- */

TEST(log_goes_to_file_and_weftd, true, true)
{
	struct weft_names_service s;
	char path[160], spec[200], text[8192];
	ssize_t n;
	int fd;

	snprintf(path, sizeof(path), "%s/log", fake->dir);
	snprintf(spec, sizeof(spec), "info:%s", path);
	log_start(spec);
	control_start();
	errno = 99;
	log_warn("before anything is mapped");
	CHECK(errno == 99);
	CHECK(fake->count[WIRE_REPORT] == 0);
	CHECK(mesh_find_name("orders", &s) == 0);
	log_info("two\nlines of %d", 5);
	log_debug("too fine");
	for (int i = 0; i < 100; i++)
		log_info("%0400d", i);
	fd = open(path, O_RDONLY);
	n = read(fd, text, sizeof(text) - 1);
	unlink(path);
	CHECK(n > 0);
	text[n] = '\0';
	CHECK(strstr(text, "warn: before anything is mapped\n") &&
	      strstr(text, "info: two?lines of 5\n"));
	CHECK(!strstr(text, "fine"));
	CHECK(fake->count[WIRE_REPORT] ==
	      19); /* twenty lines in ten seconds, the first before weftd was known */
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(environment_is_read_once),
		cmocka_unit_test(bad_environment_takes_defaults),
		cmocka_unit_test(default_sockets),
		cmocka_unit_test(mode_off_is_not_mesh),
		cmocka_unit_test(names_come_from_memory),
		cmocka_unit_test(mode_words_act_at_once),
		cmocka_unit_test(names_without_permission),
		cmocka_unit_test(files_replaced_while_weftd_was_away),
		cmocka_unit_test(foreign_files_are_not_mapped),
		cmocka_unit_test(nobody_answers_closed),
		cmocka_unit_test(nobody_answers_a_server),
		cmocka_unit_test(nobody_answers_open),
		cmocka_unit_test(weftd_comes_late),
		cmocka_unit_test(service_is_cached_until_it_changes),
		cmocka_unit_test(service_by_port_and_address),
		cmocka_unit_test(last_good_answer_stays),
		cmocka_unit_test(a_hanging_weftd_delays_little),
		cmocka_unit_test(refusal_is_authoritative),
		cmocka_unit_test(answers_that_are_none),
		cmocka_unit_test(welcomes_that_are_none),
		cmocka_unit_test(old_services_are_evicted),
		cmocka_unit_test(open_connections_outlive_a_refresh),
		cmocka_unit_test(choice),
		cmocka_unit_test(identity_is_enrolled_and_renewed),
		cmocka_unit_test(identity_survives_nonsense),
		cmocka_unit_test(certificate_of_another_key),
		cmocka_unit_test(no_identity_is_granted),
		cmocka_unit_test(a_claim_is_not_granted),
		cmocka_unit_test(enrolment_is_refused),
		cmocka_unit_test(listeners_are_announced_and_withdrawn),
		cmocka_unit_test(a_slow_farewell_costs_no_announcement),
		cmocka_unit_test(an_announcement_without_an_answer_is_made_again),
		cmocka_unit_test(only_named_ports_are_announced),
		cmocka_unit_test(listener_before_weftd),
		cmocka_unit_test(a_child_goes_on_where_its_parent_was),
		cmocka_unit_test(forks_under_load),
		cmocka_unit_test(threads_that_miss_at_once_ask_once),
		cmocka_unit_test(a_handler_jumps_away),
		cmocka_unit_test(log_goes_to_file_and_weftd),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
