#include <errno.h>
#include <linux/futex.h>
#include <signal.h>
#include <sys/syscall.h>
#include <time.h>

#include "control/exchange.h"
#include "control/internal.h"
#include "sys/clock.h"
#include "sys/lock.h"
#include "sys/sys.h"
#include "telemetry/seen.h"

static struct lock lock;
static _Atomic bool patience_over;

void control_lock(struct quiet *q)
{
	quiet_begin(q);
	lock_take(&lock);
}

void control_unlock(const struct quiet *q)
{
	lock_drop(&lock);
	quiet_end(q);
}

bool flight_begin(struct flight *f, int64_t wait_ms)
{
	int64_t until = clock_now_ms() + wait_ms, left;
	uint32_t idle = 0;
	struct quiet q;

	quiet_begin(&q);
	if (atomic_compare_exchange_strong(&f->busy, &idle, 1)) {
		f->quiet = q;
		return true;
	}
	quiet_end(&q);
	while (atomic_load(&f->busy) && (left = until - clock_now_ms()) > 0) {
		struct timespec t = { .tv_sec = left / 1000, .tv_nsec = left % 1000 * 1000000 };

		sys_call(SYS_futex, (long)&f->busy, FUTEX_WAIT_PRIVATE, 1, (long)&t, 0, 0);
	}
	return false;
}

void flight_end(struct flight *f)
{
	struct quiet q = f->quiet;

	atomic_store(&f->busy, 0);
	sys_call(SYS_futex, (long)&f->busy, FUTEX_WAKE_PRIVATE, INT32_MAX, 0, 0, 0);
	quiet_end(&q);
}

bool is_due(_Atomic int64_t *at, int64_t period_ms)
{
	int64_t now = clock_now_ms(), was = atomic_load(at);

	return now >= was && atomic_compare_exchange_strong(at, &was, now + period_ms);
}

void patience_begin(struct patience *p, bool may_wait)
{
	bool waits = may_wait && control_env.wait_ms > 0 && !atomic_load(&patience_over);

	p->until_ms = waits ? clock_now_ms() + control_env.wait_ms : 0;
}

/* The guest's signals arrive here: nothing is held. */
bool patience_lasts(const struct patience *p)
{
	struct timespec step = { .tv_nsec = PATIENCE_STEP_MS * 1000000L };

	if (!p->until_ms || atomic_load(&patience_over))
		return false;
	if (clock_now_ms() >= p->until_ms) {
		atomic_store(&patience_over, true);
		return false;
	}
	sys_call(SYS_nanosleep, (long)&step, 0, 0, 0, 0, 0);
	exchange_retry();
	return true;
}

void patience_restored(void)
{
	if (atomic_load_explicit(&patience_over, memory_order_relaxed))
		atomic_store(&patience_over, false);
}

static struct quiet fork_quiet;

void control_atfork_prepare(void)
{
	struct quiet q;

	control_lock(&q);
	fork_quiet = q;
}

void control_atfork_parent(void)
{
	struct quiet q = fork_quiet;

	listen_shared();
	control_unlock(&q);
}

void control_atfork_child(void)
{
	struct quiet q = fork_quiet;

	attach_forked();
	enrol_forked();
	service_forked();
	exchange_forked();
	control_random_forked();
	seen_forked();
	listen_shared();
	atomic_store(&lock.word, 0); /* it holds the parent's thread id */
	quiet_end(&q);
}
