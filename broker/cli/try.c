/* weft try: does this program behave under weft as it does bare? */
#include <errno.h>
#include <ftw.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cli/columns.h"
#include "cli/target.h"
#include "relay/library.h"
#include "cli/try.h"

#define TIMEOUT_S 60
#define TIMEOUT_MAX_S 86400

const char *const try_names[TRY_RUNS] = { "bare", "bare-again", "pass-through", "meshed" };
const char *const try_parts[TRY_PARTS] = { "program", "client" };

static const char *client, *timeout_text, *keep, *input, *library;
static bool no_calls;
static struct cli_list ignores, env;
static const struct cli_option options[] = {
	{ "client", 'c', CLI_TEXT, "COMMAND",
	  "the program is a server: when it listens, run this by /bin/sh, then end the server by "
	  "SIGTERM",
	  &client },
	{ "timeout", 't', CLI_TEXT, "SECONDS", "of one run; 60 unless told", &timeout_text },
	{ "ignore", 'i', CLI_MANY, "REGEX", "leave out lines of output that match (extended)",
	  &ignores },
	{ "env", 'e', CLI_MANY, "NAME=VALUE", "for the program, in every run", &env },
	{ "stdin", 0, CLI_TEXT, "FILE", "standard input of the program; /dev/null unless told",
	  &input },
	{ "keep", 'k', CLI_TEXT, "FOLDER", "to be made: everything that the runs left", &keep },
	{ "no-calls", 0, CLI_FLAG, NULL, "do not record the results of socket calls", &no_calls },
	{ "library", 0, CLI_TEXT, "PATH", "of libweft.so; beside weft or in ../lib unless told",
	  &library },
	CLI_OUTPUT,
};

static struct trial trial;

/* --- what the parts find --- */

json_t *try_differs(struct trial *t, enum try_run run, const char *what)
{
	json_t *d = json_pack("{s:s, s:s, s:[]}", "run", try_names[run], "what", what, "text");

	json_array_append_new(t->differences, d);
	return json_object_get(d, "text");
}

static json_t *format_text(const char *format, va_list list)
{
	char text[2048];

	vsnprintf(text, sizeof(text), format, list);
	return json_pack("s", columns_plain(text)) ?: json_string("(not text)");
}

void try_line(json_t *lines, const char *format, ...)
{
	va_list list;

	va_start(list, format);
	json_array_append_new(lines, format_text(format, list));
	va_end(list);
}

void try_note(struct trial *t, const char *format, ...)
{
	va_list list;

	va_start(list, format);
	json_array_append_new(t->notes, format_text(format, list));
	va_end(list);
}

void try_path(const struct trial *t, enum try_run run, const char *name, char out[TRY_PATH])
{
	snprintf(out, TRY_PATH, "%s/%s/%s", t->dir, try_names[run], name);
}

/* --- before and after --- */

static _Noreturn void give_up(const char *format, ...) __attribute__((format(printf, 1, 2)));
static _Noreturn void give_up(const char *format, ...)
{
	va_list list;

	fputs("weft: ", stderr);
	va_start(list, format);
	vfprintf(stderr, format, list);
	va_end(list);
	fputc('\n', stderr);
	exit(CLI_USAGE);
}

static void check_options(const struct cli_command *self)
{
	char *end = NULL;
	double seconds = timeout_text ? strtod(timeout_text, &end) : TIMEOUT_S;

	if ((end && (*end || end == timeout_text)) || !(seconds > 0 && seconds <= TIMEOUT_MAX_S))
		cli_usage_error(self, "--timeout takes seconds, not \"%s\"", timeout_text);
	trial.timeout_ms = (int64_t)(seconds * 1000);
	for (size_t i = 0; i < env.n; i++)
		if (!strchr(env.v[i], '=') || env.v[i][0] == '=')
			cli_usage_error(self, "--env takes NAME=VALUE, not \"%s\"", env.v[i]);
	for (; trial.ignore_n < ignores.n; trial.ignore_n++) {
		regex_t *r = &trial.ignore[trial.ignore_n];
		int e = regcomp(r, ignores.v[trial.ignore_n], REG_EXTENDED | REG_NOSUB);
		char why[128];

		if (e) {
			regerror(e, r, why, sizeof(why));
			cli_usage_error(self, "--ignore %s: %s", ignores.v[trial.ignore_n], why);
		}
	}
	if (input && access(input, R_OK) < 0)
		cli_usage_error(self, "--stdin %s: %s", input, strerror(errno));
}

