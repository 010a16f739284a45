/* Frames that are left without a return: pthread_cancel() and pthread_exit() in a call of ours, siglongjmp() out of a signal
 * handler that interrupted it. libc runs `undo` then, also for a jump, and before the frame is gone. No table of unwinding
 * actions is asked for, which would bring another library along. */
#ifndef SYS_LEAVE_H
#define SYS_LEAVE_H

#include <pthread.h>

struct leave {
	struct _pthread_cleanup_buffer buffer;
};

/* libc's own, of old, still there in every version (sys/compat.c). */
void _pthread_cleanup_push(struct _pthread_cleanup_buffer *b, void (*undo)(void *), void *arg);
void _pthread_cleanup_pop(struct _pthread_cleanup_buffer *b, int execute);

/* `l` lies in the frame that may be left; last pushed, first popped. `undo` may run in a signal handler. */
static inline void leave_push(struct leave *l, void (*undo)(void *), void *arg)
{
	_pthread_cleanup_push(&l->buffer, undo, arg);
}

static inline void leave_pop(struct leave *l)
{
	_pthread_cleanup_pop(&l->buffer, 0);
}

#endif
