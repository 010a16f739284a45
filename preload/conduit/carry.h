/* Carrying open connections into another process image: over exec, or to a process that was sent the descriptor.
 *
 * What travels is a memfd: for each connection its socket's cookie, what struct conn needs, the place of its session in
 * memory that its holders share, and a copy of the session. The receiver attaches to the shared session; where that went
 * with its last other holder, it goes on from the copy, if the kernel's byte counts say that nothing moved since. A
 * receiver that can do neither has a connection on which every call fails with ECONNRESET: never ciphertext, never
 * plaintext. The memfd is read as untrusted input, and holds keys: it is closed as soon as it is read.
 *
 * Nothing here keeps a descriptor. Both take the locks of the connections. */
#ifndef CONDUIT_CARRY_H
#define CONDUIT_CARRY_H

#include "conduit/conn.h"

/* A close-on-exec memfd with the open connections behind `fds`, found by cookie; other descriptors are passed over.
 * Sessions are shared from then on: this process goes on holding them, and one more holder is expected. Waits for
 * handshakes in progress (WEFT_HANDSHAKE_MS at most). -ENOENT: there is no open connection among them; -ENOTSUP: no memory
 * that another process could attach to; -errno. */
int carry_out(const int *fds, int n);

/* The receiver no more will come: takes back what carry_out() promised to the other holders. */
void carry_revoke(const int *fds, int n);

typedef void
carry_attach(int fd, struct conn *c); /* life_attach(): `c` comes with a reference for this fd */

/* Adopts what `memfd` lists and has its socket among `fds` (NULL: any descriptor of this process), through `attach`.
 * Returns how many connections were adopted, or -errno. Does not close memfd. */
int carry_in(int memfd, const int *fds, int n, carry_attach *attach);

#endif
