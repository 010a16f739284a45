/* Of the relay program alone. */
#ifndef RELAY_INTERNAL_H
#define RELAY_INTERNAL_H

#include <stdbool.h>

#include <ev.h>

#include "telemetry/log.h"

struct link;
struct guest;

struct relay {
	struct ev_loop *loop;
	struct ev_io accept;
	struct ev_timer tick, pause;
	struct ev_signal term;
	struct link *links;   /* sessions that are carried */
	struct guest *guests; /* hand-overs under way */
	unsigned n_links, n_guests;
	struct log_limit refusals;
	double last;  /* when there was something to do */
	bool retired; /* takes nothing new */
};

/* link.c. Carries bytes between the two sockets, which become the link's, until both directions have ended or one side is
 * gone. 0 or -ENOMEM: then they stay the caller's. */
int link_start(struct relay *r, int wire, int local);
/* Ends links whose guest closed its side after it had shut its sending direction: nothing else tells of that. */
void link_sweep(struct relay *r);

/* relay.c: a link or a guest is gone. */
void relay_settle(struct relay *r);

#endif
