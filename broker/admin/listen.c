#include "admin/listen.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "weft/addr.h"

#define BACKLOG 16

static int fail(int fd, int error)
{
	if (fd >= 0)
		close(fd);
	return -error;
}

/* Whether the path is a socket that nobody accepts on any more. */
static bool is_stale(const struct sockaddr_un *sun)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	bool stale = fd >= 0 && connect(fd, (const struct sockaddr *)sun, sizeof(*sun)) < 0 &&
		     errno == ECONNREFUSED;

	if (fd >= 0)
		close(fd);
	return stale;
}

static int listen_unix(const char *path, const char **why)
{
	struct sockaddr_un sun = { .sun_family = AF_UNIX };
	int fd;

	if (path[0] != '/' || strlen(path) >= sizeof(sun.sun_path)) {
		*why = "the path of the admin socket is not absolute, or longer than 107 bytes";
		return -EINVAL;
	}
	memcpy(sun.sun_path, path, strlen(path) + 1);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	if (bind(fd, (struct sockaddr *)&sun, sizeof(sun)) < 0) {
		if (errno != EADDRINUSE || !is_stale(&sun))
			return fail(fd, errno);
		unlink(path);
		if (bind(fd, (struct sockaddr *)&sun, sizeof(sun)) < 0)
			return fail(fd, errno);
	}
	if (chmod(path, 0660) < 0 || listen(fd, BACKLOG) < 0)
		return fail(fd, errno);
	return fd;
}

static int parse_address(const char *text, struct weft_addr *a)
{
	const char *colon = strrchr(text, ':');
	char host[64], *h = host;
	unsigned port = 0;
	size_t n = colon ? (size_t)(colon - text) : 0;

	if (!n || n >= sizeof(host) || strlen(colon + 1) > 5)
		return -EINVAL;
	memcpy(host, text, n);
	host[n] = '\0';
	if (host[0] == '[' && host[n - 1] == ']') {
		host[n - 1] = '\0';
		h++;
	}
	if (addr_parse(a, strcmp(h, "localhost") == 0 ? "127.0.0.1" : h) < 0)
		return -EINVAL;
	for (const char *s = colon + 1; *s; s++) {
		if (*s < '0' || *s > '9')
			return -EINVAL;
		port = port * 10 + (unsigned)(*s - '0');
	}
	a->port = (uint16_t)port;
	return port && port <= 65535 ? 0 : -EINVAL;
}

static int listen_tcp(const char *address, bool *local, const char **why)
{
	struct sockaddr_storage ss;
	struct weft_addr a;
	int one = 1, fd, len;

	if (parse_address(address, &a) < 0) {
		*why = "the admin address is not IP:PORT, unix:PATH or off";
		return -EINVAL;
	}
	*local = addr_is_loopback(&a);
	len = addr_to_sockaddr(&a, addr_is_v4(&a) ? AF_INET : AF_INET6, &ss);
	if (len < 0)
		return len;
	fd = socket(ss.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (bind(fd, (struct sockaddr *)&ss, (socklen_t)len) < 0 || listen(fd, BACKLOG) < 0)
		return fail(fd, errno);
	return fd;
}

int listen_open(const char *address, bool *local, const char **why)
{
	*why = "";
	*local = true;
	if (strncmp(address, "unix:", 5) == 0)
		return listen_unix(address + 5, why);
	return listen_tcp(address, local, why);
}
