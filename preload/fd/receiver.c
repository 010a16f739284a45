#include "fd/receiver.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/rtnetlink.h>
#include <linux/sock_diag.h>
#include <linux/unix_diag.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "control/control.h"
#include "sys/clock.h"
#include "sys/lock.h"
#include "sys/pool.h"
#include "sys/sys.h"
#include "weft/env.h"

#define REMEMBER 16
#define REMEMBER_MS 1000
#define REMEMBER_COST 50 /* times what the look has taken */
#define LIBRARY "/libweft.so"

/* What was found for a channel, by cookie. */
static struct {
	struct lock lock;
	unsigned next;
	struct {
		uint64_t cookie;
		int64_t until_ms;
		bool meshed;
	} v[REMEMBER];
} memory;

static void close_fd(long fd)
{
	sys_call(SYS_close, fd, 0, 0, 0, 0, 0);
}

static long open_proc(const char *pid, const char *name, long flags)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/%.20s/%.20s", pid, name);
	return sys_call(SYS_openat, AT_FDCWD, (long)path, O_RDONLY | O_CLOEXEC | flags, 0, 0, 0);
}

/* --- the other end --- */

static uint32_t peer_attribute(const char *answer, long n)
{
	const struct nlmsghdr *h = (const struct nlmsghdr *)(const void *)answer;
	const struct rtattr *a;
	uint32_t ino = 0;
	int left;

	if (n < (long)NLMSG_LENGTH(sizeof(struct unix_diag_msg)) || h->nlmsg_len > n ||
	    h->nlmsg_type != SOCK_DIAG_BY_FAMILY)
		return 0;
	a = (const struct rtattr *)((const struct unix_diag_msg *)NLMSG_DATA(h) + 1);
	left = (int)h->nlmsg_len - (int)NLMSG_LENGTH(sizeof(struct unix_diag_msg));
	for (; RTA_OK(a, left); a = RTA_NEXT(a, left))
		if (a->rta_type == UNIX_DIAG_PEER && RTA_PAYLOAD(a) == sizeof(ino))
			memcpy(&ino, RTA_DATA(a), sizeof(ino));
	return ino;
}

/* Inode of the socket that `channel` is connected to; 0: it is not, or the kernel does not say. */
static uint32_t peer_inode(int channel)
{
	struct {
		struct nlmsghdr h;
		struct unix_diag_req r;
	} ask = { .h = { .nlmsg_len = sizeof(ask),
			 .nlmsg_type = SOCK_DIAG_BY_FAMILY,
			 .nlmsg_flags = NLM_F_REQUEST },
		  .r = { .sdiag_family = AF_UNIX,
			 .udiag_states = ~0u,
			 .udiag_show = UDIAG_SHOW_PEER,
			 .udiag_cookie = { ~0u, ~0u } } };
	_Alignas(8) char answer[512];
	struct stat st;
	long fd, n;

	if (sys_call(SYS_fstat, channel, (long)&st, 0, 0, 0, 0) < 0)
		return 0;
	ask.r.udiag_ino = (uint32_t)st.st_ino;
	fd = sys_call(SYS_socket, AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC, NETLINK_SOCK_DIAG, 0, 0,
		      0);
	if (fd < 0)
		return 0;
	n = sys_call(SYS_sendto, fd, (long)&ask, sizeof(ask), MSG_DONTWAIT, 0, 0);
	if (n == sizeof(ask)) /* the kernel answers within the send */
		n = sys_call(SYS_recvfrom, fd, (long)answer, sizeof(answer), MSG_DONTWAIT, 0, 0);
	close_fd(fd);
	return peer_attribute(answer, n);
}

/* --- a process that holds it --- */

/* A file of /proc as text. */
static void read_proc(const char *pid, const char *name, char *text, size_t size)
{
	long fd = open_proc(pid, name, 0), n = 0;

	if (fd >= 0) {
		n = sys_call(SYS_read, fd, (long)text, (long)size - 1, 0, 0, 0);
		close_fd(fd);
	}
	text[n > 0 ? n : 0] = '\0';
}

/* Where the stack begins: the same in all forks of one program, and chosen anew by exec. 0: not to be seen. */
static uint64_t stack_of(const char *pid)
{
	char text[1024], *p;
	int field;

	read_proc(pid, "stat", text, sizeof(text));
	p = strrchr(text, ')');
	for (field = 2; p && field < 28; field++)
		p = strchr(p + 1, ' ');
	return p ? strtoull(p + 1, NULL, 10) : 0;
}

/* Memory is shared within one uid: the effective one, the second of the line. */
static bool has_our_uid(const char *pid)
{
	static const char name[] = "\nUid:\t";
	char text[2048], *p;

	read_proc(pid, "status", text, sizeof(text));
	p = strstr(text, name);
	p = p ? strchr(p + sizeof(name) - 1, '\t') : NULL;
	return p &&
	       strtoul(p + 1, NULL, 10) == (unsigned long)sys_call(SYS_geteuid, 0, 0, 0, 0, 0, 0);
}

static bool has_library(const char *pid, char *block)
{
	long fd = open_proc(pid, "maps", 0), n;
	size_t have = 0;
	bool found = false;

	while (fd >= 0 && !found &&
	       (n = sys_call(SYS_read, fd, (long)(block + have), (long)(POOL_BLOCK - have), 0, 0,
			     0)) > 0) {
		have += (size_t)n;
		found = memmem(block, have, LIBRARY, sizeof(LIBRARY) - 1);
		if (have > sizeof(LIBRARY)) { /* it may stand across two reads */
			memmove(block, block + have - sizeof(LIBRARY), sizeof(LIBRARY));
			have = sizeof(LIBRARY);
		}
	}
	if (fd >= 0)
		close_fd(fd);
	return found;
}

