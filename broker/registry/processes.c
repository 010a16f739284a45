/* The table of attached processes: who belongs to which, and what each was granted. */
#include "registry/process.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <unistd.h>

#include "ca/ca.h"
#include "registry/internal.h"
#include "telemetry/log.h"

#define PROCESSES_MAX 65536
#define ANCESTORS_MAX 16
#define PROCESSES_PER_UID 16384

/* --- members --- */

static void on_member_died(struct ev_loop *loop, struct ev_io *io, int events)
{
	struct member *m = io->data;
	struct process *p = m->process;
	struct registry *r = p->registry;

	(void)events;
	ev_io_stop(loop, io);
	close(m->pidfd);
	for (size_t i = 0; i < p->n_members; i++)
		if (p->members[i] == m)
			p->members[i] = p->members[--p->n_members];
	free(m);
	if (!p->n_members)
		watch_died(r, p);
}

int process_join(struct registry *r, struct process *p, pid_t pid, uint64_t start, int pidfd)
{
	if (p->n_members == PROCESS_MEMBERS)
		return 0; /* found by its maps again */
	struct member *m = calloc(1, sizeof(*m));
	int fd = m ? pidfd >= 0 ? fcntl(pidfd, F_DUPFD_CLOEXEC, 3) : proc_pidfd(pid) : -1;
	if (fd < 0) {
		int e = !m ? -ENOMEM : pidfd >= 0 ? -errno : fd;
		free(m);
		return e;
	}
	*m = (struct member){ .pid = pid, .start = start, .pidfd = fd, .process = p };
	ev_io_init(&m->died, on_member_died, fd, EV_READ);
	m->died.data = m;
	ev_io_start(r->loop, &m->died);
	p->members[p->n_members++] = m;
	return 0;
}

static struct process *find_member(const struct registry *r, pid_t pid, uint64_t start)
{
	for (size_t i = 0; i < r->n_processes; i++)
		for (size_t j = 0; j < r->processes[i]->n_members; j++) {
			const struct member *m = r->processes[i]->members[j];
			if (m->pid == pid && m->start == start)
				return r->processes[i];
		}
	return NULL;
}

bool process_has_family(const struct process *p, const struct proc_family *f, int n)
{
	for (int i = 0; i < n; i++)
		for (size_t j = 0; j < p->n_families; j++)
			if (p->families[j].inode == f[i].inode && p->families[j].dev == f[i].dev)
				return true;
	return false;
}

/* Where weftd may not read the maps of another uid: a forked child asks without a HELLO of its own, which a program that
 * came by exec never does. */
static struct process *find_parent(const struct registry *r, const struct proc_facts *facts)
{
	pid_t pid = facts->pid;

	for (int i = 0; i < ANCESTORS_MAX && (pid = proc_parent(pid)) > 1; i++) {
		struct process *p = find_member(r, pid, proc_start(pid));
		if (p)
			return p->facts.uid == facts->uid ? p : NULL;
	}
	return NULL;
}

static struct process *find_family(const struct registry *r, const struct proc_facts *facts,
				   bool hello)
{
	struct proc_family f[PROC_FAMILIES_MAX];
	int n = proc_families(facts->pid, f, PROC_FAMILIES_MAX);

	if (n < 0 && !hello)
		return find_parent(r, facts);

	for (size_t i = 0; n > 0 && i < r->n_processes; i++)
		if (process_has_family(r->processes[i], f, n))
			return r->processes[i];
	return NULL;
}

/* A HELLO of a pid that is known: again from the same program, or from one that exec put in its place? Its maps tell;
 * where they may not be read, the name of the program has to. */
static bool is_same_program(const struct process *p, const struct proc_facts *facts)
{
	struct proc_family f[PROC_FAMILIES_MAX];
	int n = proc_families(facts->pid, f, PROC_FAMILIES_MAX);

	if (n >= 0)
		return process_has_family(p, f, n);
	return strcmp(p->facts.exe, facts->exe) == 0 && strcmp(p->facts.comm, facts->comm) == 0;
}

