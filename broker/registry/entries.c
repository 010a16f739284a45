/* WorkloadEntries of this host: what its listeners are to the mesh. The wanted set is computed anew after each change and
 * compared with the one in force, so that sockets of one SO_REUSEPORT group are one entry while any of them lives. */
#include <errno.h>
#include <ifaddrs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "health/diag.h"
#include "registry/internal.h"
#include "telemetry/log.h"

/* --- addresses --- */

struct search {
	const struct weft_cidr *block;
	struct weft_addr *out;
};

static int search_interfaces(void *arg)
{
	const struct search *s = arg;
	struct ifaddrs *list;
	int r = -ENOENT;

	if (getifaddrs(&list) < 0)
		return -errno;
	for (const struct ifaddrs *i = list; i && r < 0; i = i->ifa_next) {
		socklen_t len = sizeof(struct sockaddr_in6);
		if (i->ifa_addr && addr_from_sockaddr(s->out, i->ifa_addr, len) == 0 &&
		    cidr_contains(s->block, s->out))
			r = 0;
	}
	freeifaddrs(list);
	return r;
}

/* Address of this host (or of another network namespace on it) that other hosts reach. 0 or -ENOENT. */
static int advertised(struct registry *r, bool own_netns, pid_t pid, struct weft_addr *out)
{
	struct search s = { &r->advertise, out };

	if (r->has_advertise && r->advertise.bits == 128) {
		memcpy(out->ip, r->advertise.ip, 16);
		return own_netns ? 0 : -ENOENT;
	}
	if (r->has_advertise)
		return own_netns ? search_interfaces(&s)
				 : diag_in_netns(pid, search_interfaces, &s);
	if (own_netns && store_local(r->store, out) == 0 && !addr_is_loopback(out))
		return 0;
	return -ENOENT;
}

int entries_address(struct registry *r, const struct process *p, pid_t pid, struct listener *l)
{
	bool own = !l->netns || l->netns == r->own_netns;
	struct weft_addr a;

	(void)p;
	l->announced = l->address;
	if (!addr_is_any(&l->address))
		return 0;
	if (advertised(r, own, pid, &a) == 0 && (addr_is_v4(&a) ? !l->v6only : l->ipv6))
		memcpy(l->announced.ip, a.ip, 16);
	else
		addr_parse(&l->announced, l->v6only ? "::1" : "127.0.0.1");
	l->announced.port = l->address.port;
	return 0;
}

/* --- one entry --- */

static bool is_wildcard4(const struct listener *l)
{
	return addr_is_any(&l->address) && !l->v6only;
}

/* The v6-only half of a pair "0.0.0.0:80" and "[::]:80" is the same instance as the other half. */
static bool is_second_half(const struct process *p, const struct listener *l)
{
	if (!addr_is_any(&l->address) || !l->v6only)
		return false;
	for (size_t i = 0; i < p->n_listeners; i++)
		if (is_wildcard4(&p->listeners[i]) &&
		    p->listeners[i].address.port == l->address.port &&
		    p->listeners[i].netns == l->netns)
			return true;
	return false;
}

static const char *wildcard_note(const struct process *p, const struct listener *l)
{
	bool six = l->ipv6;

	if (!addr_is_any(&l->address))
		return NULL;
	if (l->v6only)
		return "6";
	for (size_t i = 0; i < p->n_listeners; i++)
		if (addr_is_any(&p->listeners[i].address) && p->listeners[i].ipv6 &&
		    p->listeners[i].address.port == l->address.port &&
		    p->listeners[i].netns == l->netns)
			six = true;
	return six ? "46" : "4";
}

/* The one port it listens on, or the first that WEFT_SERVICE names; 0: none. */
static uint16_t main_port(const struct process *p)
{
	uint16_t port = 0;

	if (p->n_ports)
		return p->ports[0];
	for (size_t i = 0; i < p->n_listeners; i++) {
		if (port && port != p->listeners[i].address.port)
			return 0;
		port = p->listeners[i].address.port;
	}
	return port;
}

static uint64_t hash(uint64_t h, const void *bytes, size_t n)
{
	const uint8_t *p = bytes;

	for (size_t i = 0; i < n; i++)
		h = (h ^ p[i]) * UINT64_C(0x100000001b3);
	return h;
}

/* Key of the instance (host, network namespace, address, port) of a service. */
static void entry_key(const struct registry *r, const struct process *p, const struct listener *l,
		      char *out, size_t size)
{
	uint64_t h = UINT64_C(0xcbf29ce484222325);

	h = hash(h, r->host, strlen(r->host));
	h = hash(h, &l->netns, sizeof(l->netns));
	h = hash(h, l->announced.ip, 16);
	snprintf(out, size, "weft:WorkloadEntry:%s/%s-%u-%010llx", p->ns, p->name, l->address.port,
		 (unsigned long long)(h & 0xffffffffff));
}

static json_t *entry_labels(const struct process *p)
{
	json_t *labels = json_object();
	bool tls = p->mode == WEFT_MODE_ENFORCE && p->ceiling == WEFT_MODE_ENFORCE;

	for (size_t i = 0; i < p->n_labels; i++)
		json_object_set_new(labels, p->labels[i].key, json_string(p->labels[i].value));
	json_object_set_new(labels, MODEL_LABEL_TLS, json_string(tls ? "istio" : "disabled"));
	return labels;
}

