#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "relay/keeper.h"
#include "session/internal.h"
#include "weft/env.h"

/* One decoded request and who asks. */
struct request {
	struct client *c;
	struct registry *r;
	struct proc_facts facts;
	struct process *p; /* NULL: not attached */
};

/* --- HELLO --- */

static int attach(struct request *q, const struct wire_hello *hello)
{
	struct attestation a;

	q->p = registry_find(q->r, &q->facts, q->c->pidfd, true);
	if (q->p && q->p->service[0])
		return 0; /* a family keeps what it was granted, whatever its members say */
	attest(&a, q->r, &q->facts, hello);
	if (q->p && !a.service[0])
		return 0;
	if (q->p)
		registry_release(q->r, q->p);
	q->p = NULL;
	int e = registry_attach(q->r, &q->facts, q->c->pidfd, &a.grant, &q->p);
	if (e == 0 && a.service[0])
		log_info("pid %d (%s, uid %lu) is %s", (int)q->facts.pid, q->facts.comm,
			 (unsigned long)q->facts.uid, a.service);
	else if (e == 0 && log_allowed(&q->c->session->refusals, 10))
		log_warn("pid %d (%s, uid %lu) has no service: %s", (int)q->facts.pid,
			 q->facts.comm, (unsigned long)q->facts.uid, a.why);
	return e;
}

static void hello(struct request *q, const void *body)
{
	const struct wire_hello *ask = body;
	struct client *c = q->c;
	uint64_t ports[WEFT_PORTS_MAX];

	if (ask->layout && ask->layout != WEFT_SHM_LAYOUT) {
		client_refuse(c, EPROTONOSUPPORT, "weftd has another layout of shared memory");
		return;
	}
	int e = attach(q, ask);
	if (e == 0)
		e = registry_descriptors(q->r, q->p, c->fds);
	if (e < 0) {
		client_refuse(c, -e, strerror(-e));
		return;
	}
	c->n_fds = 4;
	c->close_fd = c->fds[2];
	for (size_t i = 0; i < q->p->n_ports; i++)
		ports[i] = q->p->ports[i];
	struct wire_welcome w = {
		.weftd_version = wire_str_of(WEFT_VERSION),
		.epoch = registry_epoch(q->r),
		.service = wire_str_of(q->p->service),
		.ns = wire_str_of(q->p->ns[0] ? q->p->ns : WEFT_NAMESPACE_DEFAULT),
		.trust_domain = wire_str_of(registry_trust_domain(q->r)),
		.netns = q->facts.netns,
		.enrolled = q->p->signature != NULL,
		.why = wire_str_of(q->p->why),
		.ports = { ports, (uint32_t)q->p->n_ports },
	};
	client_answer(c, &wire_schema_welcome, &w);
}

/* --- ENROL --- */

static void enrol(struct request *q, const void *body)
{
	const struct wire_enrol *ask = body;
	struct process *p = q->p;
	char why[160];

	if (!p) {
		client_refuse(q->c, ESRCH, "this process is not attached: HELLO comes first");
	} else if (!p->service[0]) {
		client_refuse(q->c, EACCES, p->why);
	} else if (q->facts.uid != p->facts.uid && p->facts.uid != 0) {
		/* root may drop its privileges and stay what it was; nobody else changes uid. */
		client_refuse(q->c, EPERM,
			      "this process has another uid than the one that was attested");
	} else if (!ask->csr.n || ask->csr.n > WEFT_CSR_MAX) {
		client_refuse(q->c, EINVAL, "certificate request is missing or too long");
	} else {
		int e = enrol_sign(q->c->session, p, &q->facts, &ask->csr, why, sizeof(why));
		if (e < 0) {
			client_refuse(q->c, -e, why);
			return;
		}
		struct wire_enrolled done = { .spiffe = wire_str_of(p->spiffe),
					      .not_after = p->not_after };
		client_answer(q->c, &wire_schema_enrolled, &done);
	}
}

/* --- REGISTER, DEREGISTER --- */

static void listen_(struct request *q, const void *body)
{
	const char *entry, *why;
	struct wire_registered done = { 0 };

	if (!q->p) {
		client_refuse(q->c, ESRCH, "this process is not attached: HELLO comes first");
		return;
	}
	int e = registry_listen(q->r, q->p, &q->facts, body, &entry, &why);
	if (e < 0) {
		client_refuse(q->c, -e, e == -EACCES ? why : strerror(-e));
		return;
	}
	done.entry = wire_str_of(entry);
	client_answer_later(q->c, &wire_schema_registered, &done);
}

static void unlisten(struct request *q, const void *body)
{
	const struct wire_registered done = { .entry = wire_str_of("") };

	if (q->p)
		registry_unlisten(q->r, q->p, &q->facts, body);
	client_answer(q->c, &wire_schema_registered, &done);
}

