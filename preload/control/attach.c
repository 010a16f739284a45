/* HELLO: who weftd takes us for, and the memories that come with it. */
#include <errno.h>
#include <openssl/opensslv.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "control/exchange.h"
#include "control/internal.h"
#include "sys/clock.h"
#include "sys/sys.h"
#include "telemetry/log.h"
#include "telemetry/seen.h"
#include "weft/env.h"

enum { FD_NAMES, FD_BOARD, FD_IDENTITY, FD_FAMILY };

static struct flight flight;
static _Atomic int64_t reattach_at_ms, refused_until_ms;
static _Atomic(const struct attachment *) attachment;
static _Atomic uint64_t epoch;

/* Under the lock, but for the pointer and the turn, which others read at any time. */
static struct {
	_Atomic(struct weft_identity_mem *) mem;
	_Atomic uint64_t turn;
	dev_t dev;
	ino_t ino;
	void *family;
} memory;

const struct attachment *attachment_get(void)
{
	return atomic_load_explicit(&attachment, memory_order_acquire);
}

const struct weft_identity_mem *attach_memory(uint64_t *turn)
{
	const struct weft_identity_mem *mem =
		atomic_load_explicit(&memory.mem, memory_order_acquire);

	if (turn)
		*turn = atomic_load_explicit(&memory.turn, memory_order_relaxed);
	return mem;
}

uint64_t attach_epoch(void)
{
	return atomic_load_explicit(&epoch, memory_order_acquire);
}

void attach_lost(void)
{
	atomic_store(&epoch, 0);
}

void attach_forked(void)
{
	atomic_store(&flight.busy, 0);
}

/* As with names and board: the same file stays mapped, a former one stays for its readers. */
static int map_identity(int fd)
{
	struct weft_identity_mem *mem;
	struct stat st;
	struct quiet q;
	int err = (int)sys_call(SYS_fstat, fd, (long)&st, 0, 0, 0, 0);

	if (err < 0)
		return err;
	control_lock(&q);
	if (!memory.mem || memory.dev != st.st_dev || memory.ino != st.st_ino) {
		mem = shm_map(fd, WEFT_SHM_IDENTITY, sizeof(*mem), &err);
		if (mem) {
			memory.dev = st.st_dev;
			memory.ino = st.st_ino;
			atomic_fetch_add(&memory.turn, 1);
			atomic_store_explicit(&memory.mem, mem, memory_order_release);
		}
	}
	control_unlock(&q);
	return err;
}

/* The mapping says that somebody of this family lives, and holds its tally. That of a weftd before is replaced where it
 * lies: threads are counting in it. */
static int map_family(int fd)
{
	struct quiet q;
	long p;

	control_lock(&q);
	p = sys_call(SYS_mmap, (long)memory.family, WEFT_TALLY_BYTES, PROT_READ | PROT_WRITE,
		     MAP_SHARED | (memory.family ? MAP_FIXED : 0), fd, 0);
	if (p >= 0 || p <= -4096)
		memory.family = (void *)p;
	control_unlock(&q);
	if (p < 0 && p > -4096)
		return (int)p;
	seen_share(memory.family);
	return 0;
}

static void read_ports(struct attachment *a, const struct wire_welcome *w)
{
	for (uint32_t i = 0; i < w->ports.n && a->n_ports < WEFT_PORTS_MAX; i++)
		if (w->ports.v[i] > 0 && w->ports.v[i] <= UINT16_MAX)
			a->ports[a->n_ports++] = (unsigned short)w->ports.v[i];
}

