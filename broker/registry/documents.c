/* What Redis says, on its way into the model; the last good documents in a file, for a start without Redis. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <jansson.h>

#include "compile/table.h"
#include "registry/internal.h"
#include "telemetry/log.h"

#define VIP_PREFIX "weft:VIP:"
#define ENTRY_PREFIX "weft:WorkloadEntry:"
#define FILE_MAGIC "weft-documents 1\n"
#define FILE_MAX (1u << 30)
#define SAVE_AFTER_S 0.5
#define GATHER_S 0.02 /* additions wait so long for others; nothing else does */

const char *const *documents_prefixes(size_t *n)
{
	static char text[KIND_MAX][64];
	static const char *list[KIND_MAX + 1];

	for (size_t i = 0; i < KIND_MAX; i++) {
		snprintf(text[i], sizeof(text[i]), "weft:%s:", table_kinds[i].name);
		list[i] = text[i];
	}
	list[KIND_MAX] = VIP_PREFIX;
	*n = KIND_MAX + 1;
	return list;
}

static bool has_prefix(const char *key, const char *prefix)
{
	return strncmp(key, prefix, strlen(prefix)) == 0;
}

static struct document *document_get(struct registry *r, const char *key)
{
	struct document *d = strmap_find(&r->documents, key);

	if (d)
		return d;
	d = calloc(1, sizeof(*d));
	if (d)
		d->key = strdup(key);
	if (!d || !d->key || strmap_add(&r->documents, d) < 0) {
		if (d)
			free(d->key);
		free(d);
		return NULL;
	}
	return d;
}

static void document_free(void *item)
{
	struct document *d = item;

	free(d->key);
	free(d);
}

/* --- into the model --- */

static void bump(void *arg, const char *service)
{
	publish_bump(arg, service);
}

static void mark(struct registry *r, const char *key, bool removal)
{
	unsigned touches = model_touches(key);

	if (touches & (MODEL_NAMES | MODEL_SERVICES))
		r->dirty_vips = true;
	if (touches & MODEL_NAMES)
		r->dirty_names = true;
	if (touches & (MODEL_INBOUND | MODEL_MODES))
		r->dirty_inbound = true; /* mode decides what is enforced */
	if (touches & MODEL_MODES)
		r->dirty_modes = true;
	r->dirty_file = r->dirty_status = true;
	if (!ev_is_active(&r->save)) {
		ev_timer_set(&r->save, SAVE_AFTER_S, 0);
		ev_timer_start(r->loop, &r->save);
	}
	publish_later(r, removal || !has_prefix(key, ENTRY_PREFIX) ? 0 : GATHER_S);
}

struct version {
	char in_force[DOC_REVISION + 1];
	char revision[DOC_REVISION + 1];
	bool known, refused, broker;
};

static struct version version_of(struct registry *r, const char *key)
{
	struct model_document d;
	struct version v = { .known = model_document(r->model, key, &d) == 0 };

	if (v.known) {
		snprintf(v.in_force, sizeof(v.in_force), "%s", d.in_force);
		snprintf(v.revision, sizeof(v.revision), "%s", d.revision);
		v.refused = d.state == MODEL_REFUSED;
		v.broker = d.broker;
	}
	return v;
}

static void report(const char *key, const char *bad, const struct doc_errors *errors)
{
	if (bad || !errors->n)
		log_warn("document %s refused: %s", key, bad ? bad : "see weft:status");
	else
		log_warn("document %s refused: %s%s%s%s", key, errors->v[0].path,
			 *errors->v[0].path ? ": " : "", errors->v[0].message,
			 errors->n > 1 ? " (and more)" : "");
}

