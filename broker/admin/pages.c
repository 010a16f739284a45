#include "admin/pages.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "admin/admin.h"
#include "registry/registry.h"
#include "weft/env.h"
#include "weft/ident.h"

/* A list grows entry by entry, so that its bound holds whatever an entry costs. */
struct list {
	const struct pages_query *q;
	FILE *out;
	size_t n, limit;
	char last[512]; /* name of the entry written last */
	bool truncated, failed;
};

/* Takes over `entry`. Returns non-zero to end the walk. */
static int add(struct list *l, const char *name, json_t *entry)
{
	bool skip = l->q->after && strcmp(name, l->q->after) <= 0;

	if (!entry) {
		l->failed = true;
		return -1;
	}
	if (!skip && (l->n >= l->limit || ftello(l->out) > ADMIN_BYTES))
		l->truncated = true;
	else if (!skip) {
		fputs(l->n++ ? ",\n" : "\n", l->out);
		json_dumpf(entry, l->out, JSON_COMPACT | JSON_ENSURE_ASCII);
		snprintf(l->last, sizeof(l->last), "%s", name);
	}
	json_decref(entry);
	return l->truncated;
}

/* Texts of other people may not be UTF-8; those are shown as far as they are ASCII. */
static json_t *text(const char *s)
{
	json_t *x = json_string(s ? s : "");
	char ascii[256];

	if (x)
		return x;
	snprintf(ascii, sizeof(ascii), "%s", s);
	for (char *c = ascii; *c; c++)
		if ((unsigned char)*c >= 0x7f)
			*c = '?';
	return json_string(ascii);
}

static json_t *address(const struct weft_addr *a)
{
	char buf[WEFT_ADDR_TEXT];

	return addr_is_any(a) && !a->port ? json_null() : json_string(addr_format(a, buf));
}

static char *finish(json_t *o, size_t *len)
{
	char *compact = o ? json_dumps(o, JSON_COMPACT | JSON_ENSURE_ASCII) : NULL, *page = NULL;

	if (compact && asprintf(&page, "%s\n", compact) < 0)
		page = NULL;
	if (page)
		*len = strlen(page);
	free(compact);
	json_decref(o);
	return page;
}

static char *render_version(const struct registry *r, const struct pages_query *q, size_t *len)
{
	(void)r;
	(void)q;
	return finish(json_pack("{s:s, s:i, s:i}", "version", WEFT_VERSION, "wire",
				WEFT_WIRE_VERSION, "layout", WEFT_SHM_LAYOUT),
		      len);
}

static void add_problem(json_t *list, bool is, const char *format, const char *detail)
{
	char line[512];

	if (!is)
		return;
	snprintf(line, sizeof(line), format, detail);
	json_array_append_new(list, text(line));
}

/* What keeps this weftd from being healthy, for people. */
static json_t *problems(const struct registry_info *i)
{
	json_t *list = json_array();
	char refused[32];

	snprintf(refused, sizeof(refused), "%zu", i->refused);
	add_problem(list, !i->ready, "weftd does not answer programs yet%s", "");
	add_problem(list, i->feed == REGISTRY_FEED_DOWN,
		    "no connection to Redis, the last good documents are in force: %s",
		    i->store_error);
	add_problem(list, i->feed == REGISTRY_FEED_READING, "still reading Redis%s", "");
	add_problem(
		list, i->feed == REGISTRY_FEED_HELD,
		"the data in Redis is not this mesh's, the last good documents are in force: %s",
		i->store_error);
	add_problem(list, i->refused, "documents that are not accepted: %s", refused);
	return list;
}

