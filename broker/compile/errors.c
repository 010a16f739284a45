#include "compile/errors.h"

#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MESSAGE_MAX 512

static const struct {
	const char *code, *help;
} codes[ERRORS_MAX] = {
#define X(name, code, help) { code, help },
	ERRORS_CODES(X)
#undef X
};

static bool plain_key(const char *key)
{
	for (const char *s = key; *s; s++)
		if (!strchr("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-/",
			    *s))
			return false;
	return *key;
}

static void path_append(struct errors_path *p, int printed)
{
	size_t room = sizeof(p->text) - p->n;

	if (printed > 0)
		p->n += (size_t)printed < room ? (size_t)printed : room - 1;
}

size_t errors_push(struct errors_path *p, const char *key)
{
	size_t mark = p->n;
	const char *format = plain_key(key) ? (p->n ? ".%s" : "%s") : "[\"%.64s\"]";

	path_append(p, snprintf(p->text + p->n, sizeof(p->text) - p->n, format, key));
	return mark;
}

size_t errors_push_index(struct errors_path *p, size_t i)
{
	size_t mark = p->n;

	path_append(p, snprintf(p->text + p->n, sizeof(p->text) - p->n, "[%zu]", i));
	return mark;
}

void errors_pop(struct errors_path *p, size_t mark)
{
	p->n = mark;
	p->text[mark] = '\0';
}

static char *copy_ascii(const char *s)
{
	char *copy = strdup(s);

	for (char *c = copy; c && *c; c++)
		if ((unsigned char)*c < 0x20 || (unsigned char)*c >= 0x7f)
			*c = '?';
	return copy;
}

static void append(struct doc_errors *e, const char *code, const char *path, const char *message)
{
	struct doc_error *v = realloc(e->v, (e->n + 1) * sizeof(*v));

	if (!v) {
		e->lost = true;
		return;
	}
	e->v = v;
	v[e->n] = (struct doc_error){ code, copy_ascii(path), copy_ascii(message) };
	if (v[e->n].path && v[e->n].message) {
		e->n++;
		return;
	}
	e->lost = true;
	free(v[e->n].path);
	free(v[e->n].message);
}

void errors_add(struct doc_errors *e, enum errors_code code, const struct errors_path *p,
		const char *format, ...)
{
	char message[MESSAGE_MAX];
	va_list list;

	if (e->n >= DOC_ERRORS_MAX)
		return;
	va_start(list, format);
	vsnprintf(message, sizeof(message), format, list);
	va_end(list);
	if (e->n == DOC_ERRORS_MAX - 1)
		append(e, codes[code].code, "", "there are more errors");
	else
		append(e, codes[code].code, p ? p->text : "", message);
}

void errors_copy(struct doc_errors *e, const struct doc_error *from)
{
	if (e->n < DOC_ERRORS_MAX)
		append(e, from->code, from->path, from->message);
}

void doc_errors_free(struct doc_errors *e)
{
	for (size_t i = 0; i < e->n; i++) {
		free(e->v[i].path);
		free(e->v[i].message);
	}
	free(e->v);
	*e = (struct doc_errors){ 0 };
}

char *doc_errors_json(const struct doc_errors *e)
{
	json_t *list = json_array();
	char *text = NULL;

	for (size_t i = 0; list && e && i < e->n; i++) {
		json_t *o = json_pack("{s:s, s:s, s:s}", "path", e->v[i].path, "message",
				      e->v[i].message, "code", e->v[i].code);

		if (json_array_append_new(list, o) < 0)
			goto out;
	}
	if (list)
		text = json_dumps(list, JSON_COMPACT);
out:
	json_decref(list);
	return text;
}

const char *doc_code_help(const char *code)
{
	for (size_t i = 0; i < ERRORS_MAX; i++)
		if (strcmp(codes[i].code, code) == 0)
			return codes[i].help;
	return "";
}
