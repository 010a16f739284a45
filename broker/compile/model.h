/* The documents of the mesh and what they mean: JSON in, compiled answers for guests out.
 *
 * Pure: no fd, clock, log or global; never blocks; one thread at a time per model. The model owns every document it
 * was given; texts and views that it hands out live until the next model_put(), model_del() or model_free().
 * What fills an answer (wire_service, wire_inbound, names) lies in the arena that the caller passes, copied: it
 * outlives the model and is freed with arena_free(). Sizes are bytes. */
#ifndef COMPILE_MODEL_H
#define COMPILE_MODEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "compile/arena.h"
#include "weft/addr.h"
#include "weft/limits.h"
#include "weft/policy.h"
#include "weft/shm.h"
#include "weft/wire.h"

/* --- WorkloadEntry as brokers write it ---
 *
 * Key weft:WorkloadEntry:<ns>/<name>, value the whole manifest. One entry is one instance: (host, network namespace,
 * address) with one or more listening ports.
 *   metadata.annotations  the four below; values are texts
 *   spec.address          real address; for a wildcard listener the advertised one
 *   spec.ports            {"tcp-8081": 8081}: every port that it listens on, never empty for brokers
 *   spec.labels           service.istio.io/canonical-name (the service it belongs to, in its namespace; else
 *                         app.kubernetes.io/name, else app), version, security.istio.io/tlsMode "istio" or "disabled"
 *   spec.serviceAccount   the <service> of its SPIFFE ID */
#define MODEL_NOTE_HOST \
	"weft/host" /* id of the writing host; its presence marks a document of a broker */
#define MODEL_NOTE_NETNS "weft/netns"    /* inode of the network namespace, decimal */
#define MODEL_NOTE_MAIN "weft/main-port" /* the main port, if it has one */
#define MODEL_NOTE_WILDCARD \
	"weft/wildcard" /* "4", "6" or "46": also reached at 127.0.0.1 and/or ::1 in its netns */
#define MODEL_LABEL_SERVICE "service.istio.io/canonical-name"
#define MODEL_LABEL_NAME "app.kubernetes.io/name"
#define MODEL_LABEL_APP "app"
#define MODEL_LABEL_VERSION "version"
#define MODEL_LABEL_TLS "security.istio.io/tlsMode"

/* --- errors of one document --- */

struct doc_error {
	const char *code; /* "WEFT0103"; static, see doc_code_help() */
	char *path;       /* "spec.tcp[0].route[1].weight"; "" is the whole document */
	char *message;
};
struct doc_errors { /* zero-initialise; free with doc_errors_free() */
	struct doc_error *v;
	size_t n;  /* at most DOC_ERRORS_MAX; the last one then says that there are more */
	bool lost; /* memory was short: some are missing */
};
#define DOC_ERRORS_MAX 64
void doc_errors_free(struct doc_errors *e);
/* JSON array of {"path", "message", "code"}, as weft:status has it. malloc'ed; NULL when out of memory. */
char *doc_errors_json(const struct doc_errors *e);
const char *doc_code_help(const char *code); /* what to do about it; "" for an unknown code */

#define DOC_REVISION 16 /* hex digits */
/* Hash of the canonical document (sorted keys, no white space; of the bytes where it is not JSON). Never fails. */
void doc_revision(const char *json, size_t len, char out[static DOC_REVISION + 1]);

/* --- the model --- */

struct model;
struct model *model_new(const char *trust_domain); /* NULL when out of memory */
void model_free(struct model *m);

/* Takes a document. Key: weft:<Kind>:[<namespace>/]<name>. 0: in force now, unless model_document() says that it
 * conflicts with another. -EINVAL: refused, `errors` (may be NULL) says why; the last good version stays in force.
 * -ENOENT: the key is not one of a kind of policy.def; nothing is kept. -ENOMEM.
 * A WorkloadEntry with the annotation weft/host is read tolerantly: fields that this release does not know are skipped. */
int model_put(struct model *m, const char *key, const char *json, size_t len,
	      struct doc_errors *errors);
/* Forgets the document, its last good version too. 0 or -ENOENT. */
int model_del(struct model *m, const char *key);

/* Virtual addresses of a service, from the registry. Both NULL takes them back. A service that holds one stays in
 * names without any instance, so that its name is refused rather than looked up in DNS. 0 or -ENOMEM. */
int model_vip(struct model *m, const char *service, const struct weft_addr *vip4,
	      const struct weft_addr *vip6);

/* What a change of this key may touch; a mask. 0 for keys that are not of a kind. */
enum { MODEL_SERVICES = 1, MODEL_NAMES = 2, MODEL_INBOUND = 4, MODEL_MODES = 8, MODEL_GROUPS = 16 };
unsigned model_touches(const char *key);
/* Canonical services whose SERVICE answer may change when this key changes: call before and after the change and take
 * both. Answers that only draw on another service are covered by wire_service.depends. A service may come twice. */
void model_affected(struct model *m, const char *key, void (*fn)(void *arg, const char *service),
		    void *arg);

