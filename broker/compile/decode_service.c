/* ServiceEntry, WorkloadEntry and WorkloadGroup. */
#include <stdlib.h>
#include <string.h>

#include "compile/document.h"
#include "compile/value.h"
#include "weft/ident.h"

void decode_instance(struct decode *d, const json_t *o, struct instance *out)
{
	addr_parse(&out->address, json_string_value(json_object_get(o, "address")));
	if (addr_is_vip(&out->address) || addr_is_any(&out->address))
		decode_error(d, ERRORS_VALUE, "address", "no endpoint can have this address");
	decode_ports(d, o, "ports", &out->ports, &out->n_ports);
	decode_labels(d, o, "labels", &out->labels);
	out->weight = decode_number(o, "weight", 1);
	if (!out->weight)
		out->weight = 1; /* Istio: 0 is "not given" */
	out->service_account = decode_text(d, o, "serviceAccount");
	out->service = out->host = "";
}

/* The entry's name among services: the first of three labels, as Istio names a canonical service. */
static const char *service_label(const struct labels *l)
{
	static const char *const keys[] = { MODEL_LABEL_SERVICE, MODEL_LABEL_NAME,
					    MODEL_LABEL_APP };

	for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++)
		if (*labels_get(l, keys[i]))
			return labels_get(l, keys[i]);
	return "";
}

static const char *note(const json_t *annotations, const char *key)
{
	const char *s = json_string_value(json_object_get(annotations, key));

	return s ? s : "";
}

static void decode_notes(struct decode *d, const json_t *annotations, struct instance *out)
{
	const char *wildcard = note(annotations, MODEL_NOTE_WILDCARD),
		   *netns = note(annotations, MODEL_NOTE_NETNS);
	int port = value_port(note(annotations, MODEL_NOTE_MAIN));

	out->host = decode_text(d, annotations, MODEL_NOTE_HOST);
	out->wildcard4 = strchr(wildcard, '4');
	out->wildcard6 = strchr(wildcard, '6');
	if (strlen(netns) == strspn(netns, "0123456789"))
		out->netns = strtoull(netns, NULL, 10);
	if (port > 0)
		out->main_port = (uint16_t)port;
	else if (!*out->host && out->n_ports == 1)
		out->main_port = out->ports[0].port;
}

void decode_workload_entry(struct decode *d, const json_t *spec)
{
	struct instance *w = &d->doc->workload_entry;
	char canonical[WEFT_SERVICE_MAX + 1];
	const char *label;

	decode_instance(d, spec, w);
	decode_labels(d, d->metadata, "labels", &w->labels); /* Istio: those of metadata win */
	label = service_label(&w->labels);
	if (*label && name_canonical(canonical, label, d->ns, d->trust_domain) == 0)
		w->service = arena_strdup(d->arena, canonical);
	if (!w->service)
		w->service = "";
	decode_notes(d, json_object_get(d->metadata, "annotations"), w);
}

static void decode_service_ports(struct decode *d, const json_t *spec, struct service_entry *s)
{
	const json_t *list = json_object_get(spec, "ports");
	size_t n = json_array_size(list), mark = errors_push(&d->path, "ports");

	s->ports = arena_array(d->arena, n, sizeof(*s->ports));
	for (size_t i = 0; s->ports && i < n; i++) {
		const json_t *o = json_array_get(list, i);
		struct service_port *p = &s->ports[s->n_ports++];
		size_t at = errors_push_index(&d->path, i);

		*p = (struct service_port){ (uint16_t)decode_number(o, "number", 0),
					    (uint16_t)decode_number(o, "targetPort", 0),
					    decode_text(d, o, "name") };
		for (size_t k = 0; k < i; k++) {
			if (s->ports[k].number == p->number)
				decode_error(d, ERRORS_RULE, "number",
					     "the same number as at index %zu", k);
			if (strcmp(s->ports[k].name, p->name) == 0)
				decode_error(d, ERRORS_RULE, "name",
					     "the same name as at index %zu", k);
		}
		errors_pop(&d->path, at);
	}
	errors_pop(&d->path, mark);
}

static bool has_port_name(const struct service_entry *s, const char *name)
{
	for (size_t i = 0; i < s->n_ports; i++)
		if (strcmp(s->ports[i].name, name) == 0)
			return true;
	return false;
}

