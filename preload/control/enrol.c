/* From the identity memory to the identity in force. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "control/exchange.h"
#include "control/internal.h"
#include "sys/stack.h"
#include "telemetry/log.h"

#define COPY_RETRIES 64

static struct flight flight;
static _Atomic bool needed;         /* ENROL before the memory is read */
static _Atomic int64_t enrol_at_ms; /* not before, after a refusal */
static struct identity *current;    /* under the lock */
static _Atomic uint64_t current_seq;
static uint64_t bad_seq; /* of the leader: could not be used, so do not try again */

void enrol_needed(void)
{
	atomic_store(&needed, true);
}

void enrol_forked(void)
{
	atomic_store(&flight.busy, 0);
}

uint64_t mesh_identity_seq(void)
{
	uint64_t turn;
	const struct weft_identity_mem *mem = attach_memory(&turn);
	uint64_t seq = mem ? atomic_load_explicit(&mem->seq, memory_order_acquire) : 0;

	return seq ? turn << 48 | seq : 0;
}

static void publish(struct identity *id)
{
	struct identity *former;
	struct quiet q;

	control_lock(&q);
	former = current;
	current = id;
	atomic_store_explicit(&current_seq, id ? id->seq : 0, memory_order_release);
	control_unlock(&q);
	identity_unref(former);
}

void identity_dropped(void)
{
	publish(NULL);
}

static struct identity *take(void)
{
	struct identity *id;
	struct quiet q;

	control_lock(&q);
	id = current ? identity_ref(current) : NULL;
	control_unlock(&q);
	return id;
}

static int enrol(struct keypair *k)
{
	struct wire_enrolled out;
	uint8_t csr[WEFT_CSR_MAX];
	struct wire_enrol in = { .csr = { .p = csr } };
	struct exchange x = { .type = WIRE_ENROL,
			      .ask = &wire_schema_enrol,
			      .in = &in,
			      .answer = &wire_schema_enrolled,
			      .out = &out,
			      .timeout_ms = WEFT_EXCHANGE_MS };
	int r;

	if (!is_due(&enrol_at_ms, RETRY_MS))
		return -EACCES;
	r = keypair_csr(k, csr);
	if (r < 0) {
		log_error("no certificate request can be made: %s", strerror(-r));
		return -EACCES;
	}
	in.csr.n = (uint32_t)r;
	r = exchange(&x);
	if (r == -EACCES && x.code == ESRCH)
		attach_lost();
	if (r == -EACCES)
		log_error("weftd grants no certificate: %s", x.text);
	if (!r) {
		atomic_store(&needed, false);
		atomic_store(&enrol_at_ms, 0);
		log_info("enrolled as %s", out.spiffe.p);
	}
	exchange_close(&x);
	return r;
}

/* The half in force, copied; malloc'ed. NULL: nothing written yet, or not to be read. */
static uint8_t *copy_memory(uint64_t *seq, size_t *len)
{
	for (int i = 0; i < COPY_RETRIES; i++) {
		uint64_t turn;
		const struct weft_identity_mem *mem = attach_memory(&turn);
		uint64_t at = mem ? atomic_load_explicit(&mem->seq, memory_order_acquire) : 0;
		const struct weft_identity_half *half;
		uint8_t *copy;

		if (!at)
			return NULL;
		half = &mem->half[at & 1];
		*len = half->length;
		if (*len > sizeof(half->bytes))
			*len = 0; /* torn, or wrong: found out below */
		copy = malloc(*len + 1);
		if (!copy)
			return NULL;
		memcpy(copy, half->bytes, *len);
		if (weft_shm_unchanged(&mem->seq, at)) {
			*seq = turn << 48 | at;
			return copy;
		}
		free(copy);
	}
	return NULL;
}

/* Decodes the memory and puts the identity in force. 0, -ENOENT: nothing there; else what identity_build() says. */
static int build(struct keypair *k, const char **why)
{
	struct identity *id;
	uint64_t seq = 0;
	size_t len;
	uint8_t *bytes = copy_memory(&seq, &len);
	int r;

	if (!bytes)
		return -ENOENT;
	r = identity_build(k, bytes, len, seq, &id, why);
	free(bytes);
	if (!r)
		publish(id);
	bad_seq = r ? seq : 0;
	return r;
}

static int lead(void)
{
	struct keypair *k = keypair_get();
	const char *why = "nothing was written";
	int r = -EACCES;

	if (!k) {
		log_error("no key can be made for this process");
		return -EACCES;
	}
	if (!atomic_load(&needed) && mesh_identity_seq() != bad_seq) {
		r = build(k, &why);
		if (!r)
			return 0;
	}
	/* Nothing there yet, or the certificate of a key that an exec took with it. */
	r = enrol(k);
	if (r)
		return r;
	r = build(k, &why);
	if (r)
		log_error("identity from weftd cannot be used: %s", why);
	return r ? -EACCES : 0;
}

static void lead_on_stack(void *result)
{
	*(int *)result = lead();
}

static bool is_in_force(void)
{
	uint64_t seq = mesh_identity_seq();

	return seq && !atomic_load_explicit(&needed, memory_order_relaxed) &&
	       atomic_load_explicit(&current_seq, memory_order_acquire) == seq;
}

int identity_refresh(void)
{
	bool have = atomic_load_explicit(&current_seq, memory_order_acquire) != 0;
	int r = 0;

	if (is_in_force())
		return 0;
	if (flight_begin(&flight, have ? 0 : 2 * WEFT_EXCHANGE_MS)) {
		r = 0;
		if (!is_in_force())
			stack_run(lead_on_stack, &r);
		flight_end(&flight);
	}
	return r;
}

int mesh_identity(struct identity **out, enum weft_reason *reason)
{
	KEEP_ERRNO;
	const struct attachment *a;
	int r = -EACCES;

	*out = NULL;
	if (control_env.ceiling == WEFT_MODE_OFF)
		goto out;
	r = attach(true);
	a = attachment_get();
	if (!r && a && a->service[0]) {
		r = identity_refresh();
		*out = take();
	}
	if (*out)
		return 0;
out:
	*reason = r == -ECONNREFUSED ? WEFT_REASON_NO_BROKER : WEFT_REASON_NO_IDENTITY;
	return r == -ECONNREFUSED ? -ECONNREFUSED : -EACCES;
}
