/* weft status: healthy or not, and which documents are not in force. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cli/cli.h"
#include "cli/client.h"
#include "cli/columns.h"
#include "cli/coverage.h"

#define WAIT_DEFAULT_S 30

static const char *wait_text;
static bool coverage;
static const struct cli_option options[] = {
	{ "wait", 'w', CLI_OPTIONAL, "SECONDS",
	  "until weftd answers programs and has read Redis; 30 s unless told", &wait_text },
	{ "coverage", 'c', CLI_FLAG, NULL,
	  "what of this host is protected, what passes by, and why", &coverage },
	CLI_ADMIN,
	CLI_OUTPUT,
};

static const char *str(const json_t *o, const char *field)
{
	const char *s = json_string_value(json_object_get(o, field));

	return s ? s : "";
}

static long long num(const json_t *o, const char *field)
{
	return json_integer_value(json_object_get(o, field));
}

static bool flag(const json_t *o, const char *field)
{
	return json_is_true(json_object_get(o, field));
}

static bool is_up(const json_t *status)
{
	return flag(status, "ready") &&
	       strcmp(str(json_object_get(status, "store"), "state"), "live") == 0;
}

/* Asks until weftd is up or the time is over; the last answer stands. */
static int fetch(double wait_s, json_t **status, char why[static CLIENT_WHY])
{
	const struct timespec pause = { .tv_nsec = 100000000 };
	struct timespec start, now;
	int r;

	clock_gettime(CLOCK_MONOTONIC, &start);
	for (;;) {
		r = client_get(cli_admin, "/status", status, why);
		clock_gettime(CLOCK_MONOTONIC, &now);
		if ((r == 0 && is_up(*status)) || r == -EINVAL ||
		    (double)(now.tv_sec - start.tv_sec) +
				    (double)(now.tv_nsec - start.tv_nsec) / 1e9 >=
			    wait_s)
			return r;
		json_decref(*status);
		nanosleep(&pause, NULL);
	}
}

static void print_text(const json_t *s)
{
	const json_t *store = json_object_get(s, "store"),
		     *problems = json_object_get(s, "problems"), *p;
	long long now = (long long)time(NULL);
	size_t i;

	printf("weftd    %s on host %s, up %s%s%s\n", str(s, "version"), str(s, "host"),
	       columns_span(now - num(s, "started")), flag(s, "ca") ? ", signs certificates" : "",
	       flag(s, "leader") ? ", leader" : "");
	printf("store    %s %s%s, for %s\n", str(store, "state"), str(store, "url"),
	       flag(store, "embedded") ? " (embedded)" : "",
	       columns_span(now - num(store, "since")));
	printf("mesh     %s revision %lld, trust domain %s, mode %s, attestation %s\n",
	       *str(s, "mesh") ? str(s, "mesh") : "-", num(s, "revision"), str(s, "trustDomain"),
	       str(s, "mode"), str(s, "attest"));
	printf("holds    %lld documents, %lld services, %lld endpoints, %lld processes, %lld "
	       "identities\n",
	       num(s, "documents"), num(s, "services"), num(s, "endpoints"), num(s, "processes"),
	       num(s, "identities"));
	json_array_foreach(problems, i, p) printf("problem  %s\n", json_string_value(p));
}

/* Documents that are refused or in conflict, with their errors. */
static json_t *not_accepted(char why[static CLIENT_WHY])
{
	json_t *all, *d, *bad = json_array();
	size_t i;

	if (client_list(cli_admin, "documents", "", &all, why) < 0)
		return bad;
	json_array_foreach(all, i, d) if (!flag(d, "accepted"))
	{
		json_object_del(d, "document");
		json_array_append(bad, d);
	}
	json_decref(all);
	return bad;
}

static void print_documents(const json_t *bad)
{
	struct columns *c = columns_new("DOCUMENT|IN FORCE|PATH|ERROR");
	json_t *d, *e;
	size_t i, k;

	if (json_array_size(bad))
		puts("\nDocuments that are not accepted:");
	json_array_foreach(bad, i, d) json_array_foreach(json_object_get(d, "errors"), k, e)
	{
		columns_cell(c, "%s", k ? "" : str(d, "key"));
		columns_cell(c, "%s", k ? "" : *str(d, "inForce") ? "last good" : "nothing");
		columns_cell(c, "%s", str(e, "path"));
		columns_cell(c, "%s", str(e, "message"));
	}
	columns_print(c, stdout);
}

static double parse_wait(const struct cli_command *self)
{
	char *end;
	double s;

	if (!wait_text)
		return 0;
	s = *wait_text ? strtod(wait_text, &end) : WAIT_DEFAULT_S;
	if ((*wait_text && *end) || !(s >= 0 && s <= 86400))
		cli_usage_error(self, "--wait takes seconds, not \"%s\"", wait_text);
	return s;
}

static int show_coverage(void)
{
	char why[CLIENT_WHY];
	json_t *o = coverage_collect(why);

	if (!o) {
		client_complain(cli_admin, why);
		return CLI_FAILED;
	}
	if (cli_json) {
		json_dumpf(o, stdout, JSON_INDENT(2));
		putchar('\n');
	} else {
		coverage_print(o);
	}
	json_decref(o);
	return 0;
}

int cli_status(const struct cli_command *self, int argc, char **argv)
{
	char why[CLIENT_WHY];
	json_t *status, *bad;
	bool healthy;
	int at = cli_parse(self, options, sizeof(options) / sizeof(options[0]), argc, argv);

	if (at < argc)
		cli_usage_error(self, "status takes no operands");
	if (fetch(parse_wait(self), &status, why) < 0) {
		if (cli_json)
			printf("{\"healthy\":false,\"problems\":[\"weftd does not answer\"]}\n");
		client_complain(cli_admin, why);
		return CLI_FAILED;
	}
	if (coverage) {
		json_decref(status);
		return show_coverage();
	}
	bad = not_accepted(why);
	healthy = flag(status, "healthy") && !json_array_size(bad);
	if (cli_json) {
		json_object_set_new(status, "healthy", json_boolean(healthy));
		json_object_set(status, "notAccepted", bad);
		json_dumpf(status, stdout, JSON_INDENT(2));
		putchar('\n');
	} else {
		print_text(status);
		print_documents(bad);
	}
	json_decref(status);
	json_decref(bad);
	return healthy ? 0 : CLI_FAILED;
}
