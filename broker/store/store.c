#include "store/store.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "store/internal.h"
#include "telemetry/log.h"

#define PAUSE_MIN_S 0.02
#define PAUSE_MAX_S 2.0
#define PAUSE_QUIET_S 0.5
#define PING_S 3.0
#define ARGS_MAX 32

const char *reply_error(const redisReply *r)
{
	return r && r->type == REDIS_REPLY_ERROR ? r->str : NULL;
}

void store_move(struct store *s, enum store_state state, const char *why)
{
	snprintf(s->error, sizeof(s->error), "%s", why);
	if (s->state == state)
		return;
	s->state = state;
	s->ops->state(s->arg, state);
}

void store_fail(struct store *s, const char *why)
{
	const char *cause = s->embedded ? embedded_error(s->embedded) : "";
	char text[sizeof(s->error)];

	snprintf(text, sizeof(text), "%s%s%s", why, *cause ? "; " : "", cause);
	/* The first tries find an embedded server that is still starting. */
	if (s->state != STORE_DOWN ||
	    (strcmp(text, s->error) && !(s->embedded && s->pause < PAUSE_QUIET_S)))
		log_warn("store: %s: %s", s->url, text);
	link_close(s->push);
	link_close(s->data);
	feed_stop(s);
	ev_timer_stop(s->loop, &s->ping);
	ev_timer_stop(s->loop, &s->read);
	ev_timer_stop(s->loop, &s->retry);
	ev_timer_set(&s->retry, s->pause, 0);
	ev_timer_start(s->loop, &s->retry);
	s->pause = s->pause * 1.5 < PAUSE_MAX_S ? s->pause * 1.5 : PAUSE_MAX_S;
	store_move(s, STORE_DOWN, text);
}

static int send_list(struct link *l, link_reply *fn, void *arg, va_list ap)
{
	const char *argv[ARGS_MAX];
	int argc = 0;

	while (argc < ARGS_MAX && (argv[argc] = va_arg(ap, const char *)))
		argc++;
	return argc == ARGS_MAX ? -E2BIG : link_command(l, fn, arg, argc, argv, NULL);
}

int store_send(struct store *s, struct link *l, link_reply *fn, void *arg, ...)
{
	va_list ap;

	(void)s;
	va_start(ap, arg);
	int r = send_list(l, fn, arg, ap);
	va_end(ap);
	return r;
}

/* --- connecting: push link, its client id, data link with tracking --- */

static void on_must_succeed(void *arg, const redisReply *r)
{
	const char *error = reply_error(r);

	if (error)
		store_fail(arg, error);
}

/* MEMORY answers to INFO are refused to some users; then nothing is known against this Redis. */
static void on_memory(void *arg, const redisReply *r)
{
	if (r && r->type == REDIS_REPLY_STRING && strstr(r->str, "maxmemory_policy:allkeys-"))
		store_fail(arg,
			   "refused: maxmemory-policy allkeys-* may drop policy; use noeviction");
}

static void authenticate(struct store *s, struct link *l)
{
	const struct store_target *t = &s->target;
	char db[16];

	if (t->user[0])
		store_send(s, l, on_must_succeed, s, "AUTH", t->user, t->password, NULL);
	else if (t->password[0])
		store_send(s, l, on_must_succeed, s, "AUTH", t->password, NULL);
	snprintf(db, sizeof(db), "%u", t->db);
	if (t->db)
		store_send(s, l, on_must_succeed, s, "SELECT", db, NULL);
}

static void on_subscribed(void *arg, const redisReply *r)
{
	struct store *s = arg;

	if (reply_error(r))
		store_fail(s, r->str);
	else if (r)
		link_connect(s->data);
}

static void on_client_id(void *arg, const redisReply *r)
{
	struct store *s = arg;

	if (reply_error(r)) {
		store_fail(s, r->str);
	} else if (r && r->type == REDIS_REPLY_INTEGER) {
		snprintf(s->push_id, sizeof(s->push_id), "%lld", r->integer);
		store_send(s, s->push, on_subscribed, s, "SUBSCRIBE", "__redis__:invalidate", NULL);
		link_subscribed(s->push);
	}
}

