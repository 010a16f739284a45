/* The table of processes in the state folder, one file each: what a restarted weftd must know about guests that ran on. */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <jansson.h>

#include "registry/internal.h"
#include "telemetry/log.h"

#define SAVED_MAX (1u << 20)

static int path_of(const struct registry *r, const char *id, char out[static PATH_MAX])
{
	return snprintf(out, PATH_MAX, "%s/processes/%s", r->state_dir, id) < PATH_MAX
		       ? 0
		       : -ENAMETOOLONG;
}

static json_t *hex_of(const uint8_t *bytes, size_t n)
{
	char *text = malloc(2 * n + 1);

	if (!text)
		return NULL;
	text[0] = '\0';
	for (size_t i = 0; i < n; i++)
		snprintf(text + 2 * i, 3, "%02x", bytes[i]);
	json_t *o = json_string(text);
	free(text);
	return o;
}

static json_t *members_of(const struct process *p)
{
	json_t *list = json_array();

	for (size_t i = 0; i < p->n_members; i++)
		json_array_append_new(list, json_pack("{s:i, s:I}", "pid", (int)p->members[i]->pid,
						      "start", (json_int_t)p->members[i]->start));
	return list;
}

static json_t *families_of(const struct process *p)
{
	json_t *list = json_array();

	for (size_t i = 0; i < p->n_families; i++)
		json_array_append_new(list,
				      json_pack("{s:I, s:I}", "dev", (json_int_t)p->families[i].dev,
						"inode", (json_int_t)p->families[i].inode));
	return list;
}

static json_t *listeners_of(const struct process *p)
{
	json_t *list = json_array();
	char address[WEFT_ADDR_TEXT];

	for (size_t i = 0; i < p->n_listeners; i++) {
		const struct listener *l = &p->listeners[i];
		struct weft_addr bare = l->address;
		bare.port = 0;
		json_array_append_new(
			list, json_pack("{s:s, s:i, s:I, s:I, s:I, s:b, s:b, s:b}", "address",
					addr_format(&bare, address), "port", (int)l->address.port,
					"cookie", (json_int_t)l->cookie, "since",
					(json_int_t)l->since, "netns", (json_int_t)l->netns, "ipv6",
					l->ipv6, "v6only", l->v6only, "endpoint", l->endpoint));
	}
	return list;
}

static json_t *labels_of(const struct process *p)
{
	json_t *o = json_object();

	for (size_t i = 0; i < p->n_labels; i++)
		json_object_set_new(o, p->labels[i].key, json_string(p->labels[i].value));
	return o;
}

static json_t *ports_of(const struct process *p)
{
	json_t *list = json_array();

	for (size_t i = 0; i < p->n_ports; i++)
		json_array_append_new(list, json_integer(p->ports[i]));
	return list;
}

void saved_write(struct registry *r, const struct process *p)
{
	char path[PATH_MAX];
	json_t *exe = json_string(p->facts.exe); /* NULL where it is not UTF-8 */
	json_t *comm = json_string(p->facts.comm);
	json_t *o =
		json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:b, s:i, s:I, s:o}", "service",
			  p->service, "ns", p->ns, "account", p->account, "version", p->version,
			  "spiffe", p->spiffe, "why", p->why, "ownHost", p->own_host, "ceiling",
			  (int)p->ceiling, "since", (json_int_t)p->since, "labels", labels_of(p));
	int e = -ENOMEM;

	if (o) {
		json_object_set_new(o, "exe", exe ? exe : json_string(""));
		json_object_set_new(o, "comm", comm ? comm : json_string(""));
		json_object_update_new(
			o, json_pack("{s:i, s:I, s:I, s:I, s:I}", "pid", (int)p->facts.pid, "start",
				     (json_int_t)p->facts.start, "uid", (json_int_t)p->facts.uid,
				     "gid", (json_int_t)p->facts.gid, "netns",
				     (json_int_t)p->facts.netns));
		json_object_set_new(o, "ports", ports_of(p));
		json_object_set_new(o, "members", members_of(p));
		json_object_set_new(o, "families", families_of(p));
		json_object_set_new(o, "listeners", listeners_of(p));
		json_object_set_new(o, "csr", hex_of(p->csr, p->csr_len));
	}
	char *text = o ? json_dumps(o, JSON_COMPACT) : NULL;
	if (text && path_of(r, p->id, path) == 0)
		e = file_replace(path, text, strlen(text));
	free(text);
	json_decref(o);
	if (e < 0)
		log_error("registry: process %d will not be known after a restart: %s",
			  (int)p->facts.pid, strerror(-e));
}

