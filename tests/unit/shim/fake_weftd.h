/* A weftd for tests of the guest's side: a process of its own that answers as it is told, well or badly.
 * What it is told, and what it counts, lies in memory that both sides share. */
#ifndef TESTS_FAKE_WEFTD_H
#define TESTS_FAKE_WEFTD_H

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "pki.h"
#include "weft/env.h"
#include "weft/shm.h"

enum fake_manner {
	FAKE_WELL,
	FAKE_REFUSE,      /* with fake->code */
	FAKE_GARBAGE,     /* bytes that are no frame */
	FAKE_WRONG,       /* an answer to another question */
	FAKE_SHORT,       /* half a frame, then nothing more */
	FAKE_HUGE,        /* a length beyond every limit */
	FAKE_NONSENSE,    /* a frame whose body is no msgpack */
	FAKE_BAD_ADDRESS, /* SERVICE: an endpoint without one */
	FAKE_NO_FDS,      /* HELLO: without descriptors */
	FAKE_SILENT,      /* reads, says nothing, keeps the connection */
};

struct fake {
	char dir[64], socket[96];
	pid_t pid;
	uint64_t epoch;
	_Atomic int manner[WIRE_TYPE_MAX];
	_Atomic int count[WIRE_TYPE_MAX]; /* questions */
	_Atomic int delay_ms;
	int code;
	char granted[64], ports; /* ports: HELLO names 8080 */
	bool enrolled;
	uint32_t endpoints;
	uint16_t first_port;
	uint64_t reason;
	char depends[64];
	struct wire_listener listener; /* the last one told of; numbers only */
};

static struct fake *fake;
static struct weft_board *fake_board;
static struct weft_names_mem *fake_names;
static struct weft_identity_mem *fake_identity;

static inline void *fake_file(const char *name, uint64_t magic, size_t size)
{
	char path[160];
	struct weft_shm *m;
	int fd;

	snprintf(path, sizeof(path), "%s/%s", fake->dir, name);
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
	assert(fd >= 0 && ftruncate(fd, (off_t)size) == 0);
	m = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	assert(m != MAP_FAILED);
	close(fd);
	*m = (struct weft_shm){ .magic = magic, .layout = WEFT_SHM_LAYOUT, .size = size };
	return m;
}

static inline uint64_t fake_boottime_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_BOOTTIME, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

/* Fresh for as long as any test runs. */
static inline void fake_beat(void)
{
	atomic_store(&fake_board->heartbeat_ms, fake_boottime_ms() + 600000);
}

static inline void fake_publish_names(const struct weft_names_service *s, uint32_t n,
				      const struct weft_names_address *a, uint32_t m)
{
	uint64_t seq = atomic_load(&fake_names->seq) + 1;

	assert(names_build(fake_names->half[seq & 1], WEFT_NAMES_HALF, "cluster.local", s, n, a,
			   m) > 0);
	atomic_store(&fake_names->seq, seq);
}

static inline void fake_write_identity(const uint8_t *bytes, size_t len)
{
	uint64_t seq = atomic_load(&fake_identity->seq) + 1;
	struct weft_identity_half *h = &fake_identity->half[seq & 1];

	assert(len <= sizeof(h->bytes));
	h->length = (uint32_t)len;
	memcpy(h->bytes, bytes, len);
	atomic_store(&fake_identity->seq, seq);
}

/* orders.default at 239.240.0.1, and an endpoint of it at 10.0.0.1:8080 */
static inline void fake_default_names(void)
{
	struct weft_names_service s = { .name = "orders.default" };
	struct weft_names_address a[2] = { { .kind = WEFT_NAMES_VIP },
					   { .kind = WEFT_NAMES_ENDPOINT, .port = 8080 } };

	assert(addr_parse(&s.vip4, "239.240.0.1") == 0 &&
	       addr_parse(&s.vip6, "ff3e:7765:6674::1") == 0);
	assert(cidr_parse(&a[0].cidr, "239.240.0.1") == 0 &&
	       cidr_parse(&a[1].cidr, "10.0.0.1") == 0);
	fake_publish_names(&s, 1, a, 2);
}

