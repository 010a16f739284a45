#include <stdio.h>
#include <string.h>

#include "compile/document.h"
#include "compile/value.h"
#include "weft/ident.h"

static const char *type_name(const json_t *x)
{
	switch (json_typeof(x)) {
	case JSON_OBJECT:
		return "an object";
	case JSON_ARRAY:
		return "a list";
	case JSON_STRING:
		return "a text";
	case JSON_INTEGER:
		return "a number";
	case JSON_REAL:
		return "a fraction";
	case JSON_TRUE:
	case JSON_FALSE:
		return "true or false";
	default:
		return "null";
	}
}

static void wrong_type(struct decode *d, const char *want, const json_t *x)
{
	errors_add(d->errors, ERRORS_TYPE, &d->path, "expected %s, found %s", want, type_name(x));
}

/* "A, B or C", without those of later releases. */
static void list_words(const char *words, char *out, size_t size)
{
	char word[64];
	size_t n = 0;

	out[0] = '\0';
	for (int i = 0; value_word_at(words, i, word); i++) {
		bool later;

		if (value_word(words, word, &later) >= 0 && !later && n < size)
			n += (size_t)snprintf(out + n, size - n, "%s%s", n ? ", " : "", word);
	}
}

static void check_enum(struct decode *d, const struct table_field *f, const json_t *x)
{
	const char *text =
		json_is_boolean(x) ? (json_is_true(x) ? "true" : "false") : json_string_value(x);
	char words[256];
	bool later;
	int at;

	list_words(f->of, words, sizeof(words));
	if (!text) {
		wrong_type(d, words, x);
		return;
	}
	at = value_word(f->of, text, &later);
	if (at >= 0 && later)
		errors_add(d->errors, ERRORS_LATER, &d->path,
			   "%.64s is not supported yet by this release, only %s", text, words);
	else if (at < 0)
		errors_add(d->errors, ERRORS_VALUE, &d->path, "\"%.64s\" is not one of %s", text,
			   words);
}

static void check_number(struct decode *d, const struct table_field *f, const json_t *x)
{
	json_int_t low = f->type == TABLE_PORT, high = f->type == TABLE_PORT ? 65535 : UINT32_MAX;
	json_int_t v = json_integer_value(x);

	if (!json_is_integer(x))
		wrong_type(d, f->type == TABLE_PORT ? "a port number" : "a whole number", x);
	else if (v < low || v > high)
		errors_add(d->errors, ERRORS_VALUE, &d->path,
			   "%" JSON_INTEGER_FORMAT " is not from %d to %" JSON_INTEGER_FORMAT, v,
			   (int)low, high);
}

/* What is wrong with a text of this type, or NULL. */
static const char *text_fault(enum table_type type, const char *s)
{
	char canonical[WEFT_SERVICE_MAX + 1];
	struct weft_addr addr;
	struct weft_cidr cidr;
	uint64_t ms;

	switch (type) {
	case TABLE_MILLIS:
		return value_millis(s, &ms) < 0
			       ? "is not a duration from 1ms to 1h such as 10s, 1.5s or 250ms"
			       : NULL;
	case TABLE_GLOB_HOST:
		if (strcmp(s, "*") == 0)
			return NULL;
		s += strncmp(s, "*.", 2) == 0 ? 2 : 0;
		return name_canonical(canonical, s, "", "") < 0 ? "is not a host name, *.name or *"
								: NULL;
	case TABLE_HOST:
		return name_canonical(canonical, s, "", "") < 0 ? "is not a host name" : NULL;
	case TABLE_ADDRESS:
		return addr_parse(&addr, s) < 0 ? "is not an IPv4 or IPv6 address" : NULL;
	case TABLE_CIDR:
		return cidr_parse(&cidr, s) < 0 ? "is not an address or CIDR block" : NULL;
	case TABLE_LABEL:
		return label_is_valid(s, strlen(s)) ? NULL
						    : "is not a name of [a-z0-9-], at most 63 long";
	case TABLE_LABEL_VALUE:
		return value_label_value(s)
			       ? NULL
			       : "is not a label value of [A-Za-z0-9._-], at most 63 long";
	case TABLE_SPIFFE:
		return value_spiffe(s) ? NULL
				       : "is not a SPIFFE ID "
					 "spiffe://<trust-domain>/ns/<namespace>/sa/<name>";
	default:
		return NULL;
	}
}

