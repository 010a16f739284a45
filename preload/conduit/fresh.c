#include "conduit/fresh.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "conduit/admit.h"
#include "conduit/carry_int.h"
#include "sys/sys.h"

#define FRESH_MAGIC UINT32_C(0x48535246) /* "FRSH" */
#define FRESH_MAX 253                    /* descriptors of one message */

struct fresh {
	uint32_t magic, n;
	uint64_t cookie[FRESH_MAX];
};

#define FRESH_HEAD offsetof(struct fresh, cookie)

static bool nothing_was_read(int fd)
{
	struct carry_counts counts;

	return carry_counts(fd, &counts) == 0 && !counts.taken;
}

bool fresh_is(struct conn *c, int fd)
{
	enum conn_state state = conn_state(c);

	return c->server && !c->share && nothing_was_read(fd) &&
	       (c->given || state == CONN_SNIFFING || state == CONN_HANDSHAKE);
}

int fresh_list(const int *fds, int n)
{
	struct fresh f = { .magic = FRESH_MAGIC, .n = (uint32_t)n };
	size_t size = FRESH_HEAD + (size_t)n * sizeof(f.cookie[0]);
	int fd, i;

	if (n > FRESH_MAX)
		return -ETOOMANYREFS;
	for (i = 0; i < n; i++)
		f.cookie[i] = conn_cookie(fds[i]);
	fd = (int)sys_call(SYS_memfd_create, (long)"weft", MFD_CLOEXEC | MFD_ALLOW_SEALING, 0, 0, 0,
			   0);
	if (fd < 0)
		return fd;
	if (sys_call(SYS_write, fd, (long)&f, (long)size, 0, 0, 0) == (long)size &&
	    sys_call(SYS_fcntl, fd, F_ADD_SEALS, CARRY_SEALS, 0, 0, 0) == 0)
		return fd;
	sys_call(SYS_close, fd, 0, 0, 0, 0, 0);
	return -ENOSPC;
}

void fresh_options(struct conn *c, int fd, bool leaves)
{
	int nodelay = !leaves;

	session_set_lowat(c->session, fd, 1);
	if (c->shook && !c->app_nodelay)
		sys_call(SYS_setsockopt, fd, IPPROTO_TCP, TCP_NODELAY, (long)&nodelay,
			 sizeof(nodelay), 0);
}

void fresh_given(int fd)
{
	struct conn *c = carry_conn(fd);

	if (!c)
		return;
	lock_take(&c->lock);
	if (!c->given) {
		c->given = true;
		c->handshake = handshake_free(c->handshake);
		c->id = identity_unref(c->id);
		c->so_error = ECONNRESET;
		conn_move(c, CONN_FAILED);
	}
	lock_drop(&c->lock);
	conn_put(c);
}

bool fresh_list_is(int fd)
{
	uint32_t magic = 0;

	return (sys_call(SYS_fcntl, fd, F_GET_SEALS, 0, 0, 0, 0) & CARRY_SEALS) == CARRY_SEALS &&
	       sys_call(SYS_pread64, fd, (long)&magic, sizeof(magic), 0, 0, 0) == sizeof(magic) &&
	       magic == FRESH_MAGIC;
}

static bool is_listed(const struct fresh *f, uint64_t cookie)
{
	uint32_t i;

	for (i = 0; cookie && i < f->n; i++)
		if (f->cookie[i] == cookie)
			return true;
	return false;
}

/* Two of the descriptors may be one connection. */
static void admit_one(const int *fds, int i, carry_attach *attach)
{
	int family = AF_INET, k = 0;
	socklen_t len = sizeof(family);
	struct conn *c;

	while (conn_cookie(fds[k]) != conn_cookie(fds[i]))
		k++;
	sys_call(SYS_getsockopt, fds[i], SOL_SOCKET, SO_DOMAIN, (long)&family, (long)&len, 0);
	c = k < i ? carry_conn(fds[i]) : admit(fds[i], family);
	if (c && k < i)
		atomic_fetch_add(&c->fds, 1);
	if (c)
		attach(fds[i], c);
}

int fresh_admit(int memfd, const int *fds, int n, carry_attach *attach)
{
	struct fresh f;
	int i;
	long size = sys_call(SYS_pread64, memfd, (long)&f, sizeof(f), 0, 0, 0);

	if (size < (long)FRESH_HEAD || f.magic != FRESH_MAGIC || f.n > FRESH_MAX ||
	    size != (long)(FRESH_HEAD + f.n * sizeof(f.cookie[0])))
		return -EPROTO;
	for (i = 0; i < n; i++)
		if (is_listed(&f, conn_cookie(fds[i])))
			admit_one(fds, i, attach);
	return 0;
}
