/* Programs that put a filter on their own system calls with connections open, as sshd does: what they may do themselves goes
 * on, whatever the shim needs for it; what they may not is refused as ever. */
#include "probe.h"

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#define YES(name)                                              \
	BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_##name, 0, 1), \
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)
#define NO(name)                                               \
	BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_##name, 0, 1), \
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EACCES)

static struct sock_filter rules[] = {
	BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
	YES(read),
	YES(newfstatat), /* of stdio */
	YES(brk),
	YES(ppoll),
	YES(write),
#ifdef SYS_poll
	YES(poll),
#endif
	YES(close),
	YES(exit_group),
	YES(clock_gettime),
	NO(socket),
	NO(openat),
	NO(sendto),
	BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
};
static struct sock_fprog filter = { sizeof(rules) / sizeof(*rules), rules };

static void *peer(void *arg)
{
	static uint8_t b[100000];
	int fd = *(int *)arg;

	recv_all(fd, b, 5);
	sleep_ms(20);
	send_all(fd, b, 5);
	fill(b, sizeof(b), 3);
	send_all(fd, b, sizeof(b));
	MUST(shutdown(fd, SHUT_WR) == 0);
	return NULL;
}

static void child(struct pair *p, bool by_number)
{
	struct sockaddr_in to = { .sin_family = AF_INET };
	static uint8_t b[100000];
	struct pollfd f = { .fd = p->client, .events = POLLIN };
	int udp = socket(AF_INET, SOCK_DGRAM, 0);
	size_t got = 0;
	ssize_t r;

	MUST(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
	if (by_number)
		SHOW(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &filter));
	else
		SHOW(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter));
	SHOW(socket(AF_INET, SOCK_STREAM, 0));
	SHOW(sendto(udp, "x", 1, 0, (struct sockaddr *)&to, sizeof(to)));
	SHOW(write(p->client, "hello", 5));
	SHOW(read(p->client, b, 5));
	SHOW(poll(&f, 1, PROBE_WAIT_MS));
	while ((r = read(p->client, b, sizeof(b))) > 0)
		got += (size_t)r;
	printf("%zu bytes, then %zd\n", got, r);
	SHOW(close(p->client));
	fflush(stdout);
	_exit(got == sizeof(b) ? 0 : 1);
}

int main(void)
{
	probe_start();
	for (int i = 0; i < 2; i++) {
		struct pair p;
		pthread_t t;
		int status = 0;
		pid_t pid;

		pair_open(&p);
		fflush(stdout);
		pid = fork();
		MUST(pid >= 0);
		if (pid == 0)
			child(&p, i == 1);
		MUST(pthread_create(&t, NULL, peer, &p.server) == 0);
		MUST(waitpid(pid, &status, 0) == pid);
		printf("child: signal %d, exit %d\n", WTERMSIG(status), WEXITSTATUS(status));
		MUST(pthread_join(t, NULL) == 0);
		pair_close(&p);
	}
	return 0;
}
