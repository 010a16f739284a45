/* weft try: results of socket calls, as libwefttrace.so counted them. What depends on who is scheduled when is left out:
 * how often a call is made, how many bytes one carries, EAGAIN and its like. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/try.h"

#define SHOW 8

static const char *const names[] = {
#define CALL(name) #name,
#include "weft/trace.def"
#undef CALL
};

int try_calls_make(const struct trial *t, enum try_run run)
{
	char path[TRY_PATH];
	struct {
		uint64_t magic, size;
	} head = { WEFT_TRACE_MAGIC, sizeof(struct weft_trace) };
	int fd, r = 0;

	try_path(t, run, "calls", path);
	fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0)
		return -errno;
	/* A server may change its user before it executes another program. */
	if (ftruncate(fd, sizeof(struct weft_trace)) < 0 ||
	    fchmod(fd, getuid() == 0 ? 0666 : 0600) < 0 ||
	    pwrite(fd, &head, sizeof(head), 0) != sizeof(head))
		r = -errno;
	close(fd);
	return r;
}

/* NULL: not readable, or not of the size it was made with. */
static const struct weft_trace *load(const struct trial *t, enum try_run run)
{
	char path[TRY_PATH];
	struct stat st;
	void *p = MAP_FAILED;
	int fd;

	try_path(t, run, "calls", path);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd >= 0 && fstat(fd, &st) == 0 && st.st_size == sizeof(struct weft_trace))
		p = mmap(NULL, sizeof(struct weft_trace), PROT_READ, MAP_SHARED, fd, 0);
	if (fd >= 0)
		close(fd);
	return p == MAP_FAILED ? NULL : p;
}

static void unload(const struct weft_trace *m)
{
	union {
		const struct weft_trace *map;
		void *p;
	} u = { m };

	if (m)
		munmap(u.p, sizeof(*m));
}

uint64_t try_calls_made(const struct trial *t, enum try_run run)
{
	const struct weft_trace *m = t->calls ? load(t, run) : NULL;
	uint64_t sum = 1;

	for (unsigned c = 0; m && c < WEFT_TRACE_CALLS; c++)
		for (unsigned e = 0; e < WEFT_TRACE_ERRNOS; e++)
			sum += m->calls[c][e];
	unload(m);
	return sum;
}

/* Whether it comes or not depends on the moment. */
static bool is_of_the_moment(unsigned e)
{
	return e == EAGAIN || e == EINPROGRESS || e == EALREADY || e == EINTR;
}

static void compare_results(struct trial *t, enum try_run run, const struct weft_trace *const m[3])
{
	json_t *out = NULL;

	for (unsigned c = 0; c < WEFT_TRACE_CALLS; c++)
		for (unsigned e = 0; e < WEFT_TRACE_ERRNOS; e++) {
			uint64_t bare = m[0]->calls[c][e], again = m[1]->calls[c][e],
				 seen = m[2]->calls[c][e];
			const char *what = c == WEFT_TRACE_SO_ERROR ? "gives" : "fails with";

			if (is_of_the_moment(e) || !bare != !again || !bare == !seen)
				continue;
			if (!out)
				out = try_differs(t, run, "results of calls");
			if (!e)
				try_line(out, "%s() succeeds %s", names[c],
					 bare ? "bare, and here never" : "here, and bare never");
			else
				try_line(out, "%s%s %s %s (%s) %s", names[c],
					 c == WEFT_TRACE_SO_ERROR ? "" : "()", what,
					 strerrorname_np((int)e), strerror((int)e),
					 bare ? "bare, and here never" : "here, and bare never");
		}
}

/* --- connections: as a multiset, for nobody says in which order they come --- */

struct ends {
	struct weft_trace_conn *v;
	size_t n;
};

static int by_value(const void *a, const void *b)
{
	const struct weft_trace_conn *x = a, *y = b;

	if (x->flags != y->flags)
		return x->flags < y->flags ? -1 : 1;
	if (x->in != y->in)
		return x->in < y->in ? -1 : 1;
	return x->out < y->out ? -1 : x->out > y->out;
}

