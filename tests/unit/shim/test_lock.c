/* Locks in memory that processes share: whoever dies with one does not keep it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "sys/lock.h"

static struct lock *shared;

static pid_t dies_with_it(void)
{
	pid_t pid = fork();

	if (pid == 0) {
		lock_forked();
		_exit(lock_take(shared) != 0);
	}
	assert_true(pid > 0);
	return pid;
}

static void owner_that_is_gone(void **state)
{
	int status;

	(void)state;
	assert_int_equal(waitpid(dies_with_it(), &status, 0) > 0, 1);
	assert_int_equal(lock_take(shared), -EOWNERDEAD);
	lock_drop(shared);
	assert_int_equal(lock_take(shared), 0);
	lock_drop(shared);
}

/* The one who should wait for the child is the one who waits for the lock. */
static void owner_that_nobody_waited_for(void **state)
{
	pid_t pid = dies_with_it();
	siginfo_t info;
	int status;

	(void)state;
	assert_int_equal(waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT), 0);
	assert_int_equal(lock_take(shared), -EOWNERDEAD);
	lock_drop(shared);
	assert_int_equal(waitpid(pid, &status, 0), pid);
}

static void ones_own(void **state)
{
	(void)state;
	assert_int_equal(lock_take(shared), 0);
	assert_int_equal(lock_take(shared), -EDEADLK);
	assert_false(lock_try(shared));
	lock_drop(shared);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(owner_that_is_gone),
		cmocka_unit_test(owner_that_nobody_waited_for),
		cmocka_unit_test(ones_own),
	};

	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
		      0);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
