#include "compile/document.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "compile/value.h"
#include "weft/env.h"
#include "weft/ident.h"

#define KEY_PREFIX "weft:"
#define DEPTH_MAX 64

int document_key_parse(struct document_key *k, const char *key)
{
	const char *kind = key + strlen(KEY_PREFIX), *colon, *name, *slash;
	size_t ns_len;

	*k = (struct document_key){ .kind = NULL };
	if (strncmp(key, KEY_PREFIX, strlen(KEY_PREFIX)) != 0)
		return -ENOENT;
	colon = strchr(kind, ':');
	k->kind = colon ? table_kind(kind, (size_t)(colon - kind)) : NULL;
	if (!k->kind)
		return -ENOENT;
	name = colon + 1;
	slash = strchr(name, '/');
	ns_len = slash ? (size_t)(slash - name) : strlen(WEFT_NAMESPACE_DEFAULT);
	if (!label_is_valid(slash ? name : WEFT_NAMESPACE_DEFAULT, ns_len))
		return -EINVAL;
	memcpy(k->ns, slash ? name : WEFT_NAMESPACE_DEFAULT, ns_len);
	name = slash ? slash + 1 : name;
	if (!value_name(name))
		return -EINVAL;
	memcpy(k->name, name, strlen(name) + 1);
	return 0;
}

/* jansson would recurse 2048 deep, and so would all that walks the result. */
static bool too_deep(const char *json, size_t len)
{
	bool text = false;
	int depth = 0;

	for (size_t i = 0; i < len; i++) {
		char c = json[i];

		if (text && c == '\\')
			i++;
		else if (c == '"')
			text = !text;
		else if (!text && (c == '{' || c == '['))
			depth++;
		else if (!text && (c == '}' || c == ']'))
			depth--;
		if (depth > DEPTH_MAX)
			return true;
	}
	return false;
}

json_t *document_load(const char *json, size_t len, struct doc_errors *errors)
{
	struct doc_errors none = { 0 }, *e = errors ? errors : &none;
	json_error_t why;
	json_t *doc = NULL;

	if (len > WEFT_DOCUMENT_MAX)
		errors_add(e, ERRORS_SIZE, NULL, "%zu bytes, at most %u are read", len,
			   WEFT_DOCUMENT_MAX);
	else if (too_deep(json, len))
		errors_add(e, ERRORS_SIZE, NULL, "more than %d nested levels", DEPTH_MAX);
	else if (!(doc = json_loadb(json, len, JSON_REJECT_DUPLICATES, &why)))
		errors_add(e, ERRORS_SYNTAX, NULL, "not JSON: line %d, column %d: %s", why.line,
			   why.column, why.text);
	else if (!json_is_object(doc)) {
		errors_add(e, ERRORS_TYPE, NULL, "expected an object, found a list");
		json_decref(doc);
		doc = NULL;
	}
	doc_errors_free(&none);
	return doc;
}

static void check_same(struct decode *d, const char *field, const char *found, const char *want)
{
	if (found && strcmp(found, want) != 0)
		decode_error(d, ERRORS_KEY, field, "\"%.64s\", but the key says \"%s\"", found,
			     want);
}

static bool is_dry_run(const json_t *annotations)
{
	const char *s = json_string_value(json_object_get(annotations, "istio.io/dry-run"));

	return s && strcmp(s, "true") == 0;
}

