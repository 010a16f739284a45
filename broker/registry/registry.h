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
#include "weft/tally.h"
#include "weft/wire.h"

struct registry;
struct ev_loop;
struct model;
struct process; /* registry/process.h: an attached process (family) of this host */
struct proc_facts;
struct store_target;

/* --- reading --- */

enum registry_feed {                     /* where the documents come from */
		     REGISTRY_FEED_DOWN, /* no connection: the last good documents are in force */
		     REGISTRY_FEED_READING, /* connected, first full read under way */
		     REGISTRY_FEED_LIVE,
		     REGISTRY_FEED_HELD, /* weft:mesh is not ours: last good until registry_accept() */
};
const char *registry_feed_name(enum registry_feed f); /* "down", "reading", "live", "held" */

struct registry_info {
	const char *version; /* of weftd */
	const char *host;    /* host id */
	const char *mesh;    /* mesh id, "" before the first store was seen */
	const char *trust_domain;
	const char *attest; /* "open" or "strict" */
	const char *zone;
	const char *advertise; /* address that wildcard listeners are announced at */
	const char *socket;    /* path */
	const char *state_dir;
	const char *store;       /* URL without password */
	const char *store_error; /* why it is not live */
	enum registry_feed feed;
	uint64_t feed_since;
	uint64_t last_read; /* end of the last full read */
	uint64_t revision;  /* of weft:mesh */
	uint64_t epoch;     /* of the board */
	uint64_t started;
	bool ready;    /* HELLO is answered */
	bool leader;   /* this weftd writes weft:status */
	bool embedded; /* a private redis-server */
	bool ca;
	enum weft_mode mode; /* of the mesh */
	size_t documents, refused, services, endpoints, processes, identities;
	uint64_t exchanges, refusals; /* of the socket, since start */
};
void registry_info(const struct registry *r, struct registry_info *out);

struct registry_service {
	const char *name; /* canonical */
	struct weft_addr vip4, vip6;
	bool external;
	size_t endpoints;
	uint32_t generation; /* of its bucket */
};

struct registry_endpoint {   /* one WorkloadEntry and one port of it */
	const char *entry;   /* "<ns>/<name>" */
	const char *service; /* canonical */
	const char *version;
	const char *host; /* id of the announcing host, "" for a static one */
	struct weft_addr address;
	bool tls; /* tlsMode istio */
	bool main_port;
	bool local;     /* of this host: the next four are filled in */
	uint64_t netns; /* the only network namespace it is seen in; 0: everywhere */
	pid_t pid;
	uid_t uid;
	uint64_t since;
};

struct registry_identity {   /* one attached process (family) of this host */
	const char *id;      /* name of its identity memory */
	const char *service; /* canonical, "" where nothing was granted */
	const char *version;
	const char *spiffe; /* "" until enrolled */
	const char *why;    /* why nothing was granted */
	const char *exe;
	const char *serial; /* hex */
	pid_t pid;
	uid_t uid;
	gid_t gid;
	uint64_t netns;
	uint64_t since;
	uint64_t not_after;
	enum weft_mode mode; /* in force */
	size_t listeners;
};

struct registry_coverage { /* what one attached process family told, or those that are gone */
	const char *service, *exe, *why;
	pid_t pid;   /* 0: all of that service and program that are gone */
	uint64_t id; /* grows from one to the next */
	uid_t uid;
	enum weft_mode mode; /* in force */
	uint64_t family;     /* inode of its memory; 0: none */
	bool identity;       /* it holds a certificate */
	const struct weft_tally_mem *tally;
};

struct registry_document {
	const char *key;  /* "weft:<Kind>:..." */
	const char *json; /* in force; NULL if none ever was accepted */
	size_t len;
	bool accepted;        /* the newest version */
	const char *revision; /* of the newest version */
	const char *in_force; /* revision in force, "" if none */
	const char *errors;   /* JSON array of {path, message}; "[]" */
	uint64_t at;
};

/* Each calls `fn` for all, in order of name, until it returns non-zero; returns that value, or 0. */
int registry_each_service(const struct registry *r,
			  int (*fn)(void *arg, const struct registry_service *), void *arg);
/* service: canonical, or NULL for all */
int registry_each_endpoint(const struct registry *r, const char *service,
			   int (*fn)(void *arg, const struct registry_endpoint *), void *arg);
int registry_each_identity(const struct registry *r,
			   int (*fn)(void *arg, const struct registry_identity *), void *arg);
int registry_each_coverage(const struct registry *r,
			   int (*fn)(void *arg, const struct registry_coverage *), void *arg);
/* kind: "AuthorizationPolicy", or NULL for all; entries written by brokers are left out of NULL */
int registry_each_document(const struct registry *r, const char *kind,
			   int (*fn)(void *arg, const struct registry_document *), void *arg);

