/* Liveness as the kernel tells it: sock_diag, families, descriptors. */
#include <errno.h>
#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "health/diag.h"
#include "health/proc.h"

/* --- sock_diag --- */

struct message {
	struct nlmsghdr head;
	struct inet_diag_msg body;
};

static struct message listener(void)
{
	struct message m = { .head = { .nlmsg_len = sizeof(m),
				       .nlmsg_type = SOCK_DIAG_BY_FAMILY } };

	m.body.idiag_family = AF_INET;
	m.body.idiag_uid = 1000;
	m.body.idiag_inode = 77;
	m.body.id.idiag_sport = htons(8080);
	m.body.id.idiag_src[0] = htonl(0x0a000001);
	m.body.id.idiag_cookie[0] = 5;
	m.body.id.idiag_cookie[1] = 1;
	return m;
}

static void diag_reads_a_listener(void **state)
{
	const struct message m = listener();
	struct diag_list list = { 0 };
	struct weft_addr want;

	(void)state;
	assert_int_equal(diag_parse(&m, sizeof(m), &list), 1);
	assert_int_equal(list.n, 1);
	assert_int_equal(addr_parse(&want, "10.0.0.1"), 0);
	assert_memory_equal(list.v[0].address.ip, want.ip, 16);
	assert_int_equal(list.v[0].address.port, 8080);
	assert_int_equal(list.v[0].uid, 1000);
	assert_int_equal(list.v[0].inode, 77);
	assert_true(list.v[0].cookie == ((uint64_t)1 << 32 | 5));
	diag_list_free(&list);
}

static void diag_survives_any_cut(void **state)
{
	struct message m[3] = { listener(), listener(), listener() };
	uint8_t bytes[sizeof(m)];

	(void)state;
	memcpy(bytes, m, sizeof(m));
	for (size_t len = 0; len <= sizeof(m); len++) {
		struct diag_list list = { 0 };
		uint8_t *exact = malloc(len + !len); /* a sanitizer sees reads past it */
		memcpy(exact, bytes, len);
		diag_parse(exact, len, &list);
		assert_in_range(list.n, 0, 3);
		diag_list_free(&list);
		free(exact);
	}
}

static void diag_refuses_bad_lengths(void **state)
{
	struct message m = listener();
	struct diag_list list = { 0 };

	(void)state;
	m.head.nlmsg_len = 3;
	assert_int_equal(diag_parse(&m, sizeof(m), &list), -EPROTO);
	m.head.nlmsg_len = sizeof(m) + 1;
	assert_int_equal(diag_parse(&m, sizeof(m), &list), -EPROTO);
	m.head.nlmsg_len = sizeof(m.head) + 4;
	assert_int_equal(diag_parse(&m, sizeof(m), &list), -EPROTO);
	m.head.nlmsg_len = sizeof(m);
	m.head.nlmsg_type = NLMSG_DONE;
	assert_int_equal(diag_parse(&m, sizeof(m), &list), 0);
	assert_int_equal(list.n, 0);
}