static void check_text(struct decode *d, const struct table_field *f, const json_t *x)
{
	const char *s = json_string_value(x), *fault = s ? text_fault(f->type, s) : NULL;
	bool wild = s && f->type == TABLE_HOST && s[0] == '*';

	if (!s)
		wrong_type(d, f->type == TABLE_MILLIS ? "a duration" : "a text", x);
	else if (wild)
		errors_add(d->errors, ERRORS_LATER, &d->path,
			   "wildcard hosts are not supported yet by this release here");
	else if (fault)
		errors_add(d->errors, ERRORS_VALUE, &d->path, "\"%.64s\" %s", s, fault);
}

static void check_value(struct decode *d, const struct table_field *f, const json_t *x)
{
	switch (f->type) {
	case TABLE_ANY:
		break;
	case TABLE_BOOL:
		if (!json_is_boolean(x))
			wrong_type(d, "true or false", x);
		break;
	case TABLE_NUMBER:
	case TABLE_PORT:
		check_number(d, f, x);
		break;
	case TABLE_ENUM:
		check_enum(d, f, x);
		break;
	case TABLE_OBJECT:
		if (json_is_object(x))
			validate_object(d, x, f->of);
		else
			wrong_type(d, "an object", x);
		break;
	default:
		check_text(d, f, x);
	}
}

static void check_list(struct decode *d, const struct table_field *f, const json_t *x)
{
	size_t i;
	json_t *v;

	if (!json_is_array(x)) {
		wrong_type(d, "a list", x);
		return;
	}
	json_array_foreach(x, i, v)
	{
		size_t mark = errors_push_index(&d->path, i);

		check_value(d, f, v);
		errors_pop(&d->path, mark);
	}
}

static void check_map(struct decode *d, const struct table_field *f, const json_t *x)
{
	const char *key;
	json_t *v;

	if (!json_is_object(x)) {
		wrong_type(d, "an object", x);
		return;
	}
	json_object_foreach((json_t *)(uintptr_t)x, key, v)
	{
		size_t mark = errors_push(&d->path, key);

		if (f->type == TABLE_LABEL_VALUE && !value_label_key(key))
			errors_add(d->errors, ERRORS_VALUE, &d->path,
				   "\"%.64s\" is not a label name", key);
		check_value(d, f, v);
		errors_pop(&d->path, mark);
	}
}

static void check_field(struct decode *d, const struct table_field *f, const json_t *x)
{
	if (d->tolerant && f->state >= TABLE_LATER)
		return;
	if (f->state == TABLE_LATER)
		errors_add(d->errors, ERRORS_LATER, &d->path,
			   "%s is not supported yet by this release (%s)", f->name, f->text);
	else if (f->state == TABLE_NEVER)
		errors_add(d->errors, ERRORS_NEVER, &d->path, "%s is refused: %s", f->name,
			   f->text);
	else if (f->shape == TABLE_LIST)
		check_list(d, f, x);
	else if (f->shape == TABLE_MAP)
		check_map(d, f, x);
	else
		check_value(d, f, x);
}

static const char *field_name(const void *fields, size_t i)
{
	return ((const struct table_field *)fields)[i].name;
}

static void unknown_field(struct decode *d, const char *key, const struct table_field *fields,
			  size_t n)
{
	const char *near = table_nearest(key, field_name, fields, n);

	if (d->tolerant)
		return;
	errors_add(d->errors, ERRORS_UNKNOWN_FIELD, &d->path, "unknown field%s%s%s",
		   near ? ", did you mean \"" : "", near ? near : "", near ? "\"?" : "");
}

void validate_object(struct decode *d, const json_t *object, const char *message)
{
	size_t n;
	const struct table_field *fields = table_fields(message, &n);
	const char *key;
	json_t *v;

	json_object_foreach((json_t *)(uintptr_t)object, key, v)
	{
		size_t mark = errors_push(&d->path, key), i = 0;

		while (i < n && strcmp(fields[i].name, key) != 0)
			i++;
		if (i == n)
			unknown_field(d, key, fields, n);
		else if (!json_is_null(v)) /* null is absent, as in Istio */
			check_field(d, &fields[i], v);
		errors_pop(&d->path, mark);
	}
	for (size_t i = 0; i < n; i++) {
		const json_t *x = fields[i].state == TABLE_NEEDED
					  ? json_object_get(object, fields[i].name)
					  : NULL;
		bool empty = json_is_array(x) && !json_array_size(x);

		if (fields[i].state != TABLE_NEEDED || (x && !json_is_null(x) && !empty))
			continue;
		decode_error(d, ERRORS_MISSING, fields[i].name, "%s is required: %s",
			     fields[i].name, fields[i].text);
	}
}
