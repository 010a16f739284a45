/* The command line: one file per command, all named in the table of cli.c, from which usage is printed.
 * Exit status: 0 fine, 1 not fine (or weftd does not answer), 2 the command line or the target is wrong. */
#ifndef CLI_CLI_H
#define CLI_CLI_H

#include <stdbool.h>
#include <stddef.h>

#define CLI_FAILED 1
#define CLI_USAGE 2

struct cli_list { /* of an option that may come several times; points into argv */
	const char *v[64];
	size_t n;
};

enum cli_kind {
	CLI_FLAG,     /* bool */
	CLI_TEXT,     /* const char * */
	CLI_OPTIONAL, /* const char *; "" where the option comes without its value */
	CLI_MANY,     /* struct cli_list */
};
struct cli_option {
	const char *name;
	char letter; /* 0: none */
	enum cli_kind kind;
	const char *arg;
	const char *help;
	void *target;
};

struct cli_command {
	const char *name, *operands, *help;
	int (*run)(const struct cli_command *self, int argc, char **argv);
};
extern const struct cli_command cli_commands[];
extern const size_t cli_commands_n;

/* Parses the options of a command into their targets; argv[0] is its name. Returns the index of the first operand.
 * Does not come back from --help (0) nor from a wrong command line (2). Options end at the first operand. */
int cli_parse(const struct cli_command *self, const struct cli_option *options, size_t n, int argc,
	      char **argv);
_Noreturn void cli_usage_error(const struct cli_command *self, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

int cli_main(int argc, char **argv);

/* Options that most commands have. */
extern bool cli_json;
extern const char *cli_admin;
#define CLI_OUTPUT                                                                      \
	{                                                                               \
		"output", 'o', CLI_TEXT, "json|text", "how to print; text unless told", \
			&cli_output_text                                                \
	}
#define CLI_ADMIN                                                                             \
	{                                                                                     \
		"admin", 0, CLI_TEXT, "ADDRESS",                                              \
			"admin address of weftd; WEFT_ADMIN, WEFTD_ADMIN or 127.0.0.1:15020", \
			&cli_admin                                                            \
	}
extern const char *cli_output_text;

int cli_run(const struct cli_command *self, int argc, char **argv);
int cli_try(const struct cli_command *self, int argc, char **argv);
int cli_status(const struct cli_command *self, int argc, char **argv);
int cli_endpoints(const struct cli_command *self, int argc, char **argv);
int cli_identity(const struct cli_command *self, int argc, char **argv);
int cli_check(const struct cli_command *self, int argc, char **argv);
int cli_analyze(const struct cli_command *self, int argc, char **argv);
int cli_version(const struct cli_command *self, int argc, char **argv);

#endif
