/* Admission: what an accepted connection is to be. */
#ifndef CONDUIT_ADMIT_H
#define CONDUIT_ADMIT_H

#include "conduit/conn.h"

/* For a socket that accept() of a meshed listener returned. NULL: not meshed, real calls from here on. Else a connection
 * with one reference: sniffing, shaking hands, or failed. Never waits for the peer; may ask weftd after its restart. */
struct conn *admit(int fd, int family);

/* With the step lock held: */
int admit_sniff(struct conn *c, int fd); /* 0: the state changed; -EAGAIN */
/* It is plaintext, or TLS of the application's own: policy decides, then PLAIN (once what was written early is sent) or FAILED. */
void admit_plain(struct conn *c, int fd, bool tls);

/* An inbound policy that came later may end an open connection. Cheap when nothing changed. */
void admit_again(struct conn *c, int fd);

#endif