static void decode_endpoints(struct decode *d, const json_t *spec, struct service_entry *s)
{
	const json_t *list = json_object_get(spec, "endpoints");
	size_t n = json_array_size(list), mark = errors_push(&d->path, "endpoints");

	s->endpoints = arena_array(d->arena, n, sizeof(*s->endpoints));
	for (size_t i = 0; s->endpoints && i < n; i++) {
		struct instance *e = &s->endpoints[s->n_endpoints++];
		size_t at = errors_push_index(&d->path, i), ports;

		decode_instance(d, json_array_get(list, i), e);
		ports = errors_push(&d->path, "ports");
		for (size_t k = 0; k < e->n_ports; k++)
			if (!has_port_name(s, e->ports[k].name))
				decode_error(d, ERRORS_RULE, e->ports[k].name,
					     "no port of the service has this name");
		errors_pop(&d->path, ports);
		errors_pop(&d->path, at);
	}
	errors_pop(&d->path, mark);
}

void decode_service_entry(struct decode *d, const json_t *spec)
{
	static const int locations[] = { LOCATION_EXTERNAL, LOCATION_INTERNAL };
	struct service_entry *s = &d->doc->service_entry;
	const json_t *selector = json_object_get(spec, "workloadSelector");
	int location = decode_word(spec, "location", "MESH_EXTERNAL|MESH_INTERNAL", -1);

	decode_hosts(d, spec, "hosts", &s->hosts);
	decode_cidrs(d, spec, "addresses", &s->addresses, &s->n_addresses);
	decode_service_ports(d, spec, s);
	decode_endpoints(d, spec, s);
	decode_texts(d, spec, "subjectAltNames", &s->identities);
	s->location = location < 0 ? LOCATION_AUTO : locations[location];
	s->passthrough = decode_word(spec, "resolution", "NONE|STATIC", 0) == 0;
	s->selects = json_is_object(selector);
	decode_labels(d, selector, "labels", &s->selector);
	if (s->selects && !s->selector.n)
		decode_error(d, ERRORS_RULE, "workloadSelector",
			     "selects nothing: labels is empty");
	if (s->selects && s->n_endpoints)
		decode_error(d, ERRORS_RULE, "endpoints",
			     "only one of endpoints and workloadSelector may be given");
}

/* path and sha256 are checked against a process that its owner could exchange: they only narrow. */
static void check_selectors(struct decode *d, const struct model_group *g)
{
	size_t mark = errors_push(&d->path, "selectors"), anchors = 0;

	for (size_t i = 0; i < g->n_selectors; i++) {
		const char *s = g->selectors[i];
		size_t at = errors_push_index(&d->path, i);

		anchors += strncmp(s, "unix:path:", 10) != 0 && strncmp(s, "unix:sha256:", 12) != 0;
		if (!value_selector(s))
			decode_error(d, ERRORS_VALUE, NULL,
				     "\"%.64s\" is not unix:uid:N, unix:gid:N, unix:user:NAME, "
				     "unix:group:NAME, "
				     "unix:path:/FILE or unix:sha256:HEX",
				     s);
		errors_pop(&d->path, at);
	}
	if (g->n_selectors && !anchors)
		decode_error(d, ERRORS_RULE, NULL,
			     "path and sha256 only narrow a uid, user, gid or group: name one");
	errors_pop(&d->path, mark);
}

void decode_workload_group(struct decode *d, const json_t *spec)
{
	const json_t *template = json_object_get(spec, "template");
	struct model_group *g = &d->doc->group;
	struct texts selectors, hosts;
	struct labels labels = { 0 };
	struct named_port *ports;
	uint16_t *numbers;
	const char *name;

	decode_labels(d, json_object_get(spec, "metadata"), "labels", &labels);
	decode_labels(d, template, "labels", &labels);
	decode_texts(d, spec, "selectors", &selectors);
	decode_texts(d, spec, "hosts", &hosts);
	decode_ports(d, template, "ports", &ports, &g->n_ports);
	numbers = arena_array(d->arena, g->n_ports, sizeof(*numbers));
	for (size_t i = 0; numbers && i < g->n_ports; i++)
		numbers[i] = ports[i].port;
	name = *service_label(&labels) ? service_label(&labels) : d->name;
	g->ns = arena_strdup(d->arena, d->ns);
	g->name = arena_strdup(d->arena, d->name);
	g->service = decode_host(d, name);
	g->service_account = decode_text(d, template, "serviceAccount");
	if (!*g->service_account)
		g->service_account = arena_strndup(d->arena, name, strcspn(name, "."));
	g->labels = labels.v;
	g->n_labels = labels.n;
	g->selectors = selectors.v;
	g->n_selectors = selectors.n;
	g->hosts = hosts.v;
	g->n_hosts = hosts.n;
	g->ports = numbers;
	g->mode = decode_word(spec, "mode", "off|observe|enforce", -1);
	check_selectors(d, g);
}
