/* The handshake of a connection, either side, up to the verdict of policy. The step lock is held. */
#ifndef CONDUIT_SHAKE_H
#define CONDUIT_SHAKE_H

#include "conduit/conn.h"

void shake_client(struct conn *c, int fd); /* c->dial chose an endpoint, c->id is set */
void shake_server(struct conn *c, int fd); /* c->id is set */
int shake_step(struct conn *c, int fd);    /* 0: the state changed; -EAGAIN */
void shake_expired(struct conn *c, int fd);

/* Inbound policy for the peer of `fd`; `peer` is its SPIFFE ID or NULL for plaintext. */
bool shake_admits(const struct identity *id, int fd, const char *peer);
/* Hash of the SPIFFE ID of `id`: whether two programs of one process are the same workload. */
uint64_t shake_self(const struct identity *id);

#endif
