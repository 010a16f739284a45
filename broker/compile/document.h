/* One document: its key, its JSON checked against policy.def, and what it says as plain structs.
 * Pure. All that a struct below points to lies in the arena of its version. Texts are never NULL. */
#ifndef COMPILE_DOCUMENT_H
#define COMPILE_DOCUMENT_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "compile/arena.h"
#include "compile/errors.h"
#include "compile/model.h"
#include "compile/table.h"

struct labels {
	struct wire_label *v;
	size_t n;
};
struct texts {
	const char **v;
	size_t n;
};
/* Every label of `want` is among `have`; an empty `want` is always satisfied. */
bool labels_match(const struct labels *want, const struct wire_label *have, size_t n);
const char *labels_get(const struct labels *l, const char *key); /* "" where absent */

struct named_port {
	const char *name;
	uint16_t port;
};

struct instance { /* an endpoint of a ServiceEntry, or what a WorkloadEntry announces */
	struct weft_addr address; /* port 0 */
	struct named_port *ports;
	size_t n_ports;
	struct labels labels;
	uint32_t weight;
	const char *service_account; /* "" where absent */
	/* of WorkloadEntries */
	const char *service; /* canonical, "" if its labels name none */
	const char *host;    /* id of the broker that wrote it, "" for a static one */
	uint64_t netns;
	uint16_t main_port; /* 0: none */
	bool wildcard4, wildcard6;
};

struct service_port {
	uint16_t number, target; /* target 0: not given */
	const char *name;
};
enum { LOCATION_AUTO, LOCATION_EXTERNAL, LOCATION_INTERNAL };
struct service_entry {
	struct texts hosts; /* canonical */
	struct weft_cidr *addresses;
	size_t n_addresses;
	struct service_port *ports;
	size_t n_ports;
	struct instance *endpoints;
	size_t n_endpoints;
	struct texts identities;
	struct labels selector;
	bool selects;
	bool passthrough; /* resolution NONE: without endpoints the dialled address is the destination */
	int location;
};

struct traffic_policy { /* each part is in force only if its has_ says so */
	bool has_lb, has_pool, has_tls;
	enum weft_lb lb;
	enum weft_tls tls;
	uint64_t connect_ms; /* 0: not given */
};
struct traffic_rule {
	struct traffic_policy policy;
	struct port_policy {
		uint16_t port;
		struct traffic_policy policy;
	} * ports;
	size_t n_ports;
};
struct destination_rule {
	const char *host; /* canonical, or "*.x" */
	struct traffic_rule rule;
	struct subset {
		const char *name;
		struct labels labels;
		struct traffic_rule rule;
	} * subsets;
	size_t n_subsets;
};

struct tcp_match {
	uint16_t port; /* 0: any */
	struct weft_cidr *subnets;
	size_t n_subnets;
	struct labels source_labels;
	const char *source_ns; /* "": any */
};
struct destination {
	const char *host; /* canonical */
	const char *subset;
	uint16_t port; /* 0: the dialled one */
	uint32_t weight;
};
struct tcp_route {
	struct tcp_match *matches;
	size_t n_matches; /* 0: always */
	struct destination *destinations;
	size_t n_destinations;
};
struct virtual_service {
	struct texts hosts; /* canonical, or "*.x" */
	struct tcp_route *routes;
	size_t n_routes;
};

struct peer_authentication {
	struct labels selector; /* none: the whole namespace */
	enum weft_mtls mtls;
	struct wire_port_mtls *ports;
	size_t n_ports;
};
struct authorization_policy {
	struct labels selector;
	struct wire_authz authz;
	bool needs_http;
};

struct mesh_config {
	struct texts aliases;
	const char *root_ns;
	uint64_t connect_ms, sniff_ms;
	enum weft_mode mode;
};

struct document { /* an accepted version */
	struct arena arena;
	char *json;
	size_t len;
	char revision[DOC_REVISION + 1];
	bool broker, dry_run;
	bool manifest; /* paths begin with "spec." */
	union {
		struct service_entry service_entry;
		struct instance workload_entry;
		struct model_group group;
		struct destination_rule destination_rule;
		struct virtual_service virtual_service;
		struct peer_authentication peer_authentication;
		struct authorization_policy authorization_policy;
		struct mesh_config mesh_config;
	};
};

struct document_key {
	const struct table_kind *kind;
	char ns[WEFT_LABEL_MAX + 1];
	char name[WEFT_HOST_MAX + 1];
};
/* 0; -ENOENT: not weft:<Kind>:...; -EINVAL: the kind is filled in, the rest is malformed. */
int document_key_parse(struct document_key *k, const char *key);

/* Bounded parse: size, depth, duplicate keys. NULL with an error added; `errors` may be NULL. json_decref() it. */
json_t *document_load(const char *json, size_t len, struct doc_errors *errors);

/* doc_revision() of a document that is parsed already; NULL where it could not be. */
void document_revision(const json_t *doc, const char *json, size_t len,
		       char out[static DOC_REVISION + 1]);

/* Checks and decodes. 0 with *out (document_free() it), -EINVAL with errors, -ENOMEM. *broker and
 * the revision are set always. */
int document_read(const struct document_key *k, const char *trust_domain, const char *json,
		  size_t len, struct document **out, bool *broker,
		  char revision[static DOC_REVISION + 1], struct doc_errors *errors);
void document_free(struct document *d);

/* --- for the decoders, one file per concern --- */

struct decode {
	struct document *doc;
	struct arena *arena; /* of doc */
	struct doc_errors *errors;
	struct errors_path path;
	const char *ns, *name; /* of the document */
	const char *trust_domain;
	const json_t *metadata; /* NULL for a bare spec */
	bool tolerant;
};
typedef void decode_fn(struct decode *d, const json_t *spec);
decode_fn decode_service_entry, decode_workload_entry, decode_workload_group,
	decode_destination_rule, decode_virtual_service, decode_peer_authentication,
	decode_authorization_policy, decode_mesh_config;

/* Checks an object against the fields of `message` (validate.c). */
void validate_object(struct decode *d, const json_t *object, const char *message);

/* Readers of fields that validate_object() has passed: absent where there is none (decode.c). */
const char *decode_text(struct decode *d, const json_t *o,
			const char *field); /* copied; "" where absent */
uint32_t decode_number(const json_t *o, const char *field, uint32_t absent);
uint64_t decode_millis(const json_t *o, const char *field); /* 0 where absent */
int decode_word(const json_t *o, const char *field, const char *words, int absent);
void decode_texts(struct decode *d, const json_t *o, const char *field, struct texts *out);
void decode_labels(struct decode *d, const json_t *o, const char *field,
		   struct labels *out); /* appends; later ones win */
void decode_ports(struct decode *d, const json_t *o, const char *field, struct named_port **out,
		  size_t *n);
void decode_cidrs(struct decode *d, const json_t *o, const char *field, struct weft_cidr **out,
		  size_t *n);
/* Canonical form of a host of this document, "*.x" as it is, in lower case. */
const char *decode_host(struct decode *d, const char *host);
void decode_hosts(struct decode *d, const json_t *o, const char *field, struct texts *out);
/* An error at the path of `d` and below it: `field` may be NULL. */
void decode_error(struct decode *d, enum errors_code code, const char *field, const char *format,
		  ...) __attribute__((format(printf, 4, 5)));
void decode_instance(struct decode *d, const json_t *o, struct instance *out);

#endif