/* --- RESOLVE, SERVICE --- */

static void resolve(struct request *q, const void *body)
{
	const struct wire_resolve *ask = body;
	struct weft_names_service found;
	enum weft_names_kind kind;

	if (registry_resolve(q->r, q->p, q->facts.netns, ask, &found, &kind) < 0) {
		client_refuse(q->c, ENOENT, "no service of the mesh has that name or address");
		return;
	}
	struct wire_resolved done = {
		.service = wire_str_of(found.name),
		.vip4 = { found.vip4.ip, found.vip4.ip[10] ? 16 : 0 },
		.vip6 = { found.vip6.ip, found.vip6.ip[0] ? 16 : 0 },
		.kind = kind,
		.external = found.external,
	};
	client_answer(q->c, &wire_schema_resolved, &done);
}

static void serve(struct request *q, const void *body)
{
	uint8_t *out = NULL;
	size_t len = 0;
	int e = registry_serve(q->r, q->p, q->facts.netns, body, &out, &len);

	if (e == -ENOENT)
		client_refuse(q->c, ENOENT, "no such service");
	else if (e < 0)
		client_refuse(q->c, -e, strerror(-e));
	else
		client_answer_bytes(q->c, out, len);
	free(out);
}

/* --- REPORT --- */

static void report(struct request *q, const void *body)
{
	const struct wire_report *ask = body;
	const struct wire_registered done = { .entry = wire_str_of("") };
	enum log_level level =
		ask->level <= LOG_LEVEL_DEBUG ? (enum log_level)ask->level : LOG_LEVEL_INFO;

	if (log_allowed(&q->c->session->reports, 20))
		log_line(level, "pid %d (%s)%s%s: %s", (int)q->facts.pid,
			 q->p ? q->p->service : q->facts.comm, ask->reason ? " " : "",
			 ask->reason ? reason_name((enum weft_reason)ask->reason) : "",
			 ask->text.p);
	client_answer(q->c, &wire_schema_registered, &done);
}

/* --- RELAY --- */

/* Of the uid that asks, and in its group: what the kernel says of the peer, nothing that it says itself. */
static void relay(struct request *q, const void *body)
{
	struct wire_relay done = { 0 };
	const char *why;
	pid_t pid;
	int e = keeper_ensure(q->c->session->o.keeper, q->facts.uid, q->facts.gid, &pid, &why);

	(void)body;
	if (e < 0) {
		client_refuse(q->c, -e, why);
		return;
	}
	done.pid = (uint64_t)pid;
	client_answer(q->c, &wire_schema_relay, &done);
}

/* --- dispatch --- */

static const struct kind {
	const struct wire_schema *schema;
	void (*run)(struct request *q, const void *body);
} kinds[WIRE_TYPE_MAX] = {
	[WIRE_HELLO] = { &wire_schema_hello, hello },
	[WIRE_RESOLVE] = { &wire_schema_resolve, resolve },
	[WIRE_SERVICE] = { &wire_schema_ask, serve },
	[WIRE_REGISTER] = { &wire_schema_listener, listen_ },
	[WIRE_DEREGISTER] = { &wire_schema_listener, unlisten },
	[WIRE_ENROL] = { &wire_schema_enrol, enrol },
	[WIRE_REPORT] = { &wire_schema_report, report },
	[WIRE_RELAY] = { &wire_schema_relay, relay },
};

/* The facts are of this peer only if it still lived when they had been read. */
static int look(struct request *q)
{
	struct client *c = q->c;

	if (c->pid <= 0 || c->pidfd < 0 || proc_read(&q->facts, c->pid) < 0 ||
	    !proc_pidfd_alive(c->pidfd))
		return -ESRCH;
	q->facts.uid = c->uid;
	q->facts.gid = c->gid;
	if (!q->facts.netns) /* may not be read: then most likely ours */
		q->facts.netns = proc_own_netns();
	return 0;
}

void exchange_run(struct client *c)
{
	const struct kind *k = &kinds[c->type];
	struct request q = { .c = c, .r = c->session->o.registry };
	union {
		struct wire_hello hello;
		struct wire_resolve resolve;
		struct wire_ask ask;
		struct wire_listener listener;
		struct wire_enrol enrol;
		struct wire_report report;
		struct wire_relay relay;
	} body;
	void *block = NULL;
	const char *why = "";

	if (wire_decode(k->schema, c->body, c->length, &body, &block, &why) < 0) {
		client_refuse(c, EPROTO, why);
		return;
	}
	if (look(&q) < 0) {
		client_refuse(c, ESRCH, "weftd cannot see this process (another PID namespace?)");
	} else {
		if (c->type != WIRE_HELLO)
			q.p = registry_find(q.r, &q.facts, c->pidfd, false);
		k->run(&q, &body);
	}
	free(block);
}
