#include "compile/table.h"

#include <string.h>

#include "compile/model.h"

/* The tokens of policy.def. */
#define FORCE TABLE_FORCE
#define LATER TABLE_LATER
#define NEVER TABLE_NEVER

const struct table_kind table_kinds[KIND_MAX] = {
#define KIND(kind, state, touches, text) { #kind, state, touches, text },
#define MESSAGE(message)
#define FIELD(message, field, shape, type, of, preset, state, text)
#include "weft/policy.def"
#undef KIND
#undef MESSAGE
#undef FIELD
};

#undef FORCE
#undef LATER
#undef NEVER

static const struct table_field fields[] = {
#define KIND(kind, state, touches, text)
#define MESSAGE(message)
#define FIELD(message, field, shape, type, of, preset, state, text) \
	{ #message, #field, TABLE_##shape, TABLE_##type, of, preset, TABLE_##state, text },
#include "weft/policy.def"
#undef KIND
#undef MESSAGE
#undef FIELD
};
#define FIELDS (sizeof(fields) / sizeof(fields[0]))

const struct table_kind *table_kind(const char *name, size_t len)
{
	for (size_t i = 0; i < KIND_MAX; i++)
		if (strlen(table_kinds[i].name) == len &&
		    memcmp(table_kinds[i].name, name, len) == 0)
			return &table_kinds[i];
	return NULL;
}

const struct table_field *table_fields(const char *message, size_t *n)
{
	size_t i = 0, end;

	while (i < FIELDS && strcmp(fields[i].message, message) != 0)
		i++;
	for (end = i; end < FIELDS && strcmp(fields[end].message, message) == 0; end++)
		;
	*n = end - i;
	return &fields[i < FIELDS ? i : 0];
}

#define WORD_MAX 40

static size_t min3(size_t a, size_t b, size_t c)
{
	a = a < b ? a : b;
	return a < c ? a : c;
}

static char fold(char c)
{
	return (char)(c >= 'A' && c <= 'Z' ? c + ('a' - 'A') : c);
}

/* Levenshtein's distance, case ignored. */
static size_t distance(const char *a, const char *b)
{
	size_t n = strlen(a), m = strlen(b), row[WORD_MAX + 1];

	if (n > WORD_MAX || m > WORD_MAX)
		return WORD_MAX;
	for (size_t j = 0; j <= m; j++)
		row[j] = j;
	for (size_t i = 1; i <= n; i++) {
		size_t corner = row[0];

		row[0] = i;
		for (size_t j = 1; j <= m; j++) {
			size_t up = row[j];

			row[j] = min3(up + 1, row[j - 1] + 1,
				      corner + (fold(a[i - 1]) != fold(b[j - 1])));
			corner = up;
		}
	}
	return row[m];
}

const char *table_nearest(const char *text, const char *(*word)(const void *list, size_t i),
			  const void *list, size_t n)
{
	size_t best = WORD_MAX;
	const char *found = NULL;

	for (size_t i = 0; i < n; i++) {
		size_t d = distance(text, word(list, i));

		if (d < best) {
			best = d;
			found = word(list, i);
		}
	}
	return found && best <= 1 + strlen(text) / 4 ? found : NULL;
}