static void on_push_up(void *arg)
{
	struct store *s = arg;

	authenticate(s, s->push);
	store_send(s, s->push, on_client_id, s, "CLIENT", "ID", NULL);
}

static int track(struct store *s)
{
	size_t n = 0, most = 6 + 2 * (s->n_prefixes + 2);
	const char **argv = calloc(most, sizeof(*argv));

	if (!argv)
		return -ENOMEM;
	argv[n++] = "CLIENT";
	argv[n++] = "TRACKING";
	argv[n++] = "on";
	argv[n++] = "REDIRECT";
	argv[n++] = s->push_id;
	argv[n++] = "BCAST";
	for (size_t i = 0; i < s->n_prefixes + 2; i++) {
		argv[n++] = "PREFIX";
		argv[n++] = i < s->n_prefixes    ? s->prefixes[i]
			    : i == s->n_prefixes ? KEY_MARKER
						 : KEY_ACCEPT;
	}
	int r = link_command(s->data, on_must_succeed, s, (int)n, argv, NULL);
	free(argv);
	return r;
}

static void on_data_up(void *arg)
{
	struct store *s = arg;

	authenticate(s, s->data);
	if (track(s) < 0) {
		store_fail(s, "out of memory");
		return;
	}
	store_send(s, s->data, on_memory, s, "INFO", "memory", NULL);
	ev_timer_again(s->loop, &s->ping);
	ev_timer_again(s->loop, &s->read);
	feed_check(s);
}

static void on_down(void *arg, const char *why)
{
	store_fail(arg, why);
}

static void on_push(void *arg, const redisReply *r)
{
	feed_push(arg, r);
}

static void on_retry(struct ev_loop *loop, struct ev_timer *t, int events)
{
	struct store *s = t->data;

	(void)loop;
	(void)events;
	link_connect(s->push);
}

/* Both ends of a dead link must be found: a subscribed link is silent by nature. */
static void on_ping(struct ev_loop *loop, struct ev_timer *t, int events)
{
	struct store *s = t->data;

	(void)loop;
	(void)events;
	store_send(s, s->push, NULL, NULL, "PING", NULL);
	store_send(s, s->data, NULL, NULL, "PING", NULL);
}

static void on_read(struct ev_loop *loop, struct ev_timer *t, int events)
{
	struct store *s = t->data;

	(void)loop;
	(void)events;
	if (s->state == STORE_HELD)
		feed_check(s);
	else
		feed_read(s);
}

/* --- life --- */

static int open_parts(struct store *s, const struct store_options *o)
{
	static const struct link_ops push_ops = { on_push_up, on_down, on_push };
	static const struct link_ops data_ops = { on_data_up, on_down, on_push };
	int r;

	if (snprintf(s->marker_path, sizeof(s->marker_path), "%s/mesh", o->state_dir) >=
	    PATH_MAX - 8)
		return -ENAMETOOLONG;
	r = marker_load(&s->known, s->marker_path);
	if (r < 0)
		return r;
	if (o->target)
		s->target = *o->target;
	else
		r = embedded_path(o->state_dir, s->target.path, sizeof(s->target.path));
	if (r < 0)
		return r;
	target_format(&s->target, s->url, sizeof(s->url));
	s->push = link_new(s->loop, &s->target, &push_ops, s);
	s->data = link_new(s->loop, &s->target, &data_ops, s);
	if (!s->push || !s->data)
		return -ENOMEM;
	return o->target ? 0 : embedded_start(s->loop, o->state_dir, &s->embedded);
}

