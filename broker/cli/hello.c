#include "cli/hello.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "weft/env.h"
#include "weft/limits.h"
#include "weft/policy.h"
#include "weft/shm.h"

#define FDS_MAX 8

const char *hello_socket(const char *given, char *out, size_t size)
{
	const char *run = getenv("XDG_RUNTIME_DIR");

	if (!given || !*given)
		given = getenv(WEFT_ENV_SOCKET);
	if (given && *given) {
		snprintf(out, size, "%s", given);
		return out;
	}
	snprintf(out, size, "%s", WEFT_SOCKET_DEFAULT);
	if (access(out, F_OK) < 0 && run && *run) {
		snprintf(out, size, "%s/weft/%s", run, WEFT_SOCKET_NAME);
		if (access(out, F_OK) < 0)
			snprintf(out, size, "%s", WEFT_SOCKET_DEFAULT);
	}
	return out;
}

static int dial(const char *path)
{
	const struct timeval timeout = { .tv_sec = WEFT_EXCHANGE_MS / 1000 };
	struct sockaddr_un sun = { .sun_family = AF_UNIX };
	int fd, e;

	if (strlen(path) >= sizeof(sun.sun_path))
		return -ENAMETOOLONG;
	memcpy(sun.sun_path, path, strlen(path) + 1);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout));
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof(timeout));
	if (connect(fd, (struct sockaddr *)&sun, sizeof(sun)) == 0)
		return fd;
	e = errno;
	close(fd);
	return -e;
}

static int send_hello(int fd)
{
	struct wire_hello hello = { .shim_version = wire_str_of(WEFT_VERSION),
				    .tls_version = wire_str_of("none"),
				    .layout = WEFT_SHM_LAYOUT,
				    .program = wire_str_of("weft"),
				    .ceiling = WEFT_MODE_OFF };
	struct wire_frame frame;
	uint8_t *body;
	size_t len;
	int r = wire_encode(&wire_schema_hello, &hello, WEFT_REQUEST_MAX, &body, &len);

	if (r < 0)
		return r;
	wire_frame_make(&frame, WIRE_HELLO, (uint32_t)len);
	if (send(fd, &frame, sizeof(frame), MSG_NOSIGNAL) != sizeof(frame) ||
	    send(fd, body, len, MSG_NOSIGNAL) != (ssize_t)len)
		r = -EPIPE;
	free(body);
	return r;
}

static unsigned close_passed(struct msghdr *msg)
{
	unsigned closed = 0;

	for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c)) {
		size_t n =
			c->cmsg_type == SCM_RIGHTS ? (c->cmsg_len - CMSG_LEN(0)) / sizeof(int) : 0;
		int fds[FDS_MAX];

		memcpy(fds, CMSG_DATA(c), (n < FDS_MAX ? n : FDS_MAX) * sizeof(int));
		for (size_t i = 0; i < n && i < FDS_MAX; i++, closed++)
			close(fds[i]);
	}
	return closed;
}

/* Exactly `len` bytes. 0 or -errno. */
static int receive(int fd, void *out, size_t len, unsigned *fds)
{
	for (size_t n = 0; n < len;) {
		char control[CMSG_SPACE(FDS_MAX * sizeof(int))];
		struct iovec iov = { (char *)out + n, len - n };
		struct msghdr msg = { .msg_iov = &iov,
				      .msg_iovlen = 1,
				      .msg_control = control,
				      .msg_controllen = sizeof(control) };
		ssize_t r = recvmsg(fd, &msg, MSG_CMSG_CLOEXEC);

		if (r < 0 && errno == EINTR)
			continue;
		if (r < 0)
			return -errno;
		*fds += close_passed(&msg);
		if (!r)
			return -ECONNRESET;
		n += (size_t)r;
	}
	return 0;
}

static int read_answer(int fd, struct wire_welcome *welcome, void **block, unsigned *fds, char *why,
		       size_t size)
{
	const char *fault = "what answers there is not weftd";
	struct wire_refused refused;
	struct wire_frame frame;
	uint32_t len;
	uint8_t type, *body;
	int r = receive(fd, &frame, sizeof(frame), fds);

	if (r == 0 && wire_frame_parse(&frame, WEFT_REPLY_MAX, &type, &len) < 0)
		r = -EPROTO;
	if (r < 0) {
		snprintf(why, size, "%s",
			 r == -EAGAIN   ? "no answer in time"
			 : r == -EPROTO ? fault
					: strerror(-r));
		return r;
	}
	body = malloc(len + 1);
	r = body ? receive(fd, body, len, fds) : -ENOMEM;
	if (r == 0 && type == WIRE_REFUSED) {
		r = wire_decode(&wire_schema_refused, body, len, &refused, block, &fault);
		if (r == 0)
			snprintf(why, size, "%s", refused.text.p);
		free(r == 0 ? *block : NULL);
		r = -EACCES;
	} else if (r == 0) {
		r = wire_decode(&wire_schema_welcome, body, len, welcome, block, &fault);
		if (r < 0)
			snprintf(why, size, "%s", fault);
	} else {
		snprintf(why, size, "%s", strerror(-r));
	}
	free(body);
	return r;
}

int hello_exchange(const char *path, struct wire_welcome *welcome, void **block, unsigned *fds,
		   char *why, size_t size)
{
	int fd = dial(path), r;

	*fds = 0;
	if (fd < 0) {
		snprintf(why, size, "%s", strerror(-fd));
		return fd;
	}
	r = send_hello(fd);
	if (r < 0)
		snprintf(why, size, "%s", strerror(-r));
	else
		r = read_answer(fd, welcome, block, fds, why, size);
	close(fd);
	return r;
}
