/* weft try: a weftd of its own with its embedded Redis, STRICT, in the folder of the try; gone with it. */
#include <errno.h>
#include <fcntl.h>
#include <hiredis/hiredis.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cli/client.h"
#include "cli/hello.h"
#include "cli/try.h"
#include "weft/env.h"

#define READY_MS 20000
#define STOP_MS 10000
#define LOOK_MS 20
#define NOTES_MAX 5

#define DOCUMENT "PeerAuthentication:" WEFT_NAMESPACE_ROOT "/default"

static void mesh_path(const struct trial *t, const char *name, char out[TRY_PATH])
{
	snprintf(out, TRY_PATH, "%s/weftd/%s", t->dir, name);
}

void try_mesh_environment(const struct trial *t, enum try_part part)
{
	char path[TRY_PATH], log[TRY_PATH + 8];

	mesh_path(t, WEFT_SOCKET_NAME, path);
	setenv(WEFT_ENV_SOCKET, path, 1);
	setenv(WEFT_ENV_SERVICE, part == TRY_CLIENT ? "try-client" : "try", 1);
	mesh_path(t, "shim.log", path);
	snprintf(log, sizeof(log), "warn:%s", path);
	setenv(WEFT_ENV_LOG, log, 1);
}

static void admin_address(const struct trial *t, char out[TRY_PATH + 8])
{
	char path[TRY_PATH];

	mesh_path(t, "admin.sock", path);
	snprintf(out, TRY_PATH + 8, "unix:%s", path);
}

/* In the child. */
static void become_weftd(void *arg)
{
	const struct trial *t = arg;
	char socket[TRY_PATH], state[TRY_PATH], log[TRY_PATH], self[TRY_PATH], admin[TRY_PATH + 8];
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - sizeof("weftd"));
	int fd;

	mesh_path(t, WEFT_SOCKET_NAME, socket);
	mesh_path(t, "state", state);
	mesh_path(t, "weftd.log", log);
	admin_address(t, admin);
	fd = open(log, O_WRONLY | O_CREAT | O_APPEND, 0644);
	if (fd < 0 || dup2(fd, STDOUT_FILENO) < 0 || dup2(fd, STDERR_FILENO) < 0)
		_exit(126);
	for (char **e = environ; *e;)
		if (strncmp(*e, "WEFTD_", 6) == 0 && strchr(*e, '=')) {
			char *name = strndup(*e, strcspn(*e, "="));

			unsetenv(name);
			free(name);
		} else {
			e++;
		}
	unsetenv("LD_PRELOAD");
	self[n > 0 ? n : 0] = '\0';
	if (strrchr(self, '/')) {
		memcpy(strrchr(self, '/') + 1, "weftd", sizeof("weftd"));
		execl(self, "weftd", "--socket", socket, "--state-dir", state, "--admin", admin,
		      (char *)NULL);
	}
	execlp("weftd", "weftd", "--socket", socket, "--state-dir", state, "--admin", admin,
	       (char *)NULL);
	fprintf(stderr, "weftd: %s\n", strerror(errno));
}

static bool answers(const char *socket)
{
	struct wire_welcome welcome;
	char why[256];
	unsigned fds;
	void *block;

	if (hello_exchange(socket, &welcome, &block, &fds, why, sizeof(why)) < 0)
		return false;
	free(block);
	return true;
}

static bool is_accepted(redisContext *redis)
{
	redisReply *reply = redisCommand(redis, "GET weft:status:" DOCUMENT);
	json_t *status = reply && reply->type == REDIS_REPLY_STRING
				 ? json_loadb(reply->str, reply->len, 0, NULL)
				 : NULL;
	bool yes = json_is_true(json_object_get(status, "accepted"));

	json_decref(status);
	if (reply)
		freeReplyObject(reply);
	return yes;
}

/* Nothing but mTLS between whatever the program starts. */
static int make_strict(const char *socket)
{
	redisContext *redis = redisConnectUnix(socket);
	redisReply *reply = NULL;
	int status, r = -EIO;

	if (redis && !redis->err)
		reply = redisCommand(redis, "SET weft:" DOCUMENT " %s",
				     "{\"mtls\":{\"mode\":\"STRICT\"}}");
	if (reply && reply->type == REDIS_REPLY_STATUS)
		for (int ms = 0; ms < READY_MS && r; ms += LOOK_MS) {
			r = is_accepted(redis) ? 0 : -ETIMEDOUT;
			if (r)
				try_wait(-1, LOOK_MS, &status);
		}
	if (reply)
		freeReplyObject(reply);
	if (redis)
		redisFree(redis);
	return r;
}

int try_mesh_start(struct trial *t, char *why, size_t size)
{
	char path[TRY_PATH];
	int status, r = -ETIMEDOUT;
	bool gone = false;

	mesh_path(t, "", path);
	if (mkdir(path, 0755) < 0)
		return -errno;
	mesh_path(t, "shim.log", path);
	close(open(path, O_WRONLY | O_CREAT, 0644));
	chmod(path, 0666); /* the program may change its user */
	t->weftd = try_spawn(become_weftd, t);
	if (t->weftd < 0)
		return -errno;
	mesh_path(t, WEFT_SOCKET_NAME, path);
	for (int ms = 0; ms < READY_MS && !gone && r; ms += LOOK_MS) {
		gone = try_wait(t->weftd, LOOK_MS, &status);
		r = answers(path) ? 0 : -ETIMEDOUT;
	}
	if (gone)
		t->weftd = 0;
	mesh_path(t, "state/redis.sock", path);
	if (r == 0 && (r = make_strict(path)) < 0)
		snprintf(why, size, "the private weftd does not take a document");
	else if (r < 0)
		snprintf(why, size, "the private weftd %s; its log is %s/weftd/weftd.log",
			 gone ? "ended at once" : "does not answer", t->dir);
	return r;
}

bool try_mesh_announces(const struct trial *t)
{
	char admin[TRY_PATH + 8], why[CLIENT_WHY];
	json_t *page = NULL;
	bool any;

	admin_address(t, admin);
	if (client_get(admin, "/endpoints", &page, why) < 0)
		return false;
	any = json_array_size(json_object_get(page, "endpoints")) > 0;
	json_decref(page);
	return any;
}

void try_mesh_stop(struct trial *t)
{
	int status;

	if (t->weftd <= 0)
		return;
	kill(t->weftd, SIGTERM);
	if (!try_wait(t->weftd, STOP_MS, &status)) {
		kill(t->weftd, SIGKILL);
		waitpid(t->weftd, &status, 0);
	}
	t->weftd = 0;
}

void try_mesh_tell(struct trial *t)
{
	char path[TRY_PATH], line[600];
	unsigned n = 0;
	FILE *f;

	mesh_path(t, "shim.log", path);
	f = fopen(path, "re");
	while (f && n < NOTES_MAX && fgets(line, sizeof(line), f)) {
		line[strcspn(line, "\n")] = '\0';
		try_note(t, "weft said: %s", line);
		n++;
	}
	if (f)
		fclose(f);
}
