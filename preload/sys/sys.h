/* The only door to the real libc. sys.read is the next `read` in link order after ours, so that stacked preloads chain.
 * Every pointer is usable at any time: before our constructor ran, the first call of any resolves them all. */
#ifndef SYS_SYS_H
#define SYS_SYS_H

#include <aio.h>
#include <netdb.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <time.h>

struct sys {
#define HOOK(ret, name, params, args) ret(*name) params;
#define OPTIONAL HOOK
#include "sys/symbols.def"
};

extern struct sys sys;

void sys_start(void); /* resolves every pointer; idempotent */

/* Room code below calls these instead of libc where it must never re-enter a hook or be a cancellation point.
 * They return -errno and leave errno alone. */
long sys_call(long number, long a, long b, long c, long d, long e, long f);

#endif
