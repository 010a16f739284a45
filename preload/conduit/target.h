/* What a program that is about to be executed will be: one that loads the shim, or one that must not meet a meshed socket.
 * Raw system calls only; no memory, no lock: safe in a child of vfork. */
#ifndef CONDUIT_TARGET_H
#define CONDUIT_TARGET_H

#include <stdbool.h>

enum target {
	TARGET_NONE, /* the exec will fail: let the kernel say how */
	TARGET_MESHED, /* dynamically linked against glibc, with the shim in its environment and allowed to load it */
	TARGET_UNASKED, /* it could load the shim, but its environment has no LD_PRELOAD at all */
	TARGET_FOREIGN, /* anything else, and every doubt */
};

#define TARGET_SHELL \
	(1           \
	 << 30) /* with flags of execveat(2): text that names no interpreter is run by sh, as execvp() does */

/* The file as execveat(2) would find it, scripts by their interpreter. *why: for a log line, where it is not meshed. */
enum target target_look(int dir, const char *path, int flags, char *const envp[], const char **why);
/* Is that why? Such a program must be started without LD_PRELOAD. */
bool target_is_musl(const char *why);

#endif
