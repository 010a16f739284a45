#include "fd/exec_int.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "conduit/carry.h"
#include "conduit/target.h"
#include "fd/life.h"
#include "fd/outlet.h"
#include "fd/vars.h"
#include "sys/clock.h"
#include "sys/fds.h"
#include "sys/sys.h"
#include "sys/user.h"
#include "telemetry/log.h"
#include "weft/env.h"

#define LISTENS ",listen" /* in the variable: a program that goes on as itself has listeners */
#define EXEC_PATIENCE_MS 1000
#define EXEC_SELF 1024 /* stacks may be small */

bool exec_listens(int fd)
{
	return table_word(fd) == SLOT_LISTENER && mesh_accepts() != 0;
}

/* Descriptors that lead to a connection and survive an exec; *listener: one leads to a listener. */
static int survey(int *fds, bool *listener)
{
	struct fds_walk w;
	struct conn *c;
	int fd, n = 0;

	fds_start(&w);
	while ((fd = fds_next(&w)) >= 0 && n < EXEC_FDS) {
		if (sys_call(SYS_fcntl, fd, F_GETFD, 0, 0, 0, 0) & FD_CLOEXEC)
			continue;
		c = carry_conn(fd);
		if (c)
			fds[n++] = fd;
		else
			*listener |= exec_listens(fd);
		conn_put(c);
	}
	fds_end(&w);
	return n;
}

int exec_high(int fd, int cmd)
{
	struct rlimit64 l = { .rlim_cur = 1024 };
	int to;

	sys_call(SYS_prlimit64, 0, RLIMIT_NOFILE, 0, (long)&l, 0, 0);
	to = l.rlim_cur < 128 ? 3 : l.rlim_cur < 1024 ? (int)l.rlim_cur - 64 : 1024 - 64;
	to = (int)sys_call(SYS_fcntl, fd, cmd, to, 0, 0, 0);
	if (to < 0) /* all of those are taken */
		to = (int)sys_call(SYS_fcntl, fd, cmd, 3, 0, 0, 0);
	return to;
}

void exec_close(int fd)
{
	if (fd >= 0)
		sys_call(SYS_close, fd, 0, 0, 0, 0, 0);
}

/* The new program gets `with` under this number. */
static void swap(struct exec_plan *p, int fd, int with)
{
	struct exec_swap s = { .fd = fd, .kept = -1 };

	if (p->n_swaps < EXEC_SWAPS && with >= 0)
		s.kept = exec_high(fd, F_DUPFD_CLOEXEC);
	if (s.kept >= 0 && sys_call(SYS_dup3, with, fd, 0, 0, 0, 0) >= 0) {
		p->swap[p->n_swaps++] = s;
	} else {
		exec_close(s.kept);
		sys_call(SYS_fcntl, fd, F_SETFD, FD_CLOEXEC, 0, 0, 0);
	}
	exec_close(with);
}

/* Several descriptors that lead to one connection, as 0 and 1 of an inetd's program, still do so afterwards. */
static int outlet_of(const struct exec_plan *p, int fd)
{
	uint64_t cookie = conn_cookie(fd);
	int i;

	for (i = 0; cookie && i < p->n_swaps; i++)
		if (conn_cookie(p->swap[i].kept) == cookie)
			return (int)sys_call(SYS_fcntl, p->swap[i].fd, F_DUPFD_CLOEXEC, 3, 0, 0, 0);
	return -ENOENT;
}

static void turn_away(struct exec_plan *p, int fd, int error, const char *program, const char *why)
{
	int with = outlet_of(p, fd);

	swap(p, fd, with == -ENOENT ? exec_outlet(fd, error, program, why) : with);
}

int exec_ready(struct exec_plan *p, int fd, enum carry_to to, bool told)
{
	struct conn *c = life_memory() == LIFE_COPY ? carry_conn(fd) : NULL;
	bool copy = c && !c->share;
	int64_t began = clock_now_ms();
	int r;

	conn_put(c);
	if (copy)
		return -ENOTSUP;
	r = carry_settle(fd, told ? WEFT_HANDSHAKE_MS : p->patience_ms);
	if (!told)
		p->patience_ms -= clock_now_ms() - began;
	return r == 1 ? carry_ready(fd, to) : r;
}

int exec_outlet(int fd, int error, const char *program, const char *why)
{
	if (error == -ECONNRESET || error == -ETIMEDOUT) /* told already, or never begun */
		return outlet_ended();
	return outlet_open(fd, program,
			   error == -ENOTSUP ? "its session cannot be shared with that program"
			   : error < 0       ? strerror(-error)
					     : why);
}

