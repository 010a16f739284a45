/* weft check: is this machine able to mesh, and perhaps one program. */
#include <errno.h>
#include <fcntl.h>
#include <gnu/libc-version.h>
#include <libgen.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cli/cli.h"
#include "cli/client.h"
#include "cli/columns.h"
#include "cli/coverage.h"
#include "cli/hello.h"
#include "cli/target.h"
#include "relay/library.h"

static const char *socket_path, *library;
static const struct cli_option options[] = {
	{ "socket", 0, CLI_TEXT, "PATH", "of weftd (WEFT_SOCKET)", &socket_path },
	{ "library", 0, CLI_TEXT, "PATH", "of libweft.so; beside weft or in ../lib unless told",
	  &library },
	CLI_ADMIN,
	CLI_OUTPUT,
};

enum level { LEVEL_OK, LEVEL_WARN, LEVEL_FAIL };
static const char *const level_names[] = { "ok", "warn", "fail" };

struct report {
	json_t *lines;
	enum level worst;
};

/* help: what to do about it, "" where all is well. */
static void tell(struct report *r, const char *name, enum level level, const char *help,
		 const char *format, ...) __attribute__((format(printf, 5, 6)));
static void tell(struct report *r, const char *name, enum level level, const char *help,
		 const char *format, ...)
{
	char detail[1024];
	va_list list;

	va_start(list, format);
	vsnprintf(detail, sizeof(detail), format, list);
	va_end(list);
	r->worst = level > r->worst ? level : r->worst;
	json_array_append_new(r->lines, json_pack("{s:s, s:s, s:s, s:s}", "check", name, "result",
						  level_names[level], "detail", detail, "help",
						  level == LEVEL_OK ? "" : help));
}

static bool at_least(const char *version, int major, int minor)
{
	int a = 0, b = 0;

	sscanf(version, "%d.%d", &a, &b);
	return a > major || (a == major && b >= minor);
}

static void check_system(struct report *r)
{
	struct utsname u;
	bool known;

	uname(&u);
	tell(r, "kernel", at_least(u.release, 5, 4) ? LEVEL_OK : LEVEL_FAIL,
	     "weft needs Linux 5.4 or newer", "Linux %s", u.release);
	known = strcmp(u.machine, "x86_64") == 0 || strcmp(u.machine, "aarch64") == 0;
	tell(r, "machine", known ? LEVEL_OK : LEVEL_FAIL, "weft needs x86-64 or aarch64", "%s",
	     u.machine);
	tell(r, "glibc", at_least(gnu_get_libc_version(), 2, 28) ? LEVEL_OK : LEVEL_FAIL,
	     "weft needs glibc 2.28 or newer", "%s", gnu_get_libc_version());
}

/* Runs `cat /proc/self/maps` with the library preloaded and returns what it prints, malloc'ed; NULL if it fails. */
static char *maps_with(const char *shim)
{
	size_t room = 1u << 20, n = 0;
	char *out = calloc(1, room);
	int p[2], status = -1;
	ssize_t got;
	pid_t pid;

	if (!out || pipe2(p, O_CLOEXEC) < 0) {
		free(out);
		return NULL;
	}
	pid = fork();
	if (pid == 0) {
		dup2(p[1], STDOUT_FILENO);
		dup2(p[1], STDERR_FILENO);
		setenv("LD_PRELOAD", shim, 1);
		setenv("WEFT_MODE", "off", 1);
		execlp("cat", "cat", "/proc/self/maps", (char *)NULL);
		_exit(127);
	}
	close(p[1]);
	while (pid > 0 && n < room - 1 && (got = read(p[0], out + n, room - 1 - n)) > 0)
		n += (size_t)got;
	close(p[0]);
	if (pid > 0)
		waitpid(pid, &status, 0);
	if (pid > 0 && WIFEXITED(status) && WEXITSTATUS(status) == 0)
		return out;
	free(out);
	return NULL;
}

static void check_library(struct report *r)
{
	const char *help =
		"install libweft.so beside weft or in ../lib of it, or name it by --library";
	char shim[4400], *maps;

	if (library_find(library, shim, sizeof(shim)) < 0) {
		tell(r, "libweft.so", LEVEL_FAIL, help, "there is no %s", shim);
		return;
	}
	maps = maps_with(shim);
	if (maps && strstr(maps, shim))
		tell(r, "libweft.so", LEVEL_OK, "", "%s, loads into cat", shim);
	else if (maps)
		tell(r, "libweft.so", LEVEL_FAIL, "is it of this machine, and readable?",
		     "%s is not loaded: %.200s", shim, maps[0] ? maps : "no reason given");
	else
		tell(r, "libweft.so", LEVEL_FAIL, "a program with it does not even start",
		     "cat fails with %s preloaded", shim);
	free(maps);
}

static void check_program(struct report *r, const char *program)
{
	char path[4400];
	enum target_fault fault = target_check(program, path, sizeof(path));

	tell(r, "program", fault == TARGET_OK ? LEVEL_OK : LEVEL_FAIL,
	     "it stays outside: put it behind one that can be meshed, or let policy treat it as a "
	     "stranger",
	     "%s%s%s", fault == TARGET_MISSING ? program : path, fault == TARGET_OK ? "" : ": ",
	     target_text(fault));
}

