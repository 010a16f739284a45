#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <msgpack.h>
#include <stdlib.h>
#include <string.h>

#include "weft/limits.h"
#include "weft/wire.h"

/* A service with every kind of field in it. */
static struct wire_service sample(void)
{
	static uint8_t ip[16] = { [10] = 0xff, [11] = 0xff, [12] = 10, [15] = 7 };
	static struct wire_endpoint endpoints[2];
	static struct wire_str ids[2], depends[1];
	static struct wire_cluster clusters[1];

	for (int i = 0; i < 2; i++)
		endpoints[i] = (struct wire_endpoint){ .address = { ip, 16 },
						       .port = 8080 + (uint64_t)i,
						       .weight = 1 };
	endpoints[1].entry = wire_str_of("default/orders-1");
	ids[0] = wire_str_of("spiffe://cluster.local/ns/default/sa/orders");
	ids[1] = wire_str_of("");
	depends[0] = wire_str_of("billing.default");
	clusters[0] = (struct wire_cluster){
		.host = wire_str_of("orders.default"),
		.weight = UINT64_MAX,
		.identities = { ids, 2 },
		.endpoints = { endpoints, 2 },
	};
	return (struct wire_service){
		.name = wire_str_of("orders.default"),
		.generation = 300,
		.clusters = { clusters, 1 },
		.depends = { depends, 1 },
	};
}

static void round_trip(void **state)
{
	struct wire_service in = sample(), out;
	const char *why = NULL;
	uint8_t *bytes;
	void *block;
	size_t len;

	(void)state;
	assert_int_equal(wire_encode(&wire_schema_service, &in, WEFT_REPLY_MAX, &bytes, &len), 0);
	assert_int_equal(wire_decode(&wire_schema_service, bytes, len, &out, &block, &why), 0);
	free(bytes);
	assert_string_equal(out.name.p, "orders.default");
	assert_int_equal(out.generation, 300);
	assert_int_equal(out.reason, 0);
	assert_int_equal(out.clusters.n, 1);
	assert_true(out.clusters.v[0].weight == UINT64_MAX);
	assert_string_equal(out.clusters.v[0].subset.p, ""); /* absent, and still text */
	assert_int_equal(out.clusters.v[0].identities.n, 2);
	assert_string_equal(out.clusters.v[0].identities.v[1].p, "");
	assert_int_equal(out.clusters.v[0].endpoints.n, 2);
	assert_int_equal(out.clusters.v[0].endpoints.v[1].port, 8081);
	assert_int_equal(out.clusters.v[0].endpoints.v[1].address.n, 16);
	assert_int_equal(out.clusters.v[0].endpoints.v[1].address.p[15], 7);
	assert_string_equal(out.depends.v[0].p, "billing.default");
	free(block);
}

static void nested_one_and_numbers(void **state)
{
	struct wire_inbound inbound = { .mtls = 3 };
	struct wire_identity in = { .inbound = &inbound, .spiffe = wire_str_of("x") }, out;
	uint64_t ports[] = { 1, 127, 128, 65535, 70000, UINT64_C(1) << 40 };
	struct wire_welcome w = { .ports = { ports, 6 } }, w2;
	const char *why = NULL;
	uint8_t *bytes;
	void *block;
	size_t len;

	(void)state;
	assert_int_equal(wire_encode(&wire_schema_identity, &in, 1000, &bytes, &len), 0);
	assert_int_equal(wire_decode(&wire_schema_identity, bytes, len, &out, &block, &why), 0);
	assert_non_null(out.inbound);
	assert_int_equal(out.inbound->mtls, 3);
	assert_string_equal(out.inbound->trust_domain.p, "");
	assert_null(out.chain.v);
	free(bytes);
	free(block);
	assert_int_equal(wire_encode(&wire_schema_welcome, &w, 1000, &bytes, &len), 0);
	assert_int_equal(wire_decode(&wire_schema_welcome, bytes, len, &w2, &block, &why), 0);
	assert_memory_equal(w2.ports.v, ports, sizeof(ports));
	free(bytes);
	free(block);
}

