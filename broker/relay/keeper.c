#include "relay/keeper.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <pwd.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <ev.h>

#include "health/proc.h"
#include "relay/library.h"
#include "relay/relay.h"
#include "telemetry/log.h"
#include "weft/env.h"
#include "weft/relay.h"

#define BACKLOG 1024
#define RELAYS_MAX 1024 /* processes */
#define STARTS_MAX 20   /* in a second: relays that die at once must not become a fork bomb */
#define GROUPS_MAX 256

struct child {
	struct keeper *keeper;
	struct child *next, **link;
	pid_t pid;
	int pidfd;
	uid_t uid;
	struct ev_io died;
};

struct keeper {
	struct ev_loop *loop;
	char dir[PATH_MAX], library[PATH_MAX + 64];
	bool has_library;
	struct child *children;
	unsigned n, starts;
	uint64_t second;
};

int keeper_open(struct ev_loop *loop, const struct keeper_options *o, struct keeper **out)
{
	struct keeper *k = calloc(1, sizeof(*k));

	if (!k)
		return -ENOMEM;
	k->loop = loop;
	snprintf(k->dir, sizeof(k->dir), "%s", o->socket);
	if (strrchr(k->dir, '/'))
		*strrchr(k->dir, '/') = '\0';
	k->has_library = library_find(o->library, k->library, sizeof(k->library)) == 0;
	*out = k;
	return 0;
}

static void child_free(struct child *c)
{
	ev_io_stop(c->keeper->loop, &c->died);
	close(c->pidfd);
	*c->link = c->next;
	if (c->next)
		c->next->link = c->link;
	c->keeper->n--;
	free(c);
}

static void on_died(struct ev_loop *loop, struct ev_io *io, int events)
{
	struct child *c = io->data;
	int status = 0;

	(void)loop;
	(void)events;
	if (waitpid(c->pid, &status, WNOHANG) == 0)
		return;
	if (WIFSIGNALED(status))
		log_warn("relay %d of uid %lu was killed by signal %d", (int)c->pid,
			 (unsigned long)c->uid, WTERMSIG(status));
	else if (WEXITSTATUS(status))
		log_warn("relay %d of uid %lu ended with status %d", (int)c->pid,
			 (unsigned long)c->uid, WEXITSTATUS(status));
	else
		log_info("relay %d of uid %lu ended: nothing left to carry", (int)c->pid,
			 (unsigned long)c->uid);
	child_free(c);
}

static int address(const struct keeper *k, uid_t uid, const char *suffix, struct sockaddr_un *un)
{
	int n;

	*un = (struct sockaddr_un){ .sun_family = AF_UNIX };
	n = snprintf(un->sun_path, sizeof(un->sun_path), "%s/" WEFT_RELAY_NAME "%s", k->dir,
		     (unsigned long)uid, suffix);
	return n < (int)sizeof(un->sun_path) ? 0 : -ENAMETOOLONG;
}

static bool is_answered(const struct sockaddr_un *un)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	bool yes;

	if (fd < 0)
		return false;
	yes = connect(fd, (const struct sockaddr *)un, sizeof(*un)) == 0 || errno == EAGAIN;
	close(fd);
	return yes;
}

