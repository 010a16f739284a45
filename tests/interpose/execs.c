/* Connections that another program goes on with: every form of exec, by a child that the parent talks on beside, by a child
 * of vfork, in the process's own place; a failed exec leaves everything as it was. */
#include "probe.h"

#include <sys/stat.h>
#include <sys/syscall.h>

extern char **environ;
static const char *self;

static int status_of(pid_t pid)
{
	int status;

	MUST(waitpid(pid, &status, 0) == pid);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

/* --- what the program does when it was executed --- */

/* Answers five bytes from descriptor 0 with what it was told to. */
static int answer(const char *text)
{
	char b[5];

	recv_all(0, b, 5);
	send_all(0, text, strlen(text));
	return memcmp(b, "ping\n", 5) != 0;
}

/* Both ends of a connection, and a part of what one had sent to the other before. */
static int go_on(int client, int server)
{
	char b[70000], want[70000];

	recv_all(server, b, sizeof(b));
	fill(want, sizeof(want), 7);
	printf("after the exec: %s\n",
	       memcmp(b, want, sizeof(b)) ? "other bytes" : "the same bytes");
	send_all(server, "answer", 6);
	recv_all(client, b, 6);
	printf("%.6s\n", b);
	MUST(shutdown(client, SHUT_WR) == 0);
	SHOW(recv(server, b, sizeof(b), 0));
	MUST(close(server) == 0);
	SHOW(recv(client, b, sizeof(b), 0));
	return 0;
}

/* --- every form, in a child --- */

static void form_execve(char **argv)
{
	execve(self, argv, environ);
}

static void form_execv(char **argv)
{
	execv(self, argv);
}

static void form_execvp(char **argv)
{
	execvp(self, argv);
}

static void form_execvpe(char **argv)
{
	execvpe(self, argv, environ);
}

static void form_execl(char **argv)
{
	execl(self, argv[0], argv[1], argv[2], (char *)NULL);
}

static void form_execlp(char **argv)
{
	execlp("sh", "sh", "-c", "exec \"$0\" answer \"$1\"", self, argv[2], (char *)NULL);
}

static void form_execle(char **argv)
{
	execle(self, argv[0], argv[1], argv[2], (char *)NULL, environ);
}

static void form_fexecve(char **argv)
{
	fexecve(open(self, O_RDONLY | O_CLOEXEC), argv, environ);
}

static void form_execveat(char **argv)
{
	execveat(AT_FDCWD, self, argv, environ, 0);
}

static void form_number(char **argv)
{
	syscall(SYS_execve, self, argv, environ);
}

static void form_script(char **argv)
{
	char line[512], path[] = "/tmp/weft-script-XXXXXX";
	int fd = mkstemp(path);
	int n = snprintf(line, sizeof(line), "#!/bin/sh\nrm -f \"$0\"\nexec %s \"$@\"\n", self);

	MUST(fd >= 0 && write(fd, line, (size_t)n) == n && fchmod(fd, 0700) == 0 && close(fd) == 0);
	argv[0] = path;
	execv(path, argv);
}

/* As python does: one try per folder of PATH. */
static void form_tries(char **argv)
{
	execv("/nowhere/program", argv);
	execv("/etc/passwd", argv);
	execv("/", argv);
	execv(self, argv);
}

static const struct {
	const char *name;
	void (*run)(char **argv);
} forms[] = {
	{ "execve", form_execve },   { "execv", form_execv },     { "execvp", form_execvp },
	{ "execvpe", form_execvpe }, { "execl", form_execl },     { "execlp", form_execlp },
	{ "execle", form_execle },   { "fexecve", form_fexecve }, { "execveat", form_execveat },
	{ "number", form_number },   { "script", form_script },   { "tries", form_tries },
};

/* The child answers, the parent talks on, on both its ends. */
static void child_answers(struct pair *p, const char *name, pid_t pid)
{
	char b[64] = "";

	recv_all(p->client, b, 5);
	printf("%s: %.5s, child %d\n", name, b, status_of(pid));
	send_all(p->server, "after", 5);
	recv_all(p->client, b, 5);
	send_all(p->client, "and back", 8);
	recv_all(p->server, b, 8);
	printf("%s: %.8s\n", name, b);
}

static void each_form(bool by_vfork)
{
	struct pair p;
	pid_t pid;

	pair_open(&p);
	for (size_t i = 0; i < sizeof(forms) / sizeof(*forms); i++) {
		char *argv[] = { (char *)"self", (char *)"answer", (char *)"pong!", NULL };

		send_all(p.client, "ping\n", 5);
		fflush(stdout);
		pid = by_vfork ? vfork() : fork();
		if (pid == 0) {
			dup2(p.server, 0);
			forms[i].run(argv);
			_exit(127);
		}
		MUST(pid > 0);
		child_answers(&p, forms[i].name, pid);
	}
	pair_close(&p);
}

/* The program that was executed is the last to hold the connection: its end is a clean one. */
static void last_holder(void)
{
	char *argv[] = { (char *)"self", (char *)"answer", (char *)"bye", NULL };
	struct pair p;
	char b[8];
	pid_t pid;

	pair_open(&p);
	fflush(stdout);
	pid = fork();
	if (pid == 0) {
		dup2(p.server, 0);
		execv(self, argv);
		_exit(127);
	}
	MUST(close(p.server) == 0);
	send_all(p.client, "ping\n", 5);
	recv_all(p.client, b, 3);
	SHOW(recv(p.client, b, sizeof(b), 0));
	printf("child %d\n", status_of(pid));
	MUST(close(p.client) == 0 && close(p.listener) == 0);
}

/* accept, fork, exec: nothing was read before. */
static void *client_of_inetd(void *arg)
{
	int fd = connect_to(arg);
	char b[16];

	send_all(fd, "ping\n", 5);
	recv_all(fd, b, 5);
	printf("inetd: %.5s\n", b);
	SHOW(recv(fd, b, sizeof(b), 0));
	close(fd);
	return NULL;
}

static void inetd(bool by_vfork)
{
	char *argv[] = { (char *)"self", (char *)"answer", (char *)"hello", NULL };
	struct sockaddr_in addr;
	int l = listen_on(&addr), fd;
	pthread_t t;
	pid_t pid;

	MUST(pthread_create(&t, NULL, client_of_inetd, &addr) == 0);
	fd = accept(l, NULL, NULL);
	MUST(fd >= 0);
	pid = by_vfork ? vfork() : fork();
	if (pid == 0) {
		dup2(fd, 0);
		dup2(fd, 1);
		dup2(fd, 2);
		close(fd);
		execv(self, argv);
		_exit(127);
	}
	MUST(close(fd) == 0);
	MUST(pthread_join(t, NULL) == 0);
	printf("child %d\n", status_of(pid));
	MUST(close(l) == 0);
}

static void failing(void)
{
	char *argv[] = { (char *)"self", NULL };
	char **volatile bad = (char **)16;
	struct pair p;
	char b[8];

	pair_open(&p);
	MUST(fcntl(p.client, F_SETFD, 0) == 0 && fcntl(p.server, F_SETFD, 0) == 0);
	SHOW(execv("/nowhere/program", argv));
	SHOW(execv("/etc/passwd", argv));
	SHOW(execv("/", argv));
	SHOW(execvp("there-is-no-such-program", argv));
	SHOW(fexecve(p.client, argv, environ));
	SHOW(execve(self, bad, environ));
	send_all(p.client, "intact", 6);
	recv_all(p.server, b, 6);
	printf("%.6s\n", b);
	pair_close(&p);
}

/* A daemon that executes itself anew and keeps its connections. Much was sent and only a part read. */
static void in_place(void)
{
	struct pair p;
	char b[75000], c[16], s[16];
	pid_t pid;

	fflush(stdout);
	pid = fork();
	if (pid) {
		printf("child %d\n", status_of(pid));
		return;
	}
	pair_open(&p);
	fill(b, 70000, 7);
	memmove(b + 5000, b, 70000);
	send_all(p.client, b, sizeof(b));
	recv_all(p.server, b, 5000);
	MUST(fcntl(p.client, F_SETFD, 0) == 0 && fcntl(p.server, F_SETFD, 0) == 0);
	snprintf(c, sizeof(c), "%d", p.client);
	snprintf(s, sizeof(s), "%d", p.server);
	execl(self, "self", "go_on", c, s, (char *)NULL);
	_exit(127);
}

int main(int argc, char **argv)
{
	probe_start();
	if (getenv("WEFT_EXEC"))
		printf("a variable of weft's own is left behind\n");
	if (argc == 3 && !strcmp(argv[1], "answer"))
		return answer(argv[2]);
	if (argc == 4 && !strcmp(argv[1], "go_on"))
		return go_on(atoi(argv[2]), atoi(argv[3]));
	self = realpath("/proc/self/exe", NULL);
	each_form(false);
	each_form(true);
	last_holder();
	inetd(false);
	inetd(true);
	failing();
	in_place();
	return 0;
}