static void zero_is_one_byte(void **state)
{
	struct wire_service zero = { 0 }, out;
	const char *why = NULL;
	uint8_t *bytes;
	void *block;
	size_t len;

	(void)state;
	assert_int_equal(wire_encode(&wire_schema_service, &zero, 10, &bytes, &len), 0);
	assert_int_equal(len, 1);
	assert_int_equal(wire_decode(&wire_schema_service, bytes, len, &out, &block, &why), 0);
	assert_string_equal(out.name.p, "");
	free(bytes);
	free(block);
}

static void encode_is_bounded(void **state)
{
	struct wire_service in = sample();
	struct wire_str many = wire_str_of("");
	struct wire_service lists = { .depends = { &many, WEFT_LIST_MAX + 1 } };
	uint8_t *bytes;
	size_t len, full;

	(void)state;
	assert_int_equal(wire_encode(&wire_schema_service, &in, WEFT_REPLY_MAX, &bytes, &full), 0);
	free(bytes);
	for (size_t max = 0; max < full; max++)
		assert_int_equal(wire_encode(&wire_schema_service, &in, max, &bytes, &len),
				 -EMSGSIZE);
	assert_int_equal(wire_encode(&wire_schema_service, &in, full, &bytes, &len), 0);
	free(bytes);
	assert_int_equal(wire_encode(&wire_schema_service, &lists, WEFT_REPLY_MAX, &bytes, &len),
			 -EMSGSIZE);
}

/* What we send is msgpack for others, and what msgpack-c packs is read by us, unknown fields of
 * every type included. */
static void speaks_msgpack(void **state)
{
	struct wire_service in = sample();
	struct wire_listener out;
	const char *why = NULL;
	msgpack_sbuffer buf;
	msgpack_packer pk;
	msgpack_unpacked u;
	uint8_t *bytes;
	void *block;
	size_t len, at = 0;

	(void)state;
	assert_int_equal(wire_encode(&wire_schema_service, &in, WEFT_REPLY_MAX, &bytes, &len), 0);
	msgpack_unpacked_init(&u);
	assert_int_equal(msgpack_unpack_next(&u, (char *)bytes, len, &at), MSGPACK_UNPACK_SUCCESS);
	assert_int_equal(at, len);
	assert_int_equal(u.data.type, MSGPACK_OBJECT_MAP);
	msgpack_unpacked_destroy(&u);
	free(bytes);

	msgpack_sbuffer_init(&buf);
	msgpack_packer_init(&pk, &buf, msgpack_sbuffer_write);
	msgpack_pack_map(&pk, 12);
	for (int i = 0; i < 10; i++) {
		msgpack_pack_uint32(&pk, 1000 + (uint32_t)i);
		switch (i) {
		case 0:
			msgpack_pack_nil(&pk);
			break;
		case 1:
			msgpack_pack_true(&pk);
			break;
		case 2:
			msgpack_pack_double(&pk, 1.5);
			break;
		case 3:
			msgpack_pack_float(&pk, 1.5f);
			break;
		case 4:
			msgpack_pack_int64(&pk, INT64_MIN);
			break;
		case 5:
			msgpack_pack_ext(&pk, 300, 3);
			for (int n = 0; n < 300; n++)
				msgpack_pack_ext_body(&pk, "x", 1);
			break;
		case 6:
			msgpack_pack_ext(&pk, 4, 3);
			msgpack_pack_ext_body(&pk, "abcd", 4);
			break;
		case 7:
			msgpack_pack_array(&pk, 20);
			for (int n = 0; n < 20; n++)
				msgpack_pack_str_with_body(&pk, "nested", 6);
			break;
		case 8:
			msgpack_pack_map(&pk, 1);
			msgpack_pack_str_with_body(&pk, "k", 1);
			msgpack_pack_array(&pk, 0);
			break;
		case 9:
			msgpack_pack_bin_with_body(&pk, "0123456789", 10);
			break;
		}
	}
	msgpack_pack_uint64(&pk, 2);
	msgpack_pack_uint64(&pk, 8080);
	msgpack_pack_uint64(&pk, 3);
	msgpack_pack_uint64(&pk, UINT64_MAX);
	assert_int_equal(wire_decode(&wire_schema_listener, (uint8_t *)buf.data, buf.size, &out,
				     &block, &why),
			 0);
	assert_int_equal(out.port, 8080);
	assert_true(out.cookie == UINT64_MAX);
	free(block);
	msgpack_sbuffer_destroy(&buf);
}

