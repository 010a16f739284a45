/* posix_spawn() in a process with meshed sockets that the new program inherits, or gets by a file action. The parent goes
 * on with them. libc starts the program itself, so all that is to be done in the child is told as file actions. */
#ifndef FD_SPAWN_H
#define FD_SPAWN_H

#include <spawn.h>
#include <stdint.h>

#include "fd/exec.h"

struct spawn_plan {
	struct exec_plan exec; /* memfd, what is carried, the variable */
	int shown;             /* number that the new program has the memfd under */
	struct {
		int fd, with; /* what it gets in the place of a socket; -1: the same as before */
		uint64_t cookie;
	} outlet[EXEC_SWAPS];
	int n_outlets;
	posix_spawn_file_actions_t actions; /* ours, then the caller's */
	void *array; /* of the actions; a block of the pool. NULL: the caller's alone will do */
};

/* As exec_begin(). 0, or a positive errno: what the program asks for cannot be understood. *room: for exec_env(). */
int spawn_begin(struct spawn_plan *p, const char *path, int flags,
		const posix_spawn_file_actions_t *actions, char *const envp[], size_t *room);
const posix_spawn_file_actions_t *spawn_actions(const struct spawn_plan *p,
						const posix_spawn_file_actions_t *actions);
void spawn_end(struct spawn_plan *p, int pid); /* 0: it failed */

bool spawn_matters(void); /* a program started now would inherit a meshed socket */

#endif
