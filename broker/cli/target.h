/* The shim library and the programs that can load it. */
#ifndef CLI_TARGET_H
#define CLI_TARGET_H

#include <stddef.h>

/* libweft.so beside this program, in ../lib of it, or as `given` (may be NULL). 0, or -ENOENT with `out` the place
 * where it was expected. */
int target_library(const char *given, char *out, size_t size);

enum target_fault {
	TARGET_OK,
	TARGET_MISSING,        /* no such program: exit status 127 */
	TARGET_NOT_EXECUTABLE, /* 126 */
	TARGET_STATIC,
	TARGET_MUSL,
	TARGET_FOREIGN, /* 32 bit, or of another machine */
	TARGET_SETUID,  /* the kernel would drop LD_PRELOAD */
	TARGET_FAULTS
};
/* Finds `program` as execvp does and looks whether it can be meshed; scripts are judged by their interpreter.
 * path: what would be executed. */
enum target_fault target_check(const char *program, char *path, size_t size);
const char *target_text(enum target_fault f); /* for operators */

#endif