static int put(struct registry *r, const char *key, const char *json, size_t len, const char *bad)
{
	struct doc_errors errors = { 0 };
	struct version before = version_of(r, key), after;
	struct document *d;

	model_affected(r->model, key, bump, r);
	int e = model_put(r->model, key, json, len, &errors);
	if (e == -ENOENT || e == -ENOMEM) {
		doc_errors_free(&errors);
		return e;
	}
	model_affected(r->model, key, bump, r);
	after = version_of(r, key);
	d = document_get(r, key);
	if (d && (strcmp(before.revision, after.revision) || before.refused != after.refused ||
		  !d->at)) {
		d->at = registry_now();
		d->bad = bad;
		if (e < 0)
			report(key, bad, &errors);
		else if (!after.broker && !r->loading)
			log_info("document %s accepted, revision %s", key, after.revision);
	}
	doc_errors_free(&errors);
	if (strcmp(before.in_force, after.in_force))
		mark(r, key, false);
	else
		r->dirty_status = true;
	publish_later(r, GATHER_S);
	return e;
}

static int drop(struct registry *r, const char *key)
{
	struct version v = version_of(r, key);
	struct document *d;

	if (!v.known)
		return -ENOENT;
	model_affected(r->model, key, bump, r);
	model_del(r->model, key);
	d = strmap_remove(&r->documents, key);
	if (d && d->written[0] && r->leader) {
		char status[STORE_KEY_MAX + 16];
		snprintf(status, sizeof(status), "weft:status:%s", key + strlen("weft:"));
		store_run(r->store, NULL, NULL, "DEL", status, NULL);
	}
	if (d)
		document_free(d);
	if (!v.broker)
		log_info("document %s removed", key);
	if (!v.broker && r->leader && v.in_force[0]) {
		store_run(r->store, NULL, NULL, "XADD", "weft:log", "MAXLEN", "~", "1000", "*",
			  "key", key, "deleted", v.in_force, NULL);
		store_advance(r->store);
	}
	mark(r, key, true);
	return 0;
}

int documents_change(struct registry *r, const char *key, const char *json, size_t len,
		     const char *bad)
{
	struct model_document d;

	if (has_prefix(key, VIP_PREFIX)) {
		vips_document(r, key, bad ? NULL : json, len);
		return 0;
	}
	if (!json)
		return drop(r, key);
	if (!bad && model_document(r->model, key, &d) == 0 && d.state != MODEL_REFUSED &&
	    d.len == len && memcmp(d.json, json, len) == 0)
		return 0; /* a full read tells everything again */
	return put(r, key, json, len, bad);
}

/* --- from the store --- */

/* Host that wrote a WorkloadEntry, "" if none did. */
static void writer_of(const char *json, size_t len, char *out, size_t size)
{
	json_t *doc = json_loadb(json, len, 0, NULL);
	const json_t *notes = json_object_get(json_object_get(doc, "metadata"), "annotations");
	const char *host = json_string_value(json_object_get(notes, MODEL_NOTE_HOST));

	snprintf(out, size, "%s", host ? host : "");
	json_decref(doc);
}

/* An entry of this host that no process here stands behind: left by an earlier life. */
static bool is_left_over(struct registry *r, const char *key, const char *json, size_t len)
{
	char host[64];

	if (!json || !has_prefix(key, ENTRY_PREFIX))
		return false;
	writer_of(json, len, host, sizeof(host));
	return strcmp(host, r->host) == 0;
}

static void on_document(void *arg, const char *key, const char *value, size_t len, const char *bad)
{
	struct registry *r = arg;

	if (strmap_find(&r->entries, key))
		return; /* ours: what this host says holds, and is written again at each full read */
	if (!bad && is_left_over(r, key, value, len)) {
		store_run(r->store, NULL, NULL, "DEL", key, NULL);
		value = NULL;
	}
	documents_change(r, key, value, len, bad);
}

struct listing {
	struct registry *r;
	const char *const *keys;
	size_t n;
};

static int by_key(const void *a, const void *b)
{
	return strcmp(a, *(const char *const *)b);
}

static void fetch_unlisted(const struct listing *l, const char *key)
{
	if (!(l->n && bsearch(key, l->keys, l->n, sizeof(*l->keys), by_key)) &&
	    !strmap_find(&l->r->entries, key))
		store_fetch(l->r->store, key);
}

