/* Another program in this process's place. What its meshed sockets become is settled before the real call, and taken back
 * if that returns. */
#include <fcntl.h>
#include <stdarg.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "conduit/target.h"
#include "fd/exec.h"
#include "hook/hook.h"

/* The stack is the one memory that a child of vfork does not leave behind in its parent: libc does the same here. */
#pragma GCC diagnostic ignored "-Wvla"

extern char **environ;

HOOK_EXPORT int execve(const char *path, char *const argv[], char *const envp[])
{
	struct exec_plan p;
	char *env[exec_begin(&p, AT_FDCWD, path, 0, envp)];
	int r;

	r = sys.execve(path, argv, exec_env(&p, envp, env));
	exec_undo(&p);
	return r;
}

HOOK_EXPORT int execv(const char *path, char *const argv[])
{
	return execve(path, argv, environ);
}

HOOK_EXPORT int execvpe(const char *file, char *const argv[], char *const envp[])
{
	struct exec_plan p;
	char *env[exec_begin(&p, AT_FDCWD, file, TARGET_SHELL, envp)];
	int r;

	r = sys.execvpe(file, argv, exec_env(&p, envp, env));
	exec_undo(&p);
	return r;
}

HOOK_EXPORT int execvp(const char *file, char *const argv[])
{
	return execvpe(file, argv, environ);
}

HOOK_EXPORT int fexecve(int fd, char *const argv[], char *const envp[])
{
	struct exec_plan p;
	char *env[exec_begin(&p, fd, "", AT_EMPTY_PATH, envp)];
	int r;

	r = sys.fexecve(fd, argv, exec_env(&p, envp, env));
	exec_undo(&p);
	return r;
}

HOOK_EXPORT int execveat(int dir, const char *path, char *const argv[], char *const envp[],
			 int flags)
{
	struct exec_plan p;
	char *env[exec_begin(&p, dir, path, flags & AT_EMPTY_PATH, envp)];
	char *const *with = exec_env(&p, envp, env);
	long r;

	r = sys.execveat
		    ? sys.execveat(dir, path, argv, with, flags)
		    : sys.syscall(SYS_execveat, dir, (long)path, (long)argv, (long)with, flags, 0);
	exec_undo(&p);
	return (int)r;
}

/* The forms that name each argument. */
static size_t count_arguments(va_list ap)
{
	size_t n = 1; /* the first is named */

	while (va_arg(ap, const char *))
		n++;
	return n;
}

static void take_arguments(char **argv, const char *first, va_list ap)
{
	*argv++ = (char *)(uintptr_t)first;
	while (*(argv - 1))
		*argv++ = va_arg(ap, char *);
}

HOOK_EXPORT int execl(const char *path, const char *arg, ...)
{
	va_list ap;
	size_t n;

	va_start(ap, arg);
	n = count_arguments(ap);
	va_end(ap);

	char *argv[n + 1];

	va_start(ap, arg);
	take_arguments(argv, arg, ap);
	va_end(ap);
	return execve(path, argv, environ);
}

HOOK_EXPORT int execlp(const char *file, const char *arg, ...)
{
	va_list ap;
	size_t n;

	va_start(ap, arg);
	n = count_arguments(ap);
	va_end(ap);

	char *argv[n + 1];

	va_start(ap, arg);
	take_arguments(argv, arg, ap);
	va_end(ap);
	return execvpe(file, argv, environ);
}

HOOK_EXPORT int execle(const char *path, const char *arg, ...)
{
	char *const *envp;
	va_list ap;
	size_t n;

	va_start(ap, arg);
	n = count_arguments(ap);
	va_end(ap);

	char *argv[n + 1];

	va_start(ap, arg);
	take_arguments(argv, arg, ap);
	envp = va_arg(ap, char *const *);
	va_end(ap);
	return execve(path, argv, envp);
}