static char *render_status(const struct registry *r, const struct pages_query *q, size_t *len)
{
	struct registry_info i;
	json_t *o, *store, *why;

	(void)q;
	registry_info(r, &i);
	why = problems(&i);
	store = json_pack("{s:o, s:s, s:o, s:I, s:I, s:b}", "url", text(i.store), "state",
			  registry_feed_name(i.feed), "error", text(i.store_error), "since",
			  (json_int_t)i.feed_since, "lastRead", (json_int_t)i.last_read, "embedded",
			  (int)i.embedded);
	o = json_pack("{s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:s}", "version",
		      text(i.version), "host", text(i.host), "mesh", text(i.mesh), "trustDomain",
		      text(i.trust_domain), "attest", text(i.attest), "zone", text(i.zone),
		      "advertise", text(i.advertise), "socket", text(i.socket), "stateDir",
		      text(i.state_dir), "mode", mode_name(i.mode));
	if (!o || !store || !why) {
		json_decref(o);
		json_decref(store);
		json_decref(why);
		return NULL;
	}
	json_object_set_new(o, "healthy", json_boolean(!json_array_size(why)));
	json_object_set_new(o, "problems", why);
	json_object_set_new(o, "store", store);
	json_object_update_new(o, json_pack("{s:b, s:b, s:b, s:I, s:I, s:I, s:I, s:I}", "ready",
					    (int)i.ready, "leader", (int)i.leader, "ca", (int)i.ca,
					    "revision", (json_int_t)i.revision, "epoch",
					    (json_int_t)i.epoch, "started", (json_int_t)i.started,
					    "exchanges", (json_int_t)i.exchanges, "refusals",
					    (json_int_t)i.refusals));
	json_object_update_new(
		o, json_pack("{s:I, s:I, s:I, s:I, s:I, s:I}", "documents", (json_int_t)i.documents,
			     "refused", (json_int_t)i.refused, "services", (json_int_t)i.services,
			     "endpoints", (json_int_t)i.endpoints, "processes",
			     (json_int_t)i.processes, "identities", (json_int_t)i.identities));
	return finish(o, len);
}

static int add_service(void *arg, const struct registry_service *s)
{
	json_t *o = json_pack("{s:o, s:o, s:o, s:b, s:I, s:I}", "name", text(s->name), "vip4",
			      address(&s->vip4), "vip6", address(&s->vip6), "external",
			      (int)s->external, "endpoints", (json_int_t)s->endpoints, "generation",
			      (json_int_t)s->generation);

	return add(arg, s->name, o);
}

static int add_endpoint(void *arg, const struct registry_endpoint *e)
{
	char name[512];
	json_t *o =
		json_pack("{s:o, s:o, s:o, s:o, s:o, s:b, s:b, s:b}", "service", text(e->service),
			  "address", address(&e->address), "version", text(e->version), "entry",
			  text(e->entry), "host", text(e->host), "tls", (int)e->tls, "main",
			  (int)e->main_port, "local", (int)e->local);

	if (o && e->local)
		json_object_update_new(
			o, json_pack("{s:i, s:i, s:I, s:I}", "pid", (int)e->pid, "uid", (int)e->uid,
				     "netns", (json_int_t)e->netns, "since", (json_int_t)e->since));
	snprintf(name, sizeof(name), "%s %s:%05u", e->service, e->entry, e->address.port);
	return add(arg, name, o);
}

static int add_identity(void *arg, const struct registry_identity *i)
{
	char name[WEFT_SERVICE_MAX + 64];
	json_t *o = json_pack("{s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:s}", "id", text(i->id),
			      "service", text(i->service), "version", text(i->version), "spiffe",
			      text(i->spiffe), "why", text(i->why), "exe", text(i->exe), "serial",
			      text(i->serial), "mode", mode_name(i->mode));

	if (o)
		json_object_update_new(o, json_pack("{s:i, s:i, s:i, s:I, s:I, s:I, s:I}", "pid",
						    (int)i->pid, "uid", (int)i->uid, "gid",
						    (int)i->gid, "netns", (json_int_t)i->netns,
						    "since", (json_int_t)i->since, "notAfter",
						    (json_int_t)i->not_after, "listeners",
						    (json_int_t)i->listeners));
	snprintf(name, sizeof(name), "%s %012d %s", i->service, (int)i->pid, i->id);
	return add(arg, name, o);
}

static json_t *seen(const struct weft_tally_mem *m)
{
	json_t *rows = json_array();
	enum weft_tally kind;
	enum weft_reason reason;
	struct weft_addr peer;
	uint32_t n;

	for (unsigned at = 0; tally_next(m, &at, &kind, &reason, &peer, &n) == 0;)
		json_array_append_new(rows, json_pack("{s:s, s:o, s:s, s:I}", "what",
						      tally_word(kind), "address", address(&peer),
						      "reason", reason ? reason_name(reason) : "",
						      "count", (json_int_t)n));
	return rows;
}

