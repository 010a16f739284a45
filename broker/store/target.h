/* Where Redis is: the URL of --redis taken apart. Pure but for target_password_file(). */
#ifndef STORE_TARGET_H
#define STORE_TARGET_H

#include <stdint.h>
#include <sys/un.h>

#include "weft/limits.h"

struct store_target {
	char path[sizeof(((struct sockaddr_un *)0)->sun_path)]; /* Unix socket; "" for TCP */
	char host[WEFT_HOST_MAX + 1];
	uint16_t port;
	unsigned db;
	char user[256];     /* "" : Redis's default user */
	char password[512]; /* "" : no AUTH */
};

/* redis://[user[:password]@]host[:port][/db], unix:/path[?db=n], unix:///path[?db=n].
 * 0, or -EINVAL with *why (static text). rediss:// is refused by name. */
int target_parse(struct store_target *t, const char *url, const char **why);

/* Reads the password from the first line of a file. 0 or -errno. */
int target_password_file(struct store_target *t, const char *path);

/* "redis://10.0.0.1:6379/0", "unix:/path": never holds the password. Returns `out`. */
const char *target_format(const struct store_target *t, char *out, size_t size);

#endif
