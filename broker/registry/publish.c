/* What guests read: names, board, identity memories. Changes mark what is dirty; publish_now() writes it out, names
 * before generations, so that a guest that sees a new generation finds the names that go with it. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#include "registry/internal.h"
#include "telemetry/log.h"
#include "weft/env.h"

static uint64_t boottime_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_BOOTTIME, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static void on_heartbeat(struct ev_loop *loop, struct ev_timer *t, int events)
{
	struct registry *r = t->data;

	(void)loop;
	(void)events;
	atomic_store_explicit(&r->board->heartbeat_ms, boottime_ms(), memory_order_release);
}

static void on_flush(struct ev_loop *loop, struct ev_timer *t, int events)
{
	(void)loop;
	(void)events;
	publish_now(t->data);
}

int publish_open(struct registry *r)
{
	bool fresh;
	void *map;
	int n = shm_map(r->socket_dir, WEFT_BOARD_NAME, WEFT_SHM_BOARD, sizeof(*r->board), 0644,
			&map, &fresh);

	r->board_fd = r->names_fd = -1;
	if (n < 0)
		return n;
	r->board = map;
	n = shm_reserve(r->socket_dir, WEFT_BOARD_NAME, 0, sizeof(*r->board));
	if (n < 0)
		return n;
	n = shm_map(r->socket_dir, WEFT_NAMES_NAME, WEFT_SHM_NAMES, sizeof(*r->names), 0644, &map,
		    &fresh);
	if (n < 0)
		return n;
	r->names = map;
	r->names_scratch = mmap(NULL, WEFT_NAMES_HALF, PROT_READ | PROT_WRITE,
				MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (r->names_scratch == MAP_FAILED) {
		r->names_scratch = NULL;
		return -errno;
	}
	r->board_fd = shm_reopen(r->socket_dir, WEFT_BOARD_NAME);
	r->names_fd = shm_reopen(r->socket_dir, WEFT_NAMES_NAME);
	ev_timer_init(&r->flush, on_flush, 0, 0);
	ev_timer_init(&r->heartbeat, on_heartbeat, 0, WEFT_HEARTBEAT_MS / 1000.0);
	r->flush.data = r->heartbeat.data = r;
	return r->board_fd < 0 ? r->board_fd : r->names_fd < 0 ? r->names_fd : 0;
}

void publish_close(struct registry *r)
{
	ev_timer_stop(r->loop, &r->flush);
	ev_timer_stop(r->loop, &r->heartbeat);
	if (r->board)
		munmap(r->board, sizeof(*r->board));
	if (r->names)
		munmap(r->names, sizeof(*r->names));
	if (r->names_scratch)
		munmap(r->names_scratch, WEFT_NAMES_HALF);
	if (r->board_fd >= 0)
		close(r->board_fd);
	if (r->names_fd >= 0)
		close(r->names_fd);
}

/* Guests that lived through a restart see another epoch and attach again; all that they keep is asked for anew. */
void publish_ready(struct registry *r)
{
	uint64_t epoch = 0;

	while (!epoch || epoch == atomic_load(&r->board->epoch))
		if (getrandom(&epoch, sizeof(epoch), 0) != sizeof(epoch))
			epoch = boottime_ms();
	r->dirty_names = r->dirty_inbound = r->dirty_modes = r->dirty_vips = true;
	memset(r->bumps, 0xff, sizeof(r->bumps));
	r->is_ready = true;
	publish_now(r);
	atomic_store_explicit(&r->board->epoch, epoch, memory_order_release);
	on_heartbeat(r->loop, &r->heartbeat, 0);
	ev_timer_again(r->loop, &r->heartbeat);
}

void publish_later(struct registry *r, double after)
{
	if (!r->is_ready ||
	    (ev_is_active(&r->flush) && ev_timer_remaining(r->loop, &r->flush) <= after))
		return;
	ev_timer_stop(r->loop, &r->flush);
	ev_timer_set(&r->flush, after, 0);
	ev_timer_start(r->loop, &r->flush);
}

void publish_bump(struct registry *r, const char *service)
{
	uint32_t b = weft_bucket(service) & (WEFT_GENERATIONS - 1);

	r->bumps[b / 64] |= UINT64_C(1) << (b % 64);
}

