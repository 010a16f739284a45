#include "fd/spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/syscall.h>

#include "conduit/carry.h"
#include "conduit/target.h"
#include "fd/exec_int.h"
#include "fd/outlet.h"
#include "sys/fds.h"
#include "sys/sys.h"
#include "telemetry/log.h"

/* glibc's own, posix/spawn_int.h: the same since 2.3 but for what was added at the end. */
enum tag { ACT_CLOSE, ACT_DUP2, ACT_OPEN, ACT_CHDIR, ACT_FCHDIR, ACT_CLOSEFROM };

struct action {
	int tag;
	int reserved;
	int fd, to; /* ACT_OPEN: the path follows `fd`; ACT_CLOSEFROM: from `fd` on */
	long more[2];
};

#define ACTIONS_MAX ((int)(POOL_BLOCK / sizeof(struct action)))

/* Is a list of actions laid out as we think? Asked of libc itself. */
static bool layout_is_known(void)
{
	static _Atomic int known; /* 1: yes; 2: no */
	posix_spawn_file_actions_t x;
	const struct action *a;

	if (known || posix_spawn_file_actions_init(&x))
		return known == 1;
	if (!posix_spawn_file_actions_adddup2(&x, 7, 9) &&
	    !posix_spawn_file_actions_addclose(&x, 11) &&
	    !posix_spawn_file_actions_addopen(&x, 13, "/", O_RDONLY, 0) && x.__used == 3) {
		a = (const struct action *)(const void *)x.__actions;
		known = a[0].tag == ACT_DUP2 && a[0].fd == 7 && a[0].to == 9 &&
					a[1].tag == ACT_CLOSE && a[1].fd == 11 &&
					a[2].tag == ACT_OPEN && a[2].fd == 13
				? 1
				: 2;
	}
	posix_spawn_file_actions_destroy(&x);
	return known == 1;
}

/* Is a copy made of it? */
static bool is_copied(int fd, const struct action *a, int n)
{
	while (n-- > 0)
		if (a[n].tag == ACT_DUP2 && a[n].fd == fd)
			return true;
	return false;
}

/* Would the program get this descriptor, or a copy of it? */
static bool is_inherited(int fd, const struct action *a, int n)
{
	bool stays = !(sys_call(SYS_fcntl, fd, F_GETFD, 0, 0, 0, 0) & FD_CLOEXEC);

	if (is_copied(fd, a, n))
		return true;
	for (; n-- > 0; a++)
		if ((a->tag == ACT_DUP2 && a->to == fd) ||
		    ((a->tag == ACT_CLOSE || a->tag == ACT_OPEN) && a->fd == fd) ||
		    (a->tag == ACT_CLOSEFROM && a->fd <= fd))
			stays = false;
	return stays;
}

static int survey(int *fds, const struct action *a, int n_actions, bool *listener)
{
	struct fds_walk w;
	struct conn *c;
	int fd, n = 0;

	fds_start(&w);
	while ((fd = fds_next(&w)) >= 0 && n < EXEC_FDS) {
		c = carry_conn(fd);
		if (c && is_inherited(fd, a, n_actions))
			fds[n++] = fd;
		else if (!c && exec_listens(fd))
			*listener |= is_inherited(fd, a, n_actions);
		conn_put(c);
	}
	fds_end(&w);
	return n;
}

static const struct action *actions_of(const posix_spawn_file_actions_t *actions, int *n)
{
	*n = actions ? actions->__used : 0;
	return *n ? (const struct action *)(const void *)actions->__actions : NULL;
}

static bool has(const struct action *a, int n, enum tag tag)
{
	while (n-- > 0)
		if (a[n].tag == (int)tag)
			return true;
	return false;
}

/* Actions are applied in order: first ours. */
static struct action *put(struct spawn_plan *p, int tag, int fd, int to)
{
	struct action *a = (struct action *)p->array + p->actions.__used++;

	*a = (struct action){ .tag = tag, .fd = fd, .to = to };
	return a;
}

/* All numbers of one connection get the same. */
static void turn_away(struct spawn_plan *p, int fd, int error, const char *program, const char *why)
{
	uint64_t cookie = conn_cookie(fd);
	int i, k = p->n_outlets, with;

	for (i = 0; i < k && (p->outlet[i].cookie != cookie || p->outlet[i].with < 0); i++)
		;
	with = i < k ? p->outlet[i].with : exec_outlet(fd, error, program, why);
	if (with >= 0 && k < EXEC_SWAPS) {
		put(p, ACT_DUP2, with, fd);
		p->outlet[k].fd = fd;
		p->outlet[k].with = i < k ? -1 : with;
		p->outlet[k].cookie = cookie;
		p->n_outlets++;
	} else {
		put(p, ACT_CLOSE, fd, 0);
		exec_close(i < k ? -1 : with);
	}
}

/* The child has the memfd under a second number, that does not close on exec; nobody else's child ever does. */
static int show_memfd(struct spawn_plan *p, int memfd)
{
	int r;

	p->exec.memfd = memfd;
	p->shown = exec_high(memfd, F_DUPFD_CLOEXEC);
	r = p->shown < 0 ? p->shown : exec_name(&p->exec, p->shown);
	if (!r)
		put(p, ACT_DUP2, p->exec.memfd, p->shown);
	return r;
}

