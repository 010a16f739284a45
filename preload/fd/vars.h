/* The variables by which this process is in the mesh, as it was started with them: a guest may write over its environment. */
#ifndef FD_VARS_H
#define FD_VARS_H

#include <stddef.h>

#define VARS_MAX 16

void vars_start(void); /* once, by the constructor */
/* Those that `envp` has no value for; returns how many. `out` may be NULL. */
size_t vars_missing(char *const envp[], char *out[VARS_MAX]);

#endif