static void find_libraries(void)
{
	static const char *const places[] = { "%s/" WEFT_TRACE_NAME, "%s/weft/" WEFT_TRACE_NAME };
	char folder[sizeof(trial.shim)];

	if (library_find(library, trial.shim, sizeof(trial.shim)) < 0)
		give_up("there is no %s; --library says where it is", trial.shim);
	if (strpbrk(trial.shim, " :"))
		give_up("%s: LD_PRELOAD takes no path with a blank or colon", trial.shim);
	memcpy(folder, trial.shim, sizeof(folder));
	*strrchr(folder, '/') = '\0';
	for (size_t i = 0; i < 2 && !no_calls && !trial.calls; i++) {
		snprintf(trial.recorder, sizeof(trial.recorder), i ? places[1] : places[0], folder);
		trial.calls = access(trial.recorder, R_OK) == 0;
	}
	if (!no_calls && !trial.calls)
		try_note(&trial, "there is no %s: the results of calls are not compared",
			 trial.recorder);
}

static void find_program(const char *program)
{
	enum target_fault fault = target_check(program, trial.path, sizeof(trial.path));

	if (fault != TARGET_OK)
		give_up("%s cannot be tried: %s", program, target_text(fault));
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st, (void)type, (void)ftw;
	remove(path);
	return 0; /* as much as can be */
}

