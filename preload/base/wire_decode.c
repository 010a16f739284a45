/* The decoder, straight from the bytes into the struct: msgpack-c would build a tree first, for
 * which an array header of five bytes can ask for gigabytes. A message is read twice by the same
 * code, first without a destination, which checks all of it and sums up the memory it takes, then
 * into the block of that size. */
#include "base/wire_schema.h"

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "weft/limits.h"

struct reader {
	const uint8_t *p, *end;
	uint8_t *block; /* NULL while measuring */
	size_t used;    /* of the block */
	const char *why;
};

static int malformed(struct reader *r, const char *why)
{
	r->why = why;
	return -EPROTO;
}

static size_t left(const struct reader *r)
{
	return (size_t)(r->end - r->p);
}

/* Room in the block; *p is NULL while measuring. */
static int reserve(struct reader *r, size_t n, size_t align, void *p)
{
	size_t at = (r->used + align - 1) & ~(align - 1);

	if (n > WEFT_DECODED_MAX || at > WEFT_DECODED_MAX - n)
		return malformed(r, "decodes to more than the limit");
	*(void **)p = r->block ? r->block + at : NULL;
	r->used = at + n;
	return 0;
}

/* A big-endian unsigned of n bytes. */
static int take_be(struct reader *r, unsigned n, uint64_t *v)
{
	if (left(r) < n)
		return malformed(r, "truncated");
	for (*v = 0; n; n--)
		*v = *v << 8 | *r->p++;
	return 0;
}

static int take_u64(struct reader *r, uint64_t *v)
{
	uint8_t tag;

	if (!left(r))
		return malformed(r, "truncated");
	tag = *r->p++;
	if (tag < 0x80) {
		*v = tag;
		return 0;
	}
	if (tag < 0xcc || tag > 0xcf)
		return malformed(r, "not an unsigned integer");
	return take_be(r, 1u << (tag - 0xcc), v);
}

/* Header of a str, bin, array or map: a `fix` form with `fix_mask` length bits, or `tag` and the
 * two after it with lengths of width, 2 * width and 4 * width bytes (arrays and maps have two forms
 * only). */
struct form {
	uint8_t fix, fix_mask, tag, width, forms;
	const char * not, *too_long;
};
static const struct form form_str = {
	0xa0, 0x1f, 0xd9, 1, 3, "not a string", "string is longer than the message"
};
static const struct form form_bin = {
	0, 0, 0xc4, 1, 3, "not bytes", "bytes are longer than the message"
};
static const struct form form_array = {
	0x90, 0x0f, 0xdc, 2, 2, "not a list", "list is longer than the message"
};
static const struct form form_map = {
	0x80, 0x0f, 0xde, 2, 2, "not a map", "map is longer than the message"
};

static int take_length(struct reader *r, const struct form *f, uint32_t *n)
{
	uint64_t v;
	uint8_t tag;

	if (!left(r))
		return malformed(r, "truncated");
	tag = *r->p++;
	if (f->fix && (tag & (uint8_t)~f->fix_mask) == f->fix)
		v = tag & f->fix_mask;
	else if (tag < f->tag || tag >= f->tag + f->forms)
		return malformed(r, f->not );
	else if (take_be(r, (unsigned)f->width << (tag - f->tag), &v) < 0)
		return -EPROTO;
	/* Each element takes a byte at least. */
	if (v > left(r))
		return malformed(r, f->too_long);
	*n = (uint32_t)v;
	return 0;
}

/* How one msgpack value goes on after its tag: bytes to skip, and values inside. */
static int skip_head(struct reader *r, uint64_t *bytes, uint64_t *values)
{
	uint8_t tag = *r->p++;
	uint64_t n = 0;
	int err = 0;

	*bytes = *values = 0;
	if (tag < 0x80 || tag >= 0xe0 || tag == 0xc0 || tag == 0xc2 ||
	    tag == 0xc3) /* small integers, nil, booleans */
		return 0;
	if (tag < 0x90) /* fixmap */
		*values = 2 * (uint64_t)(tag & 0x0f);
	else if (tag < 0xa0) /* fixarray */
		*values = tag & 0x0f;
	else if (tag < 0xc0) /* fixstr */
		*bytes = tag & 0x1f;
	else if (tag >= 0xc4 && tag <= 0xc9) { /* bin, ext */
		err = take_be(r, 1u << ((tag - 0xc4) % 3), &n);
		*bytes = n + (tag >= 0xc7);
	} else if (tag >= 0xca && tag <= 0xcb) /* float, double */
		*bytes = 4u << (tag - 0xca);
	else if (tag >= 0xcc && tag <= 0xd3) /* integers */
		*bytes = 1u << ((tag - 0xcc) & 3);
	else if (tag >= 0xd4 && tag <= 0xd8) /* fixext and its type */
		*bytes = (1u << (tag - 0xd4)) + 1;
	else if (tag >= 0xd9 && tag <= 0xdb) { /* str */
		err = take_be(r, 1u << (tag - 0xd9), &n);
		*bytes = n;
	} else if (tag >= 0xdc) { /* array, map */
		err = take_be(r, tag & 1 ? 4 : 2, &n);
		*values = tag >= 0xde ? 2 * n : n;
	} else
		return malformed(r, "not msgpack");
	return err;
}

/* A value that the schema does not know, whatever is in it. Counts instead of recursing: depth
 * costs nothing. */
static int skip_value(struct reader *r)
{
	uint64_t todo = 1, bytes, values;

	for (; todo; todo--) {
		if (!left(r))
			return malformed(r, "truncated");
		if (skip_head(r, &bytes, &values) < 0)
			return -EPROTO;
		if (bytes > left(r) || values > left(r) - bytes)
			return malformed(r, "unknown field is longer than the message");
		r->p += bytes;
		todo += values;
	}
	return 0;
}

