/* What admin page and command line read. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "registry/internal.h"

const char *registry_feed_name(enum registry_feed f)
{
	static const char *const names[] = { "down", "reading", "live", "held" };

	return (unsigned)f <= REGISTRY_FEED_HELD ? names[f] : "?";
}

static enum registry_feed feed_of(const struct registry *r)
{
	switch (store_state(r->store)) {
	case STORE_READING:
		return REGISTRY_FEED_READING;
	case STORE_LIVE:
		return REGISTRY_FEED_LIVE;
	case STORE_HELD:
		return REGISTRY_FEED_HELD;
	case STORE_DOWN:
		break;
	}
	return REGISTRY_FEED_DOWN;
}

static int count_document(void *arg, const struct model_document *d)
{
	struct registry_info *out = arg;

	if (!d->broker) {
		out->documents++;
		out->refused += d->state != MODEL_ACCEPTED;
	}
	return 0;
}

static int count_service(void *arg, const struct model_service *s)
{
	struct registry_info *out = arg;

	out->services += s->exists;
	out->endpoints += s->endpoints;
	return 0;
}

void registry_info(const struct registry *r, struct registry_info *out)
{
	*out = (struct registry_info){
		.version = WEFT_VERSION,
		.host = r->host,
		.mesh = store_marker(r->store)->id,
		.trust_domain = r->trust_domain,
		.attest = r->strict ? "strict" : "open",
		.zone = r->zone,
		.advertise = r->advertise_shown,
		.socket = r->socket,
		.state_dir = r->state_dir,
		.store = store_url(r->store),
		.store_error = store_error(r->store),
		.feed = feed_of(r),
		.feed_since = r->feed_since,
		.last_read = r->last_read,
		.revision = store_marker(r->store)->revision,
		.epoch = atomic_load(&r->board->epoch),
		.started = r->started,
		.ready = r->is_ready,
		.leader = r->leader,
		.embedded = store_is_embedded(r->store),
		.ca = r->ca,
		.mode = model_mode(r->model, NULL),
		.processes = r->n_processes,
		.exchanges = r->exchanges,
		.refusals = r->refusals,
	};
	model_each_document(r->model, NULL, count_document, out);
	model_each_service(r->model, count_service, out);
	for (size_t i = 0; i < r->n_processes; i++)
		out->identities += r->processes[i]->signature != NULL;
}

struct each {
	const struct registry *r;
	const char *kind;
	union {
		int (*service)(void *, const struct registry_service *);
		int (*endpoint)(void *, const struct registry_endpoint *);
		int (*document)(void *, const struct registry_document *);
	} fn;
	void *arg;
};

static int each_service(void *arg, const struct model_service *s)
{
	const struct each *e = arg;
	const struct registry_service view = {
		.name = s->name,
		.vip4 = s->vip4,
		.vip6 = s->vip6,
		.external = s->external,
		.endpoints = s->endpoints,
		.generation = atomic_load(
			&e->r->board->generation[weft_bucket(s->name) & (WEFT_GENERATIONS - 1)]),
	};

	return s->exists ? e->fn.service(e->arg, &view) : 0;
}

int registry_each_service(const struct registry *r,
			  int (*fn)(void *arg, const struct registry_service *), void *arg)
{
	struct each e = { .r = r, .fn.service = fn, .arg = arg };

	return model_each_service(r->model, each_service, &e);
}

static int each_endpoint(void *arg, const struct model_endpoint *m)
{
	const struct each *e = arg;
	char key[STORE_KEY_MAX + 1];
	struct registry_endpoint view = {
		.entry = m->entry,
		.service = m->service,
		.version = m->version,
		.host = m->host,
		.address = m->address,
		.tls = m->tls,
		.main_port = m->main_port,
		.netns = m->netns,
	};

	snprintf(key, sizeof(key), "weft:WorkloadEntry:%s", m->entry);
	const struct entry *own = strmap_find(&e->r->entries, key);
	if (own) {
		view.local = true;
		view.pid = own->pid;
		view.uid = own->uid;
		view.since = own->since;
	}
	return e->fn.endpoint(e->arg, &view);
}

int registry_each_endpoint(const struct registry *r, const char *service,
			   int (*fn)(void *arg, const struct registry_endpoint *), void *arg)
{
	struct each e = { .r = r, .fn.endpoint = fn, .arg = arg };

	return model_each_endpoint(r->model, service, each_endpoint, &e);
}

static int by_service(const void *a, const void *b)
{
	const struct process *x = *(struct process *const *)a, *y = *(struct process *const *)b;
	int c = strcmp(x->service, y->service);

	return c ? c : (x->facts.pid > y->facts.pid) - (x->facts.pid < y->facts.pid);
}

int registry_each_identity(const struct registry *r,
			   int (*fn)(void *arg, const struct registry_identity *), void *arg)
{
	struct process **sorted = malloc((r->n_processes + 1) * sizeof(*sorted));
	int e = sorted ? 0 : -ENOMEM;

	if (e == 0 && r->n_processes) {
		memcpy(sorted, r->processes, r->n_processes * sizeof(*sorted));
		qsort(sorted, r->n_processes, sizeof(*sorted), by_service);
	}
	for (size_t i = 0; e == 0 && i < r->n_processes; i++) {
		const struct process *p = sorted[i];
		const struct registry_identity view = {
			.id = p->id,
			.service = p->service,
			.version = p->version,
			.spiffe = p->signature ? p->spiffe : "",
			.why = p->why,
			.exe = p->facts.exe[0] ? p->facts.exe : p->facts.comm,
			.serial = p->serial,
			.pid = p->facts.pid,
			.uid = p->facts.uid,
			.gid = p->facts.gid,
			.netns = p->facts.netns,
			.since = p->since,
			.not_after = p->not_after,
			.mode = p->mode < p->ceiling ? p->mode : p->ceiling,
			.listeners = p->n_listeners,
		};
		e = fn(arg, &view);
	}
	free(sorted);
	return e;
}

static int each_document(void *arg, const struct model_document *m)
{
	const struct each *e = arg;
	const struct document *d = strmap_find(&e->r->documents, m->key);

	if (m->broker && !e->kind)
		return 0;
	char *errors = d && d->bad ? NULL : doc_errors_json(m->errors);
	char bad[256];
	snprintf(bad, sizeof(bad), "[{\"path\":\"\",\"message\":\"%s\"}]",
		 d && d->bad ? d->bad : "");
	const struct registry_document view = {
		.key = m->key,
		.json = m->json,
		.len = m->len,
		.accepted = m->state == MODEL_ACCEPTED,
		.revision = m->revision,
		.in_force = m->in_force,
		.errors = errors        ? errors
			  : d && d->bad ? bad
					: "[]",
		.at = d ? d->at : 0,
	};
	int r = e->fn.document(e->arg, &view);
	free(errors);
	return r;
}

int registry_each_document(const struct registry *r, const char *kind,
			   int (*fn)(void *arg, const struct registry_document *), void *arg)
{
	struct each e = { .r = r, .kind = kind, .fn.document = fn, .arg = arg };

	return model_each_document(r->model, kind, each_document, &e);
}

const struct model *registry_model(const struct registry *r)
{
	return r->model;
}

struct model *registry_answers(struct registry *r)
{
	return r->model;
}

const char *registry_host(const struct registry *r)
{
	return r->host;
}

const char *registry_trust_domain(const struct registry *r)
{
	return r->trust_domain;
}

bool registry_is_strict(const struct registry *r)
{
	return r->strict;
}

uint64_t registry_epoch(const struct registry *r)
{
	return atomic_load(&r->board->epoch);
}

void registry_count(struct registry *r, bool refused)
{
	r->exchanges++;
	r->refusals += refused;
}
