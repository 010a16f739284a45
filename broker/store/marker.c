#include "store/marker.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <jansson.h>

enum marker_verdict marker_judge(const struct marker *known, const struct marker *seen,
				 const char **why)
{
	*why = "";
	if (!known->id[0])
		return seen->id[0] ? MARKER_OURS : MARKER_NEW;
	if (!seen->id[0])
		*why = "weft:mesh is gone: the data may be lost";
	else if (strcmp(known->id, seen->id))
		*why = "weft:mesh has another id: this is the data of another mesh";
	else if (seen->revision < known->revision)
		*why = "weft:mesh went back in revision: this is older data";
	else
		return MARKER_OURS;
	return MARKER_HELD;
}

int marker_parse(struct marker *m, const char *json, size_t len)
{
	json_t *doc = json_loadb(json, len, JSON_REJECT_DUPLICATES, NULL);
	const char *id = json_string_value(json_object_get(doc, "id"));
	json_int_t revision = json_integer_value(json_object_get(doc, "revision"));
	int r = -EINVAL;

	*m = (struct marker){ 0 };
	if (id && *id && strlen(id) <= MARKER_ID_MAX && !strpbrk(id, " \t\r\n\"\\") &&
	    revision >= 0) {
		memcpy(m->id, id, strlen(id) + 1);
		m->revision = (uint64_t)revision;
		r = 0;
	}
	json_decref(doc);
	return r;
}

int marker_format(const struct marker *m, char *out, size_t size)
{
	int n = snprintf(out, size, "{\"id\": \"%s\", \"revision\": %llu}", m->id,
			 (unsigned long long)m->revision);

	return n < 0 || (size_t)n >= size ? -ENAMETOOLONG : n;
}

int marker_load(struct marker *m, const char *path)
{
	char text[256];
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	*m = (struct marker){ 0 };
	if (fd < 0)
		return errno == ENOENT ? 0 : -errno;
	ssize_t n = read(fd, text, sizeof(text));
	int saved = errno;
	close(fd);
	return n < 0 ? -saved : marker_parse(m, text, (size_t)n);
}

int marker_save(const struct marker *m, const char *path)
{
	char text[256], tmp[PATH_MAX];
	int n = marker_format(m, text, sizeof(text));

	if (n < 0 || snprintf(tmp, sizeof(tmp), "%s.new", path) >= (int)sizeof(tmp))
		return -ENAMETOOLONG;
	int fd = open(tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0)
		return -errno;
	ssize_t written = write(fd, text, (size_t)n);
	int saved = errno;
	close(fd);
	if (written != n)
		return written < 0 ? -saved : -ENOSPC;
	return rename(tmp, path) < 0 ? -errno : 0;
}
