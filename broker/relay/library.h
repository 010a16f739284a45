/* Where libweft.so is. */
#ifndef RELAY_LIBRARY_H
#define RELAY_LIBRARY_H

#include <stddef.h>

/* libweft.so beside this program, in ../lib of it, or as `given` (may be NULL). 0, or -ENOENT with `out` the place
 * where it was expected. */
int library_find(const char *given, char *out, size_t size);

#endif