static inline void fake_prepare(void)
{
	fake = mmap(NULL, sizeof(*fake), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	assert(fake != MAP_FAILED);
	snprintf(fake->dir, sizeof(fake->dir), "/tmp/weft-test.XXXXXX");
	assert(mkdtemp(fake->dir) && chmod(fake->dir, 0755) == 0);
	snprintf(fake->socket, sizeof(fake->socket), "%s/%s", fake->dir, WEFT_SOCKET_NAME);
	snprintf(fake->granted, sizeof(fake->granted), "web.default");
	fake->epoch = 1;
	fake->endpoints = 2;
	fake->first_port = 9000;
	fake->code = EACCES;
	setenv(WEFT_ENV_SOCKET, fake->socket, 1);
}

static inline void fake_make_files(void)
{
	fake_board = fake_file(WEFT_BOARD_NAME, WEFT_SHM_BOARD, sizeof(*fake_board));
	fake_names = fake_file(WEFT_NAMES_NAME, WEFT_SHM_NAMES, sizeof(*fake_names));
	fake_identity = fake_file("identity", WEFT_SHM_IDENTITY, sizeof(*fake_identity));
	atomic_store(&fake_board->mode, 2);
	atomic_store(&fake_identity->mode, 2);
	atomic_store(&fake_identity->live, 1);
	fake_default_names();
}

static inline void fake_remove(void)
{
	static const char *const names[] = { WEFT_BOARD_NAME, WEFT_NAMES_NAME, "identity",
					     WEFT_SOCKET_NAME };
	char path[160];

	for (size_t i = 0; i < 4; i++) {
		snprintf(path, sizeof(path), "%s/%s", fake->dir, names[i]);
		unlink(path);
	}
	rmdir(fake->dir);
}

/* --- the process --- */

static inline bool fake_read(int fd, void *buf, size_t n)
{
	for (char *p = buf; n;) {
		ssize_t r = read(fd, p, n);

		if (r <= 0)
			return false;
		p += r;
		n -= (size_t)r;
	}
	return true;
}

static inline void fake_send(int fd, uint8_t type, const void *body, uint32_t n, const int *fds)
{
	union {
		struct cmsghdr head;
		char bytes[CMSG_SPACE(4 * sizeof(int))];
	} control = { 0 };
	struct wire_frame f;
	struct iovec iov[2] = { { &f, sizeof(f) }, { (void *)(uintptr_t)body, n } };
	struct msghdr m = { .msg_iov = iov, .msg_iovlen = 2 };

	wire_frame_make(&f, type, n);
	if (fds) {
		m.msg_control = &control;
		m.msg_controllen = sizeof(control.bytes);
		control.head.cmsg_level = SOL_SOCKET;
		control.head.cmsg_type = SCM_RIGHTS;
		control.head.cmsg_len = CMSG_LEN(4 * sizeof(int));
		memcpy(CMSG_DATA(&control.head), fds, 4 * sizeof(int));
	}
	sendmsg(fd, &m, MSG_NOSIGNAL);
}

static inline void fake_answer(int fd, uint8_t type, const struct wire_schema *schema,
			       const void *src, const int *fds)
{
	uint8_t *body;
	size_t n;

	assert(wire_encode(schema, src, WEFT_REPLY_MAX, &body, &n) == 0);
	fake_send(fd, type, body, (uint32_t)n, fds);
	free(body);
}

static inline void fake_hello(int fd)
{
	static const char *const files[] = { WEFT_NAMES_NAME, WEFT_BOARD_NAME, "identity" };
	uint64_t port = 8080;
	struct wire_welcome w = {
		.epoch = fake->epoch,
		.service = wire_str_of(fake->granted),
		.ns = wire_str_of("default"),
		.trust_domain = wire_str_of("cluster.local"),
		.enrolled = fake->enrolled,
		.why = wire_str_of("because"),
		.ports = { &port, fake->ports ? 1 : 0 },
	};
	int fds[4];

	for (int i = 0; i < 3; i++) {
		char path[160];

		snprintf(path, sizeof(path), "%s/%s", fake->dir, files[i]);
		fds[i] = open(path, O_RDONLY | O_CLOEXEC);
	}
	fds[3] = memfd_create("family", MFD_CLOEXEC);
	assert(ftruncate(fds[3], 4096) == 0);
	fake_answer(fd, WIRE_HELLO | WIRE_ANSWER, &wire_schema_welcome, &w,
		    fake->manner[WIRE_HELLO] == FAKE_NO_FDS ? NULL : fds);
	for (int i = 0; i < 4; i++)
		close(fds[i]);
}

static inline void fake_service(int fd, const struct wire_ask *ask)
{
	static uint8_t ip[16] = { [10] = 0xff, [11] = 0xff, [12] = 10, [15] = 1 };
	struct wire_endpoint *e = calloc(fake->endpoints + 1, sizeof(*e));
	struct wire_str id = wire_str_of("spiffe://cluster.local/ns/default/sa/orders");
	struct wire_str depends = wire_str_of(fake->depends);
	struct wire_cluster c = {
		.host = wire_str_of("orders.default"),
		.weight = 1,
		.identities = { &id, 1 },
		.endpoints = { e, fake->endpoints },
	};
	struct wire_service s = {
		.name = ask->service,
		.generation = atomic_load(&fake_board->generation[weft_bucket(ask->service.p)]),
		.clusters = { &c, fake->endpoints ? 1 : 0 },
		.reason = fake->reason,
		.depends = { &depends, fake->depends[0] ? 1 : 0 },
	};

	for (uint32_t i = 0; i < fake->endpoints; i++)
		e[i] = (struct wire_endpoint){
			.address = { ip, fake->manner[WIRE_SERVICE] == FAKE_BAD_ADDRESS ? 4 : 16 },
			.port = fake->first_port + i,
			.weight = 1,
			.tls = 1
		};
	fake_answer(fd, WIRE_SERVICE | WIRE_ANSWER, &wire_schema_service, &s, NULL);
	free(e);
}

/* Signs as a CA that lives as long as this process, and writes the memory. */
static inline void fake_enrol(int fd, const struct wire_enrol *ask)
{
	static struct pki_ca ca;
	struct wire_enrolled done = { .spiffe = wire_str_of(
					      "spiffe://cluster.local/ns/default/sa/web") };
	struct pki_leaf l = { .san = "URI:spiffe://cluster.local/ns/default/sa/web" };
	const unsigned char *p = ask->csr.p;
	X509_REQ *req = d2i_X509_REQ(NULL, &p, (long)ask->csr.n);
	struct pki_identity e;
	EVP_PKEY *key;
	X509 *leaf;

	if (!ca.key)
		ca = pki_ca("root", NULL);
	assert(req);
	key = X509_REQ_get_pubkey(req);
	leaf = pki_sign(&ca, key, &l);
	e = pki_encode("spiffe://cluster.local/ns/default/sa/web", "cluster.local", leaf, &ca, 1);
	fake_write_identity(e.bytes, e.len);
	free(e.bytes);
	X509_free(leaf);
	EVP_PKEY_free(key);
	X509_REQ_free(req);
	fake_answer(fd, WIRE_ENROL | WIRE_ANSWER, &wire_schema_enrolled, &done, NULL);
}

static inline void fake_listener(int fd, uint8_t type, const struct wire_listener *l)
{
	struct wire_registered r = { .entry = wire_str_of("default/web-1") };

	fake->listener =
		(struct wire_listener){ .port = l->port, .cookie = l->cookie, .v6only = l->v6only };
	fake_answer(fd, type | WIRE_ANSWER, &wire_schema_registered, &r, NULL);
}

static inline void fake_badly(int fd, uint8_t type, enum fake_manner manner)
{
	struct wire_refused refused = { .code = (uint64_t)fake->code,
					.text = wire_str_of("not you\nand not now") };
	struct wire_frame f;

	switch (manner) {
	case FAKE_REFUSE:
		fake_answer(fd, WIRE_REFUSED, &wire_schema_refused, &refused, NULL);
		break;
	case FAKE_GARBAGE:
		fake_read(fd, &(char){ 0 }, 0);
		assert(write(fd, "HTTP/1.1 400 Bad Request\r\n", 26) == 26);
		break;
	case FAKE_WRONG:
		fake_send(fd, (type % (WIRE_TYPE_MAX - 1) + 1) | WIRE_ANSWER, "\x80", 1, NULL);
		break;
	case FAKE_SHORT:
		assert(write(fd, "\x01\x00\x00", 3) == 3);
		break;
	case FAKE_HUGE:
		wire_frame_make(&f, type | WIRE_ANSWER, UINT32_MAX);
		assert(write(fd, &f, sizeof(f)) == sizeof(f));
		break;
	case FAKE_NONSENSE:
		fake_send(fd, type | WIRE_ANSWER, "\xc1\xff", 2, NULL);
		break;
	case FAKE_SILENT:
		return; /* the descriptor stays open */
	default:
		break;
	}
	close(fd);
}

static inline void fake_serve(int fd)
{
	static const struct wire_schema *const schemas[WIRE_TYPE_MAX] = {
		[WIRE_HELLO] = &wire_schema_hello,         [WIRE_RESOLVE] = &wire_schema_resolve,
		[WIRE_SERVICE] = &wire_schema_ask,         [WIRE_REGISTER] = &wire_schema_listener,
		[WIRE_DEREGISTER] = &wire_schema_listener, [WIRE_ENROL] = &wire_schema_enrol,
		[WIRE_REPORT] = &wire_schema_report,
	};
	union {
		struct wire_hello hello;
		struct wire_ask ask;
		struct wire_listener listener;
		struct wire_enrol enrol;
		struct wire_report report;
	} in;
	struct wire_frame f;
	const char *why;
	uint8_t type, *body;
	uint32_t n;
	void *block;
	int manner;

	if (!fake_read(fd, &f, sizeof(f)) ||
	    wire_frame_parse(&f, WEFT_REQUEST_MAX, &type, &n) < 0) {
		close(fd);
		return;
	}
	body = malloc(n + 1u);
	assert(fake_read(fd, body, n));
	assert(wire_decode(schemas[type], body, n, &in, &block, &why) == 0);
	atomic_fetch_add(&fake->count[type], 1);
	if (fake->delay_ms)
		usleep((useconds_t)fake->delay_ms * 1000);
	manner = fake->manner[type];
	if (manner != FAKE_WELL && manner != FAKE_NO_FDS && manner != FAKE_BAD_ADDRESS) {
		fake_badly(fd, type, (enum fake_manner)manner);
	} else {
		if (type == WIRE_HELLO)
			fake_hello(fd);
		else if (type == WIRE_SERVICE)
			fake_service(fd, &in.ask);
		else if (type == WIRE_ENROL)
			fake_enrol(fd, &in.enrol);
		else if (type == WIRE_REGISTER || type == WIRE_DEREGISTER)
			fake_listener(fd, type, &in.listener);
		else
			fake_answer(fd, type | WIRE_ANSWER, &wire_schema_registered,
				    &(struct wire_registered){ 0 }, NULL);
		close(fd);
	}
	free(block);
	free(body);
}

static inline void fake_start(void)
{
	struct sockaddr_un un = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	pid_t pid;

	snprintf(un.sun_path, sizeof(un.sun_path), "%s", fake->socket);
	unlink(fake->socket);
	assert(fd >= 0 && bind(fd, (struct sockaddr *)&un, sizeof(un)) == 0 && listen(fd, 64) == 0);
	assert(chmod(fake->socket, 0666) == 0);
	atomic_store(&fake_board->epoch, fake->epoch);
	fake_beat();
	pid = fork();
	assert(pid >= 0);
	if (!pid) {
		alarm(120); /* should the test be gone */
		for (;;) {
			int peer = accept(fd, NULL, NULL);

			if (peer >= 0)
				fake_serve(peer);
		}
	}
	fake->pid = pid;
	close(fd);
}

/* As kill -9: the socket file stays, the heartbeat stops. */
static inline void fake_kill(void)
{
	kill(fake->pid, SIGKILL);
	waitpid(fake->pid, NULL, 0);
	fake->pid = 0;
	atomic_store(&fake_board->heartbeat_ms, fake_boottime_ms() - 10000);
}

static inline void fake_restart(void)
{
	fake->epoch++;
	fake_start();
}

#endif