struct process *registry_find(struct registry *r, const struct proc_facts *facts, int pidfd,
			      bool hello)
{
	struct process *p = find_member(r, facts->pid, facts->start);

	if (p && hello && !is_same_program(p, facts)) {
		/* What is left of the one before lives on in its other members, if it has any. */
		for (size_t i = 0; i < p->n_members; i++)
			if (p->members[i]->pid == facts->pid) {
				ev_feed_event(r->loop, &p->members[i]->died, EV_READ);
				p->members[i]->start = 0;
			}
		p = NULL;
	}
	if (p)
		return p;
	p = find_family(r, facts, hello);
	if (p && process_join(r, p, facts->pid, facts->start, pidfd) == 0)
		saved_write(r, p);
	return p;
}

/* --- life --- */

static int process_id(char out[static PROCESS_ID + 1])
{
	uint8_t random[PROCESS_ID / 2];

	if (getrandom(random, sizeof(random), 0) != sizeof(random))
		return -EAGAIN;
	for (size_t i = 0; i < sizeof(random); i++)
		snprintf(out + 2 * i, 3, "%02x", random[i]);
	return 0;
}

int process_map(struct registry *r, struct process *p)
{
	char name[64];
	void *map;
	bool fresh;

	snprintf(name, sizeof(name), WEFT_IDENTITY_DIR "/%s", p->id);
	int e = shm_map(r->socket_dir, name, WEFT_SHM_IDENTITY, sizeof(*p->memory), 0600, &map,
			&fresh);
	if (e < 0)
		return e;
	p->memory = map;
	atomic_store_explicit(&p->memory->live, 1, memory_order_release);
	return fresh;
}

struct process *process_new(struct registry *r, const struct proc_facts *facts)
{
	struct process *p = NULL;

	if (r->n_processes == r->max_processes) {
		size_t max = r->max_processes ? r->max_processes * 2 : 64;
		struct process **v =
			max <= PROCESSES_MAX ? realloc(r->processes, max * sizeof(*v)) : NULL;
		if (!v)
			return NULL;
		r->processes = v;
		r->max_processes = max;
	}
	p = calloc(1, sizeof(*p));
	if (!p)
		return NULL;
	p->registry = r;
	p->facts = *facts;
	p->since = registry_now();
	p->family = -1;
	p->mode = p->ceiling = WEFT_MODE_ENFORCE;
	if (process_id(p->id) < 0) {
		free(p);
		return NULL;
	}
	r->processes[r->n_processes++] = p;
	return p;
}

void process_free(struct registry *r, struct process *p)
{
	for (size_t i = 0; i < r->n_processes; i++)
		if (r->processes[i] == p)
			r->processes[i] = r->processes[--r->n_processes];
	for (size_t i = 0; i < p->n_members; i++) {
		ev_io_stop(r->loop, &p->members[i]->died);
		close(p->members[i]->pidfd);
		free(p->members[i]);
	}
	if (p->memory)
		munmap(p->memory, sizeof(*p->memory));
	if (p->family >= 0)
		close(p->family);
	free(p->labels);
	free(p->csr);
	free(p->signature);
	free(p->signature_block);
	free(p->written);
	free(p);
}

void process_drop(struct registry *r, struct process *p)
{
	char path[PATH_MAX];
	bool announced = p->n_listeners;

	log_debug("process %d (%s) is gone", (int)p->facts.pid, p->service);
	coverage_fold(r, p);
	if (p->memory)
		atomic_store_explicit(&p->memory->live, 0, memory_order_release);
	if (snprintf(path, sizeof(path), "%s/" WEFT_IDENTITY_DIR "/%s", r->socket_dir, p->id) <
	    PATH_MAX)
		unlink(path);
	saved_remove(r, p);
	process_free(r, p);
	if (announced) {
		entries_update(r);
		publish_now(r);
	}
}

