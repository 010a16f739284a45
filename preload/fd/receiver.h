/* Who reads the other end of a Unix socket. */
#ifndef FD_RECEIVER_H
#define FD_RECEIVER_H

#include <stdbool.h>

/* Does every process that holds the other end of `channel` carry this shim, for the same service and as the same uid? True only on evidence:
 * the kernel names the other end's inode, and each process that shows it among its descriptors is a fork of this one, or has
 * the library mapped and was started with the same WEFT_SERVICE. Processes that may not be looked at do not count, but one
 * holder must be found. Remembered for a while, as long as looking takes at most a fiftieth of the time. */
bool receiver_is_meshed(int channel);

#endif
