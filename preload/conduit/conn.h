/* A connection: one application socket on its way into, in, and out of the mesh. It never owns the fd.
 *
 * Memory of connections is type-stable: a pointer from the fd table may be stale, but is always a struct conn; conn_get()
 * tells whether it still is the one that was meant. The step lock guards state, dialling and handshake; an open
 * connection's bytes are guarded by its session. Errors are -errno. Nothing blocks unless it says so. */
#ifndef CONDUIT_CONN_H
#define CONDUIT_CONN_H

#include <netinet/in.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

#include "control/control.h"
#include "sys/lock.h"
#include "tls/handshake.h"
#include "tls/session.h"
#include "weft/reason.h"
#include "weft/tally.h"

enum conn_state {                 /* only conn_move() assigns; the order matters */
		  CONN_NEW,       /* a TCP socket that a poller knows, before connect() */
		  CONN_DIALING,   /* stepping: TCP connect under way */
		  CONN_SNIFFING,  /* stepping: accepted on a PERMISSIVE port, TLS or not? */
		  CONN_HANDSHAKE, /* stepping */
		  CONN_OPEN,      /* application bytes may flow from here on */
		  CONN_PLAIN,     /* turned out not to be meshed: real calls from here on */
		  CONN_FAILED,    /* `so_error` says why; the program sees it at its next call */
		  CONN_CLOSED,
};

union conn_name {
	struct sockaddr sa;
	struct sockaddr_in v4;
	struct sockaddr_in6 v6;
};

#define CONN_SNIFFED INT64_MAX /* it is plaintext: what was written early is on its way */

struct conn_dial {               /* of a client, until it is closed */
	struct service *service; /* counted */
	uint32_t cluster, endpoint;
	uint64_t *tried; /* bit per endpoint of the cluster */
	unsigned attempts;
	bool plain;   /* mode observe or off: never TLS */
	bool counted; /* service_active() was told of the endpoint */
	bool bound;   /* the program had bound the socket to `local` */
	union conn_name local;
};

struct share;   /* conduit/share.h */
struct segment; /* conduit/segment.h */

struct conn {
	_Atomic unsigned refs;
	_Atomic int state;      /* enum conn_state */
	_Atomic unsigned phase; /* counts state changes: what pollers wait for may have changed */
	_Atomic unsigned armed; /* phase that the pollers' registrations follow; fd room */
	uint32_t regs;          /* first registration; fd room */
	_Atomic int fds;        /* descriptors of this process that lead here */
	_Atomic int fd;         /* one of them */
	uint64_t cookie;        /* of the socket, whatever number it has (socket(7), SO_COOKIE) */
	struct lock lock;
	bool server;
	bool lenient;       /* a server that refuses nobody when it accepted: mode observe or off */
	bool strict;        /* lenient, where it would demand TLS */
	_Atomic bool waits; /* the last read had to wait in the kernel: begin with that */
	bool prepared;      /* share_prepare() holds its locks */
	bool leaving;       /* carry_exec() does */
	bool visited;       /* carry.c's own */
	int app_nodelay; /* TCP_NODELAY as the program has it; on the socket it is on from the handshake on */
	bool app_cork;     /* TCP_CORK likewise: on the socket it is off */
	bool shook;        /* a handshake has begun: options of the socket are ours */
	bool told;         /* connect() has reported success */
	bool given;        /* fresh_given() */
	_Atomic bool gone; /* failed because the client had closed: a write goes nowhere, once */
	bool connected;    /* `dialled` answers getpeername() */
	int family;
	int app_lowat; /* SO_RCVLOWAT as the program set it; 0: never */
	int so_error;  /* positive errno for SO_ERROR, connect() or the next call */
	enum weft_reason reason;
	_Atomic int64_t deadline_ms; /* of this attempt or handshake */
	_Atomic int64_t
		sniff_ms; /* the program wants to speak first: no ClientHello by then means plaintext; 0: it does not; CONN_SNIFFED */
	int64_t sniff_for_ms;     /* how long that is */
	int64_t timeout_ms;       /* of one TCP connect */
	_Atomic int64_t grace_ms; /* conduit/early.h: early from then on; 0: not known yet */
	_Atomic uint64_t
		claim; /* who waits for what its next step needs: thread and frame; 0: nobody */
	_Atomic bool early;  /* told to the program as connected while stepping */
	_Atomic bool orphan; /* the program has closed it: it goes on with a reference of its own */
	_Atomic uint8_t early_shut; /* bit per SHUT_RD, SHUT_WR */
	uint8_t *early_bytes;       /* written early; malloc'ed */
	_Atomic uint32_t early_len, early_sent;
	_Atomic short wants; /* POLLIN or POLLOUT: what the next step of the handshake waits for */
	union conn_name dialled;
	socklen_t dialled_len;
	struct conn_dial dial;
	struct identity *id; /* counted; while stepping */
	struct handshake *handshake;
	uint64_t policy_seq;  /* inbound policy that admitted the peer */
	uint64_t admitted_as; /* hash of our SPIFFE ID then; 0: never admitted by policy */
	char *peer;           /* SPIFFE ID; malloc'ed */
	struct session *_Atomic session; /* &own, or in `share` */
	struct session own;
	struct session_aead aead;
	struct share *_Atomic share; /* NULL while no other process shares it */
	struct segment *segment;     /* that `share` lies in; counted */
	struct conn *prev, *next;    /* all connections of the process */
};

