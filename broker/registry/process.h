/* One attached process of this host: the guest that said HELLO and all that were forked from it since (they share its
 * mappings, so its identity memory and its family memfd). Read by session/, written by registry/ alone. */
#ifndef REGISTRY_PROCESS_H
#define REGISTRY_PROCESS_H

#include <stdbool.h>
#include <stdint.h>

#include <ev.h>

#include "health/proc.h"
#include "weft/addr.h"
#include "weft/ident.h"
#include "weft/policy.h"
#include "weft/shm.h"

#define PROCESS_ID 16 /* hex digits */
#define PROCESS_LISTENERS WEFT_PORTS_MAX
#define PROCESS_MEMBERS 1024 /* that are watched by pidfd; more are found by their maps */
#define PROCESS_FAMILIES 4   /* memfds: one more for each restart of weftd that it lived through */

struct member {
	pid_t pid;
	uint64_t start;
	int pidfd;
	struct ev_io died;
	struct process *process;
};

struct listener {
	struct weft_addr address; /* as bound: all zero is the wildcard */
	struct weft_addr announced;
	uint64_t cookie;
	uint64_t since;
	uint64_t netns;
	bool ipv6, v6only;
	double withdrawn; /* loop time of a DEREGISTER, while the kernel has it still; 0: none */
	bool endpoint;    /* announced; else a port that WEFT_SERVICE does not name */
};

struct label {
	char key[WEFT_HOST_MAX + WEFT_LABEL_MAX + 2]; /* prefix/name */
	char value[WEFT_LABEL_MAX + 1];
};

struct registry;
struct process {
	struct registry *registry;
	char id[PROCESS_ID + 1];
	char service[WEFT_SERVICE_MAX + 1]; /* canonical; "" : nothing granted */
	char ns[WEFT_LABEL_MAX + 1];
	char name[WEFT_LABEL_MAX + 1]; /* service without namespace */
	char account[WEFT_LABEL_MAX + 1];
	char version[WEFT_LABEL_MAX + 1];
	char spiffe[WEFT_SPIFFE_MAX + 1];
	char why[160];
	struct label *labels; /* all, the five of every instance included */
	size_t n_labels;
	uint16_t ports[WEFT_PORTS_MAX];
	size_t n_ports;
	bool own_host;
	enum weft_mode ceiling, mode; /* mode: what documents say, and is announced; see modes.c */
	double settle, trust;         /* loop times at which its words follow; 0: they have */
	struct proc_facts facts;      /* of the one that said HELLO first */
	uint64_t since;

	struct member *members[PROCESS_MEMBERS];
	size_t n_members;
	int family;      /* memfd, -1 after a restart of weftd until somebody attaches */
	double attached; /* loop time of the last HELLO */
	struct proc_family families[PROCESS_FAMILIES];
	size_t n_families;

	struct weft_identity_mem *memory;
	uint8_t *csr;
	size_t csr_len;
	struct wire_signature *signature; /* in force; NULL: not enrolled */
	void *signature_block;
	uint8_t *written; /* bytes of the memory's half in force */
	size_t written_len;
	char serial[48];
	uint64_t not_after;
	double renew; /* wall clock */

	struct listener listeners[PROCESS_LISTENERS];
	size_t n_listeners;
};

#endif