static int write_names(struct registry *r)
{
	struct arena arena = { 0 };
	struct model_names n = { 0 };
	uint64_t seq = atomic_load_explicit(&r->names->seq, memory_order_relaxed);
	unsigned half = (seq + 1) & 1;
	int e = model_names(r->model, r->host, &arena, &n);

	if (e == 0) {
		int64_t len = names_build(r->names_scratch, WEFT_NAMES_HALF, r->trust_domain,
					  n.services, n.n_services, n.addresses, n.n_addresses);
		e = len < 0 ? (int)len
			    : shm_reserve(r->socket_dir, WEFT_NAMES_NAME,
					  (size_t)(r->names->half[half] - (uint8_t *)r->names),
					  (size_t)len);
		if (e == 0) {
			memcpy(r->names->half[half], r->names_scratch, (size_t)len);
			atomic_store_explicit(&r->names->seq, seq + 1, memory_order_release);
		}
	}
	arena_free(&arena);
	return e;
}

static void write_identities(struct registry *r)
{
	for (size_t i = 0; i < r->n_processes; i++) {
		struct process *p = r->processes[i];
		int e = publish_identity(r, p);
		if (e < 0)
			log_error(
				"registry: identity of %s (pid %d) keeps its last good policy: %s",
				p->service, (int)p->facts.pid, strerror(-e));
	}
}

static void write_generations(struct registry *r)
{
	for (uint32_t b = 0; b < WEFT_GENERATIONS; b++)
		if (r->bumps[b / 64] >> (b % 64) & 1)
			atomic_fetch_add_explicit(&r->board->generation[b], 1,
						  memory_order_release);
	memset(r->bumps, 0, sizeof(r->bumps));
}

void publish_now(struct registry *r)
{
	if (!r->is_ready)
		return;
	ev_timer_stop(r->loop, &r->flush);
	if (r->dirty_vips) {
		r->dirty_vips = false;
		vips_update(r);
	}
	if (r->dirty_modes) {
		modes_update(r);
		entries_update(r);
	}
	if (r->dirty_names) {
		int e = write_names(r);
		if (e < 0)
			log_error("registry: the names memory stays as it was: %s", strerror(-e));
	}
	if (r->dirty_inbound)
		write_identities(r);
	r->dirty_modes = r->dirty_names = r->dirty_inbound = false;
	write_generations(r);
	if (r->dirty_status)
		documents_status(r);
	r->dirty_status = false;
	if (r->settled && !registry_is_settling(r))
		r->settled(r->settled_arg);
}

/* --- identity memory --- */

static int encode_identity(struct registry *r, const struct process *p, uint8_t **out, size_t *len)
{
	struct arena arena = { 0 };
	struct wire_inbound inbound = { 0 };
	struct wire_label *labels = arena_array(&arena, p->n_labels, sizeof(*labels));
	struct workload w = {
		.service = p->service, .ns = p->ns, .labels = labels, .n_labels = p->n_labels
	};
	int e = -ENOMEM;

	for (size_t i = 0; labels && i < p->n_labels; i++) {
		labels[i].key = wire_str_of(p->labels[i].key);
		labels[i].value = wire_str_of(p->labels[i].value);
	}
	if (labels || !p->n_labels)
		e = model_inbound(r->model, &w, &arena, &inbound);
	if (e == 0) {
		struct wire_identity id = {
			.spiffe = wire_str_of(p->spiffe),
			.chain = p->signature->chain,
			.bundle = { p->signature->bundle.v, p->signature->bundle.n },
			.inbound = &inbound,
			.not_after = p->not_after,
			.service = wire_str_of(p->service),
		};
		e = wire_encode(&wire_schema_identity, &id,
				sizeof(((struct weft_identity_half *)0)->bytes), out, len);
	}
	arena_free(&arena);
	return e;
}

int publish_identity(struct registry *r, struct process *p)
{
	uint8_t *bytes = NULL;
	size_t len = 0;
	char name[64];

	if (!p->signature)
		return 0;
	int e = encode_identity(r, p, &bytes, &len);
	if (e < 0)
		return e;
	if (len == p->written_len && memcmp(bytes, p->written, len) == 0) {
		free(bytes);
		return 0;
	}
	uint64_t seq = atomic_load_explicit(&p->memory->seq, memory_order_relaxed);
	struct weft_identity_half *half = &p->memory->half[(seq + 1) & 1];
	snprintf(name, sizeof(name), WEFT_IDENTITY_DIR "/%s", p->id);
	e = shm_reserve(r->socket_dir, name, (size_t)((uint8_t *)half - (uint8_t *)p->memory),
			len + 4);
	if (e < 0) {
		free(bytes);
		return e;
	}
	memcpy(half->bytes, bytes, len);
	half->length = (uint32_t)len;
	atomic_store_explicit(&p->memory->seq, seq + 1, memory_order_release);
	free(p->written);
	p->written = bytes;
	p->written_len = len;
	return 0;
}
