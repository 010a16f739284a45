/* Marker, full read, fetches and removals. Order is what makes this safe: while the marker is being looked at no fetch
 * is sent, so a removal is believed only if weft:mesh was still ours after the key was seen to be gone. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "store/internal.h"
#include "telemetry/log.h"

#define FEED_FLYING 128
#define FEED_SCAN "1000"
#define ACCEPT_TTL_S "600" /* hosts that are up take part in an acceptance for so long */
#define PAUSE_LIVE_S 0.02

static void pump(struct store *s);

/* --- lists of keys --- */

static int list_add(struct key_list *l, const char *key, size_t len)
{
	if (l->n == l->size) {
		size_t size = l->size ? l->size * 2 : 64;
		char **v = realloc(l->v, size * sizeof(*v));
		if (!v)
			return -ENOMEM;
		l->v = v;
		l->size = size;
	}
	l->v[l->n] = strndup(key, len);
	return l->v[l->n] ? (l->n++, 0) : -ENOMEM;
}

static void list_clear(struct key_list *l)
{
	for (size_t i = 0; i < l->n; i++)
		free(l->v[i]);
	free(l->v);
	*l = (struct key_list){ 0 };
}

static void list_drop(struct key_list *l, const char *key)
{
	for (size_t i = 0; i < l->n; i++)
		if (strcmp(l->v[i], key) == 0) {
			free(l->v[i]);
			l->v[i--] = l->v[--l->n];
		}
}