void saved_remove(struct registry *r, const struct process *p)
{
	char path[PATH_MAX];

	if (path_of(r, p->id, path) == 0)
		unlink(path);
}

/* --- reading --- */

static uint64_t number(const json_t *o, const char *key)
{
	return (uint64_t)json_integer_value(json_object_get(o, key));
}

static void text(const json_t *o, const char *key, char *out, size_t size)
{
	const char *s = json_string_value(json_object_get(o, key));

	snprintf(out, size, "%s", s ? s : "");
}

static void load_listeners(struct process *p, const json_t *list)
{
	for (size_t i = 0; i < json_array_size(list) && p->n_listeners < PROCESS_LISTENERS; i++) {
		const json_t *o = json_array_get(list, i);
		struct listener *l = &p->listeners[p->n_listeners];
		char address[WEFT_ADDR_TEXT];
		text(o, "address", address, sizeof(address));
		if (addr_parse(&l->address, address) < 0)
			continue;
		l->address.port = (uint16_t)number(o, "port");
		l->cookie = number(o, "cookie");
		l->since = number(o, "since");
		l->netns = number(o, "netns");
		l->ipv6 = json_is_true(json_object_get(o, "ipv6"));
		l->v6only = json_is_true(json_object_get(o, "v6only"));
		l->endpoint = json_is_true(json_object_get(o, "endpoint"));
		p->n_listeners++;
	}
}

static void load_families(struct process *p, const json_t *list)
{
	for (size_t i = 0; i < json_array_size(list) && p->n_families < PROCESS_FAMILIES; i++) {
		const json_t *o = json_array_get(list, i);
		p->families[p->n_families++] =
			(struct proc_family){ number(o, "dev"), number(o, "inode") };
	}
}

static int load_csr(struct process *p, const json_t *o)
{
	const char *hex = json_string_value(json_object_get(o, "csr"));
	size_t n = hex ? strlen(hex) / 2 : 0;

	if (!n || n > WEFT_CSR_MAX)
		return 0;
	p->csr = malloc(n);
	if (!p->csr)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++) {
		const char byte[3] = { hex[2 * i], hex[2 * i + 1], '\0' };
		p->csr[i] = (uint8_t)strtoul(byte, NULL, 16);
	}
	p->csr_len = n;
	return 0;
}

static int load_labels(struct process *p, json_t *labels)
{
	struct wire_label list[WEFT_LABELS_MAX];
	const char *key;
	json_t *value;
	size_t n = 0;

	json_object_foreach(labels, key, value)
	{
		if (n < WEFT_LABELS_MAX && json_is_string(value))
			list[n++] = (struct wire_label){ wire_str_of(key),
							 wire_str_of(json_string_value(value)) };
	}
	return process_labels(p, list, n);
}

/* The certificate in force is in the identity memory, which guests cannot write. */
static void load_signature(struct process *p)
{
	uint64_t seq = atomic_load_explicit(&p->memory->seq, memory_order_acquire);
	const struct weft_identity_half *half = &p->memory->half[seq & 1];
	struct wire_identity id;
	struct wire_signature sig = { 0 };
	void *block = NULL;
	const char *why;
	uint8_t *bytes = NULL;
	size_t len = 0;

	if (!seq || half->length > sizeof(half->bytes) ||
	    wire_decode(&wire_schema_identity, half->bytes, half->length, &id, &block, &why) < 0)
		return;
	sig.chain = id.chain;
	sig.bundle.v = id.bundle.v;
	sig.bundle.n = id.bundle.n;
	sig.not_after = id.not_after;
	p->written = malloc(half->length);
	if (p->written &&
	    wire_encode(&wire_schema_signature, &sig, WEFT_REPLY_MAX, &bytes, &len) == 0 &&
	    process_signature(p, bytes, len) == 0) {
		memcpy(p->written, half->bytes, half->length);
		p->written_len = half->length;
	}
	free(bytes);
	free(block);
}

static void load_members(struct registry *r, struct process *p, const json_t *list)
{
	struct proc_family f[PROC_FAMILIES_MAX];

	for (size_t i = 0; i < json_array_size(list); i++) {
		const json_t *o = json_array_get(list, i);
		pid_t pid = (pid_t)number(o, "pid");
		uint64_t start = number(o, "start");
		if (pid <= 0 || !start || proc_start(pid) != start)
			continue;
		int n = proc_families(pid, f, PROC_FAMILIES_MAX);
		if (n < 0 ||
		    process_has_family(p, f,
				       n)) /* n < 0: may not be read, pid and start have to do */
			process_join(r, p, pid, start, -1);
	}
}

