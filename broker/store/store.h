/* The documents of the mesh as Redis holds them, and every change within milliseconds.
 *
 * Two links: one subscribed to invalidations, one for data with CLIENT TRACKING BCAST on the watched prefixes; a full
 * read at each connect and every STORE_READ_S. All is done again after a break, with growing pauses. Before anything is
 * believed, weft:mesh must be ours (marker.h), and again before each removal: an emptied Redis removes nothing.
 *
 * One thread, nothing blocks. Callbacks come from the loop, never from inside a call. Keys and values given to callbacks
 * live until the callback returns. */
#ifndef STORE_STORE_H
#define STORE_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "store/marker.h"
#include "store/target.h"
#include "weft/addr.h"
#include "weft/limits.h"

#define STORE_READ_S 60.0
#define STORE_KEY_MAX 1024
#define STORE_KEYS_MAX 1000000 /* keys of one full read */

struct store;
struct ev_loop;

enum store_state {
	STORE_DOWN,
	STORE_READING, /* connected and ours; documents are coming in */
	STORE_LIVE,
	STORE_HELD, /* connected, but the data is not ours; store_error() says why */
};

struct store_ops {
	/* The key holds `value` now. NULL: it is gone. With `bad` (static text) it holds what cannot be a document, and
	 * `value` is its first bytes (up to WEFT_DOCUMENT_MAX + 1) or "". */
	void (*document)(void *arg, const char *key, const char *value, size_t len,
			 const char *bad);
	/* A full read found these keys (sorted). Call store_fetch() for others that you have: they may be gone. */
	void (*listed)(void *arg, const char *const *keys, size_t n);
	void (*synced)(void *arg); /* and everything a full read asked for was told */
	void (*state)(void *arg, enum store_state state);
};

struct store_options {
	const struct store_target *target; /* NULL: the embedded redis-server */
	const char *state_dir;
	const char *const *prefixes; /* watched, "weft:<Kind>:"; none may be a prefix of another */
	size_t n_prefixes;
};

/* The options are copied, the prefixes are not. 0 or -errno. Connects from the loop. */
int store_open(struct ev_loop *loop, const struct store_options *o, const struct store_ops *ops,
	       void *arg, struct store **out);
/* Closes; an embedded server is ended and waited for. Pending answers are dropped without a callback. NULL-safe. */
void store_close(struct store *s);

enum store_state store_state(const struct store *s);
const char *store_error(const struct store *s); /* "" if live */
const char *store_url(const struct store *s);   /* without password */
bool store_is_embedded(const struct store *s);
const struct marker *store_marker(const struct store *s); /* in force here */
int store_local(const struct store *s,
		struct weft_addr *out); /* our side of a TCP connection; -ENOTCONN */

/* Reads a key again and tells ops->document. Ignored while down or held. */
void store_fetch(struct store *s, const char *key);

struct store_answer {
	int error; /* 0; -ENOTCONN: the link broke first; -EREMOTE: Redis says `text` */
	bool nil;
	long long integer;
	const char *text; /* never NULL */
	size_t len;
};
typedef void store_done(void *arg, const struct store_answer *a);
/* One command with C strings, ended by NULL. `done` may be NULL (errors are logged). Only while reading or live.
 * 0, -ENOTCONN, -EPERM (held), -ENOBUFS, -ENOMEM. */
int store_run(struct store *s, store_done *done, void *arg, ...) __attribute__((sentinel));

/* Adds one to the marker's revision: something that must not be lost was accepted. By the leader only. */
int store_advance(struct store *s);

/* Ends STORE_HELD: takes the marker of Redis for ours, or writes ours where there is none. -EALREADY, -ENOTCONN. */
int store_accept(struct store *s);

/* Waits at most `ms` until what was sent is answered: for a clean end. */
void store_drain(struct store *s, int ms);

#endif
