/* SERVICE: the policy and endpoints behind what was dialled. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "control/exchange.h"
#include "control/internal.h"
#include "telemetry/log.h"

#define FLIGHTS 16

/* Threads that miss the same service at once send one question; others go alone. */
static struct {
	struct flight flight;
	_Atomic uint64_t hash;
} flights[FLIGHTS];

void service_forked(void)
{
	for (unsigned i = 0; i < FLIGHTS; i++)
		atomic_store(&flights[i].flight.busy, 0);
}

/* What the data path relies on. */
static bool is_usable(const struct wire_service *s)
{
	if (s->clusters.n > WEFT_CLUSTERS_MAX || s->reason >= WEFT_REASON_MAX)
		return false;
	for (uint32_t i = 0; i < s->clusters.n; i++) {
		const struct wire_cluster *c = &s->clusters.v[i];

		if (c->endpoints.n > WEFT_ENDPOINTS_MAX)
			return false;
		for (uint32_t k = 0; k < c->endpoints.n; k++) {
			const struct wire_endpoint *e = &c->endpoints.v[k];

			if (e->address.n != 16 || !e->port || e->port > UINT16_MAX)
				return false;
		}
	}
	return true;
}

static enum weft_reason refusal_reason(int code)
{
	switch (code) {
	case EACCES:
	case EPERM:
		return WEFT_REASON_NO_IDENTITY;
	case ENOENT:
		return WEFT_REASON_UNKNOWN_VIP;
	default:
		return WEFT_REASON_NO_ENDPOINT;
	}
}

/* The board as it is before a question: an answer is as new as that at least. */
static uint32_t *copy_generations(void)
{
	uint32_t *copy = malloc(WEFT_GENERATIONS * sizeof(*copy));

	for (uint32_t i = 0; copy && i < WEFT_GENERATIONS; i++)
		copy[i] = board_generation(i);
	return copy;
}

/* One exchange. 0: *out, which is in the cache too; -EACCES: refused, *reason set; -ECONNREFUSED: no answer. */
static int ask(const struct service_key *k, int timeout_ms, struct service **out,
	       enum weft_reason *reason)
{
	struct wire_ask in = {
		.service = wire_str_of(k->name),
		.port = k->dialled.port,
		.address = { .p = k->dialled.ip, .n = 16 },
		.exact = k->exact,
	};
	struct wire_service wire;
	struct exchange x = { .type = WIRE_SERVICE,
			      .ask = &wire_schema_ask,
			      .in = &in,
			      .answer = &wire_schema_service,
			      .out = &wire,
			      .timeout_ms = timeout_ms };
	uint64_t epoch = board_epoch();
	uint32_t *generations = copy_generations();
	int r = generations ? exchange(&x) : -ENOMEM;

	if (!r && !is_usable(&wire)) {
		log_error("weftd's answer for %s cannot be used", k->name);
		exchange_close(&x);
		r = -ECONNREFUSED;
	}
	if (!r) {
		*out = cache_put(k, &wire, x.block, generations, epoch);
		r = *out ? 0 : -ENOMEM;
	} else if (r == -EACCES) {
		cache_drop(k);
		*reason = refusal_reason(x.code);
		log_info("weftd refuses %s: %s", k->name, x.text);
	}
	free(generations);
	return r;
}

static bool is_cached(const struct service_key *k, struct service **out)
{
	bool current = false;

	*out = cache_get(k, &current);
	if (!current)
		*out = service_unref(*out);
	return *out;
}

/* As ask(), but of threads with the same question at the same time one asks and the others take its answer. */
static int ask_once(const struct service_key *k, int timeout_ms, struct service **out,
		    enum weft_reason *reason)
{
	unsigned i = k->hash % FLIGHTS;
	uint64_t asked;
	int r = 0;