static void refuse(const struct wire_schema *schema, const char *bytes, size_t len,
		   const char *want)
{
	union {
		struct wire_service service;
		struct wire_identity identity;
		struct wire_resolve resolve;
	} out;
	const char *why = NULL;
	void *block = &out;
	uint8_t *exact =
		malloc(len ? len : 1); /* so that a sanitizer sees the first byte too many */

	memcpy(exact, bytes, len);
	assert_int_equal(wire_decode(schema, exact, len, &out, &block, &why), -EPROTO);
	assert_null(block);
	assert_string_equal(why, want);
	free(exact);
}

#define REFUSE(schema, literal, want) \
	refuse(&wire_schema_##schema, literal, sizeof(literal) - 1, want)

static void malformed(void **state)
{
	(void)state;
	REFUSE(service, "", "truncated");
	REFUSE(service, "\x01", "not a map");
	REFUSE(service, "\x90", "not a map");
	REFUSE(service, "\x80\x80", "bytes after the end");
	REFUSE(service, "\x81", "map is longer than the message");
	REFUSE(service, "\x81\x01", "truncated");
	REFUSE(service, "\x81\x01\x05", "not a string");
	REFUSE(service, "\x81\x02\xa1x", "not an unsigned integer");
	REFUSE(service, "\x81\x02\xff", "not an unsigned integer");
	REFUSE(service, "\x81\x02\xcf\x01\x02", "truncated");
	REFUSE(service, "\x81\xa1xx", "not an unsigned integer");
	REFUSE(service, "\x81\x01\xa5xx", "string is longer than the message");
	REFUSE(service, "\x81\x01\xdb\xff\xff\xff\xff", "string is longer than the message");
	REFUSE(service, "\x81\x01\xa3x\0y", "NUL inside a string");
	REFUSE(service, "\x82\x02\x01\x02\x01", "the same field twice");
	REFUSE(service, "\xdf\xff\xff\xff\xff", "map is longer than the message");
	REFUSE(service, "\x81\x03\xdd\xff\xff\xff\xff", "list is longer than the message");
	REFUSE(service, "\x81\x03\x81\x01\x01", "not a list");
	REFUSE(service, "\x81\x03\x91\x01", "not a map");
	REFUSE(service, "\x81\x7f\xc1", "not msgpack");
	REFUSE(service, "\x81\x7f\xdd\xff\xff\xff\xff", "unknown field is longer than the message");
	REFUSE(service, "\x81\x7f\xc9\xff\xff\xff\xff", "unknown field is longer than the message");
	REFUSE(service, "\x81\x7f\xc6\xff\xff", "truncated");
	REFUSE(service, "\x81\x7f\x92\x01", "unknown field is longer than the message");
	REFUSE(resolve, "\x81\x02\xa1x", "not bytes");
	REFUSE(resolve, "\x81\x02\xc4\x05x", "bytes are longer than the message");
}

/* Deep or wide input that costs a byte each must cost little more to refuse. */
static void bombs(void **state)
{
	size_t len = 1u << 20;
	uint8_t *b = malloc(len + 8);
	struct wire_service out;
	const char *why;
	void *block;

	(void)state;
	memset(b, 0x91, len); /* an unknown field of a million nested lists */
	memcpy(b, "\x81\x7f", 2);
	b[len - 1] = 0xc0;
	assert_int_equal(wire_decode(&wire_schema_service, b, len, &out, &block, &why), 0);
	free(block);

	memcpy(b, "\x81\x06\xdd\x00\x01\x00\x01", 7); /* one string too many */
	memset(b + 7, 0xa0, WEFT_LIST_MAX + 1);
	assert_int_equal(
		wire_decode(&wire_schema_service, b, 7 + WEFT_LIST_MAX + 1, &out, &block, &why),
		-EPROTO);
	assert_string_equal(why, "list has too many elements");

	/* 15 clusters of 65,000 empty endpoints: a megabyte that would become a hundred. */
	uint8_t *p = b;
	p = (uint8_t *)memcpy(p, "\x81\x03\x9f", 3) + 3;
	for (int i = 0; i < 15; i++) {
		p = (uint8_t *)memcpy(p, "\x81\x08\xdc\xfd\xe8", 5) + 5;
		p = (uint8_t *)memset(p, 0x80, 65000) + 65000;
	}
	assert_int_equal(wire_decode(&wire_schema_service, b, (size_t)(p - b), &out, &block, &why),
			 -EPROTO);
	assert_string_equal(why, "decodes to more than the limit");
	free(b);
}

static uint64_t rng = 1;
static uint32_t rnd(void)
{
	rng = rng * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
	return (uint32_t)(rng >> 33);
}

/* Every truncation, and random damage: refused, or decoded to something that can be read. */
static void damage(void **state)
{
	struct wire_service in = sample(), out;
	const char *why;
	uint8_t *bytes, *copy;
	void *block;
	size_t len;

	(void)state;
	assert_int_equal(wire_encode(&wire_schema_service, &in, WEFT_REPLY_MAX, &bytes, &len), 0);
	for (size_t n = 0; n < len; n++) {
		copy = malloc(n ? n : 1);
		memcpy(copy, bytes, n);
		assert_int_equal(wire_decode(&wire_schema_service, copy, n, &out, &block, &why),
				 -EPROTO);
		free(copy);
	}
	copy = malloc(len);
	for (int i = 0; i < 200000; i++) {
		memcpy(copy, bytes, len);
		for (uint32_t k = rnd() % 4; k != UINT32_MAX; k--)
			copy[rnd() % len] = (uint8_t)rnd();
		if (wire_decode(&wire_schema_service, copy, len, &out, &block, &why) == 0) {
			assert_int_equal(strlen(out.name.p), out.name.n);
			for (uint32_t c = 0; c < out.clusters.n; c++)
				for (uint32_t e = 0; e < out.clusters.v[c].endpoints.n; e++)
					assert_int_equal(
						strlen(out.clusters.v[c].endpoints.v[e].entry.p),
						out.clusters.v[c].endpoints.v[e].entry.n);
		}
		free(block);
	}
	free(copy);
	free(bytes);
}

static void frames(void **state)
{
	struct wire_frame f;
	uint8_t type;
	uint32_t n;

	(void)state;
	wire_frame_make(&f, WIRE_HELLO | WIRE_ANSWER, 0x012345);
	assert_memory_equal(&f, "\x45\x23\x01\x00\x01\x81\x00\x00", 8);
	assert_int_equal(wire_frame_parse(&f, WEFT_REPLY_MAX, &type, &n), 0);
	assert_int_equal(type, 0x81);
	assert_int_equal(n, 0x012345);
	assert_int_equal(wire_frame_parse(&f, 0x012344, &type, &n), -EMSGSIZE);
	wire_frame_make(&f, WIRE_REFUSED, UINT32_MAX);
	assert_int_equal(wire_frame_parse(&f, WEFT_REPLY_MAX, &type, &n), -EMSGSIZE);
	assert_int_equal(wire_frame_parse(&f, UINT32_MAX, &type, &n), 0);
	f.version = 2;
	assert_int_equal(wire_frame_parse(&f, UINT32_MAX, &type, &n), -EPROTO);
	for (int t = 0; t < 256; t++) {
		bool known = t == 0xff || ((t & 0x7f) >= 1 && (t & 0x7f) < WIRE_TYPE_MAX);

		wire_frame_make(&f, (uint8_t)t, 0);
		assert_int_equal(wire_frame_parse(&f, 1, &type, &n), known ? 0 : -EPROTO);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(round_trip),
		cmocka_unit_test(nested_one_and_numbers),
		cmocka_unit_test(zero_is_one_byte),
		cmocka_unit_test(encode_is_bounded),
		cmocka_unit_test(speaks_msgpack),
		cmocka_unit_test(malformed),
		cmocka_unit_test(bombs),
		cmocka_unit_test(damage),
		cmocka_unit_test(frames),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