static void hand_over(struct exec_plan *p, int n, const char *program)
{
	enum carry_to to = p->lent ? CARRY_CHILD : CARRY_SELF;
	int i, r;

	for (i = 0; i < n; i++) {
		r = exec_ready(p, p->fds[i], to, p->fds[i] <= 2);
		if (r == 1)
			p->fds[p->n_fds++] = p->fds[i];
		else if (r < 0)
			turn_away(p, p->fds[i], r, program, NULL);
	}
	if (!p->n_fds)
		return;
	r = carry_exec(p->fds, p->n_fds, to);
	if (r >= 0) {
		p->memfd = exec_high(r, F_DUPFD);
		exec_close(r);
		r = p->memfd < 0 ? p->memfd : exec_name(p, p->memfd);
		if (!r)
			return;
		carry_stay(p->fds, p->n_fds, to);
	}
	for (i = 0; i < p->n_fds; i++)
		turn_away(p, p->fds[i], r, program, NULL);
	p->n_fds = 0;
}

const char *exec_search(const char *name, int flags, char file[PATH_MAX])
{
	const char *path = getenv("PATH");
	size_t n, len = strlen(name);

	if (!(flags & TARGET_SHELL) || strchr(name, '/') || !*name)
		return name;
	for (path = path ? path : "/bin:/usr/bin";; path += n + 1) {
		n = strcspn(path, ":");
		if (n + len + 2 <= PATH_MAX) {
			memcpy(file, path, n);
			file[n] = '/';
			memcpy(file + n + (n > 0), name, len + 1);
			if (sys_call(SYS_faccessat, AT_FDCWD, (long)file, X_OK, 0, 0, 0) == 0)
				return file;
		}
		if (!path[n])
			return name;
	}
}

size_t exec_room(const struct exec_plan *p, char *const envp[])
{
	size_t n = 2;

	if (!p->var[0] && !p->vars && !p->alone)
		return 1;
	while (envp && *envp++)
		n++;
	return n + (p->vars ? VARS_MAX : 0);
}

int exec_name(struct exec_plan *p, int number)
{
	struct stat st;
	int r = (int)sys_call(SYS_fstat, p->memfd, (long)&st, 0, 0, 0, 0);

	if (!r)
		snprintf(p->var, sizeof(p->var), WEFT_ENV_EXEC "=%d:%lu%s", number,
			 (unsigned long)st.st_ino, p->again ? LISTENS : "");
	return r;
}

/* Is it the program that runs now, or the one that took its place on the disk? */
static bool is_self(int dir, const char *path)
{
	static const char gone[] = " (deleted)";
	char self[EXEC_SELF];
	struct stat a, b;
	long n;

	if (sys_call(SYS_newfstatat, AT_FDCWD, (long)"/proc/self/exe", (long)&a, 0, 0, 0) == 0 &&
	    sys_call(SYS_newfstatat, dir, (long)path, (long)&b, AT_EMPTY_PATH, 0, 0) == 0 &&
	    a.st_dev == b.st_dev && a.st_ino == b.st_ino)
		return true;
	n = sys_call(SYS_readlinkat, AT_FDCWD, (long)"/proc/self/exe", (long)self, sizeof(self) - 1,
		     0, 0);
	self[n > 0 ? n : 0] = 0;
	n -= (long)sizeof(gone) - 1;
	if (n > 0 && strcmp(self + n, gone) == 0)
		self[n] = 0;
	return strcmp(self, path) == 0;
}

void exec_plan_start(struct exec_plan *p)
{
	p->memfd = -1;
	p->n_fds = p->n_swaps = 0;
	p->vars = p->again = p->alone = false;
	p->patience_ms = EXEC_PATIENCE_MS;
	p->var[0] = 0;
	p->fds = NULL;
}

bool exec_matters(void)
{
	return atomic_load_explicit(&conn_live, memory_order_relaxed) ||
	       atomic_load_explicit(&life_listened, memory_order_relaxed);
}

enum target exec_look(struct exec_plan *p, bool listener, int dir, const char *path, int flags,
		      char *const envp[], const char **why)
{
	enum target t = target_look(dir, path, flags, envp, why);

	if (listener && t == TARGET_UNASKED && vars_missing(envp, NULL)) {
		p->vars = true;
		t = TARGET_MESHED;
	}
	if (listener && t == TARGET_MESHED && is_self(dir, path)) {
		p->again = true;
		memcpy(p->var, WEFT_ENV_EXEC "=" LISTENS, sizeof(WEFT_ENV_EXEC "=" LISTENS));
	}
	if (listener && (t == TARGET_UNASKED || t == TARGET_FOREIGN))
		log_error("%s inherits a listening socket of the mesh and will serve it without: "
			  "%s",
			  path, *why);
	return t;
}