static int add_coverage(void *arg, const struct registry_coverage *c)
{
	json_t *o =
		json_pack("{s:o, s:o, s:o, s:s, s:i, s:i, s:I, s:b, s:o, s:I}", "service",
			  text(c->service), "exe", text(c->exe), "why", text(c->why), "mode",
			  c->pid ? mode_name(c->mode) : "", "pid", (int)c->pid, "uid", (int)c->uid,
			  "family", (json_int_t)c->family, "identity", (int)c->identity, "seen",
			  seen(c->tally), "unlisted", (json_int_t)atomic_load(&c->tally->unlisted));
	json_t *totals = json_object();
	char name[24];

	for (enum weft_tally k = 0; k < WEFT_TALLY_MAX; k++)
		json_object_set_new(totals, tally_word(k),
				    json_integer((json_int_t)tally_total(c->tally, k)));
	if (o)
		json_object_set_new(o, "totals", totals);
	else
		json_decref(totals);
	snprintf(name, sizeof(name), "%012llu", (unsigned long long)c->id);
	return add(arg, name, o);
}

static int add_document(void *arg, const struct registry_document *d)
{
	json_t *o = json_pack("{s:o, s:b, s:o, s:o, s:I}", "key", text(d->key), "accepted",
			      (int)d->accepted, "revision", text(d->revision), "inForce",
			      text(d->in_force), "at", (json_int_t)d->at);
	json_t *errors = json_loads(d->errors, 0, NULL);
	json_t *doc = d->json ? json_loadb(d->json, d->len, 0, NULL) : NULL;

	if (o) {
		json_object_set_new(o, "errors", errors ? errors : json_array());
		json_object_set_new(o, "document", doc ? doc : json_null());
	} else {
		json_decref(errors);
		json_decref(doc);
	}
	return add(arg, d->key, o);
}

static char *render_list(const struct registry *r, const struct pages_query *q, const char *name,
			 void (*walk)(const struct registry *, const struct pages_query *,
				      struct list *),
			 size_t *len)
{
	struct list l = { .q = q,
			  .limit = q->limit && q->limit < ADMIN_LIMIT ? q->limit : ADMIN_LIMIT };
	char *page = NULL;
	json_t *next;

	l.out = open_memstream(&page, len);
	if (!l.out)
		return NULL;
	fprintf(l.out, "{\"%s\":[", name);
	walk(r, q, &l);
	fputs("]", l.out);
	next = l.truncated ? text(l.last) : NULL;
	if (next) {
		fputs(",\"next\":", l.out);
		json_dumpf(next, l.out, JSON_ENCODE_ANY | JSON_ENSURE_ASCII);
		json_decref(next);
	}
	fprintf(l.out, ",\"truncated\":%s}\n", l.truncated ? "true" : "false");
	l.failed |= ferror(l.out) != 0;
	if (fclose(l.out) == 0 && !l.failed)
		return page;
	free(page);
	return NULL;
}

static void walk_services(const struct registry *r, const struct pages_query *q, struct list *l)
{
	(void)q;
	registry_each_service(r, add_service, l);
}

static void walk_endpoints(const struct registry *r, const struct pages_query *q, struct list *l)
{
	char canonical[WEFT_SERVICE_MAX + 1];
	struct registry_info i;

	registry_info(r, &i);
	if (!q->service)
		registry_each_endpoint(r, NULL, add_endpoint, l);
	else if (name_canonical(canonical, q->service, "", i.trust_domain) == 0)
		registry_each_endpoint(r, canonical, add_endpoint, l);
}

static void walk_identities(const struct registry *r, const struct pages_query *q, struct list *l)
{
	(void)q;
	registry_each_identity(r, add_identity, l);
}

static void walk_coverage(const struct registry *r, const struct pages_query *q, struct list *l)
{
	(void)q;
	registry_each_coverage(r, add_coverage, l);
}

static void walk_documents(const struct registry *r, const struct pages_query *q, struct list *l)
{
	registry_each_document(r, q->kind, add_document, l);
}

#define LIST_PAGE(name)                                                                   \
	static char *render_##name(const struct registry *r, const struct pages_query *q, \
				   size_t *len)                                           \
	{                                                                                 \
		return render_list(r, q, #name, walk_##name, len);                        \
	}
LIST_PAGE(services)
LIST_PAGE(endpoints)
LIST_PAGE(identities)
LIST_PAGE(coverage)
LIST_PAGE(documents)

static const struct page pages[] = {
	{ "/status", render_status },       { "/services", render_services },
	{ "/endpoints", render_endpoints }, { "/identities", render_identities },
	{ "/documents", render_documents }, { "/version", render_version },
	{ "/coverage", render_coverage },
};

const struct page *pages_find(const char *path)
{
	for (size_t i = 0; i < sizeof(pages) / sizeof(pages[0]); i++)
		if (strcmp(pages[i].path, path) == 0)
			return &pages[i];
	return NULL;
}
