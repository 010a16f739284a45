/* Birth and end of descriptors: what the table says after socket, accept, dup, close and fork. Return the system call's
 * result, or -errno. In a child of vfork, or of a clone by the program's own instructions, which shares or copies our memory without our knowing, nothing but
 * the system call itself happens. */
#ifndef FD_LIFE_H
#define FD_LIFE_H

#include "fd/table.h"

/* Once, by the constructor. `attached` is called whenever a descriptor is attached to a connection. */
void life_start(void (*attached)(void));

extern _Atomic bool life_listened; /* the process has, or had, a TCP listener */

enum life_memory {
	LIFE_OWN,  /* of this process: its descriptors are those of the table */
	LIFE_LENT, /* a child of vfork runs in its parent's memory */
	LIFE_COPY, /* a child of raw clone: what the table says is the parent's */
};
enum life_memory life_memory(void);

/* Around fork(), which calls them itself, and whatever else copies this memory into a child. */
void life_fork_prepare(void);
void life_fork_parent(void);
void life_fork_child(void);

/* A new descriptor of the kernel's has this number: whatever we knew of it is stale. */
void life_born(int fd, enum slot slot);
/* A TCP socket that a poller, or connect(), wants to know: its connection, with a reference. NULL: it is none. */
struct conn *life_adopt(int fd);
/* Points the slot of `fd` to `c`, which gives its reference to it. */
void life_attach(int fd, struct conn *c);

int life_listen(int fd, int backlog);
void life_shut(int fd, int how); /* before shutdown(), which ends a listener */
/* Those that a former program of this process left: as if listen() were called now. */
void life_inherit_listeners(void);
/* What accept() returned for a listener that had this word before the call; fd, or -errno after which it is closed. */
int life_accepted(int listener, uintptr_t word, int fd);
/* Another process gave us `fd`: by a Unix socket, pidfd_getfd(2), or over exec. May ask weftd. */
void life_received(int fd);
int life_close(int fd);
void life_close_range(unsigned first, unsigned last); /* before and after the real call */
void life_closed_range(unsigned first, unsigned last);
int life_duped(int from, int to); /* `to` is a copy; returns it */
void life_before_dup2(int from, int to);
void life_after_dup2(int from, int to, bool done);
void life_leave(int fd); /* libc is about to close it, or to give its number to another file... */
void life_left(int fd);  /* ...and has done so */
/* As table_conn(), after asking the kernel whether the number still is the connection's: for calls that it would not hear of. */
struct conn *life_conn(int fd);
/* The kernel says that `fd` is not the socket of `c`: it was closed where no hook saw it. */
void life_lost(int fd, struct conn *c);
void life_exit(void); /* the process ends: goodbye on every connection */

#endif
