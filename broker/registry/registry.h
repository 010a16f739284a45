/* What this weftd knows and answers: documents and the model made of them, processes of this host with their listeners and
 * identities, virtual addresses, and the memories that guests map.
 *
 * One thread: everything here is called from the libev loop and nothing blocks (state files are small and not synced).
 * The registry owns all it shows. Views given to a callback live until the callback returns; a callback must not change
 * the registry. Texts are never NULL, "" where there is nothing. Times are seconds since 1970 unless the name says _ms.
 * Rendering (admin, command line) uses the first half of this page only. */
#ifndef REGISTRY_REGISTRY_H
#define REGISTRY_REGISTRY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "weft/addr.h"
#include "weft/limits.h"
#include "weft/policy.h"
#include "weft/shm.h"
#include "weft/wire.h"

struct registry;
struct ev_loop;
struct model;

/* --- reading --- */

enum registry_feed {      /* where the documents come from */
	REGISTRY_FEED_DOWN,    /* no connection: the last good documents are in force */
	REGISTRY_FEED_READING, /* connected, first full read under way */
	REGISTRY_FEED_LIVE,
	REGISTRY_FEED_HELD,    /* weft:mesh is not ours: last good until registry_accept() */
};
const char *registry_feed_name(enum registry_feed f); /* "down", "reading", "live", "held" */

struct registry_info {
	const char *version;      /* of weftd */
	const char *host;         /* host id */
	const char *mesh;         /* mesh id, "" before the first store was seen */
	const char *trust_domain;
	const char *attest;       /* "open" or "strict" */
	const char *zone;
	const char *advertise;    /* address that wildcard listeners are announced at */
	const char *socket;       /* path */
	const char *state_dir;
	const char *store;        /* URL without password */
	const char *store_error;  /* why it is not live */
	enum registry_feed feed;
	uint64_t feed_since;
	uint64_t last_read;       /* end of the last full read */
	uint64_t revision;        /* of weft:mesh */
	uint64_t epoch;           /* of the board */
	uint64_t started;
	bool ready;               /* HELLO is answered */
	bool leader;              /* this weftd writes weft:status */
	bool embedded;            /* a private redis-server */
	bool ca;
	enum weft_mode mode;      /* of the mesh */
	size_t documents, refused, services, endpoints, processes, identities;
	uint64_t exchanges, refusals; /* of the socket, since start */
};
void registry_info(const struct registry *r, struct registry_info *out);

struct registry_service {
	const char *name;         /* canonical */
	struct weft_addr vip4, vip6;
	bool external;
	size_t endpoints;
	uint32_t generation;      /* of its bucket */
};

struct registry_endpoint {        /* one WorkloadEntry and one port of it */
	const char *entry;        /* "<ns>/<name>" */
	const char *service;      /* canonical */
	const char *version;
	const char *host;         /* id of the announcing host, "" for a static one */
	struct weft_addr address;
	bool tls;                 /* tlsMode istio */
	bool main_port;
	bool local;               /* of this host: the next four are filled in */
	uint64_t netns;           /* the only network namespace it is seen in; 0: everywhere */
	pid_t pid;
	uid_t uid;
	uint64_t since;
};

struct registry_identity {        /* one attached process (family) of this host */
	const char *id;           /* name of its identity memory */
	const char *service;      /* canonical, "" where nothing was granted */
	const char *version;
	const char *spiffe;       /* "" until enrolled */
	const char *why;          /* why nothing was granted */
	const char *exe;
	const char *serial;       /* hex */
	pid_t pid;
	uid_t uid;
	gid_t gid;
	uint64_t netns;
	uint64_t since;
	uint64_t not_after;
	enum weft_mode mode;      /* in force */
	size_t listeners;
};

struct registry_document {
	const char *key;          /* "weft:<Kind>:..." */
	const char *json;         /* in force; NULL if none ever was accepted */
	size_t len;
	bool accepted;            /* the newest version */
	const char *revision;     /* of the newest version */
	const char *in_force;     /* revision in force, "" if none */
	const char *errors;       /* JSON array of {path, message}; "[]" */
	uint64_t at;
};

/* Each calls `fn` for all, in order of name, until it returns non-zero; returns that value, or 0. */
int registry_each_service(const struct registry *r, int (*fn)(void *arg, const struct registry_service *), void *arg);
/* service: canonical, or NULL for all */
int registry_each_endpoint(const struct registry *r, const char *service,
			   int (*fn)(void *arg, const struct registry_endpoint *), void *arg);
int registry_each_identity(const struct registry *r, int (*fn)(void *arg, const struct registry_identity *), void *arg);
/* kind: "AuthorizationPolicy", or NULL for all; entries written by brokers are left out of NULL */
int registry_each_document(const struct registry *r, const char *kind,
			   int (*fn)(void *arg, const struct registry_document *), void *arg);

/* The compiled documents, for `weft analyze` and the like: read only. */
const struct model *registry_model(const struct registry *r);

/* Ends REGISTRY_FEED_HELD: takes over whatever the store holds now. -EALREADY if nothing is held, -ENOTCONN. */
int registry_accept(struct registry *r);

#endif
