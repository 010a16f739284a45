/* How a session is handed over to the relay of its uid.
 *
 * The relay listens on a Unix socket beside weftd's. A process connects, makes sure by SO_PEERCRED that root or its own uid
 * answers, and sends one struct weft_relay_ask with three descriptors: the TCP socket, one end of a Unix socket pair, and
 * the memory with the session (preload/conduit/carry.h), which the relay's own shim takes out of the message. The relay
 * answers one byte and from then on carries bytes between the two sockets. Without an answer nothing has happened. A relay of
 * an older release answers ESTALE and takes nothing new: weftd starts one of the present. */
#ifndef WEFT_RELAY_H
#define WEFT_RELAY_H

#include <stdint.h>

#define WEFT_RELAY_NAME "relay-%lu.sock" /* with the uid; in the folder of weftd's socket */
#define WEFT_RELAY_MAGIC UINT32_C(0x6c657277)
#define WEFT_RELAY_VERSION 1    /* of what the memory holds: that of preload/conduit/carry_int.h */
#define WEFT_RELAY_SENT 3       /* descriptors in the message */
#define WEFT_RELAY_TAKEN 0      /* the answer; any other byte is an errno */
#define WEFT_RELAY_WAIT_MS 2000 /* for the answer */

struct weft_relay_ask {
	uint32_t magic, version;
};

#endif