static void gather(const struct weft_trace *m, struct ends *out)
{
	out->v = calloc(WEFT_TRACE_CONNS, sizeof(*out->v));
	out->n = 0;
	if (!out->v)
		abort();
	for (size_t i = 0; i < WEFT_TRACE_CONNS; i++) {
		const struct weft_trace_conn *c = &m->conns[i];
		struct weft_trace_conn *o = &out->v[out->n];

		o->flags = c->flags & ~(uint32_t)WEFT_TRACE_TLS;
		o->in = c->in;
		o->out = c->out;
		out->n += c->cookie && c->flags & (WEFT_TRACE_CLIENT | WEFT_TRACE_SERVER);
	}
	qsort(out->v, out->n, sizeof(*out->v), by_value);
}

static bool equal(const struct ends *a, const struct ends *b)
{
	if (a->n != b->n)
		return false;
	for (size_t i = 0; i < a->n; i++)
		if (by_value(&a->v[i], &b->v[i]) != 0)
			return false;
	return true;
}

static void tell_connections(json_t *out, const struct ends *a, const struct ends *b,
			     const char *sign)
{
	size_t found = 0;

	for (size_t i = 0, j = 0; i < a->n; i++) {
		const struct weft_trace_conn *c = &a->v[i];
		int order;

		while ((order = j < b->n ? by_value(c, &b->v[j]) : -1) > 0)
			j++;
		j += order == 0;
		if (order == 0 || found++ >= SHOW)
			continue;
		try_line(out, "%s %s: %llu bytes received, %llu sent%s%s", sign,
			 c->flags & WEFT_TRACE_CLIENT ? "client" : "server",
			 (unsigned long long)c->in, (unsigned long long)c->out,
			 c->flags & WEFT_TRACE_EOF ? ", saw the end" : "",
			 c->flags & WEFT_TRACE_RESET ? ", saw a reset" : "");
	}
	if (found > SHOW)
		try_line(out, "%s ... and %zu more", sign, found - SHOW);
}

static void compare_connections(struct trial *t, enum try_run run,
				const struct weft_trace *const m[3])
{
	struct ends e[3];

	for (unsigned i = 0; i < 3; i++)
		gather(m[i], &e[i]);
	if (!equal(&e[0], &e[1])) {
		if (run == TRY_PASS)
			try_note(t,
				 "connections differ between two bare runs (%zu and %zu ends), "
				 "and are not compared",
				 e[0].n, e[1].n);
	} else if (!equal(&e[0], &e[2])) {
		json_t *out = try_differs(t, run, "connections");

		tell_connections(out, &e[0], &e[2], "-");
		tell_connections(out, &e[2], &e[0], "+");
	}
	for (unsigned i = 0; i < 3; i++)
		free(e[i].v);
}

void try_compare_calls(struct trial *t, enum try_run run)
{
	const struct weft_trace *const m[3] = { load(t, TRY_BARE), load(t, TRY_AGAIN),
						load(t, run) };

	if (m[0] && m[1] && m[2]) {
		compare_results(t, run, m);
		if (m[0]->lost || m[2]->lost)
			try_note(t, "more connections than can be counted: they are not compared");
		else
			compare_connections(t, run, m);
	} else {
		try_note(t, "results of calls were not recorded");
	}
	for (unsigned i = 0; i < 3; i++)
		unload(m[i]);
}

struct try_connections try_count_connections(const struct trial *t, enum try_run run)
{
	const struct weft_trace *m = load(t, run);
	struct try_connections r = { 0 };

	for (size_t i = 0; m && i < WEFT_TRACE_CONNS; i++) {
		uint32_t flags = m->conns[i].flags;

		r.n += flags & (WEFT_TRACE_CLIENT | WEFT_TRACE_SERVER) && m->conns[i].cookie;
		r.tls += (flags & WEFT_TRACE_TLS) != 0;
	}
	unload(m);
	return r;
}