static int on_known(void *arg, const struct model_document *d)
{
	fetch_unlisted(arg, d->key);
	return 0;
}

static void on_listed(void *arg, const char *const *keys, size_t n)
{
	struct registry *r = arg;
	struct listing l = { r, keys, n };

	model_each_document(r->model, NULL, on_known, &l);
	for (size_t i = 0; i < r->vips.n; i++) {
		char key[96];
		snprintf(key, sizeof(key), VIP_PREFIX "%s", *(char **)r->vips.v[i]);
		fetch_unlisted(&l, key);
	}
}

static void on_synced(void *arg)
{
	struct registry *r = arg;

	r->last_read = registry_now();
	entries_assert(r);
	lease_refresh(r);
	r->dirty_vips = true;
	if (!r->is_ready)
		ev_feed_event(r->loop, &r->start, EV_TIMER);
	publish_later(r, 0);
}

static void on_state(void *arg, enum store_state state)
{
	struct registry *r = arg;

	r->feed_since = registry_now();
	if (state == STORE_DOWN || state == STORE_HELD)
		r->leader = false;
	if (state == STORE_LIVE)
		log_info("store: live at %s, mesh %s", store_url(r->store),
			 store_marker(r->store)->id);
}

const struct store_ops documents_ops = { on_document, on_listed, on_synced, on_state };

/* --- weft:status and weft:log, by the leader --- */

static json_t *errors_of(const struct document *d, const struct model_document *m)
{
	if (d->bad)
		return json_pack("[{s:s, s:s}]", "path", "", "message", d->bad);
	char *text = doc_errors_json(m->errors);
	json_t *errors = text ? json_loads(text, 0, NULL) : NULL;
	free(text);
	return errors ? errors : json_array();
}