/* --- answers --- */

struct caller {              /* the process that asks; every text "" where unknown */
	const char *service; /* canonical */
	const char *ns;
	const char *host; /* id of its host */
	uint64_t netns;
	const struct wire_label *labels;
	size_t n_labels;
};
/* What a new connection of `caller` to ask->service, ask->port takes. `out` is filled always (clusters empty and
 * `reason` set where there is nothing); generation is left 0. 0, -ENOMEM, or -ENOENT: no such service. */
int model_service(struct model *m, const struct caller *caller, const struct wire_ask *ask,
		  struct arena *arena, struct wire_service *out);

struct workload {            /* an instance with an identity */
	const char *service; /* canonical */
	const char *ns;
	const struct wire_label *labels; /* as its WorkloadEntry has them */
	size_t n_labels;
};
/* Inbound policy in Istio's order and scope. 0 or -ENOMEM. */
int model_inbound(struct model *m, const struct workload *w, struct arena *arena,
		  struct wire_inbound *out);

struct model_names { /* arguments of names_build() */
	struct weft_names_service *services;
	uint32_t n_services;
	struct weft_names_address *addresses;
	uint32_t n_addresses;
};
/* `host`: id of this host. Loopback addresses of other hosts are left out. 0 or -ENOMEM. */
int model_names(struct model *m, const char *host, struct arena *arena, struct model_names *out);

/* WorkloadGroups. The service of a group: canonical-name, app.kubernetes.io/name or app of spec.metadata.labels or
 * spec.template.labels, else the group's name. */
struct model_group {
	const char *ns;
	const char *name;
	const char *service;             /* canonical */
	const char *service_account;     /* template.serviceAccount, else the service's own name */
	const struct wire_label *labels; /* metadata.labels and template.labels */
	size_t n_labels;
	const char *const
		*selectors; /* "unix:uid:1000": a process must have all of them; of SPIRE's names
					   * unix:uid, unix:user, unix:gid, unix:group, unix:path, unix:sha256; at least
					   * one uid, user, gid or group (path and sha256 only narrow) */
	size_t n_selectors; /* 0: no process matches */
	const char *const *hosts; /* ids of hosts that may hold the service; none: any */
	size_t n_hosts;
	const uint16_t *ports; /* template.ports */
	size_t n_ports;
	int mode; /* enum weft_mode, or -1 where the group does not say */
};
/* In order of key, until `fn` returns non-zero; returns that, or 0. service: canonical, or NULL for all. */
int model_groups(const struct model *m, const char *service,
		 int (*fn)(void *arg, const struct model_group *), void *arg);

/* Mode in force for a service (its first group that says one, else MeshConfig, else enforce); NULL: of the mesh. */
enum weft_mode model_mode(const struct model *m, const char *service);

/* --- reading --- */

enum model_state {
	MODEL_ACCEPTED,
	MODEL_REFUSED,  /* an older version may be in force */
	MODEL_CONFLICT, /* fine by itself, but another key has its host or scope */
};
struct model_document {
	const char *key, *kind, *ns, *name;
	enum model_state state; /* of the newest version */
	bool broker;            /* written by a broker */
	bool dry_run;
	const char *revision; /* of the newest version */
	const char *json;     /* in force; NULL if no version ever was accepted */
	size_t len;
	const char *in_force; /* its revision, "" if none */
	const struct doc_errors *
		errors; /* of the newest version; for a conflict one error "conflicts with <key>" */
};
int model_document(struct model *m, const char *key, struct model_document *out); /* 0 or -ENOENT */
/* All, in order of key, until `fn` returns non-zero; returns that, or 0, or -ENOMEM. kind may be NULL. */
int model_each_document(struct model *m, const char *kind,
			int (*fn)(void *arg, const struct model_document *), void *arg);

struct model_service {
	const char *name;            /* canonical */
	struct weft_addr vip4, vip6; /* all zero: none */
	bool external;
	size_t endpoints;
	bool exists; /* false: only its virtual address is left */
};
/* All services, in order of name; they need VIPs if `exists` and have none. Same return as above. */
int model_each_service(struct model *m, int (*fn)(void *arg, const struct model_service *),
		       void *arg);

struct model_endpoint {      /* one WorkloadEntry (or ServiceEntry endpoint) and one port of it */
	const char *entry;   /* "<ns>/<name>" */
	const char *service; /* canonical */
	const char *version;
	const char *host; /* id, "" for a static one */
	struct weft_addr address;
	uint64_t netns; /* the only one it is seen in; 0: everywhere */
	bool tls;
	bool main_port;
};
int model_each_endpoint(struct model *m, const char *service,
			int (*fn)(void *arg, const struct model_endpoint *), void *arg);

/* What is accepted but looks wrong: routes to hosts and subsets that are not there, selectors that match nothing,
 * rules that can never match. Appends to `out` the warnings about document `key`. 0, -ENOENT or -ENOMEM. */
int model_warnings(struct model *m, const char *key, struct doc_errors *out);

#endif
