#include "registry/registry.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "registry/internal.h"
#include "telemetry/log.h"

#define READY_AFTER_S \
	1.0 /* a store that does not answer by then: the last good documents have to do */
#define DRAIN_MS 1000

uint64_t registry_now(void)
{
	return (uint64_t)time(NULL);
}

/* --- files --- */

int file_replace(const char *path, const void *bytes, size_t len)
{
	char tmp[PATH_MAX];
	const uint8_t *p = bytes;

	if (snprintf(tmp, sizeof(tmp), "%s.new", path) >= (int)sizeof(tmp))
		return -ENAMETOOLONG;
	int fd = open(tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return -errno;
	int r = 0;
	while (len && r == 0) {
		ssize_t n = write(fd, p, len);
		if (n < 0 && errno != EINTR)
			r = -errno;
		p += n > 0 ? n : 0;
		len -= n > 0 ? (size_t)n : 0;
	}
	close(fd);
	if (r == 0 && rename(tmp, path) < 0)
		r = -errno;
	return r;
}

int file_read(const char *path, size_t max, char **out, size_t *len)
{
	struct stat st;
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	char *text = NULL;
	size_t n = 0;
	int r = 0;

	if (fd < 0)
		return -errno;
	if (fstat(fd, &st) < 0)
		r = -errno;
	else if (!S_ISREG(st.st_mode) || (size_t)st.st_size > max)
		r = -EFBIG;
	else if (!(text = malloc((size_t)st.st_size + 1)))
		r = -ENOMEM;
	while (r == 0 && n < (size_t)st.st_size) {
		ssize_t got = read(fd, text + n, (size_t)st.st_size - n);
		if (got < 0 && errno != EINTR)
			r = -errno;
		else if (got == 0)
			break;
		n += got > 0 ? (size_t)got : 0;
	}
	close(fd);
	if (r < 0) {
		free(text);
		return r;
	}
	text[n] = '\0';
	*out = text;
	*len = n;
	return 0;
}

/* --- state folder --- */

static int make_dir(const char *base, const char *name, mode_t mode)
{
	char path[PATH_MAX];

	if (snprintf(path, sizeof(path), "%s%s%s", base, *name ? "/" : "", name) >= PATH_MAX)
		return -ENAMETOOLONG;
	return mkdir(path, mode) < 0 && errno != EEXIST ? -errno : 0;
}

/* The folder and what is above it. */
static int make_path(const char *path, mode_t mode)
{
	char text[PATH_MAX];

	if (snprintf(text, sizeof(text), "%s", path) >= PATH_MAX)
		return -ENAMETOOLONG;
	for (char *p = text + 1; *p; p++)
		if (*p == '/') {
			*p = '\0';
			int r = make_dir(text, "", 0755);
			if (r < 0)
				return r;
			*p = '/';
		}
	return make_dir(text, "", mode);
}

static int create_host_id(char out[static HOST_ID + 1], const char *path)
{
	uint8_t random[HOST_ID / 2];

	if (getrandom(random, sizeof(random), 0) != sizeof(random))
		return -EAGAIN;
	for (size_t i = 0; i < sizeof(random); i++)
		snprintf(out + 2 * i, 3, "%02x", random[i]);
	return file_replace(path, out, HOST_ID);
}

static int load_host_id(struct registry *r)
{
	char path[PATH_MAX], *text;
	size_t len;

	if (snprintf(path, sizeof(path), "%s/host", r->state_dir) >= PATH_MAX)
		return -ENAMETOOLONG;
	int e = file_read(path, 256, &text, &len);
	if (e == -ENOENT)
		return create_host_id(r->host, path);
	if (e < 0)
		return e;
	e = len == HOST_ID && strspn(text, "0123456789abcdef") == HOST_ID ? 0 : -EINVAL;
	if (e == 0)
		memcpy(r->host, text, HOST_ID + 1);
	free(text);
	return e;
}

/* A copied state folder would make two hosts one, with the same CA key. The machine id tells. */
static int check_machine(const struct registry *r, const char **why)
{
	char path[PATH_MAX], *now = NULL, *then = NULL;
	size_t now_len = 0, then_len = 0;
	int e = file_read("/etc/machine-id", 256, &now, &now_len);

	if (e < 0 || now_len < 16 ||
	    snprintf(path, sizeof(path), "%s/machine", r->state_dir) >= PATH_MAX) {
		free(e < 0 ? NULL : now);
		return 0; /* a machine without an id cannot be told from its copy */
	}
	e = file_read(path, 256, &then, &then_len);
	if (e == -ENOENT) {
		e = file_replace(path, now, now_len);
	} else if (e == 0 && (then_len != now_len || memcmp(now, then, now_len))) {
		*why = "the state folder is of another machine (its file \"machine\" is not "
		       "/etc/machine-id)";
		e = -EINVAL;
	}
	free(now);
	free(then);
	return e;
}

/* --- life --- */

static int copy_options(struct registry *r, const struct registry_options *o)
{
	char *dir = strdup(o->socket);

	r->state_dir = strdup(o->state_dir);
	r->socket = strdup(o->socket);
	r->socket_dir = dir ? strdup(dirname(dir)) : NULL;
	r->zone = strdup(o->zone);
	r->trust_domain = strdup(o->trust_domain);
	free(dir);
	r->strict = o->strict;
	r->ca = o->ca;
	return r->state_dir && r->socket && r->socket_dir && r->zone && r->trust_domain ? 0
											: -ENOMEM;
}

static int parse_ranges(struct registry *r, const struct registry_options *o)
{
	r->has_advertise = *o->advertise;
	if (cidr_parse(&r->vip_range, o->vip_cidr) < 0 ||
	    (r->has_advertise && cidr_parse(&r->advertise, o->advertise) < 0))
		return -EINVAL;
	snprintf(r->advertise_shown, sizeof(r->advertise_shown), "%s", o->advertise);
	return 0;
}

/* Two brokers over one state folder would tear each other's tables apart. Held until the process ends. */
static int lock_folder(struct registry *r, const char **why)
{
	char path[PATH_MAX];

	if (snprintf(path, sizeof(path), "%s/lock", r->state_dir) >= PATH_MAX)
		return -ENAMETOOLONG;
	r->lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (r->lock < 0)
		return -errno;
	if (flock(r->lock, LOCK_EX | LOCK_NB) == 0)
		return 0;
	*why = "another weftd uses this state folder";
	return -EBUSY;
}

static int open_folders(struct registry *r, const char **why)
{
	int e = make_path(r->state_dir, 0700);

	if (e == 0)
		e = lock_folder(r, why);
	if (e == 0)
		e = make_dir(r->state_dir, "processes", 0700);
	if (e == 0)
		e = check_machine(r, why);
	if (e == 0)
		e = load_host_id(r);
	if (e == 0)
		e = make_path(r->socket_dir, 0755);
	if (e == 0)
		e = make_dir(r->socket_dir, WEFT_IDENTITY_DIR, 0700);
	return e;
}

/* The first full read is done, or the store has had its time. */
static void on_start(struct ev_loop *loop, struct ev_timer *t, int events)
{
	struct registry *r = t->data;

	(void)events;
	ev_timer_stop(loop, t);
	if (r->is_ready)
		return;
	if (store_state(r->store) != STORE_LIVE)
		log_warn("store does not answer (%s): starting with the last good documents",
			 store_error(r->store));
	saved_sweep(r);
	entries_refresh(r);
	publish_ready(r);
	r->ready(r->ready_arg);
}

static int open_parts(struct registry *r, const struct registry_options *o, const char **why)
{
	struct store_options so = { .target = o->target, .state_dir = r->state_dir };
	int e = open_folders(r, why);

	so.prefixes = documents_prefixes(&so.n_prefixes);
	r->model = e == 0 ? model_new(r->trust_domain) : NULL;
	if (e == 0 && !r->model)
		e = -ENOMEM;
	if (e == 0)
		e = publish_open(r);
	if (e == 0)
		e = store_open(r->loop, &so, &documents_ops, r, &r->store);
	if (e == 0)
		e = documents_open(r);
	return e;
}

int registry_open(struct ev_loop *loop, const struct registry_options *o, void (*ready)(void *arg),
		  void *arg, struct registry **out, const char **why)
{
	struct registry *r = calloc(1, sizeof(*r));

	*why = "";
	if (!r)
		return -ENOMEM;
	r->loop = loop;
	r->ready = ready;
	r->ready_arg = arg;
	r->started = r->feed_since = registry_now();
	r->own_netns = proc_own_netns();
	r->board_fd = r->names_fd = r->lock = -1;
	ev_timer_init(&r->start, on_start, READY_AFTER_S, 0);
	r->start.data = r;
	int e = copy_options(r, o);
	if (e == 0)
		e = parse_ranges(r, o);
	if (e == 0)
		e = open_parts(r, o, why);
	if (e < 0) {
		registry_close(r);
		return e;
	}
	saved_load(r);
	ev_timer_start(loop, &r->start);
	watch_start(r);
	modes_open(r);
	lease_start(r);
	*out = r;
	return 0;
}

void registry_withdraw(struct registry *r)
{
	char key[64];

	entries_withdraw(r);
	publish_now(r);
	snprintf(key, sizeof(key), "weft:Host:%s", r->host);
	store_run(r->store, NULL, NULL, "DEL", key, NULL);
	if (r->leader)
		store_run(r->store, NULL, NULL, "DEL", "weft:leader", NULL);
	r->leader = false;
	store_drain(r->store, DRAIN_MS);
}

void registry_close(struct registry *r)
{
	if (!r)
		return;
	r->is_ready = false; /* nothing is published any more */
	ev_timer_stop(r->loop, &r->start);
	watch_close(r);
	modes_close(r);
	coverage_close(r);
	lease_close(r);
	documents_close(r);
	store_close(r->store);
	while (r->n_processes)
		process_free(r, r->processes[r->n_processes - 1]);
	free(r->processes);
	entries_close(r);
	vips_close(r);
	model_free(r->model);
	publish_close(r);
	if (r->lock >= 0)
		close(r->lock);
	free(r->state_dir);
	free(r->socket);
	free(r->socket_dir);
	free(r->zone);
	free(r->trust_domain);
	free(r);
}

int registry_accept(struct registry *r)
{
	return store_accept(r->store);
}

bool registry_is_settling(const struct registry *r)
{
	return r->claims.n || r->dirty_vips || r->dirty_names;
}

void registry_on_settled(struct registry *r, void (*settled)(void *arg), void *arg)
{
	r->settled = settled;
	r->settled_arg = arg;
}

/* --- RESOLVE and SERVICE --- */

int registry_resolve(struct registry *r, const struct process *p, uint64_t netns,
		     const struct wire_resolve *ask, struct weft_names_service *out,
		     enum weft_names_kind *kind)
{
	struct weft_addr a = { .port = (uint16_t)ask->port };

	*kind = WEFT_NAMES_VIP;
	if (ask->name.n)
		return names_find(r->names, sizeof(*r->names), ask->name.p,
				  p && p->ns[0] ? p->ns : WEFT_NAMESPACE_DEFAULT, out);
	if (ask->address.n != 16 || ask->port > 65535)
		return -ENOENT;
	memcpy(a.ip, ask->address.p, 16);
	return names_find_addr(r->names, sizeof(*r->names), &a, netns, out, kind);
}

int registry_serve(struct registry *r, const struct process *p, uint64_t netns,
		   const struct wire_ask *ask, uint8_t **out, size_t *len)
{
	struct arena arena = { 0 };
	struct wire_service s = { 0 };
	size_t n = p ? p->n_labels : 0;
	struct wire_label *labels = arena_array(&arena, n, sizeof(*labels));
	struct caller caller = {
		.service = p ? p->service : "",
		.ns = p && p->ns[0] ? p->ns : WEFT_NAMESPACE_DEFAULT,
		.host = r->host,
		.netns = netns ? netns : r->own_netns,
		.labels = labels,
		.n_labels = n,
	};
	uint32_t bucket = weft_bucket(ask->service.p) & (WEFT_GENERATIONS - 1);

	for (size_t i = 0; labels && i < n; i++)
		labels[i] = (struct wire_label){ wire_str_of(p->labels[i].key),
						 wire_str_of(p->labels[i].value) };
	int e = n && !labels ? -ENOMEM : 0;
	if (e == 0)
		e = model_service(r->model, &caller, ask, &arena, &s);
	if (e == 0) {
		s.generation = atomic_load(&r->board->generation[bucket]);
		e = wire_encode(&wire_schema_service, &s, WEFT_REPLY_MAX, out, len);
	}
	arena_free(&arena);
	return e;
}
