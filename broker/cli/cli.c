#include "cli/cli.h"

#include <getopt.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "admin/admin.h"
#include "compile/table.h"
#include "weft/env.h"

const struct cli_command cli_commands[] = {
	{ "run", "[--] COMMAND [ARGUMENT...]", "start a program in the mesh", cli_run },
	{ "try", "[--] COMMAND [ARGUMENT...]",
	  "does a program behave in the mesh as it does outside", cli_try },
	{ "status", "", "is weftd up and are all documents in force", cli_status },
	{ "endpoints", "[SERVICE]", "where services are reached", cli_endpoints },
	{ "identity", "[SERVICE|PID]", "who the processes of this host are", cli_identity },
	{ "check", "[PROGRAM]", "is this machine able to mesh, and this program", cli_check },
	{ "analyze", "", "errors and warnings in documents, from files or of the mesh",
	  cli_analyze },
	{ "version", "", "versions of weft and weftd", cli_version },
};
const size_t cli_commands_n = sizeof(cli_commands) / sizeof(cli_commands[0]);

#define OPTIONS_MAX 16

bool cli_json;
const char *cli_admin;
const char *cli_output_text;

static void print_option(FILE *f, const struct cli_option *o)
{
	char left[64];
	const char *open = o->kind == CLI_OPTIONAL ? "[=" : " ",
		   *close = o->kind == CLI_OPTIONAL ? "]" : "";

	snprintf(left, sizeof(left), "%c%c%s --%s%s%s%s", o->letter ? '-' : ' ',
		 o->letter ? o->letter : ' ', o->letter ? "," : " ", o->name, o->arg ? open : "",
		 o->arg ? o->arg : "", o->arg ? close : "");
	fprintf(f, strlen(left) > 28 ? "  %s\n%32s%s\n" : "  %-28s  %s%s\n", left, "", o->help);
}

static void print_usage(FILE *f, const struct cli_command *c, const struct cli_option *options,
			size_t n)
{
	fprintf(f, "Usage: weft %s%s%s%s\n%s.\n", c->name, n ? " [OPTION...]" : "",
		*c->operands ? " " : "", c->operands, c->help);
	for (size_t i = 0; i < n; i++) {
		if (!i)
			fputc('\n', f);
		print_option(f, &options[i]);
	}
}

static void print_commands(FILE *f)
{
	fputs("Usage: weft COMMAND [OPTION...]\n\n", f);
	for (size_t i = 0; i < cli_commands_n; i++)
		fprintf(f, "  %-12s %s\n", cli_commands[i].name, cli_commands[i].help);
	fputs("\nweft COMMAND --help says more; so do weft(1), weftd(8) and weft-keys(5).\n", f);
}

void cli_usage_error(const struct cli_command *self, const char *format, ...)
{
	va_list list;

	fputs("weft: ", stderr);
	va_start(list, format);
	vfprintf(stderr, format, list);
	va_end(list);
	fprintf(stderr, " (see weft %s --help)\n", self->name);
	exit(CLI_USAGE);
}

static void take(const struct cli_command *self, const struct cli_option *o, const char *value)
{
	struct cli_list *list = o->target;

	switch (o->kind) {
	case CLI_FLAG:
		*(bool *)o->target = true;
		break;
	case CLI_MANY:
		if (list->n == sizeof(list->v) / sizeof(list->v[0]))
			cli_usage_error(self, "--%s comes too often", o->name);
		list->v[list->n++] = value;
		break;
	default:
		*(const char **)o->target = value ? value : "";
	}
}

static const char *option_name(const void *options, size_t i)
{
	return ((const struct cli_option *)options)[i].name;
}

static _Noreturn void unknown_option(const struct cli_command *self,
				     const struct cli_option *options, size_t n, const char *text)
{
	const char *near = strncmp(text, "--", 2) == 0
				   ? table_nearest(text + 2, option_name, options, n)
				   : NULL;

	if (near)
		cli_usage_error(self, "unknown option %s, did you mean --%s?", text, near);
	cli_usage_error(self, "unknown option %s", text);
}

static void finish_options(const struct cli_command *self)
{
	if (cli_output_text && strcmp(cli_output_text, "json") != 0 &&
	    strcmp(cli_output_text, "text") != 0)
		cli_usage_error(self, "-o takes json or text, not %s", cli_output_text);
	cli_json = cli_output_text && strcmp(cli_output_text, "json") == 0;
	if (!cli_admin || !*cli_admin)
		cli_admin = getenv("WEFT_ADMIN");
	if (!cli_admin || !*cli_admin)
		cli_admin = getenv(
			"WEFTD_ADMIN"); /* where weftd of the same environment was told to be */
	if (!cli_admin || !*cli_admin)
		cli_admin = ADMIN_DEFAULT;
}

int cli_parse(const struct cli_command *self, const struct cli_option *options, size_t n, int argc,
	      char **argv)
{
	static const int needs[] = { [CLI_FLAG] = no_argument,
				     [CLI_TEXT] = required_argument,
				     [CLI_OPTIONAL] = optional_argument,
				     [CLI_MANY] = required_argument };
	static const char *const colons[] = {
		[CLI_FLAG] = "", [CLI_TEXT] = ":", [CLI_OPTIONAL] = "::", [CLI_MANY] = ":"
	};
	struct option longs[OPTIONS_MAX + 2] = { { "help", no_argument, NULL, 'h' } };
	char shorts[3 * OPTIONS_MAX + 4] = "+:h";
	size_t used = strlen(shorts);
	int c;

	for (size_t i = 0; i < n && i < OPTIONS_MAX; i++) {
		longs[i + 1] = (struct option){ options[i].name, needs[options[i].kind], NULL,
						256 + (int)i };
		if (options[i].letter)
			used += (size_t)snprintf(shorts + used, sizeof(shorts) - used, "%c%s",
						 options[i].letter, colons[options[i].kind]);
	}
	opterr = 0;
	optind = 1;
	while ((c = getopt_long(argc, argv, shorts, longs, NULL)) != -1) {
		size_t i = c >= 256 ? (size_t)c - 256 : 0;

		if (c == 'h') {
			print_usage(stdout, self, options, n);
			exit(0);
		}
		if (c == ':')
			cli_usage_error(self, "%s needs a value", argv[optind - 1]);
		if (c == '?')
			unknown_option(self, options, n, argv[optind - 1]);
		while (c < 256 && i < n && options[i].letter != c)
			i++;
		take(self, &options[i], optarg);
	}
	finish_options(self);
	return optind;
}

static const char *command_name(const void *commands, size_t i)
{
	return ((const struct cli_command *)commands)[i].name;
}

int cli_main(int argc, char **argv)
{
	const char *name = argc > 1 ? argv[1] : NULL, *near;

	if (!name) {
		print_commands(stderr);
		return CLI_USAGE;
	}
	if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0 || strcmp(name, "help") == 0) {
		print_commands(stdout);
		return 0;
	}
	if (strcmp(name, "--version") == 0)
		name = "version";
	for (size_t i = 0; i < cli_commands_n; i++)
		if (strcmp(cli_commands[i].name, name) == 0)
			return cli_commands[i].run(&cli_commands[i], argc - 1, argv + 1);
	near = table_nearest(name, command_name, cli_commands, cli_commands_n);
	fprintf(stderr, "weft: unknown command \"%s\"", name);
	if (near)
		fprintf(stderr, ", did you mean \"%s\"?", near);
	fputs(" (see weft --help)\n", stderr);
	return CLI_USAGE;
}
