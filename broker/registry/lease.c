/* The lease of this host, the leader's lease, and what the leader does: statuses, entries of dead hosts, old addresses. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "registry/internal.h"
#include "telemetry/log.h"

#define LEASE_EVERY_S 5.0
#define LEASE_S "15"
#define LEASE_MS "15000"
#define LEADER_KEY "weft:leader"
#define GRACE_S 60.0 /* entries outlive their host's lease by this */

/* --- entries of hosts that are gone --- */

static int bury_entry(void *arg, const struct model_endpoint *e)
{
	const struct peer_host *h = arg;
	char key[STORE_KEY_MAX + 1];

	if (strcmp(e->host, h->key) == 0 &&
	    snprintf(key, sizeof(key), "weft:WorkloadEntry:%s", e->entry) < (int)sizeof(key)) {
		store_run(h->r->store, NULL, NULL, "DEL", key, NULL);
		store_fetch(h->r->store, key);
	}
	return 0;
}

static void on_exists(void *arg, const struct store_answer *a)
{
	struct peer_host *h = arg;
	double now = ev_now(h->r->loop);

	h->asked = false;
	if (a->error)
		return;
	if (a->integer)
		h->absent = 0;
	else if (!h->absent)
		h->absent = now;
	else if (now - h->absent > GRACE_S && h->r->leader) {
		log_warn("host %s is gone: its endpoints are removed", h->key);
		model_each_endpoint(h->r->model, NULL, bury_entry, h);
		h->absent = now;
	}
}

static int see_host(void *arg, const struct model_endpoint *e)
{
	struct registry *r = arg;
	struct peer_host *h = strmap_find(&r->peers, e->host);

	if (!e->host[0] || strcmp(e->host, r->host) == 0)
		return 0;
	if (!h) {
		h = calloc(1, sizeof(*h));
		if (h)
			*h = (struct peer_host){ .key = strdup(e->host), .r = r };
		if (!h || !h->key || strmap_add(&r->peers, h) < 0) {
			if (h)
				free(h->key);
			free(h);
			return -1;
		}
	}
	h->seen = true;
	return 0;
}

static void peer_free(void *item)
{
	struct peer_host *h = item;

	free(h->key);
	free(h);
}

static void look_at_hosts(struct registry *r)
{
	char key[STORE_KEY_MAX + 1];

	for (size_t i = 0; i < r->peers.n; i++)
		((struct peer_host *)r->peers.v[i])->seen = false;
	model_each_endpoint(r->model, NULL, see_host, r);
	for (size_t i = r->peers.n; i-- > 0;) {
		struct peer_host *h = r->peers.v[i];
		if (h->asked)
			continue;
		if (!h->seen) {
			strmap_remove(&r->peers, h->key);
			peer_free(h);
			continue;
		}
		snprintf(key, sizeof(key), "weft:Host:%s", h->key);
		h->asked = store_run(r->store, on_exists, h, "EXISTS", key, NULL) == 0;
	}
}

/* --- leases --- */

static void lead(struct registry *r)
{
	if (!r->leader)
		log_info("registry: this weftd writes weft:status now");
	bool fresh = !r->leader;
	r->leader = true;
	r->led_elsewhere = false;
	if (fresh)
		documents_status_all(r);
}

static void on_leader(void *arg, const struct store_answer *a)
{
	struct registry *r = arg;

	if (a->error || !a->len)
		return;
	if (strcmp(a->text, r->host) == 0) {
		store_run(r->store, NULL, NULL, "PEXPIRE", LEADER_KEY, LEASE_MS, NULL);
		lead(r);
	} else {
		r->leader = false;
		r->led_elsewhere = true;
		documents_status(r);
	}
}

static void on_taken(void *arg, const struct store_answer *a)
{
	struct registry *r = arg;

	if (!a->error && !a->nil)
		lead(r);
	else if (!a->error)
		store_run(r->store, on_leader, r, "GETRANGE", LEADER_KEY, "0", "63", NULL);
}

void lease_refresh(struct registry *r)
{
	char key[64];
	json_t *o =
		json_pack("{s:s, s:s, s:s, s:I}", "zone", r->zone, "advertise", r->advertise_shown,
			  "version", WEFT_VERSION, "at", (json_int_t)registry_now());
	char *text = o ? json_dumps(o, JSON_COMPACT) : NULL;

	snprintf(key, sizeof(key), "weft:Host:%s", r->host);
	if (text)
		store_run(r->store, NULL, NULL, "SET", key, text, "EX", LEASE_S, NULL);
	free(text);
	json_decref(o);
	store_run(r->store, on_taken, r, "SET", LEADER_KEY, r->host, "NX", "PX", LEASE_MS, NULL);
}

static void on_turn(struct ev_loop *loop, struct ev_timer *t, int events)
{
	struct registry *r = t->data;

	(void)loop;
	(void)events;
	if (store_state(r->store) != STORE_LIVE)
		return;
	lease_refresh(r);
	if (!r->leader)
		return;
	look_at_hosts(r);
	vips_sweep(r);
}

void lease_start(struct registry *r)
{
	ev_timer_init(&r->lease, on_turn, LEASE_EVERY_S, LEASE_EVERY_S);
	r->lease.data = r;
	ev_timer_start(r->loop, &r->lease);
}

void lease_close(struct registry *r)
{
	ev_timer_stop(r->loop, &r->lease);
	strmap_clear(&r->peers, peer_free);
}
