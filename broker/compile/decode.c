#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "compile/document.h"
#include "compile/value.h"
#include "weft/ident.h"

const char *labels_get(const struct labels *l, const char *key)
{
	for (size_t i = 0; i < l->n; i++)
		if (strcmp(l->v[i].key.p, key) == 0)
			return l->v[i].value.p;
	return "";
}

static bool has_label(const struct wire_label *have, size_t n, const struct wire_label *want)
{
	for (size_t i = 0; i < n; i++)
		if (strcmp(have[i].key.p, want->key.p) == 0)
			return strcmp(have[i].value.p, want->value.p) == 0;
	return false;
}

bool labels_match(const struct labels *want, const struct wire_label *have, size_t n)
{
	for (size_t i = 0; i < want->n; i++)
		if (!has_label(have, n, &want->v[i]))
			return false;
	return true;
}

/* An error says more than those above and below it: the first of a path stands. */
static bool is_told(const struct doc_errors *e, const char *path)
{
	for (size_t i = 0; i < e->n; i++)
		if (strcmp(e->v[i].path, path) == 0)
			return true;
	return false;
}

void decode_error(struct decode *d, enum errors_code code, const char *field, const char *format,
		  ...)
{
	char message[512];
	size_t mark = field ? errors_push(&d->path, field) : d->path.n;
	va_list list;

	va_start(list, format);
	vsnprintf(message, sizeof(message), format, list);
	va_end(list);
	if (!is_told(d->errors, d->path.text))
		errors_add(d->errors, code, &d->path, "%s", message);
	errors_pop(&d->path, mark);
}

static const char *copy_text(struct decode *d, const char *s)
{
	const char *copy = arena_strdup(d->arena, s ? s : "");

	return copy ? copy : "";
}

const char *decode_text(struct decode *d, const json_t *o, const char *field)
{
	return copy_text(d, json_string_value(json_object_get(o, field)));
}

uint32_t decode_number(const json_t *o, const char *field, uint32_t absent)
{
	const json_t *x = json_object_get(o, field);

	return json_is_integer(x) ? (uint32_t)json_integer_value(x) : absent;
}

uint64_t decode_millis(const json_t *o, const char *field)
{
	const char *s = json_string_value(json_object_get(o, field));
	uint64_t ms;

	return s && value_millis(s, &ms) == 0 ? ms : 0;
}

int decode_word(const json_t *o, const char *field, const char *words, int absent)
{
	const char *s = json_string_value(json_object_get(o, field));
	bool later;

	return s ? value_word(words, s, &later) : absent;
}

void decode_texts(struct decode *d, const json_t *o, const char *field, struct texts *out)
{
	const json_t *list = json_object_get(o, field);
	size_t n = json_array_size(list);

	out->v = arena_array(d->arena, n, sizeof(*out->v));
	for (out->n = 0; out->v && out->n < n; out->n++)
		out->v[out->n] = copy_text(d, json_string_value(json_array_get(list, out->n)));
}

static void put_label(struct decode *d, struct labels *l, const char *key, const char *value)
{
	size_t i = 0;

	while (i < l->n && strcmp(l->v[i].key.p, key) != 0)
		i++;
	if (i == l->n)
		l->v[l->n++].key = wire_str_of(copy_text(d, key));
	l->v[i].value = wire_str_of(copy_text(d, value));
}

void decode_labels(struct decode *d, const json_t *o, const char *field, struct labels *out)
{
	json_t *map = json_object_get(o, field);
	size_t n = json_object_size(map);
	struct wire_label *v;
	const char *key;
	json_t *x;

	if (!n)
		return;
	v = arena_array(d->arena, out->n + n, sizeof(*v));
	if (!v)
		return;
	if (out->n)
		memcpy(v, out->v, out->n * sizeof(*v));
	out->v = v;
	json_object_foreach(map, key, x)
		put_label(d, out, key, json_is_string(x) ? json_string_value(x) : "");
}

void decode_ports(struct decode *d, const json_t *o, const char *field, struct named_port **out,
		  size_t *n)
{
	json_t *map = json_object_get(o, field), *x;
	const char *key;

	*n = 0;
	*out = arena_array(d->arena, json_object_size(map), sizeof(**out));
	if (!*out)
		return;
	json_object_foreach(map, key, x)(*out)[(*n)++] =
		(struct named_port){ copy_text(d, key), (uint16_t)json_integer_value(x) };
}

void decode_cidrs(struct decode *d, const json_t *o, const char *field, struct weft_cidr **out,
		  size_t *n)
{
	const json_t *list = json_object_get(o, field);
	size_t count = json_array_size(list);

	*n = 0;
	*out = arena_array(d->arena, count, sizeof(**out));
	for (size_t i = 0; *out && i < count; i++)
		if (cidr_parse(&(*out)[*n], json_string_value(json_array_get(list, i))) == 0)
			(*n)++;
}

static const char *glob_host(struct decode *d, const char *host)
{
	char *copy = arena_strdup(d->arena, host);

	for (char *c = copy; c && *c; c++)
		*c = (char)(*c >= 'A' && *c <= 'Z' ? *c + ('a' - 'A') : *c);
	return copy ? copy : "";
}

const char *decode_host(struct decode *d, const char *host)
{
	char canonical[WEFT_SERVICE_MAX + 1];

	if (host[0] == '*')
		return glob_host(d, host);
	if (name_canonical(canonical, host, d->ns, d->trust_domain) < 0) {
		decode_error(d, ERRORS_VALUE, NULL, "\"%.64s\" is not a host name", host);
		return "";
	}
	return copy_text(d, canonical);
}

void decode_hosts(struct decode *d, const json_t *o, const char *field, struct texts *out)
{
	const json_t *list = json_object_get(o, field);
	size_t n = json_array_size(list), mark = errors_push(&d->path, field);

	out->v = arena_array(d->arena, n, sizeof(*out->v));
	for (out->n = 0; out->v && out->n < n; out->n++) {
		size_t at = errors_push_index(&d->path, out->n);

		out->v[out->n] = decode_host(d, json_string_value(json_array_get(list, out->n)));
		for (size_t i = 0; i < out->n; i++)
			if (strcmp(out->v[i], out->v[out->n]) == 0)
				decode_error(d, ERRORS_RULE, NULL, "the same host as at index %zu",
					     i);
		errors_pop(&d->path, at);
	}
	errors_pop(&d->path, mark);
}
