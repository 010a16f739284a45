#include "sys/user.h"

#include <errno.h>
#include <linux/futex.h>
#include <stdatomic.h>
#include <stdint.h>
#include <sys/syscall.h>

#include "sys/raw.h"

#define USER_PAGE 4096u /* the smallest there is */
#define USER_END (UINT64_C(1) << 56)
#define USER_SEEN 256u /* pages remembered */
#define USER_FRAMES 8192u

/* A page's address; the lowest bit says that it can be written, too. */
static _Atomic uintptr_t seen[USER_SEEN];

/* The futex calls touch a word of the page as the kernel does for any call, and change nothing: a compare, or an atomic
 * addition of 0. No filter of system calls forbids them. */
static bool ask(uintptr_t page, bool write)
{
	static uint32_t own;
	long r;

	if (write)
		r = raw_syscall(SYS_futex, (long)&own, FUTEX_WAKE_OP | FUTEX_PRIVATE_FLAG, 0, 0,
				(long)page, FUTEX_OP(FUTEX_OP_ADD, 0, FUTEX_OP_CMP_EQ, 0));
	else
		r = raw_syscall(SYS_futex, (long)page, FUTEX_CMP_REQUEUE | FUTEX_PRIVATE_FLAG, 0, 0,
				(long)&own, 0);
	return r != -EFAULT;
}

static bool page_is_good(uintptr_t page, bool write)
{
	_Atomic uintptr_t *slot = &seen[page / USER_PAGE % USER_SEEN];
	uintptr_t was = atomic_load_explicit(slot, memory_order_relaxed);

	if (!page || page >= USER_END)
		return false;
	if ((was | 1) == (page | 1) && (!write || was & 1))
		return true;
	if (!ask(page, write))
		return false;
	atomic_store_explicit(slot, page | write, memory_order_relaxed);
	return true;
}

/* What lies a little above our own frame is a caller's variable. */
static bool is_on_stack(uintptr_t p, size_t n)
{
	uintptr_t frame = (uintptr_t)__builtin_frame_address(0);

	return p > frame && n < USER_FRAMES && p - frame < USER_FRAMES - n;
}

size_t user_span(const void *p, size_t n, bool write)
{
	uintptr_t first = (uintptr_t)p & -(uintptr_t)USER_PAGE, last, page;

	if (!n)
		return 0;
	if (is_on_stack((uintptr_t)p, n))
		return n;
	if (!page_is_good(first, write))
		return 0;
	last = ((uintptr_t)p + n - 1) & -(uintptr_t)USER_PAGE;
	if ((uintptr_t)p + n < n)
		last = USER_END;
	if (last == first || page_is_good(last, write))
		return n;
	for (page = first + USER_PAGE; page_is_good(page, write); page += USER_PAGE)
		;
	return page - (uintptr_t)p;
}
