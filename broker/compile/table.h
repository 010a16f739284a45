/* policy.def as data: which kinds and fields there are. Constant; pure. */
#ifndef COMPILE_TABLE_H
#define COMPILE_TABLE_H

#include <stddef.h>

enum table_shape { TABLE_ONE, TABLE_LIST, TABLE_MAP };
enum table_type {
	TABLE_TEXT,
	TABLE_BOOL,
	TABLE_NUMBER, /* 0 to 2^32-1 */
	TABLE_PORT,
	TABLE_MILLIS,
	TABLE_HOST,
	TABLE_GLOB_HOST,
	TABLE_ADDRESS,
	TABLE_CIDR,
	TABLE_ENUM,
	TABLE_OBJECT,
	TABLE_LABEL,
	TABLE_LABEL_VALUE,
	TABLE_SPIFFE,
	TABLE_ANY,
};
enum table_state { TABLE_NEEDED, TABLE_FORCE, TABLE_NOOP, TABLE_LATER, TABLE_NEVER };

struct table_field {
	const char *message, *name;
	enum table_shape shape;
	enum table_type type;
	const char *of, *preset;
	enum table_state state;
	const char *text;
};

struct table_kind {
	const char *name;
	enum table_state state;
	unsigned touches; /* MODEL_... of model.h */
	const char *text;
};

enum { /* index into table_kinds */
#define KIND(kind, state, touches, text) KIND_##kind,
#define MESSAGE(message)
#define FIELD(message, field, shape, type, of, preset, state, text)
#include "weft/policy.def"
#undef KIND
#undef MESSAGE
#undef FIELD
       KIND_MAX
};
extern const struct table_kind table_kinds[KIND_MAX];

const struct table_kind *table_kind(const char *name, size_t len); /* NULL if there is none */

/* The fields of a message lie side by side. Returns the first and sets *n; a message without fields gives 0. */
const struct table_field *table_fields(const char *message, size_t *n);

/* The word of `words` nearest to `text` by edits, NULL where none is near enough to be what was meant. */
const char *table_nearest(const char *text, const char *(*word)(const void *list, size_t i),
			  const void *list, size_t n);

#endif
