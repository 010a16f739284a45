/* What exec.c and spawn.c share. */
#ifndef FD_EXEC_INT_H
#define FD_EXEC_INT_H

#include <limits.h>

#include "conduit/carry.h"
#include "conduit/target.h"
#include "fd/exec.h"
#include "sys/pool.h"

#define EXEC_FDS ((int)(POOL_BLOCK / sizeof(int)))

void exec_plan_start(struct exec_plan *p);
bool exec_matters(void); /* is there any socket that must be looked for? */
/* Looks whether the program is one that starts only without the shim, and says so in the log. */
void exec_look_alone(struct exec_plan *p, int dir, const char *path, int flags, char *const envp[]);
/* target_look(), for a program that inherits a listener or not: *p tells exec_env(). */
enum target exec_look(struct exec_plan *p, bool listener, int dir, const char *path, int flags,
		      char *const envp[], const char **why);
/* Does the descriptor lead to a listener of the mesh? */
bool exec_listens(int fd);
/* Moves a descriptor of ours (F_DUPFD, F_DUPFD_CLOEXEC) out of the way of the program's own. */
int exec_high(int fd, int cmd);
void exec_close(int fd); /* -1: nothing */
/* The new program will find the memfd under this number. 0 or -errno. */
int exec_name(struct exec_plan *p, int number);
size_t exec_room(const struct exec_plan *p, char *const envp[]);
/* The file that will be executed: itself, or, with TARGET_SHELL, what execvp() would find, in `file`. */
const char *exec_search(const char *name, int flags, char file[PATH_MAX]);
/* carry_ready(), but in a child of raw clone -ENOTSUP for its copy of a session that the parent goes on with, and -ETIMEDOUT
 * for a handshake that takes its time, unless the program is `told` of the descriptor. */
int exec_ready(struct exec_plan *p, int fd, enum carry_to to, bool told);
/* What a program gets that cannot have it because of `error`, or, 0, because of `why`. */
int exec_outlet(int fd, int error, const char *program, const char *why);

#endif
