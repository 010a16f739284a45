/* Liveness: a process lives while the kernel says that somebody maps its family memfd; an endpoint lives while its
 * process does and its listener is in a dump of its network namespace. pidfds make the first prompt. */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "health/diag.h"
#include "registry/internal.h"
#include "telemetry/log.h"

#define WATCH_EVERY_S 0.3
#define ATTACH_S 3.0  /* a guest that says HELLO has mapped its family by then, or given up */
#define CLOSE_S 1.0   /* from DEREGISTER to close() at most */
#define SCAN_EVERY 16 /* turns between looks at the maps of processes without a memfd */

/* --- processes --- */

struct rescan {
	struct registry *r;
	struct process *p;
};

static int rejoin(void *arg, pid_t pid, const struct proc_family *f, int n)
{
	struct rescan *s = arg;

	if (process_has_family(s->p, f, n))
		process_join(s->r, s->p, pid, proc_start(pid), -1);
	return 0;
}

/* Nobody that is watched lives. Children that never spoke may: by the memfd, or by their maps where the memfd of theirs
 * went with an earlier weftd. */
void watch_died(struct registry *r, struct process *p)
{
	struct rescan s = { r, p };

	if (p->family >= 0 && proc_family_alive(p->family))
		return;
	if (p->family >= 0) {
		coverage_fold(r, p);
		close(p->family); /* sealed by the question */
		p->family = -1;
		p->n_families--;
	}
	if (p->n_families)
		proc_each_member(rejoin, &s);
	if (p->n_members)
		saved_write(r, p);
	else
		process_drop(r, p);
}

/* Members are there by pid; but are they still the program that attached? exec drops the mapping, not the pid. */
static bool some_member_maps(const struct process *p)
{
	struct proc_family f[PROC_FAMILIES_MAX];

	for (size_t i = 0; i < p->n_members; i++) {
		int n = proc_families(p->members[i]->pid, f, PROC_FAMILIES_MAX);
		if (n < 0 || process_has_family(p, f, n))
			return true;
	}
	return false;
}

static void look_at_process(struct registry *r, struct process *p, unsigned turn)
{
	if (!p->n_members) {
		watch_died(r, p);
	} else if (!p->n_listeners) {
		return;
	} else if (p->family < 0) {
		if (turn % SCAN_EVERY == 0 && !some_member_maps(p))
			process_drop(r, p);
	} else if (ev_now(r->loop) - p->attached > ATTACH_S && !proc_family_alive(p->family)) {
		coverage_fold(r, p);
		close(p->family);
		p->family = -1;
		p->n_families--;
		if (!some_member_maps(p))
			process_drop(r, p);
	}
}

/* --- listeners --- */

static struct netns *netns_find(struct registry *r, uint64_t inode)
{
	for (size_t i = 0; i < r->n_netns; i++)
		if (r->netns[i].inode == inode)
			return &r->netns[i];
	return NULL;
}

int watch_listeners(struct registry *r, uint64_t inode, pid_t pid, struct diag_list *out)
{
	struct netns *ns;

	if (!inode)
		inode = r->own_netns;
	ns = netns_find(r, inode);
	if (!ns) {
		if (r->n_netns == NETNS_MAX)
			return -ENOBUFS;
		int fd = diag_open(inode == r->own_netns ? 0 : pid);
		if (fd < 0)
			return fd;
		ns = &r->netns[r->n_netns++];
		*ns = (struct netns){ inode, fd };
	}
	return diag_listeners(ns->diag, out);
}

/* Keeps those of p's listeners in this namespace that the kernel has. True if some changed. */
static bool compare(const struct registry *r, struct process *p, uint64_t inode,
		    const struct diag_list *live)
{
	double now = ev_now(r->loop);
	bool changed = false;
	size_t n = 0;

	for (size_t i = 0; i < p->n_listeners; i++) {
		struct listener l = p->listeners[i];
		if ((l.netns ? l.netns : r->own_netns) == inode) {
			if (!diag_find(live, l.cookie)) {
				changed = true;
				continue;
			}
			if (l.withdrawn && now - l.withdrawn > CLOSE_S) {
				l.withdrawn = 0; /* some process of the family holds it still */
				changed = true;
			}
		}
		p->listeners[n++] = l;
	}
	p->n_listeners = n;
	return changed;
}

static pid_t somebody_in(const struct registry *r, uint64_t inode)
{
	for (size_t i = 0; i < r->n_processes; i++) {
		const struct process *p = r->processes[i];
		for (size_t j = 0; j < p->n_listeners && p->n_members; j++)
			if ((p->listeners[j].netns ? p->listeners[j].netns : r->own_netns) == inode)
				return p->members[0]->pid;
	}
	return 0;
}

static void look_at_netns(struct registry *r, uint64_t inode)
{
	struct diag_list live;
	bool changed = false;
	pid_t pid = somebody_in(r, inode);
	int e = pid ? watch_listeners(r, inode, pid, &live) : -ESRCH;

	if (e < 0)
		return; /* not known is not gone */
	for (size_t i = 0; i < r->n_processes; i++)
		if (r->processes[i]->n_listeners && compare(r, r->processes[i], inode, &live)) {
			saved_write(r, r->processes[i]);
			changed = true;
		}
	diag_list_free(&live);
	if (!changed)
		return;
	entries_update(r);
	publish_now(r);
}

