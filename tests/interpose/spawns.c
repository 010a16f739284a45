/* Programs started beside the process, which talks on over the connections that they inherit: posix_spawn with every file
 * action, system, popen. The programs are such as know nothing of sockets. */
#include "probe.h"

#include <spawn.h>

extern char **environ;

static void show_status(const char *what, int status)
{
	if (WIFEXITED(status))
		printf("%s: exit %d\n", what, WEXITSTATUS(status));
	else
		printf("%s: signal %d\n", what, WTERMSIG(status));
}

/* What is read from `fd` after the program has written to its end of the connection; then both ends still work. */
static void talk_on(struct pair *p, const char *what, size_t n)
{
	char b[64] = "";

	recv_all(p->client, b, n);
	printf("%s: %s", what, b);
	send_all(p->client, "more\n", 5);
	recv_all(p->server, b, 5);
	send_all(p->server, "answer\n", 7);
	recv_all(p->client, b, 7);
	printf("%s: %.7s", what, b);
}

/* cat reads a line's worth from its stdin and writes it to its stdout, which is the connection, both ways. */
static void filter(bool by_path)
{
	char *argv[] = { (char *)"head", (char *)"-n1", NULL };
	posix_spawn_file_actions_t a;
	struct pair p;
	int status, r;
	pid_t pid = 0;

	pair_open(&p);
	send_all(p.client, "a line\n", 7);
	MUST(posix_spawn_file_actions_init(&a) == 0);
	MUST(posix_spawn_file_actions_adddup2(&a, p.server, 0) == 0);
	MUST(posix_spawn_file_actions_adddup2(&a, p.server, 1) == 0);
	MUST(posix_spawn_file_actions_addclose(&a, p.server) == 0);
	MUST(posix_spawn_file_actions_addopen(&a, 2, "/dev/null", O_WRONLY, 0) == 0);
	r = by_path ? posix_spawnp(&pid, "head", &a, NULL, argv, environ)
		    : posix_spawn(&pid, "/usr/bin/head", &a, NULL, argv, environ);
	printf("spawn %d\n", r);
	MUST(posix_spawn_file_actions_destroy(&a) == 0);
	MUST(waitpid(pid, &status, 0) == pid);
	show_status("head", status);
	talk_on(&p, "head", 7);
	pair_close(&p);
}

/* No file action: the program has the number that the parent has. */
static void by_number(void)
{
	char line[128], *argv[] = { (char *)"sh", (char *)"-c", line, NULL };
	struct pair p;
	int status;
	pid_t pid;

	pair_open(&p);
	MUST(fcntl(p.server, F_SETFD, 0) == 0);
	snprintf(line, sizeof(line), "read x <&%d; echo got $x >&%d", p.server, p.server);
	send_all(p.client, "one\n", 4);
	MUST(posix_spawn(&pid, "/bin/sh", NULL, NULL, argv, environ) == 0);
	MUST(waitpid(pid, &status, 0) == pid);
	show_status("sh", status);
	talk_on(&p, "sh", 8);
	pair_close(&p);
}

static void failing(void)
{
	char *argv[] = { (char *)"none", NULL };
	posix_spawn_file_actions_t a;
	struct pair p;
	char b[8];
	pid_t pid;

	pair_open(&p);
	MUST(posix_spawn_file_actions_init(&a) == 0);
	MUST(posix_spawn_file_actions_adddup2(&a, p.server, 0) == 0);
	printf("%s\n",
	       strerrorname_np(posix_spawn(&pid, "/nowhere/none", &a, NULL, argv, environ)));
	printf("%s\n", strerrorname_np(posix_spawn(&pid, "/etc/passwd", &a, NULL, argv, environ)));
	printf("%s\n",
	       strerrorname_np(posix_spawnp(&pid, "no-such-program", &a, NULL, argv, environ)));
	MUST(posix_spawn_file_actions_adddup2(&a, 987, 0) == 0);
	printf("%s\n", strerrorname_np(posix_spawn(&pid, "/bin/true", &a, NULL, argv, environ)));
	MUST(posix_spawn_file_actions_destroy(&a) == 0);
	send_all(p.client, "intact", 6);
	recv_all(p.server, b, 6);
	printf("%.6s\n", b);
	pair_close(&p);
}

static void by_shell(void)
{
	char line[128], b[32] = "";
	struct pair p;
	FILE *f;

	pair_open(&p);
	MUST(fcntl(p.server, F_SETFD, 0) == 0);
	send_all(p.client, "to system\n", 10);
	snprintf(line, sizeof(line), "head -n1 <&%d >&%d; exit 5", p.server, p.server);
	fflush(stdout);
	show_status("system", (int)SHOW(system(line)));
	talk_on(&p, "system", 10);

	snprintf(line, sizeof(line), "echo from popen >&%d; echo to the pipe; exit 6", p.server);
	f = popen(line, "r");
	MUST(f && fgets(b, sizeof(b), f));
	printf("popen: %s", b);
	show_status("popen", (int)SHOW(pclose(f)));
	talk_on(&p, "popen", 11);

	snprintf(line, sizeof(line), "cat >&%d", p.server);
	f = popen(line, "w");
	MUST(f && fputs("through cat\n", f) >= 0);
	show_status("popen", (int)SHOW(pclose(f)));
	talk_on(&p, "popen", 12);

	show_status("none", (int)SHOW(system("exec /nowhere/none 2>/dev/null")));
	MUST(popen("true", "rw") == NULL);
	MUST((f = popen("true", "re")) != NULL);
	printf("%d\n", fcntl(fileno(f), F_GETFD));
	SHOW(pclose(f));
	pair_close(&p);
}

/* The child of vfork() has closed the other end, whose owner cannot run before the exec. */
static void before_a_word(void)
{
	struct pair p;
	int status;
	pid_t pid;

	p.listener = listen_on(&p.addr);
	p.client = client_socket();
	MUST(connect(p.client, (struct sockaddr *)&p.addr, sizeof(p.addr)) == 0);
	MUST((p.server = accept(p.listener, NULL, NULL)) >= 0);
	fflush(stdout);
	pid = vfork();
	if (!pid) {
		dup2(p.server, 0);
		dup2(p.server, 1);
		close(p.client);
		execl("/usr/bin/head", "head", "-n1", (char *)NULL);
		_exit(127);
	}
	send_all(p.client, "a line\n", 7);
	MUST(waitpid(pid, &status, 0) == pid);
	show_status("vfork", status);
	talk_on(&p, "vfork", 7);
	pair_close(&p);
}

int main(void)
{
	probe_start();
	SHOW(system(NULL));
	filter(false);
	filter(true);
	by_number();
	failing();
	by_shell();
	before_a_word();
	return 0;
}
