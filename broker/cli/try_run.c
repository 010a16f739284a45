/* weft try: one run of the program, and of the client of a server. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "cli/try.h"
#include "health/proc.h"
#include "weft/env.h"

#define END_MS 10000  /* a server has this long after SIGTERM */
#define GRACE_MS 1000 /* what a program left behind, too */
#define LOOK_MS 20
#define QUIET_MS \
	200 /* a server has done its part of the client's work once it makes no call for so long, */
#define SETTLE_MS 3000 /* or after so long */
#define PARENTS_MAX 64

static sigset_t signals; /* that we wait for */
static sigset_t before;  /* the mask that children get */
static bool ending;      /* on a signal */

static int64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

void try_prepare(void)
{
	static const int taken[] = { SIGCHLD, SIGINT, SIGTERM, SIGHUP, SIGQUIT };

	sigemptyset(&signals);
	for (size_t i = 0; i < sizeof(taken) / sizeof(taken[0]); i++)
		sigaddset(&signals, taken[i]);
	signal(SIGCHLD, SIG_DFL);
	sigprocmask(SIG_BLOCK, &signals, &before);
	prctl(PR_SET_CHILD_SUBREAPER, 1); /* what daemonizes stays ours */
}

pid_t try_spawn(void (*child)(void *arg), void *arg)
{
	pid_t pid = fork();

	if (pid)
		return pid;
	setpgid(0, 0); /* Ctrl-C is for us to hear and to pass on */
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	sigprocmask(SIG_SETMASK, &before, NULL);
	child(arg);
	_exit(127);
}

/* --- waiting --- */

bool try_wait(pid_t pid, int64_t ms, int *status)
{
	int64_t end = now_ms() + ms;

	for (;;) {
		int64_t left = end - now_ms();
		struct timespec t = { .tv_sec = left / 1000, .tv_nsec = left % 1000 * 1000000 };
		int sig;

		if (pid > 0 && waitpid(pid, status, WNOHANG) == pid)
			return true;
		if (left <= 0)
			return false;
		sig = sigtimedwait(&signals, NULL, &t);
		if (sig <= 0 || sig == SIGCHLD)
			continue;
		if (!ending) {
			ending = true;
			exit(128 + sig); /* what try.c has registered cleans up, and may wait */
		}
	}
}

/* Our children, or those of them that are not `spare`, into `out`. */
static size_t children(pid_t spare, pid_t *out, size_t max)
{
	FILE *f = fopen("/proc/thread-self/children", "re");
	size_t n = 0;
	int pid;

	while (f && n < max && fscanf(f, "%d", &pid) == 1)
		if (pid != spare)
			out[n++] = pid;
	if (f)
		fclose(f);
	return n;
}

/* Signals all; their own children become ours as they end. True when none is left. */
static bool end_children(pid_t spare, int sig, int64_t ms)
{
	int64_t end = now_ms() + ms;
	pid_t pids[256];
	size_t n;

	while ((n = children(spare, pids, sizeof(pids) / sizeof(pids[0])))) {
		for (size_t i = 0; i < n; i++) {
			kill(pids[i], sig);
			waitpid(pids[i], NULL, WNOHANG);
		}
		if (now_ms() >= end)
			return false;
		nanosleep(&(struct timespec){ .tv_nsec = 5000000 }, NULL);
	}
	return true;
}

unsigned try_sweep(pid_t spare)
{
	pid_t pids[256];
	size_t n = children(spare, pids, sizeof(pids) / sizeof(pids[0])), left = 0;

	for (size_t i = 0; i < n; i++)
		left += waitpid(pids[i], NULL, WNOHANG) == 0;
	if (!end_children(spare, SIGTERM, GRACE_MS))
		end_children(spare, SIGKILL, END_MS);
	return (unsigned)left;
}

/* --- starting --- */

struct start {
	struct trial *t;
	enum try_run run;
	enum try_part part;
};

/* In the child: the run's libraries before those that were there. */
static void set_preload(const struct trial *t, enum try_run run)
{
	const char *old = getenv("LD_PRELOAD");
	bool shim = run == TRY_PASS || run == TRY_MESH;
	char *all;

	if (!t->calls && !shim)
		return;
	if (asprintf(&all, "%s%s%s%s%s", t->calls ? t->recorder : "", t->calls && shim ? ":" : "",
		     shim ? t->shim : "", old && *old ? ":" : "", old ? old : "") < 0 ||
	    setenv("LD_PRELOAD", all, 1) < 0)
		_exit(126);
}

static void set_environment(const struct trial *t, enum try_run run, enum try_part part)
{
	static const char *const ours[] = { WEFT_ENV_SERVICE,   WEFT_ENV_SOCKET, WEFT_ENV_MODE,
					    WEFT_ENV_NO_BROKER, WEFT_ENV_LABELS, WEFT_ENV_LOG };
	char calls[TRY_PATH];

	for (size_t i = 0; i < sizeof(ours) / sizeof(ours[0]); i++)
		unsetenv(ours[i]);
	for (size_t i = 0; i < t->env->n; i++) {
		char *copy = strdup(t->env->v[i]);

		if (copy)
			putenv(copy);
	}
	set_preload(t, run);
	if (run == TRY_PASS)
		setenv(WEFT_ENV_MODE, "off", 1);
	if (run == TRY_MESH)
		try_mesh_environment(t, part);
	try_path(t, run, "calls", calls);
	if (t->calls)
		setenv(WEFT_ENV_TRACE, calls, 1);
}

