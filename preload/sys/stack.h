/* Work that a small stack of the guest's (a thread of PTHREAD_STACK_MIN, a fiber, an alternative signal stack) may have no room
 * for runs on one of ours. Only within quiet sections: no handler of the guest's may find itself there, or jump away. */
#ifndef SYS_STACK_H
#define SYS_STACK_H

#define STACK_SIZE (64u << 10) /* shaking hands takes 7 KiB */

/* fn(arg), on a stack of STACK_SIZE, or on the caller's if there is no memory for one. */
void stack_run(void (*fn)(void *arg), void *arg);

#endif
