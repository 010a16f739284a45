/* The relay conduit: an fd that leaves our sight becomes one end of a Unix socket pair, and the relay of our uid carries
 * the session onward. */
#ifndef CONDUIT_RELAY_H
#define CONDUIT_RELAY_H

#include "conduit/conn.h"

/* The open connection behind `fd`, about to be handed over: nothing has happened to it yet. */
struct relay_offer {
	int fd;
	int near; /* stands for `fd`: plaintext, close-on-exec, O_NONBLOCK and timeouts as on it; the caller's */
	int far, memory; /* for the relay */
};

/* 0: there is a relay, and `near` is made. -ENOENT: no open connection is behind `fd`; -errno. Waits for a handshake in
 * progress, and for weftd where it has to start a relay. Then either: */
int relay_offer(struct relay_offer *o, int fd);
/* The relay carries the session from now on, or -errno and the offer still stands. `fd` keeps working here, but what the
 * relay reads is lost to it. Waits 2 s at most for each of three tries. */
int relay_take(struct relay_offer *o);
void relay_drop(struct relay_offer *o); /* closes `near` too */

/* Both at once. Returns `near`, or -errno after which nothing has changed. */
int relay_hand_over(int fd);

#endif
