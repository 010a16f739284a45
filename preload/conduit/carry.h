/* Carrying open connections into another process image: over exec, or to a process that was sent the descriptor.
 *
 * What travels is a memfd: for each connection its socket's cookie, what struct conn needs, the place of its session in
 * memory that its holders share, and a copy of the session. The receiver attaches to the shared session; where that went
 * with its last other holder, it goes on from the copy, if the kernel's byte counts say that nothing moved since. A
 * receiver that can do neither has a connection on which every call fails with ECONNRESET: never ciphertext, never
 * plaintext. The memfd is read as untrusted input, and holds keys: it is closed as soon as it is read.
 *
 * Nothing here keeps a descriptor. All take the locks of the connections, and no memory of malloc. Descriptors are those
 * of the calling process, connections are found by cookie: a child of vfork may have moved or closed any of them. */
#ifndef CONDUIT_CARRY_H
#define CONDUIT_CARRY_H

#include "conduit/conn.h"

/* The live connection that a descriptor of this process leads to, with a reference, or NULL. */
struct conn *carry_conn(int fd);

/* How the receiver stands to this process. */
enum carry_to {
	CARRY_OTHER, /* another process: both go on with the connections, and one more holder is expected */
	CARRY_CHILD, /* the program that a child of vfork is about to execute: the memory is its parent's, who goes on */
	CARRY_SELF, /* the program that this process is about to execute in its own place */
};

/* Takes the steps of its handshake, if one is in progress, for `ms` at most. 1: it is open; 0: it is no connection, or a
 * plain one; -ECONNRESET: it has failed; -ETIMEDOUT. */
int carry_settle(int fd, int64_t ms);

/* Brings the connection behind `fd` to where it can be carried: settles it within WEFT_HANDSHAKE_MS, and shares its session
 * where others go on with it. 1: it can; 0: it is no connection, or a plain one; -ECONNRESET: it has
 * failed; -ENOTSUP: there is no memory that another program could attach to; -errno. */
int carry_ready(int fd, enum carry_to to);

/* A close-on-exec memfd with the open connections behind `fds`, which it makes ready; other descriptors are passed over.
 * -ENOENT: there is no open connection among them; or carry_ready()'s error. */
int carry_out(const int *fds, int n);
/* Of what carry_out() made, still open: nobody will come for it; this process will. */
void carry_revoke(int memfd, const int *fds, int n);
void carry_went_to(int memfd, const int *fds, int n, int pid);

/* The same before execve(). For CARRY_SELF, sessions that nobody else shares stay locked: execve() or carry_stay() must
 * follow at once. */
int carry_exec(const int *fds, int n, enum carry_to to);
void carry_stay(const int *fds, int n, enum carry_to to); /* it failed */

/* Is `fd` such a memory, by its looks? Whether what it says is true is for carry_in() to find. */
bool carry_is(int fd);

typedef void
carry_attach(int fd, struct conn *c); /* life_attach(): `c` comes with a reference for this fd */

/* Adopts what `memfd` lists and has its socket among `fds` (NULL: any descriptor of this process), through `attach`.
 * Returns how many connections were adopted, or -errno. Does not close memfd. */
int carry_in(int memfd, const int *fds, int n, carry_attach *attach);

#endif
