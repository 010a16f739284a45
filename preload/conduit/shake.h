/* The handshake of a connection, either side, up to the verdict of policy. The step lock is held. */
#ifndef CONDUIT_SHAKE_H
#define CONDUIT_SHAKE_H

#include "conduit/conn.h"

void shake_client(struct conn *c, int fd); /* c->dial chose an endpoint, c->id is set */
void shake_server(struct conn *c, int fd); /* c->id is set */
int shake_step(struct conn *c, int fd);    /* 0: the state changed; -EAGAIN */
void shake_expired(struct conn *c, int fd);

/* Why inbound policy refuses the peer of `fd`, or NONE; `peer` is its SPIFFE ID or NULL for plaintext. A lenient server
 * refuses nobody; in mode observe what it would have done is counted, and a refusal logged. */
enum weft_reason shake_verdict(const struct conn *c, const struct identity *id, int fd,
			       const char *peer);
/* Hash of the SPIFFE ID of `id`: whether two programs of one process are the same workload. */
uint64_t shake_self(const struct identity *id);

#endif