static bool has_line(const char *text, size_t n, const char *line)
{
	size_t len = strlen(line) + 1;
	const char *p = text;

	while (p && n - (size_t)(p - text) >= len) {
		if (memcmp(p, line, len) == 0)
			return true;
		p = memchr(p, '\0', n - (size_t)(p - text));
		p = p ? p + 1 : NULL;
	}
	return false;
}

/* It claims what we claim, and does not leave its connections alone. */
static bool claims_the_same(const char *pid, char *block)
{
	char line[sizeof(WEFT_ENV_SERVICE) + WEFT_SPEC_MAX + 4];
	long fd = open_proc(pid, "environ", 0), n;
	size_t have = 0;

	if (fd < 0 || !*mesh_claim())
		return false;
	while (have < POOL_BLOCK - 1 && (n = sys_call(SYS_read, fd, (long)(block + have),
						      (long)(POOL_BLOCK - 1 - have), 0, 0, 0)) > 0)
		have += (size_t)n;
	close_fd(fd);
	block[have] = '\0';
	snprintf(line, sizeof(line), WEFT_ENV_SERVICE "=%s", mesh_claim());
	return has_line(block, have, line) && !has_line(block, have, WEFT_ENV_MODE "=off") &&
	       !has_line(block, have, WEFT_ENV_MODE "=observe");
}

static bool holder_is_meshed(const char *pid, char *block)
{
	uint64_t ours = stack_of("self");

	return has_our_uid(pid) && ((ours && stack_of(pid) == ours) ||
				    (has_library(pid, block) && claims_the_same(pid, block)));
}

/* --- the walk --- */

typedef int visit(const char *name, void *arg); /* not 0: enough */

struct entry { /* getdents64(2) */
	uint64_t ino;
	int64_t off;
	uint16_t len;
	uint8_t type;
	char name[];
};

static int each_number(long dir, char *block, size_t size, visit *fn, void *arg)
{
	const struct entry *e;
	long n, at;
	int r = 0;

	while (!r && (n = sys_call(SYS_getdents64, dir, (long)block, (long)size, 0, 0, 0)) > 0)
		for (at = 0; at < n && !r; at += e->len) {
			e = (const struct entry *)(const void *)(block + at);
			if (e->name[0] >= '0' && e->name[0] <= '9')
				r = fn(e->name, arg);
		}
	return r;
}

struct walk {
	char link[32]; /* what the descriptor looks like */
	long fds;      /* of the process that is looked at */
	unsigned holders;
	char *processes, *descriptors, *text; /* blocks */
};

static int visit_fd(const char *name, void *arg)
{
	struct walk *w = arg;
	char link[32];
	long n = sys_call(SYS_readlinkat, w->fds, (long)name, (long)link, sizeof(link), 0, 0);

	return n == (long)strlen(w->link) && memcmp(link, w->link, (size_t)n) == 0;
}

static int visit_process(const char *pid, void *arg)
{
	struct walk *w = arg;
	int holds;

	w->fds = open_proc(pid, "fd", O_DIRECTORY);
	if (w->fds < 0)
		return 0;
	holds = each_number(w->fds, w->descriptors, POOL_BLOCK, visit_fd, w);
	close_fd(w->fds);
	if (!holds)
		return 0;
	w->holders++;
	return !holder_is_meshed(pid, w->text);
}

static bool look(int channel)
{
	struct walk w = { .processes = pool_get(), .descriptors = pool_get(), .text = pool_get() };
	uint32_t ino = peer_inode(channel);
	long dir = -1;
	int stranger = 1;

	if (ino && w.processes && w.descriptors && w.text)
		dir = open_proc(".", "", O_DIRECTORY);
	if (dir >= 0) {
		snprintf(w.link, sizeof(w.link), "socket:[%u]", ino);
		stranger = each_number(dir, w.processes, POOL_BLOCK, visit_process, &w);
		close_fd(dir);
	}
	pool_put(w.processes);
	pool_put(w.descriptors);
	pool_put(w.text);
	return !stranger && w.holders;
}

/* -1: not known. */
static int recall(uint64_t cookie)
{
	int64_t now = clock_now_ms();
	int r = -1;
	unsigned i;

	if (lock_take(&memory.lock) == -EDEADLK)
		return r;
	for (i = 0; i < REMEMBER; i++)
		if (memory.v[i].cookie == cookie && memory.v[i].until_ms > now)
			r = memory.v[i].meshed;
	lock_drop(&memory.lock);
	return r;
}

static void remember(uint64_t cookie, bool meshed, int64_t took_ms)
{
	unsigned i;

	if (lock_take(&memory.lock) == -EDEADLK)
		return;
	for (i = 0; i < REMEMBER && memory.v[i].cookie != cookie; i++)
		;
	if (i == REMEMBER)
		i = memory.next++ % REMEMBER;
	memory.v[i].cookie = cookie;
	memory.v[i].meshed = meshed;
	memory.v[i].until_ms = clock_now_ms() + REMEMBER_MS + took_ms * REMEMBER_COST;
	lock_drop(&memory.lock);
}

bool receiver_is_meshed(int channel)
{
	int64_t began = clock_now_ms();
	uint64_t cookie = 0;
	socklen_t len = sizeof(cookie);
	int known;

	sys_call(SYS_getsockopt, channel, SOL_SOCKET, SO_COOKIE, (long)&cookie, (long)&len, 0);
	known = cookie ? recall(cookie) : -1;
	if (known < 0) {
		known = look(channel);
		remember(cookie, known, clock_now_ms() - began);
	}
	return known;
}