void registry_release(struct registry *r, struct process *p)
{
	process_drop(r, p);
}

/* --- grants --- */

static int add_label(struct process *p, const char *key, const char *value)
{
	struct label *l;

	for (size_t i = 0; i < p->n_labels; i++)
		if (strcmp(p->labels[i].key, key) == 0)
			return 0; /* what weft says comes first and holds */
	if (p->n_labels == WEFT_LABELS_MAX)
		return -E2BIG;
	l = &p->labels[p->n_labels];
	if (snprintf(l->key, sizeof(l->key), "%s", key) >= (int)sizeof(l->key) ||
	    snprintf(l->value, sizeof(l->value), "%s", value) >= (int)sizeof(l->value))
		return -ENAMETOOLONG;
	p->n_labels++;
	return 0;
}

/* Labels that the entry's writer alone sets are left out here: tlsMode follows the mode. */
int process_labels(struct process *p, const struct wire_label *extra, size_t n)
{
	int e = 0;

	p->labels = calloc(WEFT_LABELS_MAX, sizeof(*p->labels));
	if (!p->labels)
		return -ENOMEM;
	if (p->name[0]) {
		add_label(p, MODEL_LABEL_APP, p->name);
		add_label(p, MODEL_LABEL_NAME, p->name);
		add_label(p, MODEL_LABEL_SERVICE, p->name);
		add_label(p, MODEL_LABEL_VERSION, p->version[0] ? p->version : "latest");
	}
	for (size_t i = 0; i < n && e == 0; i++)
		if (strcmp(extra[i].key.p, MODEL_LABEL_TLS))
			e = add_label(p, extra[i].key.p, extra[i].value.p);
	return e;
}

static int take_grant(struct registry *r, struct process *p, const struct grant *g)
{
	struct weft_spiffe id = { 0 };
	size_t n = strcspn(g->service, ".");

	snprintf(p->service, sizeof(p->service), "%s", g->service);
	snprintf(p->ns, sizeof(p->ns), "%s", g->ns);
	snprintf(p->name, sizeof(p->name), "%.*s", (int)n, g->service);
	snprintf(p->account, sizeof(p->account), "%s", g->account);
	snprintf(p->version, sizeof(p->version), "%s", g->version);
	snprintf(p->why, sizeof(p->why), "%s", g->why);
	p->own_host = g->own_host;
	p->ceiling = g->ceiling;
	p->n_ports = g->n_ports < WEFT_PORTS_MAX ? g->n_ports : WEFT_PORTS_MAX;
	if (p->n_ports)
		memcpy(p->ports, g->ports, p->n_ports * sizeof(*p->ports));
	p->mode = model_mode(r->model, p->service[0] ? p->service : NULL);
	if (p->service[0]) {
		snprintf(id.trust_domain, sizeof(id.trust_domain), "%s", r->trust_domain);
		snprintf(id.ns, sizeof(id.ns), "%s", p->ns);
		snprintf(id.service, sizeof(id.service), "%s", p->account);
		int e = spiffe_format(&id, p->spiffe, sizeof(p->spiffe));
		if (e < 0)
			return e;
	}
	return process_labels(p, g->labels, g->n_labels);
}

static bool has_room(const struct registry *r, uid_t uid)
{
	size_t n = 0;

	for (size_t i = 0; i < r->n_processes; i++)
		n += r->processes[i]->facts.uid == uid;
	return n < PROCESSES_PER_UID;
}

int registry_attach(struct registry *r, const struct proc_facts *facts, int pidfd,
		    const struct grant *g, struct process **out)
{
	struct process *p = has_room(r, facts->uid) ? process_new(r, facts) : NULL;
	int e;

	if (!p)
		return -EAGAIN;
	e = take_grant(r, p, g);
	if (e == 0)
		e = process_map(r, p);
	if (e >= 0)
		e = process_join(r, p, facts->pid, facts->start, pidfd);
	if (e < 0) {
		process_drop(r, p);
		return e;
	}
	modes_attach(p);
	*out = p;
	return 0;
}

