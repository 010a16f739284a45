/* Of store/ alone: the state that store.c (connection) and feed.c (documents) share. */
#ifndef STORE_INTERNAL_H
#define STORE_INTERNAL_H

#include <limits.h>

#include <ev.h>

#include "store/embedded.h"
#include "store/link.h"
#include "store/store.h"

#define KEY_MARKER "weft:mesh"
#define KEY_ACCEPT "weft:accept" /* the marker that an operator accepted, for all hosts */

struct key_list { /* owned strings */
	char **v;
	size_t n, size;
};

struct feed {
	struct key_list queue; /* to be fetched; `next` is the first that was not sent */
	size_t next;
	size_t flying;           /* fetches sent and not answered */
	struct key_list gone;    /* removals that wait for a look at the marker */
	struct key_list listing; /* keys of the full read under way */
	bool scanning;           /* SCAN under way */
	bool reading;            /* a full read is under way, to its `synced` */
	bool checking;           /* marker under way */
	bool again;              /* read all once the marker was seen */
};

struct store {
	struct ev_loop *loop;
	const struct store_ops *ops;
	void *arg;
	struct store_target target;
	char url[300];
	char marker_path[PATH_MAX];
	const char *const *prefixes;
	size_t n_prefixes;
	struct embedded *embedded;
	struct link *push, *data;
	enum store_state state;
	char error[256];
	char push_id[24]; /* client id of the push link */
	bool closing;
	struct marker known; /* in force here, kept in a file */
	struct marker seen;  /* in Redis, at the last look */
	double pause;        /* before the next connect */
	struct ev_timer retry, ping, read;
	struct feed feed;
	unsigned epoch; /* of feed: one more at each feed_stop() */
};

/* store.c */
void store_move(struct store *s, enum store_state state, const char *why);
void store_fail(struct store *s, const char *why); /* closes both links and tries again later */
int store_send(struct store *s, struct link *l, link_reply *fn, void *arg, ...)
	__attribute__((sentinel));
/* The text of an error reply, else NULL. A NULL reply (broken link) is no error here. */
const char *reply_error(const redisReply *r);

/* feed.c */
void feed_check(struct store *s); /* looks at the marker; all else waits for it */
void feed_read(struct store *s);  /* starts a full read unless one is under way */
void feed_add(struct store *s, const char *key, size_t len);
void feed_push(struct store *s, const redisReply *r); /* an invalidation */
void feed_stop(struct store *s);                      /* forgets everything under way */
int feed_accept(struct store *s);
int feed_advance(struct store *s);

#endif