void exec_look_alone(struct exec_plan *p, int dir, const char *path, int flags, char *const envp[])
{
	const char *why = NULL;
	char file[PATH_MAX];

	path = exec_search(path, flags, file);
	target_look(dir, path, flags, envp, &why);
	p->alone = target_is_musl(why);
	if (p->alone)
		log_warn("%s is started without the shim: %s", path, why);
}

size_t exec_begin(struct exec_plan *p, int dir, const char *path, int flags, char *const envp[])
{
	const char *why = NULL;
	char file[PATH_MAX];
	bool listener = false;
	enum target target;
	int i, n, r;

	exec_plan_start(p);
	if (!user_reads(path, 1) || (envp && !user_reads((const void *)envp, sizeof(*envp))))
		return 1; /* the kernel says EFAULT */
	exec_look_alone(p, dir, path, flags, envp);
	if (!exec_matters())
		return exec_room(p, envp);
	p->fds = pool_get();
	p->lent = life_memory() == LIFE_LENT;
	n = p->fds ? survey(p->fds, &listener) : 0;
	if (n || listener) {
		path = exec_search(path, flags, file);
		target = exec_look(p, listener, dir, path, flags, envp, &why);
		if (target == TARGET_MESHED)
			hand_over(p, n, path);
		for (i = 0; target >= TARGET_UNASKED && i < n; i++) {
			r = exec_ready(p, p->fds[i], CARRY_OTHER, p->fds[i] <= 2);
			if (r)
				turn_away(p, p->fds[i], r, path, why);
		}
	}
	if (!p->n_fds || p->lent) { /* what a child of vfork leaves behind is its parent's */
		pool_put(p->fds);
		p->fds = NULL;
	}
	return exec_room(p, envp);
}

void exec_undo(struct exec_plan *p)
{
	enum carry_to to = p->lent ? CARRY_CHILD : CARRY_SELF;
	bool listener = false;
	int saved = errno;

	exec_close(p->memfd);
	while (p->n_swaps-- > 0) {
		sys_call(SYS_dup3, p->swap[p->n_swaps].kept, p->swap[p->n_swaps].fd, 0, 0, 0, 0);
		exec_close(p->swap[p->n_swaps].kept);
	}
	if (p->n_fds && !p->fds) {
		p->fds = pool_get();
		p->n_fds = p->fds ? survey(p->fds, &listener) : 0;
	}
	if (p->n_fds)
		carry_stay(p->fds, p->n_fds, to);
	pool_put(p->fds);
	errno = saved;
}

char *const *exec_env(const struct exec_plan *p, char *const envp[], char **out)
{
	static const char name[] = WEFT_ENV_EXEC "=", preload[] = "LD_PRELOAD=";
	char **at = out;

	if (!p->var[0] && !p->vars && !p->alone)
		return envp;
	for (; envp && *envp; envp++)
		if (strncmp(*envp, name, sizeof(name) - 1) != 0 &&
		    (!p->alone || strncmp(*envp, preload, sizeof(preload) - 1) != 0))
			*at++ = *envp;
	if (p->vars)
		at += vars_missing(envp, at);
	if (p->var[0])
		*at++ = (char *)(uintptr_t)p->var;
	*at = NULL;
	return out;
}

/* "descriptor:inode", in decimal. */
static int parse(const char *text, unsigned long *inode)
{
	char *end;
	long fd = strtol(text, &end, 10);

	if (end == text || *end != ':' || fd < 0 || fd > INT_MAX)
		return -1;
	text = end + 1;
	*inode = strtoul(text, &end, 10);
	return end == text ? -1 : (int)fd;
}

static void take_connections(const char *text)
{
	unsigned long inode = 0;
	struct stat st;
	int fd = parse(text, &inode), r;

	if (fd < 0 || sys_call(SYS_fstat, fd, (long)&st, 0, 0, 0, 0) < 0 || st.st_ino != inode) {
		log_warn(WEFT_ENV_EXEC " names no descriptor that an exec handed over");
		return;
	}
	r = carry_in(fd, NULL, 0, life_attach);
	exec_close(fd);
	if (r < 0)
		log_warn("what the former program handed over cannot be read: %s", strerror(-r));
}

/* Listeners are known from here on, not only from the first accept(): that may be one of a worker with another uid. */
void exec_arrive(void)
{
	const char *text = secure_getenv(WEFT_ENV_EXEC);
	bool listens = text && strstr(text, LISTENS);
	char copy[64];

	if (!text)
		return;
	memcpy(copy, text, strnlen(text, sizeof(copy) - 1) + 1);
	copy[sizeof(copy) - 1] = 0;
	unsetenv(WEFT_ENV_EXEC);
	if (copy[0] != LISTENS[0])
		take_connections(copy);
	if (listens)
		life_inherit_listeners();
}
