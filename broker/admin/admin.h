/* The admin page: what this weftd knows, as JSON over HTTP. Read only, no thread: libmicrohttpd is driven from the loop.
 *
 * GET or HEAD of /status /services /endpoints[?service=S] /identities /documents[?kind=K] /version; lists take
 * ?limit=N&after=NAME and say "truncated", and the "next" to go on after, where they stop early (ADMIN_LIMIT entries, ADMIN_BYTES bytes). Anything else
 * is 404, another method 405. On a loopback address a request that names another host is 403, so that a web page in a
 * browser cannot read it through a name of its own that resolves there. */
#ifndef ADMIN_ADMIN_H
#define ADMIN_ADMIN_H

#define ADMIN_DEFAULT "127.0.0.1:15020"
#define ADMIN_LIMIT 10000
#define ADMIN_BYTES (16u << 20)

struct admin;
struct ev_loop;
struct registry;

/* address: "IP:PORT", "[IPv6]:PORT", "unix:PATH" (made with mode 0660; a socket nobody answers on is replaced) or "off".
 * 0 with *out (NULL for "off"); -errno with *why (static text, "" if the errno says it all). Does not block. */
int admin_start(struct ev_loop *loop, const char *address, struct registry *r, struct admin **out,
		const char **why);
void admin_stop(struct admin *a); /* NULL-safe; removes the socket's path */

#endif