static int by_name(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

static void list_sort(struct key_list *l)
{
	size_t n = 0;

	if (l->n)
		qsort(l->v, l->n, sizeof(*l->v), by_name);
	for (size_t i = 0; i < l->n; i++) /* SCAN may tell a key twice */
		if (n && strcmp(l->v[n - 1], l->v[i]) == 0)
			free(l->v[i]);
		else
			l->v[n++] = l->v[i];
	l->n = n;
}

void feed_stop(struct store *s)
{
	struct feed *f = &s->feed;

	for (size_t i = 0; i < f->next; i++)
		f->queue.v[i] = NULL; /* given away */
	list_clear(&f->queue);
	list_clear(&f->gone);
	list_clear(&f->listing);
	*f = (struct feed){ 0 };
	s->epoch++;
}

static bool is_watched(const struct store *s, const char *key, size_t len)
{
	if (len > STORE_KEY_MAX || memchr(key, '\0', len))
		return false;
	for (size_t i = 0; i < s->n_prefixes; i++) {
		size_t n = strlen(s->prefixes[i]);
		if (len > n && memcmp(key, s->prefixes[i], n) == 0)
			return true;
	}
	return false;
}

/* --- marker --- */

static void apply_removals(struct store *s)
{
	struct key_list gone = s->feed.gone;

	s->feed.gone = (struct key_list){ 0 };
	for (size_t i = 0; i < gone.n; i++)
		s->ops->document(s->arg, gone.v[i], NULL, 0, NULL);
	list_clear(&gone);
}

static void remember(struct store *s)
{
	s->known = s->seen;
	int r = marker_save(&s->known, s->marker_path);
	if (r < 0)
		log_error("store: cannot write %s: %s", s->marker_path, strerror(-r));
}

static void take_over(struct store *s)
{
	bool fresh = s->state != STORE_READING && s->state != STORE_LIVE;

	if (strcmp(s->known.id, s->seen.id) || s->known.revision != s->seen.revision)
		remember(s);
	if (fresh)
		store_move(s, STORE_READING, "first full read");
	apply_removals(s);
	if (fresh || s->feed.again)
		feed_read(s);
	else
		pump(s);
}

static void hold(struct store *s, const char *why)
{
	if (s->state != STORE_HELD)
		log_error("store: %s; keeping the last good documents until `weft redis accept`",
			  why);
	feed_stop(s);
	store_move(s, STORE_HELD, why);
}

static void create(struct store *s)
{
	uint8_t random[8];
	char id[20];

	if (getrandom(random, sizeof(random), 0) != sizeof(random)) {
		store_fail(s, "no entropy");
		return;
	}
	for (size_t i = 0; i < sizeof(random); i++)
		snprintf(id + 2 * i, 3, "%02x", random[i]);
	log_info("store: new mesh %s", id);
	store_send(s, s->data, NULL, NULL, "HSETNX", KEY_MARKER, "id", id, NULL);
	feed_check(s);
}

/* `accepted`: what an operator accepted on some host, or none. */
static void judge(struct store *s, const struct marker *accepted)
{
	const char *why;

	s->feed.checking = false;
	switch (marker_judge(&s->known, &s->seen, &why)) {
	case MARKER_OURS:
		take_over(s);
		break;
	case MARKER_NEW:
		create(s);
		break;
	case MARKER_HELD:
		if (s->seen.id[0] && !strcmp(accepted->id, s->seen.id) &&
		    accepted->revision == s->seen.revision) {
			log_warn("store: %s; accepted by an operator", why);
			take_over(s);
		} else {
			hold(s, why);
		}
		break;
	}
}

static void on_accepted(void *arg, const redisReply *r)
{
	struct store *s = arg;
	struct marker accepted = { 0 };

	if (!r)
		return;
	if (r->type == REDIS_REPLY_STRING && marker_parse(&accepted, r->str, (size_t)r->len) < 0)
		accepted = (struct marker){ 0 };
	judge(s, &accepted);
}

static void on_marker(void *arg, const redisReply *r)
{
	struct store *s = arg;

	if (!r)
		return;
	s->seen = (struct marker){ 0 };
	if (reply_error(r) && strncmp(r->str, "WRONGTYPE", 9)) {
		store_fail(s, r->str);
	} else if (r->type != REDIS_REPLY_ARRAY || r->elements != 2) {
		snprintf(s->seen.id, sizeof(s->seen.id), "?"); /* some value that is none of ours */
	} else if (r->element[0]->type == REDIS_REPLY_STRING &&
		   r->element[0]->len <= MARKER_ID_MAX) {
		memcpy(s->seen.id, r->element[0]->str, (size_t)r->element[0]->len + 1);
		if (r->element[1]->type == REDIS_REPLY_STRING)
			s->seen.revision = strtoull(r->element[1]->str, NULL, 10);
	}
}

void feed_check(struct store *s)
{
	if (s->feed.checking || !link_is_up(s->data))
		return;
	s->feed.checking = true;
	if (store_send(s, s->data, on_marker, s, "HMGET", KEY_MARKER, "id", "revision", NULL) < 0 ||
	    store_send(s, s->data, on_accepted, s, "GETRANGE", KEY_ACCEPT, "0", "255", NULL) < 0)
		store_fail(s, "cannot send");
}

int feed_accept(struct store *s)
{
	struct marker m = s->seen.id[0] ? s->seen : s->known;
	char text[160], revision[24];

	if (s->state == STORE_DOWN)
		return -ENOTCONN;
	if (s->state != STORE_HELD)
		return -EALREADY;
	if (!strcmp(m.id, "?"))
		return -EINVAL; /* the operator removes a key of another type himself */
	if (!s->seen.id[0]) {
		snprintf(revision, sizeof(revision), "%llu", (unsigned long long)++m.revision);
		store_send(s, s->data, NULL, NULL, "HSET", KEY_MARKER, "id", m.id, "revision",
			   revision, NULL);
	}
	int r = marker_format(&m, text, sizeof(text));
	if (r > 0)
		r = store_send(s, s->data, NULL, NULL, "SET", KEY_ACCEPT, text, "EX", ACCEPT_TTL_S,
			       NULL);
	feed_check(s);
	return r;
}

static void on_advanced(void *arg, const redisReply *r)
{
	struct store *s = arg;

	if (!r || r->type != REDIS_REPLY_INTEGER || r->integer < 0)
		return;
	s->seen = s->known;
	s->seen.revision = (uint64_t)r->integer;
	if (s->seen.revision > s->known.revision)
		remember(s);
}

int feed_advance(struct store *s)
{
	if (s->state != STORE_READING && s->state != STORE_LIVE)
		return -ENOTCONN;
	return store_send(s, s->data, on_advanced, s, "HINCRBY", KEY_MARKER, "revision", "1", NULL);
}

/* --- fetches --- */

struct fetch {
	struct store *s;
	char *key;
	unsigned epoch; /* of the store; one from before a hold means nothing any more */
	bool exists;
};

static void on_exists(void *arg, const redisReply *r)
{
	struct fetch *f = arg;

	f->exists = r && r->type == REDIS_REPLY_INTEGER && r->integer;
}

static void tell(struct store *s, const struct fetch *f, const redisReply *r)
{
	const char *bad = NULL, *value = "";
	size_t len = 0;

	if (r->type == REDIS_REPLY_STRING) {
		value = r->str;
		len = (size_t)r->len;
	} else {
		bad = "the key holds another Redis type than a string";
	}
	if (len > WEFT_DOCUMENT_MAX)
		bad = "the document is longer than 1 MiB";
	if (!f->exists && !len) {
		if (list_add(&s->feed.gone, f->key, strlen(f->key)) < 0)
			store_fail(s, "out of memory");
		else
			feed_check(s);
		return;
	}
	list_drop(&s->feed.gone, f->key);
	s->ops->document(s->arg, f->key, value, len, bad);
}

static void on_value(void *arg, const redisReply *r)
{
	struct fetch *f = arg;
	struct store *s = f->s;

	bool current = r && f->epoch == s->epoch;

	if (current)
		s->feed.flying--;
	if (current && reply_error(r) && strncmp(r->str, "WRONGTYPE", 9))
		store_fail(s, r->str);
	else if (current)
		tell(s, f, r);
	free(f->key);
	free(f);
	if (current && link_is_up(s->data))
		pump(s);
}

static int send_fetch(struct store *s, char *key)
{
	static const char end[] =
		"1048576"; /* WEFT_DOCUMENT_MAX: one byte more than a document may have */
	struct fetch *f = malloc(sizeof(*f));
	int r;

	_Static_assert(WEFT_DOCUMENT_MAX == 1048576, "the text above");
	if (!f)
		return -ENOMEM;
	*f = (struct fetch){ s, key, s->epoch, false };
	r = store_send(s, s->data, on_exists, f, "EXISTS", key, NULL);
	if (r < 0) {
		free(f);
		return r;
	}
	s->feed.flying++;
	/* From here on f belongs to the link: if this one fails, so does the connection. */
	return store_send(s, s->data, on_value, f, "GETRANGE", key, "0", end, NULL);
}

static void finish_read(struct store *s)
{
	s->feed.reading = false;
	s->pause = PAUSE_LIVE_S;
	store_move(s, STORE_LIVE, "");
	s->ops->synced(s->arg);
}

static void pump(struct store *s)
{
	struct feed *f = &s->feed;

	while (!f->checking && f->flying < FEED_FLYING && f->next < f->queue.n) {
		char *key = f->queue.v[f->next++];
		if (send_fetch(s, key) < 0) {
			store_fail(s, "cannot send");
			return;
		}
	}
	if (f->next < f->queue.n)
		return;
	f->next = f->queue.n = 0;
	if (f->reading && !f->scanning && !f->flying && !f->gone.n && !f->checking)
		finish_read(s);
}

void feed_add(struct store *s, const char *key, size_t len)
{
	if (!is_watched(s, key, len))
		return;
	if (list_add(&s->feed.queue, key, len) < 0) {
		store_fail(s, "out of memory");
		return;
	}
	pump(s);
}

void feed_push(struct store *s, const redisReply *r)
{
	const redisReply *keys = r->element[2];

	if (s->state == STORE_DOWN && !s->feed.checking)
		return;
	if (keys->type != REDIS_REPLY_ARRAY) { /* the database was emptied */
		s->feed.again = true;
		feed_check(s);
		return;
	}
	for (size_t i = 0; i < keys->elements; i++)
		if (keys->element[i]->type == REDIS_REPLY_STRING &&
		    (!strcmp(keys->element[i]->str, KEY_MARKER) ||
		     !strcmp(keys->element[i]->str, KEY_ACCEPT)))
			feed_check(s);
	if (s->state != STORE_READING && s->state != STORE_LIVE)
		return;
	for (size_t i = 0; i < keys->elements && link_is_up(s->data); i++)
		if (keys->element[i]->type == REDIS_REPLY_STRING)
			feed_add(s, keys->element[i]->str, (size_t)keys->element[i]->len);
}

/* --- full read --- */

static void scan(struct store *s, const char *cursor);

static void on_listed(struct store *s)
{
	struct feed *f = &s->feed;
	struct key_list listing = f->listing;

	f->listing = (struct key_list){ 0 };
	list_sort(&listing);
	for (size_t i = 0; i < listing.n && f->reading; i++)
		feed_add(s, listing.v[i], strlen(listing.v[i]));
	if (f->reading)
		s->ops->listed(s->arg, (const char *const *)listing.v, listing.n);
	list_clear(&listing);
	f->scanning = false;
	if (f->reading)
		pump(s);
}

static void on_scan(void *arg, const redisReply *r)
{
	struct store *s = arg;
	struct feed *f = &s->feed;

	if (!r || !f->scanning)
		return;
	if (r->type != REDIS_REPLY_ARRAY || r->elements != 2 ||
	    r->element[0]->type != REDIS_REPLY_STRING || r->element[1]->type != REDIS_REPLY_ARRAY) {
		store_fail(s, reply_error(r) ? r->str : "SCAN: unexpected reply");
		return;
	}
	const redisReply *keys = r->element[1];
	for (size_t i = 0; i < keys->elements; i++) {
		const redisReply *k = keys->element[i];
		if (k->type != REDIS_REPLY_STRING || !is_watched(s, k->str, (size_t)k->len))
			continue;
		if (f->listing.n >= STORE_KEYS_MAX ||
		    list_add(&f->listing, k->str, (size_t)k->len) < 0) {
			store_fail(s, "too many keys");
			return;
		}
	}
	if (strcmp(r->element[0]->str, "0"))
		scan(s, r->element[0]->str);
	else
		on_listed(s);
}

static void scan(struct store *s, const char *cursor)
{
	if (store_send(s, s->data, on_scan, s, "SCAN", cursor, "MATCH", "weft:*", "COUNT",
		       FEED_SCAN, NULL) < 0)
		store_fail(s, "cannot send");
}

void feed_read(struct store *s)
{
	s->feed.again = false;
	if (s->feed.reading)
		return;
	s->feed.reading = s->feed.scanning = true;
	scan(s, "0");
}
