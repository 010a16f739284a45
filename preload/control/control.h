/* The guest's side of the control path: maps weftd's memories, asks weftd, keeps the last good answers.
 *
 * Nothing here keeps a descriptor or a thread. Calls marked "may ask" open the broker's Unix socket for one exchange of at
 * most WEFT_EXCHANGE_MS in the calling thread (EINTR is retried inside, errno is preserved), close it and return.
 * All others only read mapped memory. Safe from any thread; not from signal handlers. */
#ifndef CONTROL_CONTROL_H
#define CONTROL_CONTROL_H

#include <stdbool.h>
#include <stdint.h>

#include "identity/identity.h"
#include "weft/addr.h"
#include "weft/policy.h"
#include "weft/shm.h"

/* Reads the environment. Called once by the constructor; makes no system call beyond what getenv needs.
 * In an AT_SECURE process, or with WEFT_MODE=off, everything below answers "not mesh". */
void control_start(void);

/* The process is at its end: what is secret is wiped. */
void control_exit(void);

/* Around fork, in the thread that forks: prepare takes the locks, the others leave them free. The child's own wishes
 * (random numbers, rate limits) start anew; mappings, identity and caches are its too. */
void control_atfork_prepare(void);
void control_atfork_parent(void);
void control_atfork_child(void);

/* The mode in force now for what the process dials: the live word under WEFT_MODE's ceiling. OFF before anything was
 * mapped means nothing: ask mesh_find_* first. */
enum weft_mode control_mode(void);
/* The same for what it accepts. *settling: it changes, and clients may take the process for one that encrypts. */
enum weft_mode control_mode_inbound(bool *settling);

/* WEFT_SERVICE as given, "" where there is none. */
const char *mesh_claim(void);

/* --- names. The first call maps the names and the board by path (a HELLO only if that is not allowed). --- */

/* Connections of this process may be meshed: its mode is not off, and names were written or a service is claimed.
 * The first call maps them. */
bool mesh_present(void);
/* 0 and *out; -ENOENT: not a mesh name. May ask only at the first call. */
int mesh_find_name(const char *name, struct weft_names_service *out);
/* 0, *out, *kind; -ENOENT: not mesh. A VIP that nobody holds, or any VIP while nobody answers and WEFT_NO_BROKER is
 * closed: -ECONNREFUSED, *reason set. May ask only at the first call. */
int mesh_find_addr(const struct weft_addr *a, struct weft_names_service *out,
		   enum weft_names_kind *kind, enum weft_reason *reason);

/* --- services --- */
struct service {
	unsigned refs;                   /* atomic; service_ref and service_unref alone */
	const struct wire_service *wire; /* decoded, immutable */
	struct balance *balance; /* one per cluster; counters are atomic, see service_active() */
};
/* The service as compiled for (name, port, dialled address). From the cache while the board's generation is the same and
 * weftd's heartbeat is fresh; else may ask, and falls back on the last good answer if weftd does not answer.
 * 0 and a reference in *out; -ECONNREFUSED or another -errno with *reason set. */
int mesh_service(const char *name, const struct weft_addr *dialled, bool exact,
		 struct service **out, enum weft_reason *reason);
struct service *service_unref(struct service *s); /* NULL-safe, returns NULL */
struct service *service_ref(struct service *s);
/* Picks cluster and endpoint (policy.h) with this process's counters. `tried` is as in endpoint_pick. */
int service_pick(struct service *s, const uint64_t *tried, uint32_t cluster, uint32_t *endpoint);
int service_route(struct service *s,
		  uint32_t *cluster); /* 0 or -ENOENT: reason NO_ROUTE or wire->reason */
void service_active(struct service *s, uint32_t cluster, uint32_t endpoint, int delta);

/* --- identity --- */
/* The identity in force. Attaches and enrols at the first need and again after weftd restarted; may ask.
 * 0 and a reference; -EACCES or -ECONNREFUSED with *reason (NO_IDENTITY, NO_BROKER). */
int mesh_identity(struct identity **out, enum weft_reason *reason);
/* Sequence number of the identity memory: one load. Changes with each new certificate, bundle or inbound policy. */
uint64_t mesh_identity_seq(void);

/* --- listeners --- */
/* What accepted connections are to be. */
enum mesh_accepts {
	MESH_REFUSES, /* nobody says who we are, and WEFT_NO_BROKER is closed */
	MESH_PASSES,  /* WEFT_MODE=off, or a process without identity */
	MESH_LOOKS, /* mode observe or off: a mesh client is taken as one, everything else passes */
	MESH_ADMITS,
};
/* Before listen(): attach and enrol, so that the port is open as briefly as can be before it is announced. */
void mesh_will_listen(void);
/* The process listens on `fd`: attach, enrol and REGISTER. Returns what mesh_accepts() does, MESH_PASSES for AF_UNIX. */
enum mesh_accepts mesh_listen(int fd);
/* This process listens there, as far as its table of listeners tells. */
bool mesh_listens(const struct weft_addr *a);
void mesh_unlisten(int fd);      /* before close of the last fd of a listener; may ask */
void mesh_listen_shared(int fd); /* another process is given it: a close here is not its end */
/* For an accept now, from memory; re-attaches after a restart of weftd (may ask). */
enum mesh_accepts mesh_accepts(void);

/* A connection is about to leave in the clear, to a private address that is no service: counted. May ask, once, in a process
 * with WEFT_SERVICE. */
void mesh_passes(const struct weft_addr *to, bool stream);

/* --- the relay (weft/relay.h) --- */
#define MESH_RELAY_PATH 108 /* sun_path */
/* Where the relay of our uid listens: beside the i-th socket of weftd that we know. 0; -ENOENT: there are no more. */
int mesh_relay_path(unsigned i, char path[static MESH_RELAY_PATH]);
/* Has weftd see to it that it runs. 0; -ECONNREFUSED, -EACCES. Asks. */
int mesh_relay_start(void);

#endif
