/* What the files of control/ share. Order of what is held: attach flight, identity flight, service flight, lock.
 * The lock is never held across a system call that can wait, nor while logging. */
#ifndef CONTROL_INTERNAL_H
#define CONTROL_INTERNAL_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "control/control.h"
#include "sys/quiet.h"
#include "weft/ident.h"
#include "weft/limits.h"

#define RETRY_MS 1000       /* between attempts to reach a weftd that did not answer */
#define REATTACH_MS 200     /* longest exchange where the last good answer would do as well */
#define PATIENCE_STEP_MS 20 /* between looks for a weftd that is not there yet */
#define SOCKET_PATH_MAX 107

/* --- start.c: the environment, read once --- */
struct control_env {
	enum weft_mode ceiling;
	bool claims; /* WEFT_SERVICE is set */
	bool open;   /* WEFT_NO_BROKER */
	int64_t wait_ms;
	unsigned n_sockets;
	char socket[2][SOCKET_PATH_MAX + 1]; /* in the order they are tried */
	char service[WEFT_SPEC_MAX + 2], labels[WEFT_SPEC_MAX + 2];
	char program[64];
	char ns[WEFT_LABEL_MAX + 1]; /* of bare names until weftd says otherwise */
};
extern struct control_env control_env;

/* errno is the guest's: entry points declare KEEP_ERRNO. */
void errno_restore(const int *saved);
#define KEEP_ERRNO __attribute__((cleanup(errno_restore), unused)) int kept_errno = errno

/* --- quiet.c: locks that a signal handler of the guest cannot break --- */

void control_lock(struct quiet *q);
void control_unlock(const struct quiet *q);

/* At most one thread does a thing; others wait for it, or go on without. */
struct flight {
	_Atomic uint32_t busy;
	struct quiet quiet; /* of the leader */
};
/* true: the caller leads and must end it. false: another leads; it has ended, or wait_ms have passed. */
bool flight_begin(struct flight *f, int64_t wait_ms);
void flight_end(struct flight *f);

/* true once per period for all threads together. */
bool is_due(_Atomic int64_t *at, int64_t period_ms);

/* Waiting for a weftd that is not there: WEFT_NO_BROKER's wait, once until one has answered. */
struct patience {
	int64_t until_ms;
};
void patience_begin(struct patience *p, bool may_wait);
bool patience_lasts(const struct patience *p); /* sleeps for a step; false: give up */
void patience_restored(void);                  /* weftd answered */

/* --- board.c: names and generation board --- */
/* NULL until mapped. A mapping stays for ever: readers hold no count. */
const struct weft_names_mem *board_names(void);
const struct weft_board *board_get(void);
/* Maps the files beside the socket, or others that took their place. 0; -EACCES: not allowed; -ENOENT, -EPROTO. */
int board_map_by_path(void);
/* The same from descriptors, which stay the caller's. */
int board_map(int names_fd, int board_fd);
bool board_is_fresh(void);  /* weftd's heartbeat is young */
uint64_t board_epoch(void); /* 0: no board */
uint32_t board_generation(uint32_t bucket);
uint64_t netns_get(void);
void netns_set(uint64_t inode);
/* Maps `size` bytes of a weft memory. NULL with *err set: what is mapped must begin with this magic and be as long. */
void *shm_map(int fd, uint64_t magic, size_t size, int *err);

/* --- attach.c: HELLO --- */
struct attachment {                         /* immutable */
	char service[WEFT_SERVICE_MAX + 1]; /* granted; empty: none */
	char ns[WEFT_LABEL_MAX + 1];
	unsigned short ports[WEFT_PORTS_MAX];
	unsigned n_ports;
};
/* Attached to the weftd that runs, or at least once to one before it. 0; -ECONNREFUSED: nobody answers; -EACCES: weftd
 * refuses us. May ask; waits for an absent weftd only if may_wait and never attached. */
int attach(bool may_wait);
const struct attachment *attachment_get(void); /* NULL: never attached */
const struct weft_identity_mem *
attach_memory(uint64_t *turn); /* NULL; *turn: how often it was another one */
uint64_t attach_epoch(void);   /* of the weftd attached to; 0: none */
void attach_lost(void);        /* weftd does not know us: the next decision says HELLO */
void attach_forked(void);

/* --- enrol.c --- */
void enrol_needed(void);     /* weftd holds no certificate of ours */
void identity_dropped(void); /* weftd grants another service, or none */
int identity_refresh(
	void); /* the identity memory is decoded, after ENROL if need be. 0, -ECONNREFUSED, -EACCES */
void enrol_forked(void);

/* --- listen.c --- */
void listen_again(void);  /* registers the listeners that the present weftd does not know */
void listen_shared(void); /* after a fork, on both sides; under the lock */

/* --- cache.c: services --- */
struct service_key {
	char name[WEFT_SERVICE_MAX + 1];
	struct weft_addr dialled;
	bool exact;
	uint64_t hash;
};
/* -EINVAL: the name is too long. */
int service_key_make(struct service_key *k, const char *name, const struct weft_addr *dialled,
		     bool exact);
/* A reference to what is kept, NULL if nothing; *current: weftd has not said that it changed. */
struct service *cache_get(const struct service_key *k, bool *current);
/* Keeps an answer: `block` is the memory of *wire and becomes the service's. `generations` is the board as it was before
 * the question. One reference; NULL: no memory, `block` is freed. */
struct service *cache_put(const struct service_key *k, const struct wire_service *wire, void *block,
			  const uint32_t *generations, uint64_t epoch);
void cache_drop(const struct service_key *k);

/* --- random.c --- */
uint64_t control_random(void);
void control_random_forked(void); /* the child draws other numbers */

/* --- service.c --- */
void service_forked(void);

/* --- report.c --- */
void report_start(void); /* lines of the log go to weftd too */

#endif
