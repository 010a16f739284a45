/* weft version */
#include <stdio.h>

#include "cli/cli.h"
#include "cli/client.h"
#include "weft/env.h"

static const struct cli_option options[] = { CLI_ADMIN, CLI_OUTPUT };

int cli_version(const struct cli_command *self, int argc, char **argv)
{
	char why[CLIENT_WHY];
	const char *server;
	json_t *o;
	int at = cli_parse(self, options, sizeof(options) / sizeof(options[0]), argc, argv);

	if (at < argc)
		cli_usage_error(self, "version takes no operands");
	client_get(cli_admin, "/version", &o, why);
	server = json_string_value(json_object_get(o, "version"));
	if (cli_json)
		printf("{\"weft\":\"%s\",\"weftd\":%s%s%s}\n", WEFT_VERSION, server ? "\"" : "",
		       server ? server : "null", server ? "\"" : "");
	else
		printf("weft %s, weftd %s\n", WEFT_VERSION, server ? server : "does not answer");
	json_decref(o);
	return 0;
}
