#include "store/embedded.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <ev.h>

#include "health/proc.h"
#include "telemetry/log.h"

#define RESTART_S 0.5
#define RESTART_MAX_S 10.0
#define ADOPT_S 5.0 /* a server left by a killed weftd has this long to end */
#define STOP_MS 5000
#define HEALTHY_S 30.0 /* one that lived so long is started again without delay */

struct embedded {
	struct ev_loop *loop;
	char dir[PATH_MAX]; /* <state-dir>/redis */
	char socket[sizeof(((struct sockaddr_un *)0)->sun_path)];
	pid_t pid; /* 0: none */
	bool ours; /* our child, not one left by another weftd */
	int pidfd;
	double started, delay;
	struct ev_io died;
	struct ev_timer timer; /* start, or end of patience with one that was left */
	char error[128];
};

int embedded_path(const char *state_dir, char *out, size_t size)
{
	int n = snprintf(out, size, "%s/redis.sock", state_dir);

	return n < 0 || (size_t)n >= size ? -ENAMETOOLONG : 0;
}

const char *embedded_error(const struct embedded *e)
{
	return e->error;
}

static int pid_file(const struct embedded *e, char *path)
{
	int n = snprintf(path, PATH_MAX, "%s/weft.pid", e->dir);

	return n < PATH_MAX ? 0 : -ENAMETOOLONG;
}

static void pid_write(const struct embedded *e)
{
	char path[PATH_MAX];
	FILE *f = pid_file(e, path) == 0 ? fopen(path, "we") : NULL;

	if (!f || fprintf(f, "%d %llu\n", (int)e->pid, (unsigned long long)proc_start(e->pid)) < 0)
		log_warn("redis: cannot write %s: %s", path, strerror(errno));
	if (f)
		fclose(f);
}

/* Pid of a server that an earlier weftd left, or 0. The start time tells it from another process of that number. */
static pid_t pid_left(const struct embedded *e)
{
	char path[PATH_MAX];
	int pid = 0;
	unsigned long long start = 0;
	FILE *f = pid_file(e, path) == 0 ? fopen(path, "re") : NULL;

	if (!f)
		return 0;
	if (fscanf(f, "%d %llu", &pid, &start) != 2 || pid <= 1 || start == 0)
		pid = 0;
	fclose(f);
	return pid && proc_start(pid) == start ? pid : 0;
}

static void set_timer(struct embedded *e, double after)
{
	ev_timer_stop(e->loop, &e->timer);
	ev_timer_set(&e->timer, after, 0);
	ev_timer_start(e->loop, &e->timer);
}

static void watch_pid(struct embedded *e)
{
	e->pidfd = proc_pidfd(e->pid);
	if (e->pidfd < 0)
		return;
	ev_io_set(&e->died, e->pidfd, EV_READ);
	ev_io_start(e->loop, &e->died);
}

/* In the child. It must outlive neither this weftd nor hear its terminal's Ctrl-C. */
static _Noreturn void run(const struct embedded *e, pid_t parent)
{
	char logfile[PATH_MAX + 16];
	const char *const argv[] = {
		"redis-server",
		"--port",
		"0",
		"--unixsocket",
		e->socket,
		"--unixsocketperm",
		"700",
		"--dir",
		e->dir,
		"--appendonly",
		"yes",
		"--appendfsync",
		"everysec",
		"--save",
		"",
		"--daemonize",
		"no",
		"--logfile",
		logfile,
		"--maxmemory-policy",
		"noeviction",
		"--databases",
		"1",
		"--protected-mode",
		"yes",
		NULL,
	};
	char *args[sizeof(argv) / sizeof(*argv)];
	sigset_t none;

	snprintf(logfile, sizeof(logfile), "%s/redis.log", e->dir);
	memcpy(args, argv, sizeof(argv)); /* execvp() writes to none of them */
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	signal(SIGPIPE, SIG_DFL);
	setpgid(0, 0);
	prctl(PR_SET_PDEATHSIG, SIGTERM);
	if (getppid() != parent)
		_exit(0);
	int null = open("/dev/null", O_RDWR);
	if (null >= 0) {
		dup2(null, STDIN_FILENO);
		dup2(null, STDOUT_FILENO);
	}
	execvp(args[0], args);
	_exit(errno == ENOENT ? 127 : 126);
}

