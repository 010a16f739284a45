/* weft run: LD_PRELOAD and WEFT_* for one program, if it can be meshed at all. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/cli.h"
#include "cli/target.h"
#include "relay/library.h"
#include "weft/env.h"
#include "weft/ident.h"
#include "weft/policy.h"

#define EXIT_NOT_EXECUTABLE 126 /* as shells and env(1) have it */
#define EXIT_NOT_FOUND 127

static const char *service, *socket_path, *mode, *labels, *log_level, *library, *no_broker;
static const struct cli_option options[] = {
	{ "service", 's', CLI_TEXT, "[NS/]NAME[@VERSION][:PORT,...]",
	  "what the program claims to be (WEFT_SERVICE)", &service },
	{ "mode", 'm', CLI_TEXT, "enforce|observe|off", "the most that weft may do (WEFT_MODE)",
	  &mode },
	{ "labels", 'l', CLI_TEXT, "K=V,...", "of the instance (WEFT_LABELS)", &labels },
	{ "socket", 0, CLI_TEXT, "PATH", "of weftd (WEFT_SOCKET)", &socket_path },
	{ "no-broker", 0, CLI_TEXT, "wait:2s,closed|open",
	  "when weftd does not answer (WEFT_NO_BROKER)", &no_broker },
	{ "log", 0, CLI_TEXT, "LEVEL[:PATH]", "error, warn, info or debug (WEFT_LOG)", &log_level },
	{ "library", 0, CLI_TEXT, "PATH", "of libweft.so; beside weft or in ../lib unless told",
	  &library },
};

static void set(const char *name, const char *value)
{
	if (value && setenv(name, value, 1) < 0) {
		perror("weft");
		exit(CLI_FAILED);
	}
}

/* Puts the library first: what else is preloaded then calls weft's hooks and not the other way round. */
static int preload(const char *path)
{
	const char *old = getenv("LD_PRELOAD");
	char *all;

	if (strpbrk(path, " :")) {
		fprintf(stderr, "weft: %s: LD_PRELOAD takes no path with a blank or colon\n", path);
		return CLI_USAGE;
	}
	if (asprintf(&all, "%s%s%s", path, old && *old ? ":" : "", old ? old : "") < 0 ||
	    setenv("LD_PRELOAD", all, 1) < 0) {
		perror("weft");
		return CLI_FAILED;
	}
	free(all);
	return 0;
}

static void check_options(const struct cli_command *self)
{
	struct weft_claim claim;
	const char *why;

	if (service && claim_parse(&claim, service, &why) < 0)
		cli_usage_error(self, "--service %s: %s", service, why);
	if (mode && mode_parse(mode) < 0)
		cli_usage_error(self, "--mode takes enforce, observe or off, not \"%s\"", mode);
}

static int refuse(const char *program, enum target_fault fault)
{
	fprintf(stderr, "weft: %s cannot be run in the mesh: %s\n", program, target_text(fault));
	return fault == TARGET_MISSING          ? EXIT_NOT_FOUND
	       : fault == TARGET_NOT_EXECUTABLE ? EXIT_NOT_EXECUTABLE
						: CLI_USAGE;
}

int cli_run(const struct cli_command *self, int argc, char **argv)
{
	int at = cli_parse(self, options, sizeof(options) / sizeof(options[0]), argc, argv), r;
	char shim[4400], path[4400];
	enum target_fault fault;

	if (at >= argc)
		cli_usage_error(self, "run needs a command");
	check_options(self);
	if (library_find(library, shim, sizeof(shim)) < 0) {
		fprintf(stderr, "weft: there is no %s; --library says where it is\n", shim);
		return CLI_USAGE;
	}
	fault = target_check(argv[at], path, sizeof(path));
	if (fault != TARGET_OK)
		return refuse(argv[at], fault);
	set(WEFT_ENV_SERVICE, service);
	set(WEFT_ENV_SOCKET, socket_path);
	set(WEFT_ENV_MODE, mode);
	set(WEFT_ENV_LABELS, labels);
	set(WEFT_ENV_LOG, log_level);
	set(WEFT_ENV_NO_BROKER, no_broker);
	r = preload(shim);
	if (r)
		return r;
	execv(path, argv + at);
	r = errno;
	if (r == ENOEXEC) /* a script without its first line: execvp gives it to the shell */
		execvp(path, argv + at);
	fprintf(stderr, "weft: %s: %s\n", argv[at], strerror(r));
	return r == ENOENT ? EXIT_NOT_FOUND : EXIT_NOT_EXECUTABLE;
}
