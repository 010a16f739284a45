/* Of registry/ alone: its state, and what its files do for each other. */
#ifndef REGISTRY_INTERNAL_H
#define REGISTRY_INTERNAL_H

#include <limits.h>

#include <ev.h>

#include "compile/model.h"
#include "registry/process.h"
#include "registry/registry.h"
#include "registry/strmap.h"
#include "store/store.h"
#include "weft/env.h"

#define HOST_ID 16 /* hex digits */

struct document { /* what the model does not keep; first member: key of the map */
	char *key;
	uint64_t at;
	const char *bad;  /* why Redis holds no document at all (static text), or NULL */
	char written[64]; /* state, revision and revision in force as weft:status has them */
	char logged[DOC_REVISION + 1]; /* revision in force that weft:log has */
};

struct entry {     /* a WorkloadEntry of this host, in force */
	char *key; /* of Redis */
	char *json;
	const char *name; /* "<ns>/<name>", in key */
	uint64_t since;
	pid_t pid;
	uid_t uid;
	bool own_host; /* never written to Redis */
};

struct vip {
	char *key; /* text of the IPv4 address */
	char *service;
	struct weft_addr v4, v6;
	bool seen;       /* by vips_sweep() */
	uint64_t unused; /* since when no service has that name; 0: in use */
};

struct claim {     /* a virtual address that Redis was asked for */
	char *key; /* service */
	struct registry *r;
	struct weft_addr v4;
	unsigned tries;
};

struct peer_host { /* another host with endpoints, as the leader watches it */
	char *key; /* host id */
	struct registry *r;
	double absent; /* since when its lease is gone; 0: it is there */
	bool asked, seen;
};

struct netns {
	uint64_t inode;
	int diag; /* netlink socket in it */
};
#define NETNS_MAX 256

struct registry {
	struct ev_loop *loop;
	char *state_dir, *socket, *socket_dir, *zone, *trust_domain, *advertise_text;
	char host[HOST_ID + 1];
	char advertise_shown[64];
	struct weft_cidr vip_range;
	struct weft_cidr advertise;
	bool has_advertise, strict, ca, leader, led_elsewhere, is_ready, loading;
	uint64_t started, feed_since, last_read, own_netns;
	uint64_t exchanges, refusals;
	void (*ready)(void *arg);
	void *ready_arg;
	void (*settled)(void *arg);
	void *settled_arg;

	struct store *store;
	struct model *model;
	struct strmap documents; /* struct document */
	struct strmap entries;   /* struct entry */
	struct strmap vips;      /* struct vip */
	struct strmap claims;    /* struct claim */
	struct strmap peers;     /* struct peer_host */
	struct process **processes;
	size_t n_processes, max_processes;

	struct weft_board *board;
	struct weft_names_mem *names;
	uint8_t *names_scratch;
	int board_fd, names_fd, lock;

	uint64_t bumps[WEFT_GENERATIONS / 64]; /* buckets whose generation is to grow */
	bool dirty_names, dirty_inbound, dirty_modes, dirty_vips, dirty_status, dirty_file;

	struct netns netns[NETNS_MAX];
	size_t n_netns;
	struct ev_timer flush, heartbeat, watch, lease, save, start, modes;
	double modes_settle; /* as in struct process, for the board */
	struct past *past;   /* of processes that are gone; coverage.c */
	size_t n_past;
};

/* shm.c */
/* Opens the memory again if its header agrees and it is ours, else makes it. *fresh says which. 0 or -errno. */
int shm_map(const char *dir, const char *name, uint64_t magic, size_t size, mode_t mode, void **out,
	    bool *fresh);
int shm_reopen(const char *dir, const char *name); /* read-only descriptor or -errno */
int shm_reserve(const char *dir, const char *name, size_t offset,
		size_t len); /* disk space, before writing. 0, -errno */