static void redirect(const char *path, int flags, int fd)
{
	int f = open(path, flags, 0644);

	if (f < 0 || dup2(f, fd) < 0)
		_exit(126);
	if (f != fd)
		close(f);
}

static void start(void *arg)
{
	const struct start *s = arg;
	const struct trial *t = s->t;
	char *shell[] = { "/bin/sh", "-c", NULL, NULL };
	char name[64], path[TRY_PATH];

	redirect(t->input && s->part == TRY_PROGRAM ? t->input : "/dev/null", O_RDONLY, 0);
	for (int fd = 1; fd <= 2; fd++) {
		snprintf(name, sizeof(name), "%s.%s", try_parts[s->part],
			 fd == 1 ? "stdout" : "stderr");
		try_path(t, s->run, name, path);
		redirect(path, O_WRONLY | O_CREAT | O_APPEND, fd);
	}
	set_environment(t, s->run, s->part);
	if (s->part == TRY_CLIENT) {
		memcpy(&shell[2], &t->client, sizeof(shell[2])); /* execv() does not write to it */
		execv(shell[0], shell);
	} else {
		execv(t->path, t->argv);
		if (errno == ENOEXEC) /* a script without its first line */
			execvp(t->path, t->argv);
	}
	fprintf(stderr, "weft: %s: %s\n", t->argv[0], strerror(errno));
	_exit(errno == ENOENT ? 127 : 126);
}

/* --- a server: when does it listen --- */

/* Whether `pid` descends from us otherwise than through weftd. */
static bool is_ours(const struct trial *t, pid_t pid)
{
	for (unsigned i = 0; i < PARENTS_MAX && pid > 1 && pid != t->weftd; i++) {
		pid = proc_parent(pid);
		if (pid == getpid())
			return true;
	}
	return false;
}

static bool holds_listener(pid_t pid, const char *table)
{
	char path[64], line[512];
	bool found = false;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/net/%s", (int)pid, table);
	f = fopen(path, "re");
	while (f && !found && fgets(line, sizeof(line), f)) {
		unsigned state;
		unsigned long inode;

		if (sscanf(line, " %*d: %*s %*s %x %*s %*s %*s %*u %*u %lu", &state, &inode) == 2)
			found = state == 10 && proc_holds_socket(pid, inode) == 1; /* LISTEN */
	}
	if (f)
		fclose(f);
	return found;
}

static bool listens(const struct trial *t)
{
	DIR *d = opendir("/proc");
	bool found = false;
	struct dirent *e;

	while (d && !found && (e = readdir(d))) {
		pid_t pid = atoi(e->d_name);

		if (pid > 0 && pid != t->weftd && is_ours(t, pid))
			found = holds_listener(pid, "tcp") || holds_listener(pid, "tcp6");
	}
	if (d)
		closedir(d);
	return found;
}

/* Meshed, it also is to be announced: until then nobody knows that a connection to it is to be meshed. */
static bool serves(const struct trial *t, enum try_run run)
{
	return listens(t) && (run != TRY_MESH || try_mesh_announces(t));
}

/* --- runs --- */

static void finish(struct try_end *end, pid_t pid, int64_t ms)
{
	end->ran = true;
	if (try_wait(pid, ms, &end->status))
		return;
	end->late = true;
	kill(pid, SIGKILL);
	waitpid(pid, &end->status, 0);
}

static bool settle(const struct trial *t, enum try_run run, pid_t server, int *status)
{
	int64_t end = now_ms() + SETTLE_MS;
	uint64_t calls, was = 0;
	bool gone = false;

	while (!gone && now_ms() < end) {
		calls = try_calls_made(t, run);
		if (was && calls == was)
			break;
		was = calls;
		gone = try_wait(server, QUIET_MS, status);
	}
	return gone;
}

static void run_server(struct trial *t, struct start *s, pid_t server)
{
	struct try_end *ends = t->ends[s->run];
	int64_t end = now_ms() + t->timeout_ms;
	bool gone = false;
	pid_t client;

	ends[TRY_PROGRAM].ran = true;
	while (!gone && !serves(t, s->run) && now_ms() < end)
		gone = try_wait(server, LOOK_MS, &ends[TRY_PROGRAM].status);
	if (!gone && now_ms() < end) {
		s->part = TRY_CLIENT;
		client = try_spawn(start, s);
		if (client > 0)
			finish(&ends[TRY_CLIENT], client, end - now_ms());
		gone = settle(t, s->run, server, &ends[TRY_PROGRAM].status);
	}
	if (!gone && !try_wait(server, 0, &ends[TRY_PROGRAM].status)) {
		kill(server, SIGTERM);
		finish(&ends[TRY_PROGRAM], server, END_MS);
	}
}

int try_execute(struct trial *t, enum try_run run)
{
	struct start s = { .t = t, .run = run, .part = TRY_PROGRAM };
	char dir[TRY_PATH];
	pid_t pid;
	int r;

	try_path(t, run, "", dir);
	if (mkdir(dir, 0755) < 0)
		return -errno;
	r = t->calls ? try_calls_make(t, run) : 0;
	if (r < 0)
		return r;
	pid = try_spawn(start, &s);
	if (pid < 0)
		return -errno;
	if (t->client)
		run_server(t, &s, pid);
	else
		finish(&t->ends[run][TRY_PROGRAM], pid, t->timeout_ms);
	t->ends[run][TRY_PROGRAM].left = try_sweep(t->weftd);
	return 0;
}
