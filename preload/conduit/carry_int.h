/* What carry.c writes and adopt.c reads: a head, then the entries, each with its peer's name and its session. */
#ifndef CONDUIT_CARRY_INT_H
#define CONDUIT_CARRY_INT_H

#include <fcntl.h>

#include "conduit/carry.h"
#include "conduit/share.h"

#define CARRY_MAGIC UINT32_C(0x59524143) /* "CARY" */
#define CARRY_VERSION 1u                 /* also of struct session and of what processes share */
#define CARRY_SEALS (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE)
#define CARRY_MAX (1u << 30) /* bytes of all */

struct carry_head {
	uint32_t magic, version;
	uint32_t session_size; /* another build may differ */
	uint32_t n;
	uint64_t ipc_ns; /* that numbers of segments belong to */
};

struct carry_entry {
	uint32_t size; /* with what follows; a multiple of 8 */
	int family;
	uint64_t
		cookie; /* up to here the same in all versions: another release can at least say what it cannot take */
	struct conn *made; /* the reader's own */
	uint32_t peer_len, session_len;
	struct share_place place;
	uint64_t taken, queued; /* bytes that were ever read from the socket, and written to it */
	uint64_t admitted_as;
	int app_nodelay, app_lowat;
	uint8_t server, connected, tcp_open; /* tcp_open: no FIN had come */
	uint32_t dialled_len;
	union conn_name dialled;
};

struct carry_counts {
	uint64_t taken, queued;
	bool open;
};
int carry_counts(int fd, struct carry_counts *out); /* 0 or -errno */
uint64_t carry_token(int memfd);                    /* its number: who is to come for it */
uint64_t carry_ipc_ns(void);                        /* 0: not known */

#endif
