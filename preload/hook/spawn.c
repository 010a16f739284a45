/* Programs started beside this process: posix_spawn, and what libc makes of its own inner calls of it. */
#include <fcntl.h>
#include <paths.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "conduit/target.h"
#include "fd/spawn.h"
#include "hook/hook.h"

extern char **environ;

/* Here nobody runs in our memory while we prepare: the environment may come from malloc. */
typedef int spawn_call(pid_t *pid, const char *path, const posix_spawn_file_actions_t *actions,
		       const posix_spawnattr_t *attr, char *const argv[], char *const envp[]);

static int spawn(spawn_call *call, int flags, pid_t *pid, const char *path,
		 const posix_spawn_file_actions_t *actions, const posix_spawnattr_t *attr,
		 char *const argv[], char *const envp[])
{
	struct spawn_plan p;
	char **env = NULL;
	size_t room;
	pid_t child = 0;
	int r = spawn_begin(&p, path, flags, actions, envp, &room);

	if (r)
		return r;
	if (room > 1)
		env = calloc(room, sizeof(*env));
	r = room > 1 && !env ? ENOMEM
			     : call(&child, path, spawn_actions(&p, actions), attr, argv,
				    exec_env(&p.exec, envp, env));
	spawn_end(&p, r ? 0 : child);
	free(env);
	if (!r && pid)
		*pid = child;
	return r;
}

HOOK_EXPORT int posix_spawn(pid_t *pid, const char *path, const posix_spawn_file_actions_t *actions,
			    const posix_spawnattr_t *attr, char *const argv[], char *const envp[])
{
	return spawn(sys.posix_spawn, 0, pid, path, actions, attr, argv, envp);
}

HOOK_EXPORT int posix_spawnp(pid_t *pid, const char *file,
			     const posix_spawn_file_actions_t *actions,
			     const posix_spawnattr_t *attr, char *const argv[], char *const envp[])
{
	return spawn(sys.posix_spawnp, TARGET_SHELL, pid, file, actions, attr, argv, envp);
}

static int spawn_shell(pid_t *pid, const char *command, const posix_spawn_file_actions_t *actions,
		       const posix_spawnattr_t *attr)
{
	char *argv[] = { (char *)"sh", (char *)"-c", (char *)(uintptr_t)command, NULL };

	return posix_spawn(pid, _PATH_BSHELL, actions, attr, argv, environ);
}

/* system(3) ignores SIGINT and SIGQUIT for the whole process, while at least one call is under way. */
static struct {
	pthread_mutex_t lock;
	int calls;
	struct sigaction interrupt, quit;
} shells = { .lock = PTHREAD_MUTEX_INITIALIZER };

static void shell_begins(posix_spawnattr_t *attr)
{
	struct sigaction ignore = { .sa_handler = SIG_IGN };
	sigset_t set, old;

	pthread_mutex_lock(&shells.lock);
	if (!shells.calls++) {
		sigaction(SIGINT, &ignore, &shells.interrupt);
		sigaction(SIGQUIT, &ignore, &shells.quit);
	}
	sigemptyset(&set);
	if (shells.interrupt.sa_handler != SIG_IGN)
		sigaddset(&set, SIGINT);
	if (shells.quit.sa_handler != SIG_IGN)
		sigaddset(&set, SIGQUIT);
	pthread_mutex_unlock(&shells.lock);
	posix_spawnattr_setsigdefault(attr, &set);
	sigemptyset(&set);
	sigaddset(&set, SIGCHLD);
	sigprocmask(SIG_BLOCK, &set, &old);
	posix_spawnattr_setsigmask(attr, &old);
	posix_spawnattr_setflags(attr, POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK);
}

static void shell_ended(const posix_spawnattr_t *attr)
{
	sigset_t old;

	pthread_mutex_lock(&shells.lock);
	if (!--shells.calls) {
		sigaction(SIGINT, &shells.interrupt, NULL);
		sigaction(SIGQUIT, &shells.quit, NULL);
	}
	pthread_mutex_unlock(&shells.lock);
	posix_spawnattr_getsigmask(attr, &old);
	sigprocmask(SIG_SETMASK, &old, NULL);
}

