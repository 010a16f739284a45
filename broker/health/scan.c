#include "health/scan.h"

#include <ctype.h>
#include <dirent.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define ENVIRON_MAX (256u << 10)

struct scan {
	struct diag_list *listeners; /* by inode */
	pid_t *holder;               /* of each */
};

static int by_inode(const void *a, const void *b)
{
	const struct diag_listener *x = a, *y = b;

	return (x->inode > y->inode) - (x->inode < y->inode);
}

static void note(struct scan *s, pid_t pid, const char *link)
{
	struct diag_listener want = { 0 };
	const struct diag_listener *l;
	unsigned long long inode;

	if (sscanf(link, "socket:[%llu]", &inode) != 1)
		return;
	want.inode = inode;
	l = bsearch(&want, s->listeners->v, s->listeners->n, sizeof(want), by_inode);
	if (l && (!s->holder[l - s->listeners->v] || pid < s->holder[l - s->listeners->v]))
		s->holder[l - s->listeners->v] = pid;
}

static void look_at_process(struct scan *s, pid_t pid)
{
	char path[64], link[64];
	const struct dirent *e;
	DIR *d;

	snprintf(path, sizeof(path), "/proc/%d/fd", (int)pid);
	d = opendir(path);
	while (d && (e = readdir(d))) {
		ssize_t n = readlinkat(dirfd(d), e->d_name, link, sizeof(link) - 1);

		link[n > 0 ? n : 0] = '\0';
		note(s, pid, link);
	}
	if (d)
		closedir(d);
}

int scan_listeners(int (*fn)(void *arg, const struct diag_listener *l, pid_t pid), void *arg)
{
	struct diag_list list = { 0 };
	struct scan s = { .listeners = &list };
	int fd = diag_open(0), r = fd < 0 ? fd : diag_listeners(fd, &list);
	const struct dirent *e;
	DIR *d;

	if (fd >= 0)
		close(fd);
	if (r < 0 || !list.n)
		return r;
	s.holder = calloc(list.n, sizeof(*s.holder));
	d = s.holder ? opendir("/proc") : NULL;
	qsort(list.v, list.n, sizeof(*list.v), by_inode);
	while (d && (e = readdir(d)))
		if (isdigit((unsigned char)e->d_name[0]))
			look_at_process(&s, (pid_t)strtol(e->d_name, NULL, 10));
	r = d ? 0 : -ENOMEM;
	for (size_t i = 0; d && !r && i < list.n; i++)
		r = fn(arg, &list.v[i], s.holder[i]);
	if (d)
		closedir(d);
	free(s.holder);
	diag_list_free(&list);
	return r;
}

static FILE *open_file(pid_t pid, const char *name)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/%s", (int)pid, name);
	return fopen(path, "re");
}

/* Whether a line of the file contains `text`. The kernel checks rights when it is read, not when it is opened. */
static int has_line(pid_t pid, const char *name, const char *text)
{
	FILE *f = open_file(pid, name);
	char *line = NULL;
	size_t size = 0;
	int found = 0;

	if (!f)
		return -errno;
	errno = 0;
	while (!found && getline(&line, &size, f) > 0)
		found = strstr(line, text) != NULL;
	if (!found && errno)
		found = -errno;
	free(line);
	fclose(f);
	return found;
}

int scan_has_shim(pid_t pid)
{
	return has_line(pid, "maps", "/libweft.so");
}

int scan_has_seccomp(pid_t pid)
{
	return has_line(pid, "status", "Seccomp:\t2");
}

int scan_is_secure(pid_t pid)
{
	FILE *f = open_file(pid, "auxv");
	Elf64_auxv_t a;
	int r = f ? 0 : -errno;

	while (f && r == 0 && fread(&a, sizeof(a), 1, f) == 1)
		r = a.a_type == AT_SECURE && a.a_un.a_val;
	if (f)
		fclose(f);
	return r;
}

int scan_is_off(pid_t pid)
{
	FILE *f = open_file(pid, "environ");
	char *env = malloc(ENVIRON_MAX), *end;
	size_t n = f && env ? fread(env, 1, ENVIRON_MAX - 1, f) : 0;
	int r = !f ? -errno : 0;

	if (env)
		env[n] = '\0';
	end = env ? env + n : NULL;
	for (const char *s = env; s < end && !r; s += strlen(s) + 1)
		r = strcmp(s, "WEFT_MODE=off") == 0;
	if (f)
		fclose(f);
	free(env);
	return r;
}