/* `why`: the program cannot have any of them. */
static void hand_over(struct spawn_plan *p, int n, const struct action *a, int n_actions,
		      const char *program, const char *why)
{
	struct exec_plan *e = &p->exec;
	int i, r;

	for (i = 0; i < n; i++) {
		r = exec_ready(e, e->fds[i], CARRY_OTHER, is_copied(e->fds[i], a, n_actions));
		if (r == 1 && !why)
			e->fds[e->n_fds++] = e->fds[i];
		else if (r)
			turn_away(p, e->fds[i], r, program, why);
	}
	if (!e->n_fds)
		return;
	r = carry_out(e->fds, e->n_fds);
	if (r >= 0) {
		r = show_memfd(p, r);
		if (!r)
			return;
		carry_revoke(e->memfd, e->fds, e->n_fds);
	}
	for (i = 0; i < e->n_fds; i++)
		turn_away(p, e->fds[i], r, program, NULL);
	e->n_fds = 0;
}

/* What an outlet was put over would else have been closed by the exec. */
static void close_replaced(struct spawn_plan *p, const struct action *a, int n)
{
	int i, k, fd;

	for (i = 0; i < p->n_outlets; i++) {
		fd = p->outlet[i].fd;
		for (k = 0; k < n && !(a[k].tag == ACT_DUP2 && a[k].to == fd); k++)
			;
		if (k == n && sys_call(SYS_fcntl, fd, F_GETFD, 0, 0, 0, 0) & FD_CLOEXEC)
			put(p, ACT_CLOSE, fd, 0);
	}
}

static int plan(struct spawn_plan *p, const char *path, int flags, const struct action *a, int n,
		char *const envp[])
{
	char file[PATH_MAX];
	const char *why = NULL;
	enum target target;
	bool listener = false;
	int fds = survey(p->exec.fds, a, n, &listener);

	if (!fds && !listener)
		return 0;
	path = exec_search(path, flags, file);
	target = exec_look(&p->exec, listener, AT_FDCWD, path, flags, envp, &why);
	if (target == TARGET_NONE || !fds)
		return 0;
	if (path[0] != '/' && (has(a, n, ACT_CHDIR) || has(a, n, ACT_FCHDIR)))
		why = "its file actions change the folder first";
	else if (has(a, n, ACT_CLOSEFROM))
		why = "its file actions close all that could be handed over";
	p->array = pool_get();
	if (!p->array || n + fds > ACTIONS_MAX - 2 * EXEC_SWAPS)
		return ENOMEM;
	hand_over(p, fds, a, n, path, why);
	if (n)
		memcpy((struct action *)p->array + p->actions.__used, a, (size_t)n * sizeof(*a));
	p->actions.__used += n;
	close_replaced(p, a, n);
	return 0;
}

int spawn_begin(struct spawn_plan *p, const char *path, int flags,
		const posix_spawn_file_actions_t *actions, char *const envp[], size_t *room)
{
	const struct action *a;
	int n, r = 0;

	exec_plan_start(&p->exec);
	p->shown = -1;
	p->n_outlets = 0;
	p->array = NULL;
	*room = 1;
	if (!path)
		return 0;
	exec_look_alone(&p->exec, AT_FDCWD, path, flags, envp);
	*room = exec_room(&p->exec, envp);
	if (!exec_matters())
		return 0;
	a = actions_of(actions, &n);
	if (n && !layout_is_known()) {
		log_error("%s is not started: file actions of this C library are not known", path);
		return ENOSYS;
	}
	memset(&p->actions, 0, sizeof(p->actions));
	p->exec.fds = pool_get();
	r = p->exec.fds ? plan(p, path, flags, a, n, envp) : ENOMEM;
	if (r)
		spawn_end(p, 0);
	p->actions.__allocated = p->actions.__used;
	p->actions.__actions = p->array;
	*room = exec_room(&p->exec, envp);
	return r;
}

const posix_spawn_file_actions_t *spawn_actions(const struct spawn_plan *p,
						const posix_spawn_file_actions_t *actions)
{
	return p->array ? &p->actions : actions;
}

void spawn_end(struct spawn_plan *p, int pid)
{
	struct exec_plan *e = &p->exec;
	int saved = errno;

	if (e->n_fds && pid)
		carry_went_to(e->memfd, e->fds, e->n_fds, pid);
	else if (e->n_fds)
		carry_revoke(e->memfd, e->fds, e->n_fds);
	exec_close(e->memfd);
	exec_close(p->shown);
	while (p->n_outlets > 0)
		exec_close(p->outlet[--p->n_outlets].with);
	pool_put(p->array);
	pool_put(e->fds);
	errno = saved;
}

bool spawn_matters(void)
{
	bool any, listener = false;
	int *fds;

	if (!atomic_load_explicit(&conn_live, memory_order_relaxed))
		return false;
	fds = pool_get();
	any = !fds || survey(fds, NULL, 0, &listener);
	pool_put(fds);
	return any;
}