/* However we end. Children leave by _exit() and never come here. */
static void clean_up(void)
{
	try_mesh_stop(&trial);
	try_sweep(0);
	if (!keep)
		nftw(trial.dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static void make_folder(void)
{
	const char *tmp = getenv("TMPDIR");

	if (keep) {
		if (mkdir(keep, 0755) < 0)
			give_up("--keep %s: %s", keep, strerror(errno));
		if (!realpath(keep, trial.dir))
			give_up("--keep %s: %s", keep, strerror(errno));
	} else {
		snprintf(trial.dir, sizeof(trial.dir), "%s/weft-try-XXXXXX",
			 tmp && *tmp ? tmp : "/tmp");
		if (!mkdtemp(trial.dir))
			give_up("%s: %s", trial.dir, strerror(errno));
	}
	atexit(clean_up);
	if (strlen(trial.dir) > 70)
		give_up("%s is too long a path for the sockets in it", trial.dir);
	if (geteuid() == 0) /* the program may become another user, who needs weftd's socket */
		chmod(trial.dir, 0755);
}

/* --- how the program ends --- */

static const char *end_text(const struct try_end *e, char *out, size_t size)
{
	if (!e->ran)
		snprintf(out, size, "did not run");
	else if (e->late)
		snprintf(out, size, "did not end in time");
	else if (WIFSIGNALED(e->status))
		snprintf(out, size, "SIG%s", sigabbrev_np(WTERMSIG(e->status)) ?: "?");
	else
		snprintf(out, size, "exit %d", WEXITSTATUS(e->status));
	return out;
}

static bool same_end(const struct try_end *a, const struct try_end *b)
{
	return a->ran == b->ran && a->late == b->late && (a->late || a->status == b->status);
}

static void compare_ends(enum try_run run)
{
	static const char *const what[TRY_PARTS] = { "end of the program", "end of the client" };

	for (enum try_part p = 0; p < TRY_PARTS; p++) {
		const struct try_end *seen = &trial.ends[run][p];
		char a[64], b[64];

		if (same_end(seen, &trial.ends[TRY_BARE][p]) ||
		    same_end(seen, &trial.ends[TRY_AGAIN][p]))
			continue;
		try_line(try_differs(&trial, run, what[p]), "%s; bare: %s",
			 end_text(seen, a, sizeof(a)),
			 end_text(&trial.ends[TRY_BARE][p], b, sizeof(b)));
	}
}

/* What cannot be judged: a bare run that did not get to its end. */
static void check_bare(enum try_run run)
{
	const struct try_end *e = trial.ends[run];
	double seconds = (double)trial.timeout_ms / 1000;

	if (client && !e[TRY_CLIENT].ran &&
	    (e[TRY_PROGRAM].late || WIFSIGNALED(e[TRY_PROGRAM].status)))
		give_up("bare, the program does not listen on TCP within %g s", seconds);
	if (client && !e[TRY_CLIENT].ran)
		give_up("bare, the program ends before it listens on TCP; without --client?");
	if (client && e[TRY_CLIENT].late)
		give_up("bare, the client does not end within %g s; --timeout gives it more",
			seconds);
	if (e[TRY_PROGRAM].late)
		give_up(client ? "bare, the program does not end by SIGTERM"
			       : "bare, the program does not end within %g s; --timeout gives it "
				 "more, "
				 "and a server needs --client",
			seconds);
	if (run == TRY_BARE && e[TRY_PROGRAM].left)
		try_note(&trial, "processes that the program left behind, ended now: %u",
			 e[TRY_PROGRAM].left);
}

static void run_all(void)
{
	/* The second bare run comes last: what changes with time shows between the two, and is known as such. */
	static const enum try_run order[TRY_RUNS] = { TRY_BARE, TRY_PASS, TRY_MESH, TRY_AGAIN };
	char why[512] = "";
	int r;

	for (size_t i = 0; i < TRY_RUNS; i++) {
		enum try_run run = order[i];

		r = run == TRY_MESH ? try_mesh_start(&trial, why, sizeof(why)) : 0;
		if (r == 0)
			r = try_execute(&trial, run);
		if (r < 0)
			give_up("the %s run: %s", try_names[run], *why ? why : strerror(-r));
		if (run == TRY_MESH)
			try_mesh_stop(&trial);
		if (run == TRY_BARE || run == TRY_AGAIN)
			check_bare(run);
	}
}

static void compare_all(void)
{
	for (enum try_run run = TRY_PASS; run < TRY_RUNS; run++) {
		compare_ends(run);
		try_compare_output(&trial, run);
		if (trial.calls)
			try_compare_calls(&trial, run);
	}
	try_mesh_tell(&trial);
	if (trial.calls && !try_count_connections(&trial, TRY_MESH).tls)
		try_note(&trial,
			 "no connection was mTLS: the program makes none to itself, so only the "
			 "loaded library was tried");
}

/* --- report --- */

static bool run_differs(enum try_run run)
{
	json_t *d;
	size_t i;

	json_array_foreach(trial.differences, i,
			   d) if (strcmp(json_string_value(json_object_get(d, "run")),
					 try_names[run]) == 0) return true;
	return false;
}

static json_t *runs_json(void)
{
	json_t *runs = json_array();

	for (enum try_run run = 0; run < TRY_RUNS; run++) {
		struct try_connections c = try_count_connections(&trial, run);
		char a[64], b[64];
		json_t *o = json_pack("{s:s, s:s, s:b}", "run", try_names[run], "end",
				      end_text(&trial.ends[run][TRY_PROGRAM], a, sizeof(a)),
				      "differs", run_differs(run));

		if (client)
			json_object_set_new(
				o, "client",
				json_string(end_text(&trial.ends[run][TRY_CLIENT], b, sizeof(b))));
		if (trial.calls) {
			json_object_set_new(o, "connectionEnds", json_integer(c.n));
			json_object_set_new(o, "mtlsEnds", json_integer(c.tls));
		}
		json_array_append_new(runs, o);
	}
	return runs;
}

static const char *text_of(const json_t *o, const char *key)
{
	return json_string_value(json_object_get(o, key)) ?: "";
}

static void print_runs(const json_t *runs)
{
	struct columns *c = columns_new(client ? "RUN|PROGRAM|CLIENT|CONNECTION ENDS|MTLS|COMPARED"
					       : "RUN|PROGRAM|CONNECTION ENDS|MTLS|COMPARED");
	json_t *o;
	size_t i;

	json_array_foreach(runs, i, o)
	{
		columns_cell(c, "%s", text_of(o, "run"));
		columns_cell(c, "%s", text_of(o, "end"));
		if (client)
			columns_cell(c, "%s", text_of(o, "client"));
		for (unsigned k = 0; k < 2; k++) {
			json_t *n = json_object_get(o, k ? "mtlsEnds" : "connectionEnds");

			if (n)
				columns_cell(c, "%d", (int)json_integer_value(n));
			else
				columns_cell(c, "-");
		}
		columns_cell(c, "%s",
			     i <= TRY_AGAIN                                ? ""
			     : json_is_true(json_object_get(o, "differs")) ? "differs"
									   : "same");
	}
	columns_print(c, stdout);
}

static void print_text(const json_t *runs)
{
	json_t *d, *line;
	size_t i, j;

	print_runs(runs);
	json_array_foreach(trial.notes, i, line) printf("note: %s\n", json_string_value(line));
	json_array_foreach(trial.differences, i, d)
	{
		printf("\n%s: %s (- bare, + %s)\n", text_of(d, "run"), text_of(d, "what"),
		       text_of(d, "run"));
		json_array_foreach(json_object_get(d, "text"), j, line)
			printf("  %s\n", json_string_value(line));
	}
	if (!json_array_size(trial.differences))
		puts("The program behaves under weft as it does bare.");
	else if (keep)
		printf("\nIt differs; see %s.\n", trial.dir);
	else
		puts("\nIt differs; --keep FOLDER keeps all that was written.");
}

int cli_try(const struct cli_command *self, int argc, char **argv)
{
	int at = cli_parse(self, options, sizeof(options) / sizeof(options[0]), argc, argv);
	json_t *runs;
	bool differs;

	if (at >= argc)
		cli_usage_error(self, "try needs a command");
	trial.notes = json_array();
	trial.differences = json_array();
	trial.argv = argv + at;
	trial.client = client;
	trial.input = input;
	trial.env = &env;
	check_options(self);
	find_libraries();
	find_program(argv[at]);
	try_prepare();
	make_folder();
	run_all();
	compare_all();
	runs = runs_json();
	differs = json_array_size(trial.differences) > 0;
	if (cli_json) {
		json_t *o = json_pack("{s:b, s:O, s:O, s:O}", "same", !differs, "runs", runs,
				      "differences", trial.differences, "notes", trial.notes);

		json_dumpf(o, stdout, JSON_INDENT(2));
		putchar('\n');
		json_decref(o);
	} else {
		print_text(runs);
	}
	json_decref(runs);
	return differs ? CLI_FAILED : 0;
}
