/* The embedded default: a private redis-server on a Unix socket in the state folder, with AOF persistence.
 * It dies with weftd (PR_SET_PDEATHSIG), flushed; it is started again if it ends. One left by a killed weftd is waited
 * for, and adopted if it does not go. */
#ifndef STORE_EMBEDDED_H
#define STORE_EMBEDDED_H

#include <stddef.h>

struct embedded;
struct ev_loop;

/* Path of its socket. 0, or -ENAMETOOLONG where a socket address cannot hold it. */
int embedded_path(const char *state_dir, char *out, size_t size);

/* Starts it from the loop. 0 or -errno (folder, memory). A redis-server that is not in PATH shows in the log and
 * in embedded_error(). */
int embedded_start(struct ev_loop *loop, const char *state_dir, struct embedded **out);
const char *embedded_error(const struct embedded *e); /* "" if all is well */

/* Ends it and waits for it, at most some seconds; NULL-safe. */
void embedded_stop(struct embedded *e);

#endif