static int read_str(struct reader *r, struct wire_str *dst)
{
	uint32_t n;
	char *p;

	if (take_length(r, &form_str, &n) < 0 || reserve(r, (size_t)n + 1, 1, &p) < 0)
		return -EPROTO;
	if (memchr(r->p, 0, n))
		return malformed(r, "NUL inside a string");
	if (p) {
		memcpy(p, r->p, n);
		p[n] = '\0';
		*dst = (struct wire_str){ .p = p, .n = n };
	}
	r->p += n;
	return 0;
}

static int read_bin(struct reader *r, struct wire_bin *dst)
{
	uint32_t n;
	uint8_t *p;

	if (take_length(r, &form_bin, &n) < 0 || reserve(r, n, 1, &p) < 0)
		return -EPROTO;
	if (p) {
		memcpy(p, r->p, n);
		*dst = (struct wire_bin){ .p = p, .n = n };
	}
	r->p += n;
	return 0;
}

static int read_struct(struct reader *r, const struct wire_schema *schema, void *dst,
		       unsigned depth);

static size_t element_size(const struct wire_field *f)
{
	switch ((enum kind)f->kind) {
	case KIND_STRS:
		return sizeof(struct wire_str);
	case KIND_BINS:
		return sizeof(struct wire_bin);
	case KIND_U64S:
		return sizeof(uint64_t);
	default:
		return f->sub->size;
	}
}

static int read_list(struct reader *r, const struct wire_field *f, struct list *dst, unsigned depth)
{
	size_t size = element_size(f);
	uint32_t n;
	char *v;
	int err = 0;

	if (take_length(r, &form_array, &n) < 0)
		return -EPROTO;
	if (n > WEFT_LIST_MAX)
		return malformed(r, "list has too many elements");
	if (reserve(r, n * size, _Alignof(max_align_t), &v) < 0)
		return -EPROTO;
	for (uint32_t i = 0; i < n && !err; i++) {
		void *element = v ? v + i * size : NULL;
		uint64_t number;

		if (f->kind == KIND_STRS)
			err = read_str(r, element);
		else if (f->kind == KIND_BINS)
			err = read_bin(r, element);
		else if (f->kind == KIND_LIST)
			err = read_struct(r, f->sub, element, depth + 1);
		else if ((err = take_u64(r, &number)) == 0 && element)
			memcpy(element, &number, sizeof(number));
	}
	if (v && !err)
		*dst = (struct list){ .v = n ? v : NULL, .n = n };
	return err;
}

static int read_one(struct reader *r, const struct wire_field *f, void **dst, unsigned depth)
{
	void *p;

	if (reserve(r, f->sub->size, _Alignof(max_align_t), &p) < 0)
		return -EPROTO;
	if (p)
		*dst = p;
	return read_struct(r, f->sub, p, depth + 1);
}

static int read_field(struct reader *r, const struct wire_field *f, void *dst, unsigned depth)
{
	uint64_t v;

	switch ((enum kind)f->kind) {
	case KIND_U64:
		if (take_u64(r, &v) < 0)
			return -EPROTO;
		if (dst)
			*(uint64_t *)dst = v;
		return 0;
	case KIND_STR:
		return read_str(r, dst);
	case KIND_BIN:
		return read_bin(r, dst);
	case KIND_ONE:
		return read_one(r, f, dst, depth);
	default:
		return read_list(r, f, dst, depth);
	}
}

/* Nothing set: zero, and strings that can be read. */
static void clear_struct(const struct wire_schema *schema, void *dst)
{
	memset(dst, 0, schema->size);
	for (uint32_t i = 0; i < schema->n; i++)
		if (schema->fields[i].kind == KIND_STR)
			((struct wire_str *)(void *)((char *)dst + schema->fields[i].offset))->p =
				"";
}

/* `dst` is NULL while measuring. */
static int read_struct(struct reader *r, const struct wire_schema *schema, void *dst,
		       unsigned depth)
{
	uint64_t number, seen = 0;
	uint32_t n;

	if (depth >= WEFT_WIRE_DEPTH)
		return malformed(r, "nested too deeply");
	if (take_length(r, &form_map, &n) < 0)
		return -EPROTO;
	if (dst)
		clear_struct(schema, dst);
	while (n--) {
		uint32_t i = 0;

		if (take_u64(r, &number) < 0)
			return -EPROTO;
		while (i < schema->n && schema->fields[i].number != number)
			i++;
		if (i == schema->n) {
			if (skip_value(r) < 0)
				return -EPROTO;
			continue;
		}
		if (seen & UINT64_C(1) << i)
			return malformed(r, "the same field twice");
		seen |= UINT64_C(1) << i;
		if (read_field(r, &schema->fields[i],
			       dst ? (char *)dst + schema->fields[i].offset : NULL, depth) < 0)
			return -EPROTO;
	}
	return 0;
}

int wire_decode(const struct wire_schema *schema, const uint8_t *in, size_t len, void *dst,
		void **block, const char **why)
{
	struct reader r = { .p = in, .end = in + len };
	int err;

	clear_struct(schema, dst);
	*block = NULL;
	err = read_struct(&r, schema, NULL, 0);
	if (!err && left(&r))
		err = malformed(&r, "bytes after the end");
	if (err) {
		*why = r.why;
		return err;
	}
	/* One byte more, so that an empty message is no NULL block. */
	*block = malloc(r.used + 1);
	if (!*block)
		return -ENOMEM;
	r = (struct reader){ .p = in, .end = in + len, .block = *block };
	return read_struct(&r, schema, dst, 0);
}