/* The socket's number: what a caller names, unless that was closed and the socket kept for the calls in progress. */
static inline int conn_fd(const struct conn *c, int fd)
{
	return session_fd(&c->aead, fd);
}

/* Connections of this process that are not closed, and those of them that are stepping: 0 lets the wait hooks skip all. */
extern _Atomic int conn_live, conn_stepping;
extern _Atomic int conn_early; /* early ones of them */

struct conn *conn_new(int fd, int family); /* one reference, one fd; NULL: no memory */
/* A reference, or NULL if `c` is gone; the caller then checks that c is still the one that was meant. */
struct conn *conn_get(struct conn *c);
void conn_put(struct conn *c); /* NULL-safe */

static inline enum conn_state conn_state(const struct conn *c)
{
	return (enum conn_state)atomic_load_explicit(&c->state, memory_order_acquire);
}

static inline bool conn_is_stepping(const struct conn *c)
{
	enum conn_state s = conn_state(c);

	return s >= CONN_DIALING && s <= CONN_HANDSHAKE;
}

void conn_move(struct conn *c, enum conn_state to);
/* Ends in CONN_FAILED: `err` is a positive errno, or 0 for a server whose client closed. An error is counted, and logged once,
 * and shuts a server's socket down. */
void conn_fail(struct conn *c, int fd, int err, enum weft_reason reason, const char *detail);

uint64_t conn_cookie(int fd); /* 0: no socket */
/* Address of the socket's peer for a log line, or "?". */
const char *conn_peer_text(int fd, char text[static WEFT_ADDR_TEXT]);

/* Counts an accepted connection under its peer's address and the port that it came to. */
void conn_seen(int fd, enum weft_tally kind, enum weft_reason reason);

/* Goes as far as it can without waiting. -EAGAIN: still stepping, wait for conn_wants(). 0: it is not stepping any more. */
int conn_step(struct conn *c, int fd);
/* A thread that is about to sleep until conn_wants() claims the next step: another that took it could take the wake-up too,
 * as poll() looks at the socket once more before it returns. The state is read after the claim. False: the step is another
 * thread's or process'; sleep until conn_look_ms() at most, and look again. `frame` names this wait; a handler of signals on
 * top of it may step. */
bool conn_claim(struct conn *c, const void *frame);
void conn_let(struct conn *c, const void *frame);
bool conn_is_mine(const struct conn *c); /* this thread may take the next step */
int64_t conn_look_ms(const struct conn *c);
short conn_wants(const struct conn *c); /* POLLIN or POLLOUT */
/* When the wait for this connection must end at the latest; INT64_MAX: no bound. */
int64_t conn_deadline(const struct conn *c);
/* The earliest such time of all, and a walk over those that are due. */
int64_t conn_deadline_all(void);
void conn_expire_all(void);

/* The program wants to write first on an accepted connection that is still being looked at. */
void conn_speaks_first(struct conn *c);

/* Sends what sessions hold back for more (session_holds). Before anything that may wait. */
void conn_push_all(void);
static inline void conn_push(void)
{
	if (__builtin_expect(atomic_load_explicit(&session_holds, memory_order_relaxed), 0))
		conn_push_all();
}

/* Told of each connection that a step has moved on, whoever waits for it. Set once, by the fd room. */
extern void (*conn_moved_on)(struct conn *c);

/* Held while the list of connections must not change: around fork, and in walks. */
void conn_list_lock(void);
void conn_list_unlock(void);
void conn_list_forked(
	void); /* in a fork's child, instead of unlock; calls of other threads are no more */
struct conn *conn_list_first(void);

#endif
