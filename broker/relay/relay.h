/* The relay: weftd's own program in a process of its own, under the shim like any other. It takes sessions that guests hand
 * over (include/weft/relay.h) and carries bytes between the meshed TCP socket and a Unix socket whose other end the guest
 * kept in its place. It knows no TLS: read and write go through the libweft.so that is preloaded into it. */
#ifndef RELAY_RELAY_H
#define RELAY_RELAY_H

#define RELAY_OPTION "--relay"
#define RELAY_FD 3 /* listens; weftd made it */

/* The whole program; returns its exit status. */
int relay_main(void);

#endif