/* Checks what stands around the spec, and returns the spec: `doc` itself if it is a bare one, NULL if it is no object. */
static const json_t *open_manifest(struct decode *d, const struct document_key *k,
				   const json_t *doc, json_t *empty)
{
	const json_t *spec = json_object_get(doc, "spec");
	size_t mark;

	if (!spec && !json_object_get(doc, "kind") && !json_object_get(doc, "apiVersion"))
		return doc;
	d->doc->manifest = true;
	validate_object(d, doc, "Manifest");
	check_same(d, "kind", json_string_value(json_object_get(doc, "kind")), k->kind->name);
	d->metadata = json_object_get(doc, "metadata");
	mark = errors_push(&d->path, "metadata");
	check_same(d, "name", json_string_value(json_object_get(d->metadata, "name")), k->name);
	check_same(d, "namespace", json_string_value(json_object_get(d->metadata, "namespace")),
		   k->ns);
	errors_pop(&d->path, mark);
	d->doc->dry_run = is_dry_run(json_object_get(d->metadata, "annotations"));
	errors_push(&d->path, "spec");
	if (!spec || json_is_null(spec))
		return empty;
	if (!json_is_object(spec))
		decode_error(d, ERRORS_TYPE, NULL, "expected an object");
	return json_is_object(spec) ? spec : NULL;
}

static void decode_spec(struct decode *d, const struct table_kind *kind, const json_t *spec)
{
	static decode_fn *const decoders[KIND_MAX] = {
		[KIND_ServiceEntry] = decode_service_entry,
		[KIND_WorkloadEntry] = decode_workload_entry,
		[KIND_WorkloadGroup] = decode_workload_group,
		[KIND_DestinationRule] = decode_destination_rule,
		[KIND_VirtualService] = decode_virtual_service,
		[KIND_PeerAuthentication] = decode_peer_authentication,
		[KIND_AuthorizationPolicy] = decode_authorization_policy,
		[KIND_MeshConfig] = decode_mesh_config,
	};

	validate_object(d, spec, kind->name);
	if (!d->errors->n &&
	    !d->errors->lost) /* the decoders rely on a document of the right shape */
		decoders[kind - table_kinds](d, spec);
}

static int read_json(const struct document_key *k, const char *trust_domain, const json_t *doc,
		     struct document *out, struct doc_errors *errors)
{
	const json_t *host = json_object_get(
		json_object_get(json_object_get(doc, "metadata"), "annotations"), MODEL_NOTE_HOST);
	struct decode d = {
		.doc = out, .arena = &out->arena, .errors = errors, .ns = k->ns, .name = k->name
	};
	json_t *empty = json_object();
	const json_t *spec;

	out->broker = k->kind == &table_kinds[KIND_WorkloadEntry] && json_string_length(host);
	d.trust_domain = trust_domain;
	d.tolerant = out->broker;
	spec = empty ? open_manifest(&d, k, doc, empty) : NULL;
	if (spec)
		decode_spec(&d, k->kind, spec);
	json_decref(empty);
	if (!empty || out->arena.failed || errors->lost)
		return -ENOMEM;
	return errors->n ? -EINVAL : 0;
}

static int refuse_kind(const struct table_kind *kind, struct doc_errors *errors)
{
	bool later = kind->state == TABLE_LATER;

	errors_add(errors, later ? ERRORS_LATER : ERRORS_NEVER, NULL, "%s is %s: %s", kind->name,
		   later ? "not supported yet by this release" : "refused", kind->text);
	return -EINVAL;
}

int document_read(const struct document_key *k, const char *trust_domain, const char *json,
		  size_t len, struct document **out, bool *broker,
		  char revision[static DOC_REVISION + 1], struct doc_errors *errors)
{
	json_t *doc = document_load(json, len, errors);
	struct document *d = NULL;
	int r = -EINVAL;

	*broker = false;
	document_revision(doc, json, len, revision);
	if (k->kind->state >= TABLE_LATER) {
		r = refuse_kind(k->kind, errors);
	} else if (doc) {
		d = calloc(1, sizeof(*d));
		r = d ? read_json(k, trust_domain, doc, d, errors) : -ENOMEM;
		*broker = d && d->broker;
	}
	json_decref(doc);
	if (r == 0) {
		d->json = arena_strndup(&d->arena, json, len);
		d->len = len;
		memcpy(d->revision, revision, sizeof(d->revision));
		r = d->json ? 0 : -ENOMEM;
	}
	if (r == 0)
		*out = d;
	else
		document_free(d);
	return r;
}

void document_free(struct document *d)
{
	if (!d)
		return;
	arena_free(&d->arena);
	free(d);
}
