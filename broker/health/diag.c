#include "health/diag.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#define DIAG_CHUNK 65536

int diag_in_netns(pid_t pid, int (*fn)(void *arg), void *arg)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/ns/net", (int)pid);
	int own = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
	int other = open(path, O_RDONLY | O_CLOEXEC);
	int r = own < 0 || other < 0 || setns(other, CLONE_NEWNET) < 0 ? -errno : 0;
	if (r == 0) {
		r = fn(arg);
		/* Staying behind in a guest's namespace would answer every later question wrongly. */
		if (setns(own, CLONE_NEWNET) < 0)
			abort();
	}
	if (own >= 0)
		close(own);
	if (other >= 0)
		close(other);
	return r;
}

static int open_here(void *arg)
{
	const struct timeval limit = { .tv_sec = 1 };
	int fd = socket(AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC, NETLINK_SOCK_DIAG);

	(void)arg;
	if (fd < 0)
		return -errno;
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	return fd;
}

int diag_open(pid_t pid)
{
	return pid ? diag_in_netns(pid, open_here, NULL) : open_here(NULL);
}

static int request(int fd, int family, uint32_t seq)
{
	struct {
		struct nlmsghdr head;
		struct inet_diag_req_v2 body;
	} ask = {
		.head = {
			.nlmsg_len = sizeof(ask),
			.nlmsg_type = SOCK_DIAG_BY_FAMILY,
			.nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP,
			.nlmsg_seq = seq,
		},
		.body = {
			.sdiag_family = (uint8_t)family,
			.sdiag_protocol = IPPROTO_TCP,
			.idiag_states = 1u << TCP_LISTEN,
		},
	};
	const struct sockaddr_nl kernel = { .nl_family = AF_NETLINK };

	ssize_t n =
		sendto(fd, &ask, sizeof(ask), 0, (const struct sockaddr *)&kernel, sizeof(kernel));
	return n == sizeof(ask) ? 0 : n < 0 ? -errno : -EIO;
}

static int add(struct diag_list *out, const struct inet_diag_msg *m)
{
	struct diag_listener *l;

	if (out->n >= DIAG_LISTENERS_MAX)
		return -ENOBUFS;
	if ((out->n & (out->n - 1)) == 0) { /* at each power of two */
		struct diag_listener *v = realloc(out->v, (out->n ? out->n * 2 : 1) * sizeof(*v));
		if (!v)
			return -ENOMEM;
		out->v = v;
	}
	l = &out->v[out->n++];
	*l = (struct diag_listener){
		.cookie = (uint64_t)m->id.idiag_cookie[1] << 32 | m->id.idiag_cookie[0],
		.inode = m->idiag_inode,
		.uid = m->idiag_uid,
		.ipv6 = m->idiag_family == AF_INET6,
	};
	l->address.port = ntohs(m->id.idiag_sport);
	if (l->ipv6) {
		memcpy(l->address.ip, m->id.idiag_src, 16);
	} else if (m->id.idiag_src[0]) {
		memset(l->address.ip + 10, 0xff, 2);
		memcpy(l->address.ip + 12, m->id.idiag_src, 4);
	}
	return 0;
}

int diag_parse(const void *bytes, size_t len, struct diag_list *out)
{
	const uint8_t *p = bytes;
	struct nlmsghdr h;
	struct inet_diag_msg m;

	while (len >= sizeof(h)) {
		memcpy(&h, p, sizeof(h));
		if (h.nlmsg_len < sizeof(h) || h.nlmsg_len > len)
			return -EPROTO;
		if (h.nlmsg_type == NLMSG_DONE)
			return 0;
		if (h.nlmsg_type == NLMSG_ERROR) {
			struct nlmsgerr e;
			if (h.nlmsg_len < sizeof(h) + sizeof(e))
				return -EPROTO;
			memcpy(&e, p + sizeof(h), sizeof(e));
			return e.error < 0 ? e.error : -EPROTO;
		}
		if (h.nlmsg_type == SOCK_DIAG_BY_FAMILY) {
			if (h.nlmsg_len < sizeof(h) + sizeof(m))
				return -EPROTO;
			memcpy(&m, p + sizeof(h), sizeof(m));
			int r = add(out, &m);
			if (r < 0)
				return r;
		}
		size_t step = NLMSG_ALIGN(h.nlmsg_len);
		p += step < len ? step : len;
		len -= step < len ? step : len;
	}
	return 1;
}

/* Answers to an earlier question that failed half-way are thrown away. */
static void drain(int fd)
{
	char c;

	while (recv(fd, &c, 1, MSG_DONTWAIT) >= 0)
		;
}

static int dump(int fd, int family, struct diag_list *out)
{
	static uint8_t chunk[DIAG_CHUNK]; /* one thread */
	int r = request(fd, family, (uint32_t)family);

	if (r == 0)
		r = 1;
	while (r == 1) {
		ssize_t n = recv(fd, chunk, sizeof(chunk), 0);
		if (n < 0 && errno == EINTR)
			continue;
		r = n < 0 ? -errno : diag_parse(chunk, (size_t)n, out);
	}
	return r;
}

static int by_cookie(const void *a, const void *b)
{
	const struct diag_listener *x = a, *y = b;

	return (x->cookie > y->cookie) - (x->cookie < y->cookie);
}

int diag_listeners(int fd, struct diag_list *out)
{
	*out = (struct diag_list){ 0 };
	drain(fd);
	int r = dump(fd, AF_INET, out);
	if (r == 0)
		r = dump(fd, AF_INET6, out);
	if (r < 0) {
		diag_list_free(out);
		return r;
	}
	if (out->n)
		qsort(out->v, out->n, sizeof(*out->v), by_cookie);
	return 0;
}

void diag_list_free(struct diag_list *l)
{
	free(l->v);
	*l = (struct diag_list){ 0 };
}

const struct diag_listener *diag_find(const struct diag_list *l, uint64_t cookie)
{
	const struct diag_listener want = { .cookie = cookie };

	return l->n ? bsearch(&want, l->v, l->n, sizeof(*l->v), by_cookie) : NULL;
}
