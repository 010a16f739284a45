/* stdio on meshed descriptors. libc's streams call its own read, write and close, past every hook; so the entries for these
 * in its two jump tables, which are data, are pointed at ours, in processes that have a meshed connection. */
#ifndef HOOK_STDIO_H
#define HOOK_STDIO_H

void stdio_start(void); /* finds the tables; by the constructor */
void stdio_patch(void); /* the first connection comes into being; once, from any thread */
/* Streams of meshed descriptors write what they hold. libc does this by itself, after the last code of ours has run. */
void stdio_flush(void);

#endif