static void spawn(struct embedded *e)
{
	pid_t parent = getpid();
	pid_t pid = fork();

	e->started = ev_now(e->loop);
	if (pid == 0)
		run(e, parent);
	if (pid < 0) {
		snprintf(e->error, sizeof(e->error), "fork: %s", strerror(errno));
		set_timer(e, RESTART_MAX_S);
		return;
	}
	e->pid = pid;
	e->ours = true;
	pid_write(e);
	watch_pid(e);
	log_info("redis: started redis-server, pid %d, socket %s", (int)pid, e->socket);
}

static void describe_end(struct embedded *e, int status)
{
	if (WIFEXITED(status) && WEXITSTATUS(status) == 127)
		snprintf(e->error, sizeof(e->error), "redis-server is not in PATH");
	else if (WIFEXITED(status))
		snprintf(e->error, sizeof(e->error),
			 "redis-server ended with status %d, see redis/redis.log",
			 WEXITSTATUS(status));
	else
		snprintf(e->error, sizeof(e->error), "redis-server was killed by signal %d",
			 WTERMSIG(status));
	log_warn("redis: %s", e->error);
}

static void forget(struct embedded *e)
{
	ev_io_stop(e->loop, &e->died);
	if (e->pidfd >= 0)
		close(e->pidfd);
	e->pidfd = -1;
	e->pid = 0;
}

static void on_died(struct ev_loop *loop, struct ev_io *io, int events)
{
	struct embedded *e = io->data;
	int status = 0;

	(void)events;
	if (e->ours && waitpid(e->pid, &status, WNOHANG) == 0)
		return;
	if (e->ours)
		describe_end(e, status);
	forget(e);
	if (!e->ours || ev_now(loop) - e->started > HEALTHY_S)
		e->delay = 0;
	set_timer(e, e->delay);
	e->delay = e->delay * 2 < RESTART_S ? RESTART_S : e->delay * 2;
	if (e->delay > RESTART_MAX_S)
		e->delay = RESTART_MAX_S;
}

static void on_timer(struct ev_loop *loop, struct ev_timer *timer, int events)
{
	struct embedded *e = timer->data;

	(void)loop;
	(void)events;
	if (e->pid) {
		log_warn("redis: redis-server %d of an earlier weftd does not end, using it",
			 (int)e->pid);
		return;
	}
	e->error[0] = '\0';
	spawn(e);
}

int embedded_start(struct ev_loop *loop, const char *state_dir, struct embedded **out)
{
	struct embedded *e = calloc(1, sizeof(*e));
	int r;

	if (!e)
		return -ENOMEM;
	e->loop = loop;
	e->pidfd = -1;
	ev_init(&e->died, on_died);
	ev_init(&e->timer, on_timer);
	e->died.data = e->timer.data = e;
	r = embedded_path(state_dir, e->socket, sizeof(e->socket));
	if (r == 0 &&
	    snprintf(e->dir, sizeof(e->dir), "%s/redis", state_dir) >= (int)sizeof(e->dir) - 16)
		r = -ENAMETOOLONG;
	if (r == 0 && mkdir(e->dir, 0700) < 0 && errno != EEXIST)
		r = -errno;
	if (r < 0) {
		free(e);
		return r;
	}
	e->pid = pid_left(e);
	if (e->pid) {
		log_info("redis: waiting for redis-server %d of an earlier weftd", (int)e->pid);
		watch_pid(e);
	}
	set_timer(e, e->pid ? ADOPT_S : 0);
	*out = e;
	return 0;
}

void embedded_stop(struct embedded *e)
{
	if (!e)
		return;
	ev_timer_stop(e->loop, &e->timer);
	if (e->pid && e->ours) {
		struct pollfd p = { .fd = e->pidfd, .events = POLLIN };
		kill(e->pid, SIGTERM);
		if (poll(&p, 1, STOP_MS) == 0)
			kill(e->pid, SIGKILL);
		waitpid(e->pid, NULL, 0);
	}
	forget(e);
	free(e);
}
