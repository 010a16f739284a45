/* The listening socket of the admin address. */
#ifndef ADMIN_LISTEN_H
#define ADMIN_LISTEN_H

#include <stdbool.h>

/* Forms as in admin.h. Returns the descriptor (non-blocking, close-on-exec) or -errno with *why. *local: only this
 * machine can get there. */
int listen_open(const char *address, bool *local, const char **why);

#endif
