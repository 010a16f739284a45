/* Who listens on this host, and what of weft is in a process: for people who ask, not for the loop of weftd.
 * Goes over all of /proc; what the caller may not read is not known, never guessed. */
#ifndef HEALTH_SCAN_H
#define HEALTH_SCAN_H

#include <sys/types.h>

#include "health/diag.h"

/* Calls fn for every listening TCP socket of the caller's network namespace with the first process found to hold it,
 * 0 where none may be seen, until fn returns non-zero. That value, 0 or -errno. */
int scan_listeners(int (*fn)(void *arg, const struct diag_listener *l, pid_t pid), void *arg);

/* Each 1, 0, or -errno where it may not be read. */
int scan_has_shim(pid_t pid);    /* libweft.so is mapped */
int scan_is_secure(pid_t pid);   /* AT_SECURE: the loader dropped LD_PRELOAD */
int scan_has_seccomp(pid_t pid); /* a filter is in force */
int scan_is_off(pid_t pid);      /* it was started with WEFT_MODE=off */

#endif