/* publish.c: what guests read */
int publish_open(struct registry *r);
void publish_close(struct registry *r);
void publish_ready(struct registry *r);               /* new epoch; heartbeat begins */
void publish_later(struct registry *r, double after); /* calls publish_now() from the loop */
void publish_now(struct registry *r);                 /* everything that is dirty */
void publish_bump(struct registry *r, const char *service);
int publish_identity(struct registry *r, struct process *p); /* if it changed. 0 or -errno */

/* coverage.c: what processes tell of their connections */
void coverage_fold(struct registry *r,
		   const struct process *p); /* its family memory is about to go */
void coverage_close(struct registry *r);

/* modes.c */
void modes_open(struct registry *r);
void modes_close(struct registry *r);
void modes_update(struct registry *r); /* documents may say other modes */
void modes_attach(struct process *p);  /* a new process begins with what they say */

/* documents.c: what Redis says */
int documents_open(struct registry *r); /* last good ones */
void documents_close(struct registry *r);
void documents_save(struct registry *r);
void documents_status(struct registry *r); /* weft:status of what changed, if leader */
void documents_status_all(struct registry *r);
/* The one way into the model. json NULL: gone. bad: cannot be a document. Value of model_put(). */
int documents_change(struct registry *r, const char *key, const char *json, size_t len,
		     const char *bad);
extern const struct store_ops documents_ops;
const char *const *documents_prefixes(size_t *n); /* watched keys; static */

/* entries.c: WorkloadEntry of this host's listeners */
void entries_update(struct registry *r);  /* after any change of listeners, modes or grants */
void entries_refresh(struct registry *r); /* the same, addresses included */
void entries_assert(struct registry *r);  /* writes all to the store again */
void entries_withdraw(struct registry *r);
void entries_close(struct registry *r);
const char *entries_name(const struct registry *r, const struct process *p,
			 const struct listener *l);
/* Address that a listener is announced at. 0, or -ENOENT: nowhere. */
int entries_address(struct registry *r, const struct process *p, pid_t pid, struct listener *l);

/* vips.c */
void vips_document(struct registry *r, const char *key, const char *json, size_t len);
void vips_update(struct registry *r); /* asks for what is missing */
void vips_sweep(struct registry *r);  /* leader: gives back what was long unused */
void vips_close(struct registry *r);

/* processes.c */
struct process *process_new(struct registry *r, const struct proc_facts *facts);
int process_map(struct registry *r, struct process *p); /* its identity memory */
int process_join(struct registry *r, struct process *p, pid_t pid, uint64_t start, int pidfd);
void process_drop(struct registry *r, struct process *p); /* gone: withdraws, removes its files */
void process_free(struct registry *r, struct process *p); /* memory only */
int process_signature(struct process *p, const uint8_t *bytes,
		      size_t len); /* decodes and takes it */
int process_labels(struct process *p, const struct wire_label *extra, size_t n);
bool process_has_family(const struct process *p, const struct proc_family *f, int n);

/* saved.c: the table of processes in the state folder */
void saved_write(struct registry *r, const struct process *p);
void saved_remove(struct registry *r, const struct process *p);
void saved_load(struct registry *r);  /* those that still live */
void saved_sweep(struct registry *r); /* removes identity memories of nobody */

/* watch.c */
void watch_start(struct registry *r);
void watch_died(struct registry *r,
		struct process *p); /* a member did: look whether anybody is left */
/* Listeners of the network namespace of `pid`. 0 or -errno. */
struct diag_list;
int watch_listeners(struct registry *r, uint64_t netns, pid_t pid, struct diag_list *out);
void watch_close(struct registry *r);

/* lease.c */
void lease_start(struct registry *r);
void lease_refresh(struct registry *r);
void lease_close(struct registry *r);

uint64_t registry_now(void); /* seconds since 1970 */
/* Writes a file by rename, mode 0600. 0 or -errno. */
int file_replace(const char *path, const void *bytes, size_t len);
int file_read(const char *path, size_t max, char **out,
	      size_t *len); /* NUL-terminated, malloc'ed. 0 or -errno */

#endif