	if (flight_begin(&flights[i].flight, 0)) {
		atomic_store(&flights[i].hash, k->hash);
		/* Another may have had the answer since we looked. */
		if (!board_is_fresh() || !is_cached(k, out))
			r = ask(k, timeout_ms, out, reason);
		atomic_store(&flights[i].hash, 0);
		flight_end(&flights[i].flight);
		return r;
	}
	asked = atomic_load(&flights[i].hash); /* 0: it begins or ends just now */
	if (!asked || asked == k->hash) {
		if (flight_begin(&flights[i].flight, timeout_ms))
			flight_end(&flights[i].flight);
		if (is_cached(k, out))
			return 0;
	}
	return ask(k, timeout_ms, out, reason);
}

/* Nobody answers and WEFT_NO_BROKER is open: the very address that was dialled, in the clear. */
static struct service *pass_plain(const struct service_key *k)
{
	struct {
		struct wire_cluster cluster;
		struct wire_endpoint endpoint;
		uint8_t ip[16];
		char name[WEFT_SERVICE_MAX + 1];
	} *mem = calloc(1, sizeof(*mem));
	struct wire_service wire = { .clusters = { .n = 1 } };
	struct service *s;
	uint32_t *generations = copy_generations();

	if (!mem || !generations || addr_is_vip(&k->dialled)) {
		free(mem);
		free(generations);
		return NULL;
	}
	memcpy(mem->ip, k->dialled.ip, 16);
	memcpy(mem->name, k->name, sizeof(mem->name));
	mem->endpoint = (struct wire_endpoint){
		.address = { .p = mem->ip, .n = 16 },
		.port = k->dialled.port,
		.weight = 1,
		.entry = wire_str_of("plain"),
		.version = wire_str_of(""),
	};
	mem->cluster = (struct wire_cluster){
		.host = wire_str_of(mem->name),
		.subset = wire_str_of(""),
		.sni = wire_str_of(""),
		.weight = 1,
		.tls = WEFT_TLS_DISABLE,
		.endpoints = { .v = &mem->endpoint, .n = 1 },
	};
	wire.name = wire_str_of(mem->name);
	wire.clusters.v = &mem->cluster;
	s = cache_put(k, &wire, mem, generations, 0);
	free(generations);
	cache_drop(k); /* for this connection only */
	return s;
}

static int nobody_answers(const struct service_key *k, struct service **out,
			  enum weft_reason *reason)
{
	*reason = WEFT_REASON_NO_BROKER;
	if (control_env.open)
		*out = pass_plain(k);
	return *out ? 0 : -ECONNREFUSED;
}

int mesh_service(const char *name, const struct weft_addr *dialled, bool exact,
		 struct service **out, enum weft_reason *reason)
{
	KEEP_ERRNO;
	struct service *last;
	struct service_key k;
	struct patience p;
	bool current = false;
	int r;

	*out = NULL;
	*reason = WEFT_REASON_NO_ENDPOINT;
	if (service_key_make(&k, name, dialled, exact) < 0)
		return -ECONNREFUSED;
	last = cache_get(&k, &current);
	if (last && current && board_is_fresh()) {
		*out = last;
		return 0;
	}
	r = attach(!last);
	patience_begin(&p, !last && r != -ECONNREFUSED);
	do
		r = exchange_is_due()
			    ? ask_once(&k,
				       board_is_fresh() || !last ? WEFT_EXCHANGE_MS : REATTACH_MS,
				       out, reason)
			    : -ECONNREFUSED;
	while (r == -ECONNREFUSED && patience_lasts(&p));
	if (r == -ECONNREFUSED && last) {
		*out = last;
		return 0;
	}
	service_unref(last);
	if (r == -ECONNREFUSED)
		return nobody_answers(&k, out, reason);
	return r == -EACCES ? -reason_errno(*reason) : r;
}

int service_route(struct service *s, uint32_t *cluster)
{
	int r = route_pick(s->wire, control_random());

	if (r < 0)
		return r;
	*cluster = (uint32_t)r;
	return 0;
}

int service_pick(struct service *s, const uint64_t *tried, uint32_t cluster, uint32_t *endpoint)
{
	int r = -ENOENT;

	if (cluster < s->wire->clusters.n)
		r = endpoint_pick(&s->wire->clusters.v[cluster], &s->balance[cluster], tried,
				  control_random());
	if (r < 0)
		return r;
	*endpoint = (uint32_t)r;
	return 0;
}
