#include "conduit/relay.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <time.h>

#include "conduit/carry_int.h"
#include "sys/clock.h"
#include "sys/sys.h"
#include "telemetry/log.h"
#include "weft/relay.h"

_Static_assert(WEFT_RELAY_VERSION == CARRY_VERSION, "the relay takes what carry_out() makes");

#define TRIES 3 /* a relay that ends just now answers nothing; weftd starts the next */

static void close_fd(int fd)
{
	if (fd >= 0)
		sys_call(SYS_close, fd, 0, 0, 0, 0, 0);
}

/* Descriptors of ours never are 0, 1 or 2: a program that closed these may open them anew at any moment. */
static int move_high(int fd)
{
	int high;

	if (fd < 0 || fd > 2)
		return fd;
	high = (int)sys_call(SYS_fcntl, fd, F_DUPFD_CLOEXEC, 3, 0, 0, 0);
	close_fd(fd);
	return high;
}

static int connect_to(const char *path)
{
	struct sockaddr_un un = { .sun_family = AF_UNIX };
	struct ucred peer = { .uid = (uid_t)-1 };
	socklen_t len = sizeof(peer);
	long r, uid = sys_call(SYS_geteuid, 0, 0, 0, 0, 0, 0);
	int fd = move_high((int)sys_call(SYS_socket, AF_UNIX,
					 SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, 0, 0, 0));

	if (fd < 0)
		return fd;
	memcpy(un.sun_path, path, strlen(path));
	r = sys_call(SYS_connect, fd, (long)&un, sizeof(un), 0, 0, 0);
	if (!r)
		r = sys_call(SYS_getsockopt, fd, SOL_SOCKET, SO_PEERCRED, (long)&peer, (long)&len,
			     0);
	if (!r && peer.uid != 0 && peer.uid != (uid_t)uid)
		r = -EACCES;
	if (!r)
		return fd;
	close_fd(fd);
	return (int)r;
}

static int connect_any(void)
{
	char path[MESH_RELAY_PATH];
	int fd = -ECONNREFUSED;
	unsigned i;

	for (i = 0; fd < 0 && mesh_relay_path(i, path) == 0; i++)
		fd = connect_to(path);
	return fd;
}

static int send_ask(int relay, const int *fds)
{
	union {
		struct cmsghdr head;
		char bytes[CMSG_SPACE(WEFT_RELAY_SENT * sizeof(int))];
	} control = { .head = { .cmsg_level = SOL_SOCKET,
				.cmsg_type = SCM_RIGHTS,
				.cmsg_len = CMSG_LEN(WEFT_RELAY_SENT * sizeof(int)) } };
	struct weft_relay_ask ask = { WEFT_RELAY_MAGIC, WEFT_RELAY_VERSION };
	struct iovec iov = { &ask, sizeof(ask) };
	struct msghdr m = { .msg_iov = &iov,
			    .msg_iovlen = 1,
			    .msg_control = &control,
			    .msg_controllen = sizeof(control) };
	long r;

	memcpy(CMSG_DATA(&control.head), fds, WEFT_RELAY_SENT * sizeof(int));
	r = sys_call(SYS_sendmsg, relay, (long)&m, MSG_NOSIGNAL | MSG_DONTWAIT, 0, 0, 0);
	return r < 0 ? (int)r : r == sizeof(ask) ? 0 : -EPIPE;
}

/* 0: it carries the session from now on. */
static int wait_answer(int relay)
{
	int64_t until = clock_now_ms() + WEFT_RELAY_WAIT_MS, left;
	struct pollfd p = { .fd = relay, .events = POLLIN };
	uint8_t answer;
	long r = -EINTR;

	while (r == -EINTR || r == -EAGAIN) {
		left = until - clock_now_ms();
		if (left <= 0)
			return -ETIMEDOUT;
		struct timespec t = { .tv_sec = left / 1000, .tv_nsec = left % 1000 * 1000000 };

		r = sys_call(SYS_ppoll, (long)&p, 1, (long)&t, 0, 0, 0);
		if (r >= 0)
			r = sys_call(SYS_recvfrom, relay, (long)&answer, 1, MSG_DONTWAIT, 0, 0);
	}
	if (r <= 0)
		return r ? (int)r : -ECONNRESET;
	return answer == WEFT_RELAY_TAKEN ? 0 : -answer;
}