/* Publishes what weftd granted. What was published before is kept for its readers, and is the same in most cases. */
static int publish(const struct wire_welcome *w)
{
	const struct attachment *before = attachment_get();
	struct attachment *now;

	if (w->service.n > WEFT_SERVICE_MAX || w->ns.n > WEFT_LABEL_MAX)
		return -EPROTO;
	now = calloc(1, sizeof(*now));
	if (!now)
		return -ENOMEM;
	memcpy(now->service, w->service.p, w->service.n);
	memcpy(now->ns, w->ns.n ? w->ns.p : control_env.ns,
	       w->ns.n ? w->ns.n : strlen(control_env.ns));
	read_ports(now, w);
	if (before && memcmp(before, now, sizeof(*now)) == 0) {
		free(now);
		return 0;
	}
	atomic_store_explicit(&attachment, now, memory_order_release);
	if (before && strcmp(before->service, now->service) != 0)
		identity_dropped();
	return 0;
}

static int take_welcome(const struct exchange *x, const struct wire_welcome *w)
{
	int r = board_map(x->fds[FD_NAMES], x->fds[FD_BOARD]);

	if (!r)
		r = map_identity(x->fds[FD_IDENTITY]);
	if (!r)
		r = map_family(x->fds[FD_FAMILY]);
	if (!r)
		r = publish(w);
	if (r)
		return r;
	if (w->netns)
		netns_set(w->netns);
	if (w->service.n && !w->enrolled)
		enrol_needed();
	atomic_store_explicit(&epoch, w->epoch, memory_order_release);
	return 0;
}

static int hello(int timeout_ms)
{
	struct wire_hello in = {
		.shim_version = wire_str_of(WEFT_VERSION),
		.tls_version = wire_str_of(OPENSSL_VERSION_STR),
		.layout = WEFT_SHM_LAYOUT,
		.service = wire_str_of(control_env.service),
		.labels = wire_str_of(control_env.labels),
		.program = wire_str_of(control_env.program),
		.ceiling = control_env.ceiling,
	};
	struct wire_welcome out;
	struct exchange x = { .brings_fds = true,
			      .type = WIRE_HELLO,
			      .ask = &wire_schema_hello,
			      .in = &in,
			      .answer = &wire_schema_welcome,
			      .out = &out,
			      .timeout_ms = timeout_ms };
	int r = exchange(&x);

	if (!r) {
		r = take_welcome(&x, &out);
		if (r)
			log_error("weftd's answer to HELLO cannot be used: %s", strerror(-r));
		else if (!out.service.n && control_env.claims)
			log_error("weftd grants this process no service: %s", out.why.p);
		r = r ? -EACCES : 0;
	} else if (r == -EACCES) {
		log_error("weftd refuses this process: %s", x.text);
	}
	exchange_close(&x);
	return r;
}

/* Attached to the weftd that runs now, as far as can be seen without asking. */
static bool is_current(void)
{
	const struct weft_identity_mem *mem = attach_memory(NULL);

	return mem && attach_epoch() == board_epoch() && board_is_fresh() &&
	       atomic_load_explicit(&mem->live, memory_order_relaxed);
}

static int attach_once(int timeout_ms, int64_t follow_ms)
{
	uint64_t before;
	int r;

	if (!flight_begin(&flight, follow_ms))
		return attachment_get() ? 0 : -ECONNREFUSED;
	before = attach_epoch();
	r = is_current() ? 0 : hello(timeout_ms); /* another may have done it since we looked */
	if (r == -EACCES)
		atomic_store(&refused_until_ms, clock_now_ms() + RETRY_MS);
	if (!r && before != attach_epoch())
		listen_again();
	flight_end(&flight);
	return r;
}

int attach(bool may_wait)
{
	struct patience p;
	int r;

	if (is_current())
		return 0;
	if (attachment_get()) {
		if (is_due(&reattach_at_ms, RETRY_MS))
			attach_once(REATTACH_MS, 0);
		return 0;
	}
	if (clock_now_ms() < atomic_load_explicit(&refused_until_ms, memory_order_relaxed))
		return -EACCES;
	patience_begin(&p, may_wait);
	do {
		r = -ECONNREFUSED;
		if (exchange_is_due())
			r = attach_once(WEFT_EXCHANGE_MS, WEFT_EXCHANGE_MS);
	} while (r == -ECONNREFUSED && patience_lasts(&p));
	return r;
}
