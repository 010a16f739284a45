/* POSIX asynchronous I/O: a thread of libc's would read and write the socket itself, past every hook. There is no other way
 * in for these calls, so they fail, as where they are not implemented. */
#include <aio.h>
#include <stdatomic.h>

#include "hook/hook.h"
#include "sys/user.h"
#include "telemetry/log.h"

static bool is_meshed(const struct aiocb *cb)
{
	return user_reads(cb, sizeof(*cb)) && table_word(cb->aio_fildes) > SLOT_MAX;
}

static int refuse(void)
{
	static atomic_flag told = ATOMIC_FLAG_INIT;

	if (!atomic_flag_test_and_set(&told))
		log_warn("asynchronous I/O (aio_read, aio_write, lio_listio) on a meshed "
			 "connection is not possible: it fails with ENOSYS");
	errno = ENOSYS;
	return -1;
}

static bool list_is_meshed(struct aiocb *const list[], int n)
{
	int i;

	if (n < 0 || !user_reads(list, (size_t)n * sizeof(*list)))
		return false;
	for (i = 0; i < n; i++)
		if (list[i] && list[i]->aio_lio_opcode != LIO_NOP && is_meshed(list[i]))
			return true;
	return false;
}

HOOK_EXPORT int aio_read(struct aiocb *cb)
{
	return is_meshed(cb) ? refuse() : sys.aio_read(cb);
}

HOOK_EXPORT int aio_write(struct aiocb *cb)
{
	return is_meshed(cb) ? refuse() : sys.aio_write(cb);
}

HOOK_EXPORT int lio_listio(int mode, struct aiocb *const list[], int n, struct sigevent *event)
{
	return list_is_meshed(list, n) ? refuse() : sys.lio_listio(mode, list, n, event);
}

/* On 64-bit machines struct aiocb64 is struct aiocb. */
HOOK_EXPORT int aio_read64(struct aiocb64 *cb)
{
	return is_meshed((struct aiocb *)cb) ? refuse() : sys.aio_read64(cb);
}

HOOK_EXPORT int aio_write64(struct aiocb64 *cb)
{
	return is_meshed((struct aiocb *)cb) ? refuse() : sys.aio_write64(cb);
}

HOOK_EXPORT int lio_listio64(int mode, struct aiocb64 *const list[], int n, struct sigevent *event)
{
	return list_is_meshed((struct aiocb *const *)list, n)
		       ? refuse()
		       : sys.lio_listio64(mode, list, n, event);
}