/* The compiled documents, for `weft analyze` and the like: read only. */
const struct model *registry_model(const struct registry *r);

/* Ends REGISTRY_FEED_HELD: takes over whatever the store holds now. -EALREADY if nothing is held, -ENOTCONN. */
int registry_accept(struct registry *r);

/* --- life (weftd.c) --- */

struct registry_options {               /* texts are copied */
	const char *state_dir, *socket; /* the memories lie beside the socket */
	const char *trust_domain, *zone;
	const char *vip_cidr;              /* IPv4, /8 to /28 */
	const char *advertise;             /* address or CIDR block, "" where not given */
	const struct store_target *target; /* NULL: embedded */
	bool strict, ca;
};
/* Takes the host id, the last good documents and the table of processes from the state folder, maps the memories and
 * connects. `ready` is called once from the loop: after the first full read, or soon if the store does not answer.
 * 0; -errno with *why (static text, "" if the errno says it all). */
int registry_open(struct ev_loop *loop, const struct registry_options *o, void (*ready)(void *arg),
		  void *arg, struct registry **out, const char **why);
/* Withdraws the endpoints of this host and waits a moment for Redis to know. Before registry_close() at a clean end. */
void registry_withdraw(struct registry *r);
void registry_close(struct registry *r); /* NULL-safe */

/* --- exchanges (session/) --- */

const char *registry_host(const struct registry *r);
const char *registry_trust_domain(const struct registry *r);
bool registry_is_strict(const struct registry *r);
uint64_t registry_epoch(const struct registry *r);
struct model *registry_answers(struct registry *r);    /* for model_groups() and the like */
void registry_count(struct registry *r, bool refused); /* one exchange */

/* The process of a peer: by pid and start time, or as a member of an attached family, which it then joins (`pidfd` stays
 * the caller's). `hello`: only if it still is the program that attached, not one that came by exec. NULL: not attached. */
struct process *registry_find(struct registry *r, const struct proc_facts *facts, int pidfd,
			      bool hello);

/* What attestation granted. Texts and labels are copied. */
struct grant {
	const char *service; /* canonical; "" : none, and `why` says the reason */
	const char *ns;
	const char *account; /* service account of the SPIFFE ID */
	const char *version;
	const char *why;
	const struct wire_label *labels; /* beside those that every instance has */
	size_t n_labels;
	const uint16_t *ports; /* the only endpoints; none: every port it listens on */
	size_t n_ports;
	bool own_host; /* announced on this host only */
	enum weft_mode ceiling;
};
/* HELLO of a peer that registry_find() does not know: a new process; `pidfd` stays the caller's. 0; -EAGAIN: as many as
 * can be; -errno. */
int registry_attach(struct registry *r, const struct proc_facts *facts, int pidfd,
		    const struct grant *g, struct process **out);
/* Gives up a process that was granted nothing, before it attaches with a grant. */
void registry_release(struct registry *r, struct process *p);
/* The four descriptors of a welcome, in its order. fds[2] is the caller's to close, the others are not. 0 or -errno. */
int registry_descriptors(struct registry *r, struct process *p, int fds[static 4]);
/* Whether another uid of this host holds the service now. */
bool registry_is_taken(const struct registry *r, const char *service, uid_t uid);

/* ENROL: the signature becomes the identity of the process and is written to its memory. 0 or -errno. */
int registry_enrol(struct registry *r, struct process *p, const struct wire_bin *csr,
		   const uint8_t *signature, size_t len);
/* A process whose certificate is past its half life, or NULL. registry_defer(): its renewal failed, later. */
struct process *registry_due(struct registry *r);
void registry_defer(struct registry *r, struct process *p);

/* REGISTER. *entry: name of the WorkloadEntry, "" if announced nowhere; lives until the next change. 0;
 * -EACCES with *why: the kernel does not show that listener; -ENOBUFS; -ENOMEM. */
int registry_listen(struct registry *r, struct process *p, const struct proc_facts *peer,
		    const struct wire_listener *l, const char **entry, const char **why);
void registry_unlisten(struct registry *r, struct process *p, const struct proc_facts *peer,
		       const struct wire_listener *l);
/* Whether virtual addresses are still being asked for; `settled` (one per registry) is called when they are there. */
bool registry_is_settling(const struct registry *r);
void registry_on_settled(struct registry *r, void (*settled)(void *arg), void *arg);

/* RESOLVE and SERVICE. p: NULL where the peer is not attached. 0; -ENOENT; -ENOMEM. */
int registry_resolve(struct registry *r, const struct process *p, uint64_t netns,
		     const struct wire_resolve *ask, struct weft_names_service *out,
		     enum weft_names_kind *kind);
/* The encoded wire_service, malloc'ed. */
int registry_serve(struct registry *r, const struct process *p, uint64_t netns,
		   const struct wire_ask *ask, uint8_t **out, size_t *len);

#endif