static void write_status(struct registry *r, const struct document *d,
			 const struct model_document *m)
{
	char key[STORE_KEY_MAX + 16], at[32];
	time_t t = (time_t)d->at;
	struct tm tm;

	snprintf(key, sizeof(key), "weft:status:%s", m->key + strlen("weft:"));
	strftime(at, sizeof(at), "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&t, &tm));
	json_t *o = json_pack("{s:b, s:s, s:s, s:o, s:s}", "accepted", m->state == MODEL_ACCEPTED,
			      "revision", m->revision, "inForce", m->in_force, "errors",
			      errors_of(d, m), "at", at);
	char *text = o ? json_dumps(o, JSON_COMPACT) : NULL;
	if (text)
		store_run(r->store, NULL, NULL, "SET", key, text, NULL);
	free(text);
	json_decref(o);
}

static void write_log(struct registry *r, struct document *d, const struct model_document *m)
{
	if (!m->in_force[0] || strcmp(d->logged, m->in_force) == 0)
		return;
	snprintf(d->logged, sizeof(d->logged), "%s", m->in_force);
	if (!r->leader)
		return;
	store_run(r->store, NULL, NULL, "XADD", "weft:log", "MAXLEN", "~", "1000", "*", "key",
		  m->key, "revision", m->in_force, "document", m->json, NULL);
	store_advance(r->store);
}

static int status_one(void *arg, const struct model_document *m)
{
	struct registry *r = arg;
	struct document *d = m->broker ? NULL : strmap_find(&r->documents, m->key);
	char now[sizeof(d->written)];

	if (!d)
		return 0;
	write_log(r, d, m);
	snprintf(now, sizeof(now), "%d %s %s", (int)m->state, m->revision, m->in_force);
	if (!r->leader || strcmp(now, d->written) == 0)
		return 0;
	memcpy(d->written, now, sizeof(now));
	write_status(r, d, m);
	return 0;
}

void documents_status(struct registry *r)
{
	if (r->leader || r->led_elsewhere)
		model_each_document(r->model, NULL, status_one, r);
}

void documents_status_all(struct registry *r)
{
	for (size_t i = 0; i < r->documents.n; i++)
		((struct document *)r->documents.v[i])->written[0] = '\0';
	documents_status(r);
}

/* --- the file of last good documents --- */

struct writing {
	const struct registry *r;
	FILE *f;
};

static int save_one(void *arg, const struct model_document *m)
{
	struct writing *w = arg;

	if (m->json && !strmap_find(&w->r->entries, m->key)) {
		fprintf(w->f, "%zu %zu\n%s", strlen(m->key), m->len, m->key);
		fwrite(m->json, 1, m->len, w->f);
	}
	return ferror(w->f);
}

static void save_vips(const struct writing *w)
{
	for (size_t i = 0; i < w->r->vips.n; i++) {
		const struct vip *v = w->r->vips.v[i];
		char key[96], json[WEFT_SERVICE_MAX + 32];
		int k = snprintf(key, sizeof(key), VIP_PREFIX "%s", v->key);
		int j = snprintf(json, sizeof(json), "{\"service\":\"%s\"}", v->service);
		fprintf(w->f, "%d %d\n%s%s", k, j, key, json);
	}
}

void documents_save(struct registry *r)
{
	char path[PATH_MAX], *text = NULL;
	size_t len = 0;
	struct writing w = { r, NULL };
	int e = -ENOMEM;

	if (!r->dirty_file)
		return;
	r->dirty_file = false;
	w.f = open_memstream(&text, &len);
	if (w.f) {
		fputs(FILE_MAGIC, w.f);
		model_each_document(r->model, NULL, save_one, &w);
		save_vips(&w);
		if (fclose(w.f) == 0 &&
		    snprintf(path, sizeof(path), "%s/documents", r->state_dir) < PATH_MAX)
			e = file_replace(path, text, len);
	}
	free(text);
	if (e < 0)
		log_error("registry: the last good documents cannot be saved: %s", strerror(-e));
}

/* One document at `p`: "<key length> <length>\n<key><json>". Its end, or NULL. */
static const char *load_one(struct registry *r, const char *p, const char *end)
{
	char key[STORE_KEY_MAX + 1], *next;
	size_t key_len = strtoul(p, &next, 10);
	size_t len = *next == ' ' ? strtoul(next + 1, &next, 10) : SIZE_MAX;
	struct document *d;

	if (next >= end || *next != '\n' || key_len > STORE_KEY_MAX || len > WEFT_DOCUMENT_MAX ||
	    (size_t)(end - next - 1) < key_len + len)
		return NULL;
	memcpy(key, next + 1, key_len);
	key[key_len] = '\0';
	documents_change(r, key, next + 1 + key_len, len, NULL);
	d = strmap_find(&r->documents, key);
	if (d)
		snprintf(d->logged, sizeof(d->logged), "%s", version_of(r, key).in_force);
	return next + 1 + key_len + len;
}

static void on_save(struct ev_loop *loop, struct ev_timer *t, int events)
{
	(void)loop;
	(void)events;
	documents_save(t->data);
}

int documents_open(struct registry *r)
{
	char path[PATH_MAX], *text;
	size_t len;

	ev_timer_init(&r->save, on_save, SAVE_AFTER_S, 0);
	r->save.data = r;
	if (snprintf(path, sizeof(path), "%s/documents", r->state_dir) >= PATH_MAX)
		return -ENAMETOOLONG;
	int e = file_read(path, FILE_MAX, &text, &len);
	if (e < 0)
		return e == -ENOENT ? 0 : e;
	r->loading = true;
	const char *p =
		strncmp(text, FILE_MAGIC, strlen(FILE_MAGIC)) ? NULL : text + strlen(FILE_MAGIC);
	while (p && p < text + len)
		p = load_one(r, p, text + len);
	r->loading = false;
	if (!p)
		log_error("registry: %s is damaged; what could be read is in force", path);
	log_info("registry: %zu last good documents", r->documents.n);
	free(text);
	return 0;
}

void documents_close(struct registry *r)
{
	ev_timer_stop(r->loop, &r->save);
	if (r->model)
		documents_save(r);
	strmap_clear(&r->documents, document_free);
}
