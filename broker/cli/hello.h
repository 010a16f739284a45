/* One HELLO to a weftd, as a guest says it. */
#ifndef CLI_HELLO_H
#define CLI_HELLO_H

#include <stddef.h>

#include "weft/wire.h"

/* The socket that a guest would use: `given`, else WEFT_SOCKET, else the default places. Returns `out`. */
const char *hello_socket(const char *given, char *out, size_t size);

/* Says HELLO, at most WEFT_EXCHANGE_MS long. 0 with *welcome, whose texts lie in *block (the caller frees it) and
 * *fds descriptors that came along (closed again); -errno with `why` in words. */
int hello_exchange(const char *path, struct wire_welcome *welcome, void **block, unsigned *fds,
		   char *why, size_t size);

#endif
