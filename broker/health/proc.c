#include "health/proc.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77 /* Linux 6.5 */
#endif
#define FAMILY_BYTES 4096

static int open_proc(pid_t pid, const char *name, int flags)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/%s", (int)pid, name);
	int fd = open(path, flags | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

/* A number of /proc/<pid>/stat; the name in field 2 may hold anything, so count from the last ')'. */
static uint64_t stat_field(pid_t pid, int want)
{
	char text[1024];
	int fd = open_proc(pid, "stat", O_RDONLY);

	if (fd < 0)
		return 0;
	ssize_t n = read(fd, text, sizeof(text) - 1);
	close(fd);
	if (n <= 0)
		return 0;
	text[n] = '\0';
	const char *p = strrchr(text, ')');
	for (int field = 2; p && field < want; field++)
		p = strchr(p + 1, ' ');
	return p ? strtoull(p + 1, NULL, 10) : 0;
}

uint64_t proc_start(pid_t pid)
{
	return stat_field(pid, 22);
}

pid_t proc_parent(pid_t pid)
{
	return (pid_t)stat_field(pid, 4);
}

static void read_comm(pid_t pid, char *out, size_t size)
{
	int fd = open_proc(pid, "comm", O_RDONLY);
	ssize_t n = fd < 0 ? -1 : read(fd, out, size - 1);

	if (fd >= 0)
		close(fd);
	out[n > 0 ? n : 0] = '\0';
	out[strcspn(out, "\n")] = '\0';
}

static uint64_t netns_of(const char *path)
{
	struct stat st;

	return stat(path, &st) == 0 ? st.st_ino : 0;
}

uint64_t proc_own_netns(void)
{
	return netns_of("/proc/self/ns/net");
}

int proc_read(struct proc_facts *f, pid_t pid)
{
	char path[64];

	f->pid = pid;
	f->start = proc_start(pid);
	if (!f->start)
		return -ESRCH;
	snprintf(path, sizeof(path), "/proc/%d/ns/net", (int)pid);
	f->netns = netns_of(path);
	read_comm(pid, f->comm, sizeof(f->comm));
	snprintf(path, sizeof(path), "/proc/%d/exe", (int)pid);
	ssize_t n = readlink(path, f->exe, sizeof(f->exe) - 1);
	f->exe[n > 0 ? n : 0] = '\0';
	return 0;
}

int proc_pidfd(pid_t pid)
{
	int fd = (int)syscall(SYS_pidfd_open, pid, 0); /* close-on-exec by itself */

	return fd < 0 ? -errno : fd;
}

int proc_peer_pidfd(int socket, pid_t pid)
{
	int fd;
	socklen_t len = sizeof(fd);

	if (getsockopt(socket, SOL_SOCKET, SO_PEERPIDFD, &fd, &len) == 0)
		return fd;
	return pid > 0 ? proc_pidfd(pid) : -ESRCH;
}

bool proc_pidfd_alive(int pidfd)
{
	struct pollfd p = { .fd = pidfd, .events = POLLIN };

	return poll(&p, 1, 0) == 0;
}

int proc_family_open(struct proc_family *id)
{
	struct stat st;
	int fd = memfd_create("weft-family", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	if (fd < 0)
		return -errno;
	/* Of a size that cannot change: a guest may not make another one's read fault. */
	if (ftruncate(fd, FAMILY_BYTES) < 0 ||
	    fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) < 0 || fstat(fd, &st) < 0) {
		int saved = errno;
		close(fd);
		return -saved;
	}
	id->dev = st.st_dev;
	id->inode = st.st_ino;
	return fd;
}

bool proc_family_alive(int memfd)
{
	if (fcntl(memfd, F_ADD_SEALS, F_SEAL_WRITE) == 0)
		return false;
	return errno == EBUSY;
}

static bool line_is_family(const char *line, struct proc_family *id)
{
	unsigned maj, min;
	unsigned long long inode;

	if (!strstr(line, "/memfd:weft-family") ||
	    sscanf(line, "%*s %*s %*s %x:%x %llu", &maj, &min, &inode) != 3)
		return false;
	*id = (struct proc_family){ .dev = makedev(maj, min), .inode = inode };
	return true;
}

int proc_families(pid_t pid, struct proc_family *out, int max)
{
	char *line = NULL;
	size_t size = 0;
	int n = 0;
	int fd = open_proc(pid, "maps", O_RDONLY);

	if (fd < 0)
		return fd;
	FILE *f = fdopen(fd, "r");
	if (!f) {
		close(fd);
		return -ENOMEM;
	}
	errno = 0;
	while (n < max && getline(&line, &size, f) > 0)
		n += line_is_family(line, &out[n]);
	if (!n && errno == EACCES)
		n = -EACCES; /* opened, but another uid's: the check comes with the read */
	free(line);
	fclose(f);
	return n;
}

void proc_each_member(int (*fn)(void *arg, pid_t pid, const struct proc_family *f, int n),
		      void *arg)
{
	DIR *d = opendir("/proc");
	const struct dirent *e;
	struct proc_family families[PROC_FAMILIES_MAX];

	while (d && (e = readdir(d))) {
		if (!isdigit((unsigned char)e->d_name[0]))
			continue;
		pid_t pid = (pid_t)strtol(e->d_name, NULL, 10);
		int n = proc_families(pid, families, PROC_FAMILIES_MAX);
		if (n > 0 && fn(arg, pid, families, n))
			break;
	}
	if (d)
		closedir(d);
}

int proc_holds_socket(pid_t pid, uint64_t inode)
{
	char want[48], link[64];
	int found = 0;
	const struct dirent *e;
	int fd = open_proc(pid, "fd", O_RDONLY | O_DIRECTORY);

	if (fd < 0)
		return fd;
	DIR *d = fdopendir(fd);
	if (!d) {
		close(fd);
		return -ENOMEM;
	}
	snprintf(want, sizeof(want), "socket:[%llu]", (unsigned long long)inode);
	while (!found && (e = readdir(d))) {
		ssize_t n = readlinkat(fd, e->d_name, link, sizeof(link) - 1);
		if (n > 0) {
			link[n] = '\0';
			found = strcmp(link, want) == 0;
		}
	}
	closedir(d);
	return found;
}
