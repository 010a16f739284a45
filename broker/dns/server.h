/* weftd's answers to programs that ask DNS themselves: UDP and TCP on one loopback address, in the loop of weftd. */
#ifndef DNS_SERVER_H
#define DNS_SERVER_H

struct ev_loop;
struct registry;
struct dns;

/* address: "127.0.0.1:5300", "[::1]:53"; "" : no DNS, *out is NULL. 0, or -errno with *why (static text, "" if the errno
 * says it all). */
int dns_start(struct ev_loop *loop, const char *address, struct registry *r, struct dns **out,
	      const char **why);
void dns_stop(struct dns *d); /* NULL-safe */

#endif
