/* Messages between guests and weftd, and their codec (msgpack; preload/base/wire.c, pure).
 *
 * On the socket (AF_UNIX, SOCK_STREAM): one request, one reply, then the guest closes. Each is a frame header and a body:
 * a msgpack map {field number: value}, at most WEFT_REQUEST_MAX or WEFT_REPLY_MAX bytes. All input is untrusted. */
#ifndef WEFT_WIRE_H
#define WEFT_WIRE_H

#include <stddef.h>
#include <stdint.h>

#define WEFT_WIRE_VERSION 1

enum wire_type {                  /* body of the request -> body of the answer */
		 WIRE_HELLO = 1,  /* hello -> welcome, with descriptors */
		 WIRE_RESOLVE,    /* resolve -> resolved */
		 WIRE_SERVICE,    /* ask -> service */
		 WIRE_REGISTER,   /* listener -> registered */
		 WIRE_DEREGISTER, /* listener -> registered */
		 WIRE_ENROL,      /* enrol -> enrolled */
		 WIRE_REPORT,     /* report -> registered (empty) */
		 WIRE_RELAY,      /* relay -> relay: see to it that the relay of my uid runs */
		 WIRE_TYPE_MAX,
		 WIRE_ANSWER = 0x80,  /* added to the request's type */
		 WIRE_REFUSED = 0xff, /* refused */
};

struct wire_frame {        /* little-endian on every host */
	uint8_t length[4]; /* of the body */
	uint8_t version;   /* WEFT_WIRE_VERSION */
	uint8_t type;
	uint8_t reserved[2];
};

struct wire_str {
	const char *p; /* NUL-terminated; never NULL after decoding */
	uint32_t n;    /* without the NUL */
};
struct wire_bin {
	const uint8_t *p;
	uint32_t n;
};
struct wire_strs {
	struct wire_str *v;
	uint32_t n;
};
struct wire_bins {
	struct wire_bin *v;
	uint32_t n;
};
struct wire_u64s {
	uint64_t *v;
	uint32_t n;
};

#define STRUCT(name) struct wire_##name {
#define END(name) \
	}         \
	;
#define U64(s, number, field) uint64_t field;
#define STR(s, number, field) struct wire_str field;
#define BIN(s, number, field) struct wire_bin field;
#define STRS(s, number, field) struct wire_strs field;
#define BINS(s, number, field) struct wire_bins field;
#define U64S(s, number, field) struct wire_u64s field;
#define ONE(s, number, type, field) struct wire_##type *field;
#define LIST(s, number, type, field)   \
	struct {                       \
		struct wire_##type *v; \
		uint32_t n;            \
	} field;
#include "weft/wire.def"
#undef STRUCT
#undef END
#undef U64
#undef STR
#undef BIN
#undef STRS
#undef BINS
#undef U64S
#undef ONE
#undef LIST

struct wire_schema; /* of one struct; wire_schema_<name> for each STRUCT of wire.def */
#define STRUCT(name) extern const struct wire_schema wire_schema_##name;
#define END(name)
#define U64(s, number, field)
#define STR(s, number, field)
#define BIN(s, number, field)
#define STRS(s, number, field)
#define BINS(s, number, field)
#define U64S(s, number, field)
#define ONE(s, number, type, field)
#define LIST(s, number, type, field)
#include "weft/wire.def"
#undef STRUCT
#undef END
#undef U64
#undef STR
#undef BIN
#undef STRS
#undef BINS
#undef U64S
#undef ONE
#undef LIST

/* Encodes `src` (a struct wire_<name>). *out is malloc'ed, the caller frees it. Fields at zero are left out.
 * 0, -ENOMEM, -EMSGSIZE above `max` bytes. */
int wire_encode(const struct wire_schema *schema, const void *src, size_t max, uint8_t **out,
		size_t *len);

/* Decodes into `dst`, zeroed first. All that dst points to lies in one block, *block, which the caller frees;
 * the input may go. 0; -EPROTO with *why (static text) for anything that is not well-formed; -ENOMEM. */
int wire_decode(const struct wire_schema *schema, const uint8_t *in, size_t len, void *dst,
		void **block, const char **why);

/* Frame headers. parse: 0, -EPROTO (unknown version or type), -EMSGSIZE (longer than max). */
void wire_frame_make(struct wire_frame *f, uint8_t type, uint32_t length);
int wire_frame_parse(const struct wire_frame *f, uint32_t max, uint8_t *type, uint32_t *length);

/* Makes a wire_str of a C string that outlives it. */
struct wire_str wire_str_of(const char *s);

#endif