static void look_at_listeners(struct registry *r)
{
	/* Those of a restart have no socket yet. */
	for (size_t i = 0; i < r->n_processes; i++)
		for (size_t j = 0; j < r->processes[i]->n_listeners; j++) {
			uint64_t inode = r->processes[i]->listeners[j].netns;
			if (!netns_find(r, inode ? inode : r->own_netns)) {
				look_at_netns(r, inode ? inode : r->own_netns);
				return; /* the rest at the next turn: arrays may have changed */
			}
		}
	for (size_t i = r->n_netns; i-- > 0;) {
		struct netns *ns = &r->netns[i];
		if (somebody_in(r, ns->inode)) {
			look_at_netns(r, ns->inode);
		} else { /* a socket in it keeps a namespace alive */
			close(ns->diag);
			*ns = r->netns[--r->n_netns];
		}
	}
}

static void on_turn(struct ev_loop *loop, struct ev_timer *t, int events)
{
	struct registry *r = t->data;
	static unsigned turn;

	(void)loop;
	(void)events;
	turn++;
	for (size_t i = r->n_processes; i-- > 0;)
		if (i < r->n_processes)
			look_at_process(r, r->processes[i], turn);
	look_at_listeners(r);
}

void watch_start(struct registry *r)
{
	ev_timer_init(&r->watch, on_turn, WATCH_EVERY_S, WATCH_EVERY_S);
	r->watch.data = r;
	ev_timer_start(r->loop, &r->watch);
}

void watch_close(struct registry *r)
{
	ev_timer_stop(r->loop, &r->watch);
	for (size_t i = 0; i < r->n_netns; i++)
		close(r->netns[i].diag);
	r->n_netns = 0;
}

/* --- REGISTER and DEREGISTER --- */

static const char *check(const struct proc_facts *peer, const struct wire_listener *l,
			 const struct diag_listener *d)
{
	if (!d)
		return "the kernel shows no such listener in that network namespace";
	if (d->address.port != l->port || memcmp(d->address.ip, l->address.p, 16))
		return "the listener has another address";
	if (d->uid != peer->uid && proc_holds_socket(peer->pid, d->inode) != 1)
		return "the listener is of another uid";
	return NULL;
}

static bool is_endpoint(const struct process *p, uint64_t port)
{
	for (size_t i = 0; i < p->n_ports; i++)
		if (p->ports[i] == port)
			return true;
	return p->n_ports == 0;
}

static struct listener *listener_find(struct process *p, uint64_t cookie)
{
	for (size_t i = 0; i < p->n_listeners; i++)
		if (p->listeners[i].cookie == cookie)
			return &p->listeners[i];
	return NULL;
}

/* Room for one more. A program that opens and closes listeners faster than we look at the kernel's uses those again that it
 * has withdrawn. */
static struct listener *listener_new(struct process *p)
{
	if (p->n_listeners < PROCESS_LISTENERS)
		return &p->listeners[p->n_listeners++];
	for (size_t i = 0; i < p->n_listeners; i++)
		if (p->listeners[i].withdrawn)
			return &p->listeners[i];
	return NULL;
}

static int add_listener(struct registry *r, struct process *p, const struct proc_facts *peer,
			const struct wire_listener *ask, const struct diag_listener *d)
{
	struct listener *l = listener_find(p, ask->cookie);

	if (!l)
		l = listener_new(p);
	if (!l)
		return -ENOBUFS;
	*l = (struct listener){
		.address = d->address,
		.cookie = ask->cookie,
		.since = l->cookie == ask->cookie && l->since ? l->since : registry_now(),
		.netns = peer->netns ? peer->netns : r->own_netns,
		.ipv6 = d->ipv6,
		.v6only = d->ipv6 && ask->v6only,
		.endpoint = is_endpoint(p, ask->port),
	};
	entries_address(r, p, peer->pid, l);
	return 0;
}

int registry_listen(struct registry *r, struct process *p, const struct proc_facts *peer,
		    const struct wire_listener *ask, const char **entry, const char **why)
{
	struct diag_list live;
	int e;

	*entry = "";
	*why = "address or port is not valid";
	if (ask->address.n != 16 || !ask->port || ask->port > 65535)
		return -EACCES;
	*why = "weftd may not look into that network namespace";
	e = watch_listeners(r, peer->netns, peer->pid, &live);
	if (e < 0)
		return e == -EPERM || e == -EACCES ? -EACCES : e;
	const struct diag_listener *d = diag_find(&live, ask->cookie);
	*why = check(peer, ask, d);
	e = *why ? -EACCES : add_listener(r, p, peer, ask, d);
	diag_list_free(&live);
	if (e < 0)
		return e;
	entries_update(r);
	publish_now(r);
	saved_write(r, p);
	const struct listener *l = listener_find(p, ask->cookie);
	*entry = l ? entries_name(r, p, l) : "";
	return 0;
}

/* A forked worker that ends tells it too, while its parent goes on listening. */
static bool another_holds(struct registry *r, const struct process *p,
			  const struct proc_facts *peer, uint64_t cookie, uint64_t netns)
{
	struct diag_list live;
	bool held = false;

	if (watch_listeners(r, netns, peer->pid, &live) < 0)
		return false;
	const struct diag_listener *d = diag_find(&live, cookie);
	for (size_t i = 0; d && !held && i < p->n_members; i++)
		held = p->members[i]->pid != peer->pid &&
		       proc_holds_socket(p->members[i]->pid, d->inode) == 1;
	diag_list_free(&live);
	return held;
}

void registry_unlisten(struct registry *r, struct process *p, const struct proc_facts *peer,
		       const struct wire_listener *ask)
{
	struct listener *l = listener_find(p, ask->cookie);

	if (!l || another_holds(r, p, peer, l->cookie, l->netns))
		return;
	l->withdrawn = ev_now(
		r->loop); /* until the kernel has forgotten it, or shows that somebody else holds it */
	entries_update(r);
	publish_now(r);
	saved_write(r, p);
}
