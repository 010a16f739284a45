/* Execution of another program by a process that has meshed sockets which survive it. Those that the new program can go on
 * with are carried there; in the place of any other it gets an end of a relay, or, where there is none, an end of stream:
 * never ciphertext, and never a socket on which it would send plaintext.
 *
 * Raw system calls and the locks of the connections only: usable in a child of vfork, and undone without a trace. */
#ifndef FD_EXEC_H
#define FD_EXEC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define EXEC_SWAPS \
	16 /* descriptors that are replaced; what is beyond is closed for the new program */

struct exec_plan {
	int memfd;           /* for the new program; -1: none */
	bool lent;           /* we run in our parent's memory */
	bool vars;           /* the new program is to have our variables */
	bool alone;          /* the new program would not start with LD_PRELOAD */
	int64_t patience_ms; /* for handshakes of connections that the program may not even know of */
	int *fds;            /* carried; a block of the pool */
	int n_fds;
	struct exec_swap {
		int fd, kept; /* the program's number, and where its own file is meanwhile */
	} swap[EXEC_SWAPS];
	int n_swaps;
	bool again; /* the new program is this one, and has its listeners */
	char var[sizeof("WEFT_EXEC=:,listen") + 32]; /* for its environment; empty: none */
};

/* Prepares all that is to be inherited by a program that will be started with `envp`: named as for execveat(2), or, with
 * TARGET_SHELL in `flags`, to be looked for as execvp(3) does. Costs two loads where the process has no meshed socket.
 * Returns how many pointers exec_env() may need. exec_undo() must follow if the exec fails. */
size_t exec_begin(struct exec_plan *p, int dir, const char *path, int flags, char *const envp[]);
void exec_undo(struct exec_plan *p);

/* Environment of the new program: envp itself, or, in `out`, with what was handed over. Where the program inherits a
 * listener of the mesh and its environment was emptied (nginx does so at its binary upgrade), with our own variables too: it
 * would serve the mesh in plaintext. */
char *const *exec_env(const struct exec_plan *p, char *const envp[], char **out);

/* In the new program, by its constructor: takes what came. */
void exec_arrive(void);

#endif
