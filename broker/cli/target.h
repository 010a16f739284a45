/* The programs that can load the shim library. */
#ifndef CLI_TARGET_H
#define CLI_TARGET_H

#include <stddef.h>

enum target_fault {
	TARGET_OK,
	TARGET_MISSING,        /* no such program: exit status 127 */
	TARGET_NOT_EXECUTABLE, /* 126 */
	TARGET_STATIC,
	TARGET_MUSL,
	TARGET_FOREIGN, /* 32 bit, or of another machine */
	TARGET_SETUID,  /* the kernel would drop LD_PRELOAD */
	TARGET_GO,      /* loads it, and makes its system calls past it */
	TARGET_FAULTS
};
/* Finds `program` as execvp does and looks whether it can be meshed; scripts are judged by their interpreter.
 * path: what would be executed. */
enum target_fault target_check(const char *program, char *path, size_t size);
const char *target_text(enum target_fault f); /* for operators */

#endif
