/* The memories that weftd writes and guests map read-only. design section 5.
 *
 * They lie as files beside the socket (names, board: mode 0644; identity/<id>: 0600, passed as a descriptor).
 * weftd creates a file under another name, fills its header, and renames it; after a restart it opens the same
 * file again if magic, layout and size agree. Guests trust no offset or length in them: readers check every one.
 * All integers are in host order: both ends are on one host. */
#ifndef WEFT_SHM_H
#define WEFT_SHM_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "weft/addr.h"
#include "weft/limits.h"

#define WEFT_SHM_BOARD UINT64_C(0x77656674626f6172)    /* "weftboar" */
#define WEFT_SHM_NAMES UINT64_C(0x776566746e616d65)    /* "weftname" */
#define WEFT_SHM_IDENTITY UINT64_C(0x7765667469646e74) /* "weftidnt" */
#define WEFT_SHM_LAYOUT 1

struct weft_shm {
	uint64_t magic;
	uint32_t layout;
	uint32_t reserved;
	uint64_t size; /* bytes of the whole file */
};

/* --- generation board --- */
struct weft_board {
	struct weft_shm shm;
	_Atomic uint64_t heartbeat_ms; /* CLOCK_BOOTTIME, milliseconds */
	_Atomic uint64_t
		epoch; /* another value after each start of weftd; guests then say HELLO again */
	_Atomic uint32_t
		mode; /* enum weft_mode of the mesh, for processes without an identity memory */
	uint32_t reserved;
	_Atomic uint32_t generation
		[WEFT_GENERATIONS]; /* by weft_bucket(): a change of what SERVICE answers */
};

/* FNV-1a of the canonical service name, folded to the board. */
uint32_t weft_bucket(const char *service);

/* --- double-buffered memories (names, identity) ---
 * The half in force is seq & 1. The writer fills the other half, then adds one to seq (release).
 * The reader loads seq (acquire), copies out what it needs, and loads seq again: equal, or it starts over. */
static inline bool weft_shm_unchanged(const _Atomic uint64_t *seq, uint64_t was)
{
#ifdef __SANITIZE_THREAD__ /* it knows no fences */
	__asm__ volatile("" ::: "memory");
#else
	atomic_thread_fence(memory_order_acquire); /* all that was read was read before this */
#endif
	return atomic_load_explicit(seq, memory_order_relaxed) == was;
}

struct weft_identity_half {
	uint32_t length; /* bytes used of `bytes`: a wire_identity, encoded */
	uint8_t bytes[WEFT_IDENTITY_HALF - 4];
};
struct weft_identity_mem {
	struct weft_shm shm;
	_Atomic uint64_t seq;  /* 0: not enrolled yet */
	_Atomic uint32_t mode; /* enum weft_mode in force for this process */
	_Atomic uint32_t live; /* 0 once weftd has given this identity up */
	_Atomic uint32_t
		inbound; /* of what it accepts: 1 + enum weft_mode, and a flag; 0: as `mode` */
	uint8_t pad[4096 - sizeof(struct weft_shm) - 24];
	struct weft_identity_half half[2];
};

/* In `inbound`: the mode changes, and clients may take it for a server that encrypts already, or still. */
#define WEFT_INBOUND_SETTLING 0x100u

struct weft_names_mem {
	struct weft_shm shm;
	_Atomic uint64_t seq; /* 0: nothing written yet */
	uint8_t pad[4096 - sizeof(struct weft_shm) - 8];
	uint8_t half[2][WEFT_NAMES_HALF]; /* each built by names_build() */
};

/* --- names: what is mesh and what is not --- (preload/base/names.c, pure) */
enum weft_names_kind {
	WEFT_NAMES_VIP = 1, /* address of a service, made by weft */
	WEFT_NAMES_ADDRESS, /* ServiceEntry.addresses: means the service */
	WEFT_NAMES_ENDPOINT, /* address and port of one registered endpoint: means exactly that one */
};

struct weft_names_service {
	char name[WEFT_SERVICE_MAX + 1]; /* canonical */
	struct weft_addr vip4, vip6;     /* all zero: none */
	bool external;
};

struct weft_names_address {
	struct weft_cidr cidr; /* a single address for VIP and ENDPOINT; port 0 means every port */
	uint16_t port;
	enum weft_names_kind kind;
	uint64_t netns;   /* inode of the one network namespace it is seen in; 0: everywhere */
	uint32_t service; /* index into the services given to names_build() */
};

/* Builds one half (8-byte aligned). Returns bytes used, -ENOSPC, or -EINVAL for an address that names no service or has
 * no kind. Names and addresses may come in any order; of two equal ones the first is found.
 * An address with the dialled port goes before one with port 0, a single address before a block, a longer prefix before a
 * shorter one; among equals VIP before ADDRESS before ENDPOINT. */
int64_t names_build(uint8_t *half, size_t size, const char *trust_domain,
		    const struct weft_names_service *services, uint32_t n_services,
		    const struct weft_names_address *addresses, uint32_t n_addresses);

/* Look-ups in a mapped weft_names_mem of `size` bytes. `out` is filled only on success.
 * 0; -ENOENT: not mesh; -EPROTO: the memory is not what it should be. Never block, no system call.
 * `name` in any of the forms of name_canonical(), which takes `ns` for a bare name. */
int names_find(const struct weft_names_mem *mem, size_t size, const char *name, const char *ns,
	       struct weft_names_service *out);
int names_find_addr(const struct weft_names_mem *mem, size_t size, const struct weft_addr *addr,
		    uint64_t netns, struct weft_names_service *out, enum weft_names_kind *kind);

#endif
