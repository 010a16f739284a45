/* weft endpoints and weft identity: two lists of the admin page as tables. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cli/cli.h"
#include "cli/client.h"
#include "cli/columns.h"
#include "weft/env.h"
#include "weft/ident.h"

static bool hosts;
/* The first is of endpoints alone. */
static const struct cli_option options[] = {
	{ "hosts", 0, CLI_FLAG, NULL,
	  "as lines for /etc/hosts: the names and their virtual addresses", &hosts },
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

static const char *operand(const struct cli_command *self, size_t skip, int argc, char **argv)
{
	int at = cli_parse(self, options + skip, sizeof(options) / sizeof(options[0]) - skip, argc,
			   argv);

	if (at + 1 < argc)
		cli_usage_error(self, "%s takes one operand at most", self->name);
	return at < argc ? argv[at] : NULL;
}

static json_t *fetch(const char *page)
{
	char why[CLIENT_WHY];
	json_t *list;

	if (client_list(cli_admin, page, "", &list, why) == 0)
		return list;
	client_complain(cli_admin, why);
	return NULL;
}

/* "orders", "shop/orders" and every form of the mesh mean one canonical name. */
static void canonical(const char *name, char out[static WEFT_SERVICE_MAX + 1])
{
	char why[CLIENT_WHY], ns[WEFT_LABEL_MAX + 1] = "";
	const char *slash = strchr(name, '/'), *td;
	json_t *status = NULL;

	if (slash && slash - name <= WEFT_LABEL_MAX)
		memcpy(ns, name, (size_t)(slash - name));
	client_get(cli_admin, "/status", &status, why);
	td = status ? str(status, "trustDomain") : "";
	if (name_canonical(out, slash ? slash + 1 : name, ns, td) < 0)
		snprintf(out, WEFT_SERVICE_MAX + 1, "%s", name);
	json_decref(status);
}

static void print_json(const char *name, json_t *list)
{
	json_t *o = json_pack("{s:O}", name, list);

	json_dumpf(o, stdout, JSON_INDENT(2));
	putchar('\n');
	json_decref(o);
}

/* Leaves in `list` what `keep` wants. */
static void filter(json_t *list, bool (*keep)(const json_t *, const char *), const char *wanted)
{
	for (size_t i = json_array_size(list); wanted && i > 0; i--)
		if (!keep(json_array_get(list, i - 1), wanted))
			json_array_remove(list, i - 1);
}

static bool of_service(const json_t *o, const char *service)
{
	return strcmp(str(o, "service"), service) == 0;
}

static bool of_name(const json_t *o, const char *service)
{
	return strcmp(str(o, "name"), service) == 0;
}

static bool of_pid(const json_t *o, const char *pid)
{
	return num(o, "pid") == atoll(pid);
}

static void print_endpoints(const json_t *list)
{
	struct columns *c = columns_new("SERVICE|ADDRESS|VERSION|TLS|MAIN|HOST|PID|ENTRY");
	json_t *e;
	size_t i;

	json_array_foreach(list, i, e)
	{
		columns_cell(c, "%s", str(e, "service"));
		columns_cell(c, "%s", str(e, "address"));
		columns_cell(c, "%s", str(e, "version"));
		columns_cell(c, "%s", json_is_true(json_object_get(e, "tls")) ? "mutual" : "plain");
		columns_cell(c, "%s", json_is_true(json_object_get(e, "main")) ? "yes" : "");
		columns_cell(c, "%s", str(e, "host"));
		if (num(e, "pid"))
			columns_cell(c, "%lld", num(e, "pid"));
		else
			columns_cell(c, "-");
		columns_cell(c, "%s", str(e, "entry"));
	}
	columns_print(c, stdout);
}

/* "orders.default" is also "orders"; names of other namespaces are not bare for everybody. Whether a dotted name is one of
 * the mesh's own is seen by its canonical form. */
static void print_host(const char *address, const char *name, const char *td)
{
	char full[WEFT_SERVICE_MAX + WEFT_HOST_MAX + 8], same[WEFT_SERVICE_MAX + 1];
	const char *dot = strchr(name, '.');
	bool ours;

	snprintf(full, sizeof(full), "%s.svc.%s", name, td);
	ours = name_canonical(same, full, "", td) == 0 && strcmp(same, name) == 0;
	printf("%s\t", address);
	if (ours)
		printf("%s ", full);
	printf("%s", name);
	if (ours && dot && strcmp(dot + 1, WEFT_NAMESPACE_DEFAULT) == 0)
		printf(" %.*s", (int)(dot - name), name);
	putchar('\n');
}

static void print_hosts(const json_t *services)
{
	char why[CLIENT_WHY];
	json_t *status = NULL, *s;
	size_t i;

	client_get(cli_admin, "/status", &status, why);
	json_array_foreach(services, i, s)
	{
		if (*str(s, "vip4"))
			print_host(str(s, "vip4"), str(s, "name"), str(status, "trustDomain"));
		if (*str(s, "vip6"))
			print_host(str(s, "vip6"), str(s, "name"), str(status, "trustDomain"));
	}
	json_decref(status);
}

int cli_endpoints(const struct cli_command *self, int argc, char **argv)
{
	const char *wanted = operand(self, 0, argc, argv);
	json_t *list = fetch(hosts ? "services" : "endpoints");
	char service[WEFT_SERVICE_MAX + 1];
	bool found;

	if (!list)
		return CLI_FAILED;
	if (wanted)
		canonical(wanted, service);
	filter(list, hosts ? of_name : of_service, wanted ? service : NULL);
	found = !wanted || json_array_size(list);
	if (hosts && cli_json)
		print_json("services", list);
	else if (hosts)
		print_hosts(list);
	else if (cli_json)
		print_json("endpoints", list);
	else if (json_array_size(list))
		print_endpoints(list);
	else if (wanted)
		fprintf(stderr, "weft: %s has no endpoint\n", service);
	else
		puts("No endpoints.");
	json_decref(list);
	return found ? 0 : CLI_FAILED;
}

static void print_identities(const json_t *list)
{
	struct columns *c =
		columns_new("PID|UID|SERVICE|VERSION|MODE|CERTIFICATE|IDENTITY|PROGRAM");
	long long now = (long long)time(NULL);
	json_t *e;
	size_t i;

	json_array_foreach(list, i, e)
	{
		columns_cell(c, "%lld", num(e, "pid"));
		columns_cell(c, "%lld", num(e, "uid"));
		columns_cell(c, "%s", str(e, "service"));
		columns_cell(c, "%s", str(e, "version"));
		columns_cell(c, "%s", str(e, "mode"));
		if (!*str(e, "spiffe"))
			columns_cell(c, "none");
		else if (num(e, "notAfter") <= now)
			columns_cell(c, "expired");
		else
			columns_cell(c, "%s left", columns_span(num(e, "notAfter") - now));
		columns_cell(c, "%s", *str(e, "spiffe") ? str(e, "spiffe") : str(e, "why"));
		columns_cell(c, "%s", str(e, "exe"));
	}
	columns_print(c, stdout);
}

int cli_identity(const struct cli_command *self, int argc, char **argv)
{
	const char *wanted = operand(self, 1, argc, argv);
	bool pid = wanted && *wanted && strspn(wanted, "0123456789") == strlen(wanted), found;
	json_t *list = fetch("identities");
	char service[WEFT_SERVICE_MAX + 1];

	if (!list)
		return CLI_FAILED;
	if (wanted && !pid)
		canonical(wanted, service);
	filter(list, pid ? of_pid : of_service, pid ? wanted : wanted ? service : NULL);
	found = !wanted || json_array_size(list);
	if (cli_json)
		print_json("identities", list);
	else if (json_array_size(list))
		print_identities(list);
	else if (pid)
		fprintf(stderr, "weft: process %s is not attached to this weftd\n", wanted);
	else if (wanted)
		fprintf(stderr, "weft: no process of this host is %s\n", service);
	else
		puts("No process is attached.");
	json_decref(list);
	return found ? 0 : CLI_FAILED;
}