static char *entry_json(const struct registry *r, const struct process *p, const struct listener *l,
			const char *name)
{
	struct weft_addr bare = l->announced;
	char address[WEFT_ADDR_TEXT], port[16], netns[24], tag[16];
	const char *wildcard = wildcard_note(p, l);

	bare.port = 0;
	addr_format(&bare, address);
	snprintf(port, sizeof(port), "%u", l->address.port);
	snprintf(tag, sizeof(tag), "tcp-%u", l->address.port);
	snprintf(netns, sizeof(netns), "%llu", (unsigned long long)l->netns);
	json_t *notes = json_pack("{s:s, s:s}", MODEL_NOTE_HOST, r->host, MODEL_NOTE_NETNS, netns);
	if (l->address.port == main_port(p))
		json_object_set_new(notes, MODEL_NOTE_MAIN, json_string(port));
	if (wildcard)
		json_object_set_new(notes, MODEL_NOTE_WILDCARD, json_string(wildcard));
	json_t *o = json_pack("{s:s, s:{s:s, s:s, s:o}, s:{s:s, s:{s:i}, s:o, s:s}}", "kind",
			      "WorkloadEntry", "metadata", "name", name, "namespace", p->ns,
			      "annotations", notes, "spec", "address", address, "ports", tag,
			      (int)l->address.port, "labels", entry_labels(p), "serviceAccount",
			      p->account);
	char *text = o ? json_dumps(o, JSON_COMPACT | JSON_SORT_KEYS) : NULL;
	json_decref(o);
	return text;
}

static void entry_free(void *item)
{
	struct entry *e = item;

	free(e->key);
	free(e->json);
	free(e);
}

static struct entry *entry_new(const struct registry *r, const struct process *p,
			       const struct listener *l, const char *key)
{
	struct entry *e = calloc(1, sizeof(*e));

	if (!e)
		return NULL;
	*e = (struct entry){
		.key = strdup(key),
		.since = l->since,
		.pid = p->facts.pid,
		.uid = p->facts.uid,
		.own_host = p->own_host,
	};
	if (e->key) {
		e->name = e->key + strlen("weft:WorkloadEntry:");
		e->json = entry_json(r, p, l, strchr(e->name, '/') + 1);
	}
	if (e->json)
		return e;
	entry_free(e);
	return NULL;
}

/* --- the set --- */

static bool is_announced(const struct process *p, const struct listener *l)
{
	return p->service[0] && l->endpoint && !l->withdrawn && !is_second_half(p, l);
}

static void want_process(const struct registry *r, const struct process *p, struct strmap *wanted)
{
	char key[STORE_KEY_MAX];

	for (size_t i = 0; i < p->n_listeners; i++) {
		const struct listener *l = &p->listeners[i];
		if (!is_announced(p, l))
			continue;
		entry_key(r, p, l, key, sizeof(key));
		if (strmap_find(wanted, key))
			continue;
		struct entry *e = entry_new(r, p, l, key);
		if (!e || strmap_add(wanted, e) < 0) {
			log_error("registry: no memory to announce %s", key);
			if (e)
				entry_free(e);
		}
	}
}

static void write_entry(struct registry *r, const struct entry *e)
{
	if (!e->own_host)
		store_run(r->store, NULL, NULL, "SET", e->key, e->json, NULL);
}

static void retire(struct registry *r, struct entry *e)
{
	log_info("endpoint %s withdrawn", e->name);
	strmap_remove(&r->entries, e->key);
	if (!e->own_host)
		store_run(r->store, NULL, NULL, "DEL", e->key, NULL);
	documents_change(r, e->key, NULL, 0, NULL);
	entry_free(e);
}

/* Takes `e` over. */
static void announce(struct registry *r, struct entry *e)
{
	struct entry *old = strmap_remove(&r->entries, e->key);

	if (!old)
		log_info("endpoint %s announced by pid %d", e->name, (int)e->pid);
	if (strmap_add(&r->entries, e) < 0) {
		entry_free(e);
	} else if (!old || strcmp(old->json, e->json)) {
		write_entry(r, e);
		int n = documents_change(r, e->key, e->json, strlen(e->json), NULL);
		if (n < 0)
			log_error("endpoint %s: %s", e->name, strerror(-n));
	}
	if (old)
		entry_free(old);
}

void entries_update(struct registry *r)
{
	struct strmap wanted = { 0 };

	for (size_t i = 0; i < r->n_processes; i++)
		want_process(r, r->processes[i], &wanted);
	for (size_t i = r->entries.n; i-- > 0;) {
		struct entry *e = r->entries.v[i];
		if (!strmap_find(&wanted, e->key))
			retire(r, e);
	}
	for (size_t i = 0; i < wanted.n; i++)
		announce(r, wanted.v[i]);
	free(wanted.v);
}

/* The connection to Redis may have told this host's address only now. */
void entries_refresh(struct registry *r)
{
	for (size_t i = 0; i < r->n_processes; i++)
		for (size_t j = 0; j < r->processes[i]->n_listeners; j++)
			entries_address(r, r->processes[i], r->processes[i]->facts.pid,
					&r->processes[i]->listeners[j]);
	entries_update(r);
}

void entries_assert(struct registry *r)
{
	entries_refresh(r);
	for (size_t i = 0; i < r->entries.n; i++)
		write_entry(r, r->entries.v[i]);
}

void entries_withdraw(struct registry *r)
{
	while (r->entries.n)
		retire(r, r->entries.v[r->entries.n - 1]);
}

void entries_close(struct registry *r)
{
	strmap_clear(&r->entries, entry_free);
}

const char *entries_name(const struct registry *r, const struct process *p,
			 const struct listener *l)
{
	char key[STORE_KEY_MAX];
	const struct entry *e;

	entry_key(r, p, l, key, sizeof(key));
	e = is_announced(p, l) ? strmap_find(&r->entries, key) : NULL;
	return e ? e->name : "";
}
