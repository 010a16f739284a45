/* Fixed-size blocks for records in flight. A few are kept for the next caller, the rest go back to the kernel, so an idle
 * process and an idle connection hold none. */
#ifndef SYS_POOL_H
#define SYS_POOL_H

#define POOL_BLOCK (68u << 10)

void *pool_get(void);       /* NULL: no memory */
void pool_put(void *block); /* NULL-safe */

#endif