static int load_one(struct registry *r, const char *id, const json_t *o)
{
	struct proc_facts facts = { .pid = (pid_t)number(o, "pid") };
	struct process *p;

	facts.start = number(o, "start");
	facts.uid = (uid_t)number(o, "uid");
	facts.gid = (gid_t)number(o, "gid");
	facts.netns = number(o, "netns");
	text(o, "exe", facts.exe, sizeof(facts.exe));
	text(o, "comm", facts.comm, sizeof(facts.comm));
	p = process_new(r, &facts);
	if (!p)
		return -ENOMEM;
	snprintf(p->id, sizeof(p->id), "%s", id);
	text(o, "service", p->service, sizeof(p->service));
	text(o, "ns", p->ns, sizeof(p->ns));
	text(o, "account", p->account, sizeof(p->account));
	text(o, "version", p->version, sizeof(p->version));
	text(o, "spiffe", p->spiffe, sizeof(p->spiffe));
	text(o, "why", p->why, sizeof(p->why));
	snprintf(p->name, sizeof(p->name), "%.*s", (int)strcspn(p->service, "."), p->service);
	p->own_host = json_is_true(json_object_get(o, "ownHost"));
	p->ceiling = (enum weft_mode)number(o, "ceiling");
	p->since = number(o, "since");
	const json_t *ports = json_object_get(o, "ports");
	for (size_t i = 0; i < json_array_size(ports) && p->n_ports < WEFT_PORTS_MAX; i++)
		p->ports[p->n_ports++] = (uint16_t)json_integer_value(json_array_get(ports, i));
	load_families(p, json_object_get(o, "families"));
	load_listeners(p, json_object_get(o, "listeners"));
	load_members(r, p, json_object_get(o, "members"));
	int e = load_labels(p, json_object_get(o, "labels"));
	if (e == 0)
		e = load_csr(p, o);
	if (e == 0)
		e = process_map(r, p);
	if (e >= 0)
		load_signature(p);
	return e < 0 ? e : 0;
}

static void load_file(struct registry *r, const char *id)
{
	char path[PATH_MAX], *bytes;
	size_t len;

	if (path_of(r, id, path) < 0 || file_read(path, SAVED_MAX, &bytes, &len) < 0)
		return;
	json_t *o = json_loadb(bytes, len, 0, NULL);
	int e = json_is_object(o) ? load_one(r, id, o) : -EINVAL;
	if (e < 0)
		log_error("registry: %s: %s", path, strerror(-e));
	json_decref(o);
	free(bytes);
}

/* Members that were forked since the file was written, or that never spoke to weftd. */
static int join_found(void *arg, pid_t pid, const struct proc_family *f, int n)
{
	struct registry *r = arg;
	uint64_t start = proc_start(pid);

	for (size_t i = 0; i < r->n_processes && start; i++) {
		struct process *p = r->processes[i];
		bool known = false;
		for (size_t j = 0; j < p->n_members; j++)
			known |= p->members[j]->pid == pid && p->members[j]->start == start;
		if (!known && process_has_family(p, f, n))
			process_join(r, p, pid, start, -1);
	}
	return 0;
}

void saved_sweep(struct registry *r)
{
	char dir[PATH_MAX];
	const struct dirent *e;
	DIR *d = snprintf(dir, sizeof(dir), "%s/" WEFT_IDENTITY_DIR, r->socket_dir) < PATH_MAX
			 ? opendir(dir)
			 : NULL;

	while (d && (e = readdir(d))) {
		bool known = e->d_name[0] == '.';
		for (size_t i = 0; i < r->n_processes && !known; i++)
			known = strcmp(r->processes[i]->id, e->d_name) == 0;
		if (!known)
			unlinkat(dirfd(d), e->d_name, 0);
	}
	if (d)
		closedir(d);
}

void saved_load(struct registry *r)
{
	char dir[PATH_MAX];
	const struct dirent *e;
	DIR *d = path_of(r, "", dir) == 0 ? opendir(dir) : NULL;

	while (d && (e = readdir(d)))
		if (strlen(e->d_name) == PROCESS_ID &&
		    strspn(e->d_name, "0123456789abcdef") == PROCESS_ID)
			load_file(r, e->d_name);
	if (d)
		closedir(d);
	if (r->n_processes)
		proc_each_member(join_found, r);
	size_t known = r->n_processes;
	for (size_t i = r->n_processes; i-- > 0;)
		if (!r->processes[i]->n_members || !r->processes[i]->memory)
			process_drop(r, r->processes[i]);
	if (known)
		log_info("registry: %zu of %zu processes still live", r->n_processes, known);
}