/* It listens before the relay is started, so that nobody has to wait for that. Only the uid, and root, may connect. */
static int listen_for(const struct keeper *k, uid_t uid)
{
	struct sockaddr_un un, tmp;
	int fd, r;

	if (address(k, uid, "", &un) < 0 || address(k, uid, ".new", &tmp) < 0)
		return -ENAMETOOLONG;
	unlink(tmp.sun_path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	if (bind(fd, (const struct sockaddr *)&tmp, sizeof(tmp)) == 0 &&
	    chmod(tmp.sun_path, 0600) == 0 &&
	    (uid == geteuid() || chown(tmp.sun_path, uid, (gid_t)-1) == 0) &&
	    listen(fd, BACKLOG) == 0 && rename(tmp.sun_path, un.sun_path) == 0)
		return fd;
	r = -errno;
	close(fd);
	return r;
}

/* Who the relay is to be; looked up before the fork, for the user data base may lock and allocate. */
struct person {
	uid_t uid;
	gid_t gid, groups[GROUPS_MAX];
	int n_groups;
};

static void person_find(struct person *p, uid_t uid, gid_t gid)
{
	char buf[16384];
	struct passwd pw, *found = NULL;

	*p = (struct person){ .uid = uid, .gid = gid };
	if (getpwuid_r(uid, &pw, buf, sizeof(buf), &found) || !found)
		return;
	p->gid = found->pw_gid;
	p->n_groups = GROUPS_MAX;
	if (getgrouplist(found->pw_name, found->pw_gid, p->groups, &p->n_groups) < 0)
		p->n_groups = GROUPS_MAX;
}

/* In the child: nothing but system calls. Its log lines go where weftd's go. */
static _Noreturn void run(const struct keeper *k, const struct person *p, int fd)
{
	char preload[sizeof(k->library) + 16];
	char *const env[] = { preload, (char[]){ WEFT_ENV_MODE "=off" }, NULL };
	char *const argv[] = { (char[]){ "weftd" }, (char[]){ RELAY_OPTION }, NULL };
	sigset_t none;
	int null;

	stpcpy(stpcpy(preload, "LD_PRELOAD="), k->library);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	signal(SIGPIPE, SIG_DFL);
	setsid();
	null = open("/dev/null", O_RDWR);
	if (dup2(null, STDIN_FILENO) < 0 || dup2(null, STDOUT_FILENO) < 0 || dup2(fd, RELAY_FD) < 0)
		_exit(126);
	syscall(SYS_close_range, RELAY_FD + 1, ~0u, 0);
	if (geteuid() == 0 &&
	    (setgroups((size_t)p->n_groups, p->groups) < 0 ||
	     setresgid(p->gid, p->gid, p->gid) < 0 || setresuid(p->uid, p->uid, p->uid) < 0))
		_exit(126);
	/* The program that weftd is, also after its file was replaced, and where the uid may not walk to it. */
	execve("/proc/self/exe", argv, env);
	_exit(126);
}

static int spawn(struct keeper *k, uid_t uid, gid_t gid, int fd, pid_t *pid)
{
	struct child *c = calloc(1, sizeof(*c));
	struct person p;

	if (!c)
		return -ENOMEM;
	person_find(&p, uid, gid);
	*pid = fork();
	if (*pid == 0)
		run(k, &p, fd);
	c->pidfd = *pid < 0 ? -1 : proc_pidfd(*pid);
	if (c->pidfd < 0) {
		int r = *pid < 0 ? -errno : c->pidfd;

		free(c);
		return r;
	}
	c->keeper = k;
	c->pid = *pid;
	c->uid = uid;
	c->next = k->children;
	c->link = &k->children;
	if (c->next)
		c->next->link = &c->next;
	k->children = c;
	k->n++;
	ev_io_init(&c->died, on_died, c->pidfd, EV_READ);
	c->died.data = c;
	ev_io_start(k->loop, &c->died);
	log_info("relay %d started for uid %lu", (int)*pid, (unsigned long)uid);
	return 0;
}

static bool may_start(struct keeper *k)
{
	uint64_t now = (uint64_t)ev_now(k->loop);

	if (k->second != now)
		k->starts = 0;
	k->second = now;
	return k->n < RELAYS_MAX && k->starts++ < STARTS_MAX;
}

int keeper_ensure(struct keeper *k, uid_t uid, gid_t gid, pid_t *pid, const char **why)
{
	struct sockaddr_un un;
	int fd, r = address(k, uid, "", &un);

	*pid = 0;
	*why = r < 0 ? strerror(-r) : "";
	if (r < 0)
		return r;
	if (is_answered(&un)) {
		for (const struct child *c = k->children; c && !*pid; c = c->next)
			if (c->uid == uid)
				*pid = c->pid;
		return 0;
	}
	if (geteuid() != 0 && uid != geteuid()) {
		*why = "weftd does not run as root and cannot start a relay for another uid";
		return -EPERM;
	}
	if (!k->has_library) {
		*why = "there is no libweft.so for a relay to load (--library)";
		return -ENOENT;
	}
	if (!may_start(k)) {
		*why = "too many relays were started";
		return -EAGAIN;
	}
	fd = listen_for(k, uid);
	r = fd < 0 ? fd : spawn(k, uid, gid, fd, pid);
	if (fd >= 0)
		close(fd);
	*why = r < 0 ? strerror(-r) : "";
	return r;
}

void keeper_close(struct keeper *k)
{
	if (!k)
		return;
	while (k->children) {
		kill(k->children->pid, SIGTERM);
		child_free(k->children);
	}
	free(k);
}
