/* One non-blocking connection to Redis on a libev loop: a stream that weft owns, hiredis only formats and parses.
 *
 * Replies come in order, each to the callback given with its command; what comes unasked (messages of a subscription)
 * goes to ops->push. A link that breaks is closed, every pending callback is called with NULL, then ops->down.
 * Bounded: a reply takes at most LINK_REPLY_MAX bytes and LINK_ELEMENTS_MAX elements, unsent bytes LINK_OUT_MAX. */
#ifndef STORE_LINK_H
#define STORE_LINK_H

#include <stdbool.h>
#include <stddef.h>

#include <hiredis/hiredis.h>

#include "store/target.h"
#include "weft/addr.h"

#define LINK_REPLY_MAX (16u << 20)
#define LINK_ELEMENTS_MAX (1u << 20)
#define LINK_OUT_MAX (64u << 20)
#define LINK_SILENCE_S 10.0 /* a link with commands pending and nothing heard for so long is dead */

struct link;
struct ev_loop;

struct link_ops {
	void (*up)(void *arg);                    /* connected */
	void (*down)(void *arg, const char *why); /* closed; `why` lives until the call returns */
	void (*push)(void *arg, const redisReply *reply);
};
typedef void link_reply(void *arg, const redisReply *reply); /* NULL: the link broke first */

/* `target`, `ops` and `arg` outlive the link. NULL: no memory. */
struct link *link_new(struct ev_loop *loop, const struct store_target *target,
		      const struct link_ops *ops, void *arg);
void link_free(struct link *l); /* closes first; not from a callback; NULL-safe */

/* Starts to connect; ops->up or ops->down follows, never from inside this call. */
void link_connect(struct link *l);
/* Closes without ops->down; pending callbacks get NULL. */
void link_close(struct link *l);
bool link_is_up(const struct link *l);
size_t link_pending(const struct link *l);
/* Local address of a TCP link. 0 or -ENOTCONN. */
int link_local(const struct link *l, struct weft_addr *out);

/* From now on every array that is a message goes to ops->push and matches no command. */
void link_subscribed(struct link *l);

/* Sends a command. len may be NULL: argv are C strings. 0; -ENOTCONN; -ENOBUFS; -ENOMEM (the callback is not called). */
int link_command(struct link *l, link_reply *fn, void *arg, int argc, const char **argv,
		 const size_t *len);

#endif