static int wait_for(pid_t pid)
{
	int status;

	while (waitpid(pid, &status, 0) != pid)
		if (errno != EINTR)
			return -1;
	return status;
}

/* As libc's, but that ours starts the shell. Cancellation waits until it ended. */
static int run_shell(const char *command)
{
	int saved = errno, status, r, cancel;
	posix_spawnattr_t attr;
	pid_t pid;

	if (posix_spawnattr_init(&attr))
		return -1;
	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel);
	shell_begins(&attr);
	r = spawn_shell(&pid, command, NULL, &attr);
	status = r ? W_EXITCODE(127, 0) : wait_for(pid);
	shell_ended(&attr);
	posix_spawnattr_destroy(&attr);
	pthread_setcancelstate(cancel, NULL);
	if (status >= 0)
		errno = r ? r : saved;
	return status;
}

HOOK_EXPORT int system(const char *command)
{
	return command && spawn_matters() ? run_shell(command) : sys.system(command);
}

/* Streams of popen() that we made. */
struct stream {
	FILE *file;
	pid_t pid;
	struct stream *next;
};
static struct stream *streams;
static pthread_mutex_t streams_lock = PTHREAD_MUTEX_INITIALIZER;

/* The child's end becomes its descriptor 0 or 1, and it has no other of these streams (POSIX). */
static int start_stream(struct stream *s, const char *command, int end, int as)
{
	posix_spawn_file_actions_t actions;
	struct stream *other;
	int r = posix_spawn_file_actions_init(&actions);

	if (r)
		return r;
	r = posix_spawn_file_actions_adddup2(&actions, end, as);
	for (other = streams; !r && other; other = other->next)
		if (fileno(other->file) != as)
			r = posix_spawn_file_actions_addclose(&actions, fileno(other->file));
	if (!r)
		r = spawn_shell(&s->pid, command, &actions, NULL);
	posix_spawn_file_actions_destroy(&actions);
	return r;
}

static FILE *open_stream(const char *command, bool reads, bool cloexec)
{
	struct stream *s = calloc(1, sizeof(*s));
	int ends[2] = { -1, -1 }, mine = reads ? 0 : 1, r = ENOMEM;

	if (!s || pipe2(ends, O_CLOEXEC) < 0)
		goto fail;
	s->file = fdopen(ends[mine], reads ? "r" : "w");
	if (!s->file)
		goto fail;
	pthread_mutex_lock(&streams_lock);
	r = start_stream(s, command, ends[!mine], !mine);
	if (!r) {
		s->next = streams;
		streams = s;
	}
	pthread_mutex_unlock(&streams_lock);
	if (r)
		goto fail;
	sys.close(ends[!mine]);
	if (!cloexec)
		fcntl(ends[mine], F_SETFD, 0);
	return s->file;
fail:
	r = s && !s->file ? errno : r;
	if (s && s->file)
		fclose(s->file);
	else if (ends[mine] >= 0)
		sys.close(ends[mine]);
	if (ends[!mine] >= 0)
		sys.close(ends[!mine]);
	free(s);
	errno = r;
	return NULL;
}

HOOK_EXPORT FILE *popen(const char *command, const char *mode)
{
	bool reads = strchr(mode, 'r'), writes = strchr(mode, 'w');
	int saved = errno;
	FILE *f;

	if (reads == writes || strspn(mode, "rwe") != strlen(mode) || !spawn_matters())
		return sys.popen(command, mode);
	f = open_stream(command, reads, strchr(mode, 'e'));
	if (f)
		errno = saved;
	return f;
}

HOOK_EXPORT int pclose(FILE *f)
{
	struct stream **at, *s;
	pid_t pid;

	pthread_mutex_lock(&streams_lock);
	for (at = &streams; *at && (*at)->file != f; at = &(*at)->next)
		;
	s = *at;
	if (s)
		*at = s->next;
	pthread_mutex_unlock(&streams_lock);
	if (!s)
		return sys.pclose(f);
	pid = s->pid;
	free(s);
	fclose(f);
	return wait_for(pid);
}
