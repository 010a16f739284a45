/* What processes tell of their connections, read from their family memories when somebody asks. What the dead told is kept
 * by service and program: most clients live for a moment. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "registry/internal.h"

#define PAST_MAX 64 /* services and programs of processes that are gone; the eldest makes room */

struct past {
	char service[WEFT_SERVICE_MAX + 1];
	char exe[PROC_EXE_MAX];
	struct weft_tally_mem tally;
};

static const char *exe_of(const struct process *p)
{
	return p->facts.exe[0] ? p->facts.exe : p->facts.comm;
}

/* A copy: the guest may write on meanwhile. Never mapped: that would count as somebody who lives. */
static bool read_tally(const struct process *p, struct weft_tally_mem *out)
{
	return p->family >= 0 && pread(p->family, out, sizeof(*out), 0) == sizeof(*out);
}

static bool is_empty(const struct weft_tally_mem *m)
{
	for (enum weft_tally k = 0; k < WEFT_TALLY_MAX; k++)
		if (tally_total(m, k))
			return false;
	return true;
}

static struct past *past_get(struct registry *r, const struct process *p)
{
	struct past *v = r->past;

	for (size_t i = 0; i < r->n_past; i++)
		if (strcmp(v[i].service, p->service) == 0 && strcmp(v[i].exe, exe_of(p)) == 0)
			return &v[i];
	if (!v)
		v = r->past = calloc(PAST_MAX, sizeof(*v));
	if (!v)
		return NULL;
	if (r->n_past == PAST_MAX)
		memmove(v, v + 1, --r->n_past * sizeof(*v));
	v += r->n_past++;
	memset(v, 0, sizeof(*v));
	snprintf(v->service, sizeof(v->service), "%s", p->service);
	snprintf(v->exe, sizeof(v->exe), "%s", exe_of(p));
	return v;
}

void coverage_fold(struct registry *r, const struct process *p)
{
	struct weft_tally_mem tally;
	struct past *past;

	if (!read_tally(p, &tally) || is_empty(&tally))
		return;
	past = past_get(r, p);
	if (past)
		tally_merge(&past->tally, &tally);
}

void coverage_close(struct registry *r)
{
	free(r->past);
	r->past = NULL;
	r->n_past = 0;
}

static int show_past(const struct registry *r,
		     int (*fn)(void *arg, const struct registry_coverage *), void *arg)
{
	int e = 0;

	for (size_t i = 0; e == 0 && i < r->n_past; i++) {
		const struct registry_coverage view = {
			.service = r->past[i].service,
			.exe = r->past[i].exe,
			.why = "",
			.id = i,
			.tally = &r->past[i].tally,
		};
		e = fn(arg, &view);
	}
	return e;
}

static int show_process(const struct process *p,
			int (*fn)(void *arg, const struct registry_coverage *), void *arg)
{
	struct weft_tally_mem tally;
	const struct registry_coverage view = {
		.service = p->service,
		.exe = exe_of(p),
		.why = p->why,
		.pid = p->facts.pid,
		.id = PAST_MAX + (uint64_t)p->facts.pid,
		.uid = p->facts.uid,
		.mode = p->mode < p->ceiling ? p->mode : p->ceiling,
		.family = p->n_families ? p->families[p->n_families - 1].inode : 0,
		.identity = p->signature,
		.tally = &tally,
	};

	if (!read_tally(p, &tally))
		memset(&tally, 0, sizeof(tally));
	return fn(arg, &view);
}

static int by_pid(const void *a, const void *b)
{
	const struct process *x = *(struct process *const *)a, *y = *(struct process *const *)b;

	return (x->facts.pid > y->facts.pid) - (x->facts.pid < y->facts.pid);
}

int registry_each_coverage(const struct registry *r,
			   int (*fn)(void *arg, const struct registry_coverage *), void *arg)
{
	struct process **sorted = malloc((r->n_processes + 1) * sizeof(*sorted));
	int e = sorted ? show_past(r, fn, arg) : -ENOMEM;

	if (sorted && r->n_processes) {
		memcpy(sorted, r->processes, r->n_processes * sizeof(*sorted));
		qsort(sorted, r->n_processes, sizeof(*sorted), by_pid);
	}
	for (size_t i = 0; e == 0 && i < r->n_processes; i++)
		e = show_process(sorted[i], fn, arg);
	free(sorted);
	return e;
}