/* A new memfd for a family that has none: the first HELLO, or the first after a restart of weftd. */
static int open_family(struct process *p)
{
	struct proc_family id;
	int fd = proc_family_open(&id);

	if (fd < 0)
		return fd;
	if (p->n_families == PROCESS_FAMILIES)
		memmove(p->families, p->families + 1, --p->n_families * sizeof(id));
	p->families[p->n_families++] = id;
	p->family = fd;
	return 0;
}

int registry_descriptors(struct registry *r, struct process *p, int fds[static 4])
{
	char name[64];
	int e = p->family < 0 ? open_family(p) : 0;

	if (e < 0)
		return e;
	snprintf(name, sizeof(name), WEFT_IDENTITY_DIR "/%s", p->id);
	int fd = shm_reopen(r->socket_dir, name);
	if (fd < 0)
		return fd;
	p->attached = ev_now(r->loop);
	fds[0] = r->names_fd;
	fds[1] = r->board_fd;
	fds[2] = fd;
	fds[3] = p->family;
	saved_write(r, p);
	return 0;
}

bool registry_is_taken(const struct registry *r, const char *service, uid_t uid)
{
	for (size_t i = 0; i < r->n_processes; i++)
		if (r->processes[i]->facts.uid != uid &&
		    strcmp(r->processes[i]->service, service) == 0)
			return true;
	return false;
}

/* --- certificates --- */

/* Half life, give or take a tenth: the processes of a host do not come all at once. */
static double renewal_time(uint64_t not_after)
{
	double now = ev_time(), left = (double)not_after - now;
	uint16_t random = 0;

	if (getrandom(&random, sizeof(random), GRND_NONBLOCK) < 0)
		random = 32768;
	return now + left * (0.45 + 0.1 * random / 65536);
}

int process_signature(struct process *p, const uint8_t *bytes, size_t len)
{
	struct wire_signature *s = malloc(sizeof(*s));
	void *block = NULL;
	const char *why;
	uint64_t not_after = 0;
	int e = s ? wire_decode(&wire_schema_signature, bytes, len, s, &block, &why) : -ENOMEM;

	if (e == 0 && (!s->chain.n || s->refused))
		e = -EPROTO;
	if (e == 0)
		e = ca_inspect(s->chain.v[0].p, s->chain.v[0].n, p->serial, &not_after);
	if (e < 0) {
		free(s);
		free(block);
		return e;
	}
	free(p->signature);
	free(p->signature_block);
	p->signature = s;
	p->signature_block = block;
	p->not_after = not_after;
	p->renew = renewal_time(not_after);
	return 0;
}

int registry_enrol(struct registry *r, struct process *p, const struct wire_bin *csr,
		   const uint8_t *signature, size_t len)
{
	uint8_t *copy = csr->p == p->csr ? NULL : malloc(csr->n);

	if (!copy && csr->p != p->csr)
		return -ENOMEM;
	int e = process_signature(p, signature, len);
	if (e == 0)
		e = publish_identity(r, p);
	if (e < 0) {
		free(copy);
		return e;
	}
	if (copy) {
		memcpy(copy, csr->p, csr->n);
		free(p->csr);
		p->csr = copy;
		p->csr_len = csr->n;
	}
	saved_write(r, p);
	return 0;
}

struct process *registry_due(struct registry *r)
{
	double now = ev_time();

	for (size_t i = 0; i < r->n_processes; i++)
		if (r->processes[i]->csr && r->processes[i]->renew <= now)
			return r->processes[i];
	return NULL;
}

void registry_defer(struct registry *r, struct process *p)
{
	(void)r;
	p->renew = ev_time() + 60 > p->renew ? ev_time() + 60 : p->renew;
}