/* The kernel's own answer, with two sockets of one SO_REUSEPORT group: an exact look-up would miss one. */
static void diag_finds_every_listener(void **state)
{
	struct sockaddr_in sa = { .sin_family = AF_INET,
				  .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof(sa);
	struct diag_list list;
	uint64_t cookie[2];
	int fd[2], one = 1;
	int diag = diag_open(0);

	(void)state;
	assert_true(diag >= 0);
	for (int i = 0; i < 2; i++) {
		socklen_t size = sizeof(cookie[i]);
		fd[i] = socket(AF_INET, SOCK_STREAM, 0);
		setsockopt(fd[i], SOL_SOCKET, SO_REUSEPORT, &one, sizeof(one));
		assert_int_equal(bind(fd[i], (struct sockaddr *)&sa, len), 0);
		assert_int_equal(getsockname(fd[i], (struct sockaddr *)&sa, &len), 0);
		assert_int_equal(listen(fd[i], 1), 0);
		assert_int_equal(getsockopt(fd[i], SOL_SOCKET, SO_COOKIE, &cookie[i], &size), 0);
	}
	assert_int_equal(diag_listeners(diag, &list), 0);
	for (int i = 0; i < 2; i++) {
		const struct diag_listener *l = diag_find(&list, cookie[i]);
		struct stat st;
		assert_non_null(l);
		assert_int_equal(l->address.port, ntohs(sa.sin_port));
		assert_true(addr_is_loopback(&l->address));
		assert_int_equal(l->uid, getuid());
		assert_int_equal(fstat(fd[i], &st), 0);
		assert_int_equal(l->inode, st.st_ino);
		assert_int_equal(proc_holds_socket(getpid(), l->inode), 1);
		assert_int_equal(proc_holds_socket(getpid(), l->inode + 1000000), 0);
	}
	diag_list_free(&list);
	close(fd[0]);
	assert_int_equal(diag_listeners(diag, &list), 0);
	assert_null(diag_find(&list, cookie[0]));
	assert_non_null(diag_find(&list, cookie[1]));
	diag_list_free(&list);
	close(fd[1]);
	close(diag);
}

/* --- processes --- */

static void process_facts_are_read(void **state)
{
	struct proc_facts f = { 0 };

	(void)state;
	assert_int_equal(proc_read(&f, getpid()), 0);
	assert_true(f.start != 0 && f.start == proc_start(getpid()));
	assert_true(f.netns == proc_own_netns());
	assert_non_null(strstr(f.exe, "test_health"));
	assert_int_equal(proc_read(&f, 0x7ffffff0), -ESRCH);
}

static pid_t member(bool exec)
{
	pid_t pid = fork();

	if (pid == 0) {
		if (exec)
			execlp("sleep", "sleep", "30", (char *)NULL);
		pause();
		_exit(0);
	}
	return pid;
}

static void end(pid_t pid)
{
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
}

static void family_lives_while_a_member_maps_it(void **state)
{
	struct proc_family id, seen[PROC_FAMILIES_MAX];
	int fd = proc_family_open(&id);
	void *map = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	(void)state;
	assert_true(fd >= 0 && map != MAP_FAILED);
	pid_t child = member(false), other = member(true);
	assert_true(proc_family_alive(fd));
	assert_int_equal(proc_families(getpid(), seen, PROC_FAMILIES_MAX), 1);
	assert_true(seen[0].inode == id.inode && seen[0].dev == id.dev);
	assert_int_equal(proc_families(child, seen, PROC_FAMILIES_MAX), 1);
	munmap(map, 4096);
	assert_true(proc_family_alive(fd)); /* the forked child has it */
	end(child);
	for (int i = 0; i < 200 && proc_families(other, seen, PROC_FAMILIES_MAX); i++)
		usleep(10000);               /* until it has called exec */
	assert_false(proc_family_alive(fd)); /* the exec'ed one does not count */
	end(other);
	assert_true(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) == MAP_FAILED);
	close(fd);
}

static int count(void *arg, pid_t pid, const struct proc_family *f, int n)
{
	(void)f;
	if (n == 1 && pid == getpid())
		*(int *)arg = 1;
	return 0;
}

static void members_are_found_after_a_restart(void **state)
{
	struct proc_family id;
	int found = 0, fd = proc_family_open(&id);
	void *map = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	(void)state;
	proc_each_member(count, &found);
	assert_int_equal(found, 1);
	munmap(map, 4096);
	close(fd);
}

static void pidfd_tells_the_end(void **state)
{
	pid_t pid = member(false);
	int fd = proc_pidfd(pid);

	(void)state;
	assert_true(fd >= 0);
	assert_true(proc_pidfd_alive(fd));
	end(pid);
	assert_false(proc_pidfd_alive(fd));
	close(fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(diag_reads_a_listener),
		cmocka_unit_test(diag_survives_any_cut),
		cmocka_unit_test(diag_refuses_bad_lengths),
		cmocka_unit_test(diag_finds_every_listener),
		cmocka_unit_test(process_facts_are_read),
		cmocka_unit_test(family_lives_while_a_member_maps_it),
		cmocka_unit_test(members_are_found_after_a_restart),
		cmocka_unit_test(pidfd_tells_the_end),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
