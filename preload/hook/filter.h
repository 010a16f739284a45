/* seccomp filters of the program's, by number. */
#ifndef HOOK_FILTER_H
#define HOOK_FILTER_H

/* The call `number` with arguments `a` puts the filter on that a[program] points to. As the call, errno set. */
long filter_set(long number, const long *a, unsigned program);

#endif
