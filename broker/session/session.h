/* The Unix socket: guests ask, weftd answers, one exchange per connection (include/weft/wire.h).
 *
 * A peer is known by its credentials and a pidfd, never by what it says. Everything it sends is bounded and checked; what
 * is malformed is answered with REFUSED and its reason, logged (rate-limited) and closed. */
#ifndef SESSION_SESSION_H
#define SESSION_SESSION_H

struct session;
struct ca;
struct ev_loop;
struct keeper;
struct registry;

struct session_options {
	const char *path; /* of the socket; its folder exists */
	unsigned mode;    /* of the socket file, 0666 */
	struct registry *registry;
	struct ca *ca;         /* NULL: no certificate can be had here */
	struct keeper *keeper; /* of relays */
	long ttl_s;            /* of certificates */
};

/* Binds and listens; guests wait until session_start(). A socket that nobody answers on is replaced.
 * 0; -EADDRINUSE: another weftd answers there; -errno. */
int session_open(struct ev_loop *loop, const struct session_options *o, struct session **out);
void session_start(struct session *s); /* begins to answer, and renews certificates from now on */
void session_close(struct session *s); /* NULL-safe; removes the socket */

#endif
