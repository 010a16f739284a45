/* weft analyze: what is wrong with documents, in files before they go to Redis, or in the mesh that runs. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"
#include "cli/client.h"
#include "cli/columns.h"
#include "compile/model.h"
#include "weft/env.h"

#define FILE_MAX_BYTES (64u << 20)

static struct cli_list files;
static const char *key_option, *trust_domain;
static const struct cli_option options[] = {
	{ "file", 'f', CLI_MANY, "FILE",
	  "JSON: a manifest, a list of them, or {key: document, ...}; - is stdin", &files },
	{ "key", 'k', CLI_TEXT, "KEY",
	  "of the one bare spec that the file holds, such as weft:VirtualService:orders",
	  &key_option },
	{ "trust-domain", 0, CLI_TEXT, "NAME", "of the mesh; cluster.local unless told",
	  &trust_domain },
	CLI_ADMIN,
	CLI_OUTPUT,
};

struct analysis {
	struct model *model;
	json_t *findings;
	json_t *origins; /* key: file it came from */
	size_t documents, errors, warnings;
};

static void find(struct analysis *a, const char *key, const char *level, const char *code,
		 const char *path, const char *message)
{
	const char *file = json_string_value(json_object_get(a->origins, key));

	if (strcmp(level, "error") == 0)
		a->errors++;
	else
		a->warnings++;
	json_array_append_new(a->findings,
			      json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:s}", "key", key, "file",
					file ? file : "", "level", level, "code", code, "path",
					path, "message", message, "help", doc_code_help(code)));
}

static void find_all(struct analysis *a, const char *key, const char *level,
		     const struct doc_errors *e)
{
	for (size_t i = 0; i < e->n; i++)
		find(a, key, level, e->v[i].code, e->v[i].path, e->v[i].message);
}

static void put(struct analysis *a, const char *file, const char *key, const json_t *doc)
{
	struct doc_errors errors = { 0 };
	char *text = json_dumps(doc, JSON_ENCODE_ANY);
	int r = text ? model_put(a->model, key, text, strlen(text), &errors) : -ENOMEM;

	a->documents++;
	if (json_object_get(a->origins, key)) {
		find(a, key, "error", "WEFT0110", "", "a second document with the same key");
	}
	json_object_set_new(a->origins, key, json_string(file));
	if (r == -ENOENT)
		find(a, key, "error", "WEFT0110", "kind", "weft knows no such kind");
	find_all(a, key, "error", &errors);
	doc_errors_free(&errors);
	free(text);
}

/* --- files --- */

static void bad_file(struct analysis *a, const char *file, const char *code, const char *message)
{
	json_object_set_new(a->origins, file, json_string(file));
	find(a, file, "error", code, "", message);
	json_object_del(a->origins, file);
}

/* A manifest says itself what its key is. */
static void put_manifest(struct analysis *a, const char *file, const json_t *doc)
{
	const json_t *meta = json_object_get(doc, "metadata");
	const char *kind = json_string_value(json_object_get(doc, "kind"));
	const char *name = json_string_value(json_object_get(meta, "name"));
	const char *ns = json_string_value(json_object_get(meta, "namespace"));
	bool bare = !ns || !*ns || strcmp(ns, WEFT_NAMESPACE_DEFAULT) == 0;
	char *key;

	if (!kind || !name) {
		bad_file(a, file, "WEFT0110",
			 "a document without kind and metadata.name; name its key by --key");
		return;
	}
	if (asprintf(&key, "weft:%s:%s%s%s", kind, bare ? "" : ns, bare ? "" : "/", name) < 0)
		return;
	put(a, file, key, doc);
	free(key);
}

static void put_value(struct analysis *a, const char *file, const json_t *v)
{
	const char *kind = json_string_value(json_object_get(v, "kind")), *key;
	json_t *items = json_is_array(v) ? (json_t *)(uintptr_t)v : json_object_get(v, "items"),
	       *item;
	size_t i;

	if (json_is_array(v) || (kind && strcmp(kind, "List") == 0)) {
		json_array_foreach(items, i, item) put_manifest(a, file, item);
		return;
	}
	if (key_option) {
		put(a, file, key_option, v);
		return;
	}
	key = json_object_iter_key(json_object_iter((json_t *)(uintptr_t)v));
	if (!key || strncmp(key, "weft:", 5) != 0) {
		put_manifest(a, file, v);
		return;
	}
	json_object_foreach((json_t *)(uintptr_t)v, key, item) put(a, file, key, item);
}

static bool is_yaml(const char *file)
{
	const char *dot = strrchr(file, '.');

	return dot && (strcmp(dot, ".yaml") == 0 || strcmp(dot, ".yml") == 0);
}

static char *read_file(FILE *f, size_t *len)
{
	char *buf = malloc(FILE_MAX_BYTES + 1);

	if (!buf)
		return NULL;
	*len = fread(buf, 1, FILE_MAX_BYTES + 1, f);
	if (!ferror(f))
		return buf;
	free(buf);
	return NULL;
}

/* Several documents may follow one another, as jq prints them. */
static void put_text(struct analysis *a, const char *file, const char *text, size_t len)
{
	size_t at = 0;

	while (at < len && at + strspn(text + at, " \t\r\n") < len) {
		json_error_t e;
		json_t *v = json_loadb(text + at, len - at,
				       JSON_REJECT_DUPLICATES | JSON_DISABLE_EOF_CHECK, &e);
		char message[512];

		if (!v) {
			snprintf(message, sizeof(message), "not JSON: line %d, column %d: %s%s",
				 e.line, e.column, e.text,
				 is_yaml(file)
					 ? " (YAML is not read by this release: convert it to JSON)"
					 : "");
			bad_file(a, file, "WEFT0101", message);
			return;
		}
		put_value(a, file, v);
		json_decref(v);
		at += (size_t)e.position;
	}
}

