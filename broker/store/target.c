#include "store/target.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define REDIS_PORT 6379
#define REDIS_DB_MAX 16383

static bool copy_text(char *out, size_t size, const char *from, size_t n)
{
	if (n >= size)
		return false;
	memcpy(out, from, n);
	out[n] = '\0';
	return true;
}

/* Copies with %xx undone (RFC 3986): a password may hold '@' or '/'. */
static bool copy_decoded(char *out, size_t size, const char *from, size_t n)
{
	size_t o = 0;

	for (size_t i = 0; i < n; i++) {
		char c = from[i];
		if (c == '%') {
			char hex[3] = { 0 };
			if (i + 2 >= n || !isxdigit((unsigned char)from[i + 1]) ||
			    !isxdigit((unsigned char)from[i + 2]))
				return false;
			memcpy(hex, from + i + 1, 2);
			c = (char)strtoul(hex, NULL, 16);
			i += 2;
		}
		if (c == '\0' || o + 1 >= size)
			return false;
		out[o++] = c;
	}
	out[o] = '\0';
	return true;
}

static int parse_number(const char *text, unsigned long max, unsigned long *out)
{
	char *end;

	if (!isdigit((unsigned char)*text))
		return -EINVAL;
	errno = 0;
	*out = strtoul(text, &end, 10);
	return *end || errno || *out > max ? -EINVAL : 0;
}

static int parse_unix(struct store_target *t, const char *rest, const char **why)
{
	unsigned long db;

	if (strncmp(rest, "//", 2) == 0)
		rest += 2;
	const char *query = strchr(rest, '?');
	size_t n = query ? (size_t)(query - rest) : strlen(rest);
	if (rest[0] != '/' || !copy_text(t->path, sizeof(t->path), rest, n)) {
		*why = "unix: needs an absolute path of at most 107 bytes";
		return -EINVAL;
	}
	if (!query)
		return 0;
	if (strncmp(query, "?db=", 4) || parse_number(query + 4, REDIS_DB_MAX, &db)) {
		*why = "after the path only ?db=<number> may stand";
		return -EINVAL;
	}
	t->db = (unsigned)db;
	return 0;
}

static int parse_host(struct store_target *t, const char *p, size_t n, const char **why)
{
	char text[WEFT_HOST_MAX + 16];
	unsigned long port;
	char *host = text, *colon;

	*why = "host or port is not valid";
	if (!copy_text(text, sizeof(text), p, n))
		return -EINVAL;
	if (text[0] == '[') {
		char *end = strchr(text, ']');
		if (!end || (end[1] && end[1] != ':'))
			return -EINVAL;
		colon = end[1] ? end + 1 : NULL;
		*end = '\0';
		host = text + 1;
	} else {
		colon = strrchr(text, ':');
	}
	if (colon) {
		*colon = '\0';
		if (parse_number(colon + 1, 65535, &port) || port == 0)
			return -EINVAL;
		t->port = (uint16_t)port;
	}
	if (!*host || !copy_text(t->host, sizeof(t->host), host, strlen(host)))
		return -EINVAL;
	return 0;
}

static int parse_tcp(struct store_target *t, const char *rest, const char **why)
{
	const char *slash = strchr(rest, '/');
	size_t n = slash ? (size_t)(slash - rest) : strlen(rest);
	const char *at = memrchr(rest, '@', n);
	unsigned long db;

	t->port = REDIS_PORT;
	if (at) {
		const char *colon = memchr(rest, ':', (size_t)(at - rest));
		const char *user_end = colon ? colon : at;
		*why = "user or password is too long or not well-formed";
		if (!copy_decoded(t->user, sizeof(t->user), rest, (size_t)(user_end - rest)))
			return -EINVAL;
		if (colon && !copy_decoded(t->password, sizeof(t->password), colon + 1,
					   (size_t)(at - colon - 1)))
			return -EINVAL;
		n -= (size_t)(at + 1 - rest);
		rest = at + 1;
	}
	if (slash && slash[1]) {
		*why = "database is not a number";
		if (parse_number(slash + 1, REDIS_DB_MAX, &db))
			return -EINVAL;
		t->db = (unsigned)db;
	}
	return parse_host(t, rest, n, why);
}

int target_parse(struct store_target *t, const char *url, const char **why)
{
	*t = (struct store_target){ 0 };
	if (strncmp(url, "redis://", 8) == 0)
		return parse_tcp(t, url + 8, why);
	if (strncmp(url, "unix:", 5) == 0)
		return parse_unix(t, url + 5, why);
	if (strncmp(url, "rediss://", 9) == 0)
		*why = "rediss:// (TLS to Redis) is not supported by this release";
	else
		*why = "must begin with redis:// or unix:";
	return -EINVAL;
}

int target_password_file(struct store_target *t, const char *path)
{
	char text[sizeof(t->password) + 1];
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);

	if (fd < 0)
		return -errno;
	ssize_t n = read(fd, text, sizeof(text));
	int saved = errno;
	close(fd);
	if (n < 0)
		return -saved;
	size_t len = 0;
	while (len < (size_t)n && text[len] != '\n' && text[len] != '\r')
		len++;
	if (len == 0 || len >= sizeof(t->password) || memchr(text, '\0', len))
		return -EINVAL;
	memcpy(t->password, text, len);
	t->password[len] = '\0';
	return 0;
}

const char *target_format(const struct store_target *t, char *out, size_t size)
{
	if (t->path[0])
		snprintf(out, size, "unix:%s", t->path);
	else
		snprintf(out, size,
			 strchr(t->host, ':') ? "redis://[%s]:%u/%u" : "redis://%s:%u/%u", t->host,
			 t->port, t->db);
	return out;
}