int store_open(struct ev_loop *loop, const struct store_options *o, const struct store_ops *ops,
	       void *arg, struct store **out)
{
	struct store *s = calloc(1, sizeof(*s));

	if (!s)
		return -ENOMEM;
	s->loop = loop;
	s->ops = ops;
	s->arg = arg;
	s->prefixes = o->prefixes;
	s->n_prefixes = o->n_prefixes;
	s->pause = PAUSE_MIN_S;
	ev_timer_init(&s->retry, on_retry, PAUSE_MIN_S, 0);
	ev_timer_init(&s->ping, on_ping, PING_S, PING_S);
	ev_timer_init(&s->read, on_read, STORE_READ_S, STORE_READ_S);
	s->retry.data = s->ping.data = s->read.data = s;
	int r = open_parts(s, o);
	if (r < 0) {
		store_close(s);
		return r;
	}
	snprintf(s->error, sizeof(s->error), "not connected yet");
	ev_timer_start(loop, &s->retry);
	*out = s;
	return 0;
}

void store_close(struct store *s)
{
	if (!s)
		return;
	s->closing = true;
	ev_timer_stop(s->loop, &s->retry);
	ev_timer_stop(s->loop, &s->ping);
	ev_timer_stop(s->loop, &s->read);
	link_free(s->push);
	link_free(s->data);
	feed_stop(s);
	embedded_stop(s->embedded);
	free(s);
}

enum store_state store_state(const struct store *s)
{
	return s->state;
}

const char *store_error(const struct store *s)
{
	return s->error;
}

const char *store_url(const struct store *s)
{
	return s->url;
}

bool store_is_embedded(const struct store *s)
{
	return s->embedded;
}

const struct marker *store_marker(const struct store *s)
{
	return &s->known;
}

int store_local(const struct store *s, struct weft_addr *out)
{
	return link_local(s->data, out);
}

void store_fetch(struct store *s, const char *key)
{
	if (s->state == STORE_READING || s->state == STORE_LIVE)
		feed_add(s, key, strlen(key));
}

int store_accept(struct store *s)
{
	return feed_accept(s);
}

int store_advance(struct store *s)
{
	return feed_advance(s);
}

/* --- commands of others --- */

struct run {
	const struct store *s;
	store_done *done;
	void *arg;
};

static void on_run(void *arg, const redisReply *r)
{
	struct run *run = arg;
	struct store_answer a = { .text = "" };

	if (!r) {
		a.error = -ENOTCONN;
	} else {
		a.error = r->type == REDIS_REPLY_ERROR ? -EREMOTE : 0;
		a.nil = r->type == REDIS_REPLY_NIL;
		a.integer = r->integer;
		a.text = r->str ? r->str : "";
		a.len = r->str ? (size_t)r->len : 0;
	}
	if (run->done && !run->s->closing)
		run->done(run->arg, &a);
	else if (a.error == -EREMOTE)
		log_warn("store: %s", a.text);
	free(run);
}

int store_run(struct store *s, store_done *done, void *arg, ...)
{
	va_list ap;

	if (s->state == STORE_DOWN)
		return -ENOTCONN;
	if (s->state == STORE_HELD)
		return -EPERM;
	struct run *run = malloc(sizeof(*run));
	if (!run)
		return -ENOMEM;
	*run = (struct run){ s, done, arg };
	va_start(ap, arg);
	int r = send_list(s->data, on_run, run, ap);
	va_end(ap);
	if (r < 0)
		free(run);
	return r;
}

static void on_drained(struct ev_loop *loop, struct ev_timer *t, int events)
{
	(void)t;
	(void)events;
	ev_break(loop, EVBREAK_ONE);
}

void store_drain(struct store *s, int ms)
{
	struct ev_timer limit;
	double end = ev_time() + ms / 1000.0;

	ev_timer_init(&limit, on_drained, ms / 1000.0, 0);
	ev_timer_start(s->loop, &limit);
	while (link_pending(s->data) && ev_time() < end)
		ev_run(s->loop, EVRUN_ONCE);
	ev_timer_stop(s->loop, &limit);
}
