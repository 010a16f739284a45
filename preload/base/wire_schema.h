/* How the codec sees the structs of wire.def: one table each. Private to preload/base. */
#ifndef BASE_WIRE_SCHEMA_H
#define BASE_WIRE_SCHEMA_H

#include "weft/wire.h"

enum kind { KIND_U64, KIND_STR, KIND_BIN, KIND_STRS, KIND_BINS, KIND_U64S, KIND_ONE, KIND_LIST };

struct wire_field {
	uint8_t number, kind;
	uint16_t offset;
	const struct wire_schema *sub; /* of ONE and LIST */
};

struct wire_schema {
	const struct wire_field *fields;
	uint32_t n;
	uint32_t size; /* of the struct */
};

/* What every list of wire.h looks like. */
struct list {
	void *v;
	uint32_t n;
};

#endif
