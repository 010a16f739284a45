/* Dialling: from an address of the mesh to an authenticated connection with one endpoint, trying others on the same
 * socket before the program hears of a failure. The step lock is held. */
#ifndef CONDUIT_DIAL_H
#define CONDUIT_DIAL_H

#include "conduit/conn.h"

/* Asks for the service (may ask weftd), picks, and starts the first TCP connect. c->dialled is set.
 * 0: DIALING; -errno with c->reason set: no attempt could be made, c is NEW as before. */
int dial_start(struct conn *c, int fd, const struct weft_names_service *svc,
	       enum weft_names_kind kind, bool plain);
int dial_step(struct conn *c, int fd); /* 0: the state changed; -EAGAIN */
/* This attempt failed: the next endpoint, or CONN_FAILED with `err`. */
void dial_failed(struct conn *c, int fd, int err, enum weft_reason reason, const char *detail);
void dial_expired(struct conn *c, int fd);
bool dial_has_other(const struct conn *c); /* an endpoint that was not tried */
void dial_release(struct conn *c);         /* gives back what the dial holds */

#endif
