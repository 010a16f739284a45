#include "cli/client.h"

#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "weft/addr.h"

#define REPLY_MAX (64u << 20)
#define TIMEOUT_S 5

struct target {
	struct sockaddr_storage addr;
	socklen_t len;
};

static int parse_tcp(const char *text, struct target *t)
{
	const char *colon = strrchr(text, ':');
	char host[64], *end;
	struct weft_addr a;
	size_t n = colon ? (size_t)(colon - text) : 0;
	unsigned long port;
	int len;

	if (!n || n >= sizeof(host))
		return -EINVAL;
	if (text[0] == '[' && text[n - 1] == ']')
		snprintf(host, sizeof(host), "%.*s", (int)n - 2, text + 1);
	else
		snprintf(host, sizeof(host), "%.*s", (int)n, text);
	port = strtoul(colon + 1, &end, 10);
	if (!colon[1] || *end || !port || port > 65535)
		return -EINVAL;
	if (addr_parse(&a, strcmp(host, "localhost") == 0 ? "127.0.0.1" : host) < 0)
		return -EINVAL;
	a.port = (uint16_t)port;
	len = addr_to_sockaddr(&a, addr_is_v4(&a) ? AF_INET : AF_INET6, &t->addr);
	t->len = len < 0 ? 0 : (socklen_t)len;
	return len < 0 ? len : 0;
}

static int parse_target(const char *address, struct target *t)
{
	struct sockaddr_un *sun = (struct sockaddr_un *)&t->addr;

	*t = (struct target){ .len = 0 };
	if (strncmp(address, "unix:", 5) != 0)
		return parse_tcp(address, t);
	if (strlen(address + 5) >= sizeof(sun->sun_path))
		return -EINVAL;
	sun->sun_family = AF_UNIX;
	memcpy(sun->sun_path, address + 5, strlen(address + 5) + 1);
	t->len = sizeof(*sun);
	return 0;
}

static int dial(const char *address, char why[static CLIENT_WHY])
{
	const struct timeval timeout = { .tv_sec = TIMEOUT_S };
	struct target t;
	int fd, e;

	if (parse_target(address, &t) < 0) {
		snprintf(why, CLIENT_WHY, "\"%.100s\" is not IP:PORT or unix:PATH", address);
		return -EINVAL;
	}
	fd = socket(t.addr.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd >= 0) {
		setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout));
		setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof(timeout));
		if (connect(fd, (struct sockaddr *)&t.addr, t.len) == 0)
			return fd;
	}
	e = errno;
	if (fd >= 0)
		close(fd);
	snprintf(why, CLIENT_WHY, "%s", strerror(e == EINPROGRESS ? ETIMEDOUT : e));
	return -e;
}

/* Reads to the end of the stream; NUL-terminated. NULL with `why`. */
static char *read_all(int fd, size_t *len, char why[static CLIENT_WHY])
{
	size_t size = 65536, n = 0;
	char *buf = malloc(size), *more;
	ssize_t r;

	while (buf) {
		r = recv(fd, buf + n, size - 1 - n, 0);
		if (r == 0 || (r < 0 && errno != EINTR))
			break;
		n += r > 0 ? (size_t)r : 0;
		if (n < size - 1)
			continue;
		more = size < REPLY_MAX ? realloc(buf, size *= 2) : NULL;
		if (!more) {
			snprintf(why, CLIENT_WHY, "the answer is too long");
			free(buf);
			return NULL;
		}
		buf = more;
	}
	if (!buf || r < 0) {
		snprintf(why, CLIENT_WHY, "%s",
			 buf && errno == EAGAIN ? "no answer in time" : strerror(errno));
		free(buf);
		return NULL;
	}
	buf[n] = '\0';
	*len = n;
	return buf;
}

static int send_all(int fd, const char *text, char why[static CLIENT_WHY])
{
	size_t n = strlen(text);

	while (n) {
		ssize_t r = send(fd, text, n, MSG_NOSIGNAL);

		if (r < 0 && errno == EINTR)
			continue;
		if (r < 0) {
			snprintf(why, CLIENT_WHY, "%s", strerror(errno));
			return -errno;
		}
		text += r;
		n -= (size_t)r;
	}
	return 0;
}

static int parse_reply(const char *reply, size_t len, json_t **out, char why[static CLIENT_WHY])
{
	const char *body = strstr(reply, "\r\n\r\n");
	json_error_t error;
	int status;

	if (!body || sscanf(reply, "HTTP/1.%*d %d", &status) != 1) {
		snprintf(why, CLIENT_WHY, "what answers there is not weftd");
		return -EPROTO;
	}
	if (status != 200) {
		snprintf(why, CLIENT_WHY, "it answers with HTTP status %d", status);
		return -EPROTO;
	}
	body += 4;
	*out = json_loadb(body, len - (size_t)(body - reply), 0, &error);
	if (*out && json_is_object(*out))
		return 0;
	json_decref(*out);
	snprintf(why, CLIENT_WHY, "what answers there is not weftd");
	return -EPROTO;
}

int client_get(const char *address, const char *page, json_t **out, char why[static CLIENT_WHY])
{
	char request[2048], *reply = NULL;
	size_t len;
	int fd, r;

	*out = NULL;
	snprintf(request, sizeof(request),
		 "GET %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", page);
	fd = dial(address, why);
	if (fd < 0)
		return fd;
	r = send_all(fd, request, why);
	if (r == 0) {
		reply = read_all(fd, &len, why);
		r = reply ? parse_reply(reply, len, out, why) : -EIO;
	}
	free(reply);
	close(fd);
	return r;
}

static void url_escape(const char *text, char *out, size_t size)
{
	size_t n = 0;

	for (; *text && n + 4 <= size; text++) {
		bool plain = (*text >= 'a' && *text <= 'z') || (*text >= 'A' && *text <= 'Z') ||
			     (*text >= '0' && *text <= '9') || strchr("-._~/:", *text);

		n += (size_t)snprintf(out + n, size - n, plain ? "%c" : "%%%02X",
				      (unsigned char)*text);
	}
	out[n] = '\0';
}

int client_list(const char *address, const char *page, const char *query, json_t **out,
		char why[static CLIENT_WHY])
{
	char url[2048], after[1536] = "";
	json_t *all = json_array(), *part;
	bool more = all != NULL;
	int r = all ? 0 : -ENOMEM;

	while (r == 0 && more) {
		const char *next;

		snprintf(url, sizeof(url), "/%s?%s%s%s", page, query, *after ? "&after=" : "",
			 after);
		r = client_get(address, url, &part, why);
		if (r < 0)
			break;
		next = json_string_value(json_object_get(part, "next"));
		more = next && json_array_size(json_object_get(part, page)) &&
		       json_array_size(all) < CLIENT_ENTRIES;
		if (more)
			url_escape(next, after, sizeof(after));
		json_array_extend(all, json_object_get(part, page));
		json_decref(part);
	}
	if (r < 0)
		json_decref(all);
	*out = r < 0 ? NULL : all;
	return r;
}

void client_complain(const char *address, const char *why)
{
	fprintf(stderr,
		"weft: weftd does not answer at %s: %s\n"
		"weft: is it running? Another admin address is given by --admin or WEFT_ADMIN.\n",
		address, why);
}