/* -ECONNREFUSED, -ENOENT, -ECONNRESET...: there is no relay, or it went away; nothing has happened. */
static int hand_over(const int *fds)
{
	int r, relay = connect_any();

	if (relay < 0)
		return relay;
	r = send_ask(relay, fds);
	if (!r)
		r = wait_answer(relay);
	close_fd(relay);
	return r;
}

static void copy_option(int from, int to, int name)
{
	char value[32];
	socklen_t len = sizeof(value);

	if (sys_call(SYS_getsockopt, from, SOL_SOCKET, name, (long)value, (long)&len, 0) == 0)
		sys_call(SYS_setsockopt, to, SOL_SOCKET, name, (long)value, len, 0);
}

/* ends[0] is to stand for `fd`. */
static int make_pair(int fd, int ends[2])
{
	long flags = sys_call(SYS_fcntl, fd, F_GETFL, 0, 0, 0, 0), r;

	r = sys_call(SYS_socketpair, AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, (long)ends, 0, 0);
	if (r < 0)
		return (int)r;
	ends[0] = move_high(ends[0]);
	ends[1] = move_high(ends[1]);
	if (ends[0] < 0 || ends[1] < 0) {
		close_fd(ends[0]);
		close_fd(ends[1]);
		return -EMFILE;
	}
	sys_call(SYS_fcntl, ends[0], F_SETFL, flags & O_NONBLOCK, 0, 0, 0);
	copy_option(fd, ends[0], SO_RCVTIMEO);
	copy_option(fd, ends[0], SO_SNDTIMEO);
	return 0;
}

static bool is_there(void)
{
	int fd = connect_any();

	if (fd < 0 && mesh_relay_start() == 0)
		fd = connect_any();
	close_fd(fd);
	return fd >= 0;
}

int relay_offer(struct relay_offer *o, int fd)
{
	int ends[2], r;

	o->fd = fd;
	o->memory = move_high(carry_out(&fd, 1));
	if (o->memory < 0)
		return o->memory;
	r = is_there() ? make_pair(fd, ends) : -ECONNREFUSED;
	if (r < 0) {
		log_error("no relay for the connection on descriptor %d: %s", fd, strerror(-r));
		carry_revoke(o->memory, &fd, 1);
		close_fd(o->memory);
		return r;
	}
	o->near = ends[0];
	o->far = ends[1];
	return 0;
}

void relay_drop(struct relay_offer *o)
{
	close_fd(o->near);
	close_fd(o->far);
	carry_revoke(o->memory, &o->fd, 1);
	close_fd(o->memory);
}

int relay_take(struct relay_offer *o)
{
	const int fds[WEFT_RELAY_SENT] = { o->fd, o->far, o->memory };
	int r = -ECONNREFUSED, i;

	for (i = 0; i < TRIES && r < 0; i++) {
		if (i && mesh_relay_start() < 0)
			break;
		r = hand_over(fds);
		if (r == -ETIMEDOUT || r == -EPROTO)
			break;
	}
	if (r < 0) {
		log_error("no relay takes the connection on descriptor %d: %s", o->fd,
			  strerror(-r));
		return r;
	}
	close_fd(o->far);
	close_fd(o->memory);
	return 0;
}

int relay_hand_over(int fd)
{
	struct relay_offer o;
	int r = relay_offer(&o, fd);

	if (r < 0)
		return r;
	r = relay_take(&o);
	if (!r)
		return o.near;
	relay_drop(&o);
	return r;
}