static void put_file(struct analysis *a, const char *file)
{
	bool is_stdin = strcmp(file, "-") == 0;
	FILE *f = is_stdin ? stdin : fopen(file, "r");
	char *text = NULL;
	size_t len = 0;

	if (f)
		text = read_file(f, &len);
	if (!text)
		bad_file(a, file, "WEFT0100", strerror(errno));
	else if (len > FILE_MAX_BYTES)
		bad_file(a, file, "WEFT0102", "the file is larger than 64 MiB");
	else {
		text[len] = '\0';
		put_text(a, is_stdin ? "stdin" : file, text, len);
	}
	free(text);
	if (f && !is_stdin)
		fclose(f);
}

/* --- the mesh that runs --- */

static void put_running(struct analysis *a, const json_t *d)
{
	const char *key = json_string_value(json_object_get(d, "key"));
	const json_t *doc = json_object_get(d, "document"), *e;
	size_t i;

	if (!key)
		return;
	if (json_is_object(doc))
		put(a, "", key, doc);
	else
		a->documents++;
	if (json_is_true(json_object_get(d, "accepted")))
		return;
	json_array_foreach(json_object_get(d, "errors"), i, e)
	{
		const char *code = json_string_value(json_object_get(e, "code"));
		const char *message = json_string_value(json_object_get(e, "message"));

		if (code && strcmp(code, "WEFT0111") == 0)
			continue; /* found again by our own model */
		find(a, key, "error", code ? code : "",
		     json_string_value(json_object_get(e, "path")), message ? message : "refused");
	}
}

static int put_mesh(struct analysis *a)
{
	const char *const queries[] = { "", "kind=WorkloadEntry" };
	char why[CLIENT_WHY];
	json_t *list, *d;
	size_t i;

	for (size_t q = 0; q < 2; q++) {
		if (client_list(cli_admin, "documents", queries[q], &list, why) < 0) {
			client_complain(cli_admin, why);
			return CLI_FAILED;
		}
		json_array_foreach(list, i, d)
		{
			const char *key = json_string_value(json_object_get(d, "key"));

			if (key && !json_object_get(a->origins, key))
				put_running(a, d);
		}
		json_decref(list);
	}
	return 0;
}

/* --- the findings --- */

static int look_at(void *arg, const struct model_document *d)
{
	struct analysis *a = arg;

	if (d->state == MODEL_CONFLICT)
		find_all(a, d->key, "error", d->errors);
	return 0;
}

static int warn_about(void *arg, const struct model_document *d)
{
	struct doc_errors w = { 0 };
	struct analysis *a = arg;

	if (model_warnings(a->model, d->key, &w) == 0)
		find_all(a, d->key, "warning", &w);
	doc_errors_free(&w);
	return 0;
}

static void print_finding(const json_t *f)
{
	const char *file = json_string_value(json_object_get(f, "file"));
	const char *path = json_string_value(json_object_get(f, "path"));
	const char *key = json_string_value(json_object_get(f, "key"));
	bool name = *file && strcmp(file, key) != 0;
	char *line;

	if (asprintf(&line, "%s %s %s%s%s%s%s%s: %s",
		     json_string_value(json_object_get(f, "level")),
		     json_string_value(json_object_get(f, "code")), key, name ? " (" : "",
		     name ? file : "", name ? ")" : "", *path ? " " : "", path,
		     json_string_value(json_object_get(f, "message"))) < 0)
		return;
	printf("%s\n      %s\n", columns_plain(line),
	       json_string_value(json_object_get(f, "help")));
	free(line);
}

static void print(const struct analysis *a)
{
	json_t *f;
	size_t i;

	json_array_foreach(a->findings, i, f) print_finding(f);
	printf("%zu documents, %zu errors, %zu warnings\n", a->documents, a->errors, a->warnings);
}

static void print_json(const struct analysis *a)
{
	json_t *o = json_pack("{s:I, s:I, s:I, s:O}", "documents", (json_int_t)a->documents,
			      "errors", (json_int_t)a->errors, "warnings", (json_int_t)a->warnings,
			      "findings", a->findings);

	json_dumpf(o, stdout, JSON_INDENT(2));
	putchar('\n');
	json_decref(o);
}

int cli_analyze(const struct cli_command *self, int argc, char **argv)
{
	struct analysis a = { .findings = json_array(), .origins = json_object() };
	char why[CLIENT_WHY];
	json_t *status = NULL;
	int at = cli_parse(self, options, sizeof(options) / sizeof(options[0]), argc, argv), r = 0;

	if (at < argc)
		cli_usage_error(self, "analyze takes no operands; files are given by -f");
	if (key_option && files.n != 1)
		cli_usage_error(self, "--key goes with exactly one -f");
	if (!files.n && !trust_domain)
		client_get(cli_admin, "/status", &status, why);
	if (status)
		trust_domain = json_string_value(json_object_get(status, "trustDomain"));
	a.model = model_new(trust_domain);
	if (!a.model || !a.findings || !a.origins) {
		fputs("weft: out of memory\n", stderr);
		exit(CLI_FAILED);
	}
	for (size_t i = 0; i < files.n; i++)
		put_file(&a, files.v[i]);
	if (!files.n)
		r = put_mesh(&a);
	model_each_document(a.model, NULL, look_at, &a);
	model_each_document(a.model, NULL, warn_about, &a);
	if (r == 0 && cli_json)
		print_json(&a);
	else if (r == 0)
		print(&a);
	json_decref(status);
	json_decref(a.findings);
	json_decref(a.origins);
	model_free(a.model);
	return r ? r : a.errors ? CLI_FAILED : 0;
}