static void check_redis(struct report *r)
{
	char path[4400];

	if (target_check("redis-server", path, sizeof(path)) == TARGET_MISSING)
		tell(r, "redis-server", LEVEL_WARN,
		     "install it, or give weftd a Redis by --redis: the embedded one cannot start",
		     "not found");
	else
		tell(r, "redis-server", LEVEL_OK, "", "%s", path);
}

static void check_socket(struct report *r, const char *path)
{
	struct wire_welcome w;
	char why[256], dir[4400];
	struct stat st;
	unsigned fds;
	void *block;

	snprintf(dir, sizeof(dir), "%s", path);
	dirname(dir);
	if (stat(dir, &st) < 0)
		tell(r, "socket folder", LEVEL_FAIL,
		     "weftd makes it; or name another socket by --socket or WEFT_SOCKET", "%s: %s",
		     dir, strerror(errno));
	else if (st.st_mode & S_IWOTH && !(st.st_mode & S_ISVTX))
		tell(r, "socket folder", LEVEL_FAIL,
		     "chmod o-w: anybody could put another weftd there",
		     "%s is writable for everybody", dir);
	else if (access(dir, X_OK) < 0)
		tell(r, "socket folder", LEVEL_FAIL, "this user's programs cannot reach weftd",
		     "%s: %s", dir, strerror(errno));
	else
		tell(r, "socket folder", LEVEL_OK, "", "%s", dir);
	if (hello_exchange(path, &w, &block, &fds, why, sizeof(why)) < 0) {
		tell(r, "weftd", LEVEL_FAIL,
		     "start weftd; programs here have no identity and no names without it",
		     "no answer to HELLO at %s: %s", path, why);
		return;
	}
	tell(r, "weftd", fds == 4 ? LEVEL_OK : LEVEL_FAIL, "weftd of another release?",
	     "version %s answers at %s, trust domain %s, %u mappings", w.weftd_version.p, path,
	     w.trust_domain.p, fds);
	free(block);
}

static void check_admin(struct report *r)
{
	char why[CLIENT_WHY];
	json_t *status, *p;
	size_t i;

	if (client_get(cli_admin, "/status", &status, why) < 0) {
		tell(r, "admin page", LEVEL_WARN,
		     "weft status, endpoints and identity ask it; name it by --admin or WEFT_ADMIN",
		     "%s: %s", cli_admin, why);
		return;
	}
	tell(r, "admin page", LEVEL_OK, "", "%s", cli_admin);
	json_array_foreach(json_object_get(status, "problems"), i, p)
		tell(r, "mesh", LEVEL_WARN, "see weft status", "%s", json_string_value(p));
	json_decref(status);
}

static void tell_each(struct report *r, const json_t *list, const char *verb)
{
	const json_t *o;
	size_t i;

	json_array_foreach(list, i, o)
	{
		const char *exe = json_string_value(json_object_get(o, "exe"));
		const char *help = json_string_value(json_object_get(o, "help"));

		if (*help)
			tell(r, "coverage", LEVEL_WARN, help, "%s%s %s: %s",
			     *exe ? exe : "a program", verb,
			     json_string_value(json_object_get(o, "address")),
			     json_string_value(json_object_get(o, "why")));
	}
}

/* What weft does not protect on this host. Nothing of it keeps the machine from being able. */
static void check_coverage(struct report *r)
{
	char why[CLIENT_WHY];
	json_t *o = coverage_collect(why);
	enum level worst = r->worst;

	if (!o)
		return; /* check_admin() has said so */
	tell_each(r, json_object_get(o, "passed"), ",");
	tell_each(r, json_object_get(o, "observed"), ",");
	tell_each(r, json_object_get(o, "outside"), " on");
	if (r->worst == worst && worst == LEVEL_OK)
		tell(r, "coverage", LEVEL_OK, "", "nothing passes by that weft knows of");
	json_decref(o);
}

static void print(const struct report *r)
{
	struct columns *c = columns_new("RESULT|CHECK|DETAIL");
	json_t *line;
	size_t i;

	json_array_foreach(r->lines, i, line)
	{
		const char *help = json_string_value(json_object_get(line, "help"));

		columns_cell(c, "%s", json_string_value(json_object_get(line, "result")));
		columns_cell(c, "%s", json_string_value(json_object_get(line, "check")));
		columns_cell(c, "%s%s%s", json_string_value(json_object_get(line, "detail")),
			     *help ? " -> " : "", help);
	}
	columns_print(c, stdout);
}

int cli_check(const struct cli_command *self, int argc, char **argv)
{
	struct report r = { .lines = json_array() };
	char path[4400];
	int at = cli_parse(self, options, sizeof(options) / sizeof(options[0]), argc, argv);

	if (at + 1 < argc)
		cli_usage_error(self, "check takes one program at most");
	check_system(&r);
	check_library(&r);
	if (at < argc)
		check_program(&r, argv[at]);
	check_redis(&r);
	check_socket(&r, hello_socket(socket_path, path, sizeof(path)));
	check_admin(&r);
	if (at == argc)
		check_coverage(&r);
	if (cli_json) {
		json_t *o =
			json_pack("{s:b, s:O}", "able", r.worst != LEVEL_FAIL, "checks", r.lines);

		json_dumpf(o, stdout, JSON_INDENT(2));
		putchar('\n');
		json_decref(o);
	} else {
		print(&r);
	}
	json_decref(r.lines);
	return r.worst == LEVEL_FAIL ? CLI_FAILED : 0;
}
