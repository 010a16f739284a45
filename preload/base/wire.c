/* Schema tables of wire.def, frame headers, and the encoder, which packs with msgpack-c. */
#include "base/wire_schema.h"

#include <errno.h>
#include <msgpack.h>
#include <stdbool.h>
#include <string.h>

#include "weft/limits.h"

#define FIELD(s, number_, kind_, field, sub_)         \
	{ .number = number_,                          \
	  .kind = kind_,                              \
	  .offset = offsetof(struct wire_##s, field), \
	  .sub = sub_ },
#define STRUCT(s) static const struct wire_field fields_##s[] = {
#define END(s)                                                                   \
	}                                                                        \
	;                                                                        \
	const struct wire_schema wire_schema_##s = { .fields = fields_##s,       \
						     .n = sizeof(fields_##s) /   \
							  sizeof(fields_##s[0]), \
						     .size = sizeof(struct wire_##s) };
#define U64(s, number, field) FIELD(s, number, KIND_U64, field, NULL)
#define STR(s, number, field) FIELD(s, number, KIND_STR, field, NULL)
#define BIN(s, number, field) FIELD(s, number, KIND_BIN, field, NULL)
#define STRS(s, number, field) FIELD(s, number, KIND_STRS, field, NULL)
#define BINS(s, number, field) FIELD(s, number, KIND_BINS, field, NULL)
#define U64S(s, number, field) FIELD(s, number, KIND_U64S, field, NULL)
#define ONE(s, number, type, field) FIELD(s, number, KIND_ONE, field, &wire_schema_##type)
#define LIST(s, number, type, field) FIELD(s, number, KIND_LIST, field, &wire_schema_##type)
#include "weft/wire.def"

struct wire_str wire_str_of(const char *s)
{
	return (struct wire_str){ .p = s ? s : "", .n = s ? (uint32_t)strlen(s) : 0 };
}

/* --- frames --- */

void wire_frame_make(struct wire_frame *f, uint8_t type, uint32_t length)
{
	*f = (struct wire_frame){ .version = WEFT_WIRE_VERSION, .type = type };
	for (unsigned i = 0; i < 4; i++)
		f->length[i] = (uint8_t)(length >> (8 * i));
}

int wire_frame_parse(const struct wire_frame *f, uint32_t max, uint8_t *type, uint32_t *length)
{
	uint8_t request = f->type & (uint8_t)~WIRE_ANSWER;
	uint32_t n = 0;

	if (f->version != WEFT_WIRE_VERSION)
		return -EPROTO;
	if (f->type != WIRE_REFUSED && (request < WIRE_HELLO || request >= WIRE_TYPE_MAX))
		return -EPROTO;
	for (unsigned i = 0; i < 4; i++)
		n |= (uint32_t)f->length[i] << (8 * i);
	if (n > max)
		return -EMSGSIZE;
	*type = f->type;
	*length = n;
	return 0;
}

/* --- encoding --- */

struct writer {
	msgpack_sbuffer buf;
	size_t max;
	int err;
};

static int writer_append(void *data, const char *bytes, size_t n)
{
	struct writer *w = data;

	if (w->err)
		return -1;
	if (!n)
		return 0;
	if (n > w->max - w->buf.size)
		w->err = -EMSGSIZE;
	else if (msgpack_sbuffer_write(&w->buf, bytes, n) < 0)
		w->err = -ENOMEM;
	return w->err ? -1 : 0;
}

static bool field_is_zero(const struct wire_field *f, const void *p)
{
	switch ((enum kind)f->kind) {
	case KIND_U64:
		return *(const uint64_t *)p == 0;
	case KIND_STR:
		return ((const struct wire_str *)p)->n == 0;
	case KIND_BIN:
		return ((const struct wire_bin *)p)->n == 0;
	case KIND_ONE:
		return *(void *const *)p == NULL;
	default:
		return ((const struct list *)p)->n == 0;
	}
}

static void pack_struct(msgpack_packer *pk, const struct wire_schema *schema, const void *src);

static void pack_str(msgpack_packer *pk, const struct wire_str *s)
{
	msgpack_pack_str(pk, s->n);
	msgpack_pack_str_body(pk, s->p, s->n);
}

static void pack_bin(msgpack_packer *pk, const struct wire_bin *b)
{
	msgpack_pack_bin(pk, b->n);
	msgpack_pack_bin_body(pk, b->p, b->n);
}

static void pack_list(msgpack_packer *pk, const struct wire_field *f, const struct list *l)
{
	struct writer *w = pk->data;

	if (l->n > WEFT_LIST_MAX)
		w->err = -EMSGSIZE;
	msgpack_pack_array(pk, l->n);
	for (uint32_t i = 0; i < l->n && !w->err; i++) {
		if (f->kind == KIND_STRS)
			pack_str(pk, (const struct wire_str *)l->v + i);
		else if (f->kind == KIND_BINS)
			pack_bin(pk, (const struct wire_bin *)l->v + i);
		else if (f->kind == KIND_U64S)
			msgpack_pack_uint64(pk, ((const uint64_t *)l->v)[i]);
		else
			pack_struct(pk, f->sub, (const char *)l->v + (size_t)i * f->sub->size);
	}
}

static void pack_struct(msgpack_packer *pk, const struct wire_schema *schema, const void *src)
{
	const char *base = src;
	uint32_t set = 0;

	for (uint32_t i = 0; i < schema->n; i++)
		set += !field_is_zero(&schema->fields[i], base + schema->fields[i].offset);
	msgpack_pack_map(pk, set);
	for (uint32_t i = 0; i < schema->n; i++) {
		const struct wire_field *f = &schema->fields[i];
		const void *p = base + f->offset;

		if (field_is_zero(f, p))
			continue;
		msgpack_pack_uint8(pk, f->number);
		if (f->kind == KIND_U64)
			msgpack_pack_uint64(pk, *(const uint64_t *)p);
		else if (f->kind == KIND_STR)
			pack_str(pk, p);
		else if (f->kind == KIND_BIN)
			pack_bin(pk, p);
		else if (f->kind == KIND_ONE)
			pack_struct(pk, f->sub, *(void *const *)p);
		else
			pack_list(pk, f, p);
	}
}

int wire_encode(const struct wire_schema *schema, const void *src, size_t max, uint8_t **out,
		size_t *len)
{
	struct writer w = { .max = max };
	msgpack_packer pk;

	msgpack_packer_init(&pk, &w, writer_append);
	pack_struct(&pk, schema, src);
	if (w.err) {
		msgpack_sbuffer_destroy(&w.buf);
		return w.err;
	}
	*len = w.buf.size;
	*out = (uint8_t *)msgpack_sbuffer_release(&w.buf);
	return 0;
}
