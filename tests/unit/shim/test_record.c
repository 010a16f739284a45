/* The record layer: RFC 8448's bytes, every suite, what must not open, and the bounds. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tls/record.h"

static size_t unhex(const char *s, uint8_t *out)
{
	size_t n = 0;
	unsigned v;
	int used;

	for (; sscanf(s, " %2x%n", &v, &used) == 1; s += used)
		out[n++] = (uint8_t)v;
	return n;
}

/* RFC 8448 section 3, from the application traffic secrets on. */
static const char client_secret[] =
	"9e40646ce79a7f9dc05af8889bce6552875afa0b06df0087f792ebb7c17504a5";
static const char server_secret[] =
	"a11af9f05531f856ad47116b45a950328204b4f44bfb6b3a4b4f1f3fcb631643";
static const char client_data[] = "17 03 03 00 43 a2 3f 70 54 b6 2c 94 d0 af fa fe 82 28 ba 55 cb "
				  "ef ac ea 42 f9 14 aa 66 bc ab 3f"
				  "2b 98 19 a8 a5 b4 6b 39 5b d5 4a 9a 20 44 1e 2b 62 97 4e 1f 5a "
				  "62 92 a2 97 70 14 bd 1e 3d ea"
				  "e6 3a ee bb 21 69 49 15 e4";
static const char client_alert[] =
	"17 03 03 00 13 c9 87 27 60 65 56 66 b7 4d 7f f1 15 3e fd 6d b6 d0 b0 e3";
static const char server_data[] = "17 03 03 00 43 2e 93 7e 11 ef 4a c7 40 e5 38 ad 36 00 5f c4 a4 "
				  "69 32 fc 32 25 d0 5f 82 aa 1b"
				  "36 e3 0e fa f9 7d 90 e6 df fc 60 2d cb 50 1a 59 a8 fc c4 9c 4b "
				  "f2 e5 f0 a2 1c 00 47 c2 ab f3"
				  "32 54 0d d0 32 e1 67 c2 95 5d";

static struct record_keys keys_of(uint16_t suite, const char *hex)
{
	uint8_t secret[48];
	struct record_keys k;

	assert_int_equal(record_keys_set(&k, suite, secret, unhex(hex, secret)), 0);
	return k;
}

/* Seals `n` bytes as one piece, and asserts that it worked. */
static size_t seal(struct record_aead *a, struct record_keys *k, enum record_type type,
		   const void *data, size_t n, uint8_t *out)
{
	struct iovec iov = { (void *)(uintptr_t)data, n };
	ssize_t r = record_seal(a, k, type, &iov, 0, n, out);

	assert_int_equal(r, n + RECORD_OVERHEAD);
	assert_int_equal(record_wire_length(out), r);
	return (size_t)r;
}

static void rfc8448_keys(void **state)
{
	struct record_keys k = keys_of(0x1301, client_secret);
	uint8_t want[16];

	(void)state;
	unhex("17422dda596ed5d9acd890e3c63f5051", want);
	assert_memory_equal(k.key, want, 16);
	unhex("5b78923dee08579033e523d9", want);
	assert_memory_equal(k.iv, want, 12);
	k = keys_of(0x1301, server_secret);
	unhex("9f02283b6c9c07efc26bb9f2ac92e356", want);
	assert_memory_equal(k.key, want, 16);
}

static void rfc8448_records(void **state)
{
	struct record_keys k = keys_of(0x1301, client_secret),
			   server = keys_of(0x1301, server_secret);
	struct record_aead *a = record_aead_new();
	uint8_t data[50], want[80], out[80], type, alert[] = { 1, 0 };
	size_t n = unhex(client_data, want);

	(void)state;
	for (size_t i = 0; i < sizeof(data); i++)
		data[i] = (uint8_t)i;
	assert_int_equal(seal(a, &k, RECORD_DATA, data, sizeof(data), out), n);
	assert_memory_equal(out, want, n);
	n = unhex(client_alert, want);
	assert_int_equal(seal(a, &k, RECORD_ALERT, alert, sizeof(alert), out), n);
	assert_memory_equal(out, want, n);
	assert_int_equal(k.seq, 2);

	server.seq = 1; /* its first record was a ticket */
	n = unhex(server_data, want);
	assert_int_equal(record_open(a, &server, want, n, out, &type), 50);
	assert_int_equal(type, RECORD_DATA);
	assert_memory_equal(out, data, sizeof(data));
	assert_int_equal(server.seq, 2);
	record_aead_free(a);
}

static const uint16_t suites[] = { 0x1301, 0x1302, 0x1303 };

static struct record_keys some_keys(uint16_t suite)
{
	uint8_t secret[48];
	struct record_keys k;

	memset(secret, suite & 0xff, sizeof(secret));
	assert_int_equal(record_keys_set(&k, suite, secret, suite == 0x1302 ? 48 : 32), 0);
	return k;
}

static void every_suite_and_size(void **state)
{
	static const size_t sizes[] = { 0, 1, 15, 16, 17, 1023, 4096, 4097, 16383, 16384 };
	struct record_aead *tx = record_aead_new(), *rx = record_aead_new();
	uint8_t *in = malloc(WEFT_RECORD_MAX), *wire = malloc(RECORD_WIRE_MAX), type;

	(void)state;
	for (size_t i = 0; i < WEFT_RECORD_MAX; i++)
		in[i] = (uint8_t)(i * 7);
	for (size_t s = 0; s < 3; s++) {
		struct record_keys k = some_keys(suites[s]), r = k;

		for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
			size_t n = seal(tx, &k, RECORD_DATA, in, sizes[i], wire);
			/* ASan watches the bound of the contract. */
			uint8_t *out = malloc(sizes[i] ? sizes[i] : 1);

			assert_int_equal(record_open(rx, &r, wire, n, out, &type), sizes[i]);
			assert_memory_equal(out, in, sizes[i]);
			free(out);
		}
		assert_int_equal(k.seq, r.seq);
	}
	free(in), free(wire);
	record_aead_free(tx), record_aead_free(rx);
}

/* The same bytes whichever way the application's vector cuts them, and from wherever it is resumed. */
static void vectors_and_skip(void **state)
{
	static const size_t totals[] = { 40, 9000 };
	uint8_t *in = malloc(9000), *want = malloc(RECORD_WIRE_MAX), *got = malloc(RECORD_WIRE_MAX);
	struct record_aead *a = record_aead_new();

	(void)state;
	for (size_t i = 0; i < 9000; i++)
		in[i] = (uint8_t)(i * 13);
	for (size_t t = 0; t < 2; t++) {
		size_t total = totals[t], cut = total / 3;
		struct iovec iov[] = { { in, 0 },
				       { in, cut },
				       { in, 0 },
				       { in + cut, 7 },
				       { in + cut + 7, total - cut - 7 } };

		for (size_t skip = 0; skip < total; skip += total / 7) {
			struct record_keys k = some_keys(0x1301), again = k;
			size_t n = total - skip - 2; /* ends inside the last piece */

			seal(a, &k, RECORD_DATA, in + skip, n, want);
			assert_int_equal(record_seal(a, &again, RECORD_DATA, iov, skip, n, got),
					 n + RECORD_OVERHEAD);
			assert_memory_equal(got, want, n + RECORD_OVERHEAD);
		}
	}
	free(in), free(want), free(got);
	record_aead_free(a);
}

static void tampering(void **state)
{
	struct record_aead *a = record_aead_new();
	uint8_t wire[64], out[64], zero[64] = { 0 }, type = 99;

	(void)state;
	for (size_t s = 0; s < 3; s++) {
		struct record_keys k = some_keys(suites[s]), r = k;
		size_t n = seal(a, &k, RECORD_DATA, "0123456789abcdef", 16, wire);

		for (size_t i = RECORD_HEADER; i < n; i++) {
			wire[i] ^= 1;
			memset(out, 0, sizeof(out));
			assert_int_equal(record_open(a, &r, wire, n, out, &type), -EBADMSG);
			assert_memory_equal(out, zero, sizeof(out));
			wire[i] ^= 1;
		}
		assert_int_equal(r.seq, 0);
		assert_int_equal(record_open(a, &r, wire, n, out, &type), 16);
		assert_int_equal(record_open(a, &r, wire, n, out, &type), -EBADMSG); /* replayed */
	}
	record_aead_free(a);
}

static void headers(void **state)
{
	uint8_t h[] = { 23, 3, 3, 0, 17 };

	(void)state;
	assert_int_equal(record_wire_length(h), 22);
	h[4] = 16;
	assert_int_equal(record_wire_length(h), -EPROTO);
	h[3] = 65, h[4] = 0;
	assert_int_equal(record_wire_length(h), 16645);
	h[4] = 1;
	assert_int_equal(record_wire_length(h), -EPROTO);
	h[4] = 0, h[0] = 22;
	assert_int_equal(record_wire_length(h), -EPROTO);
	h[0] = 23, h[2] = 1;
	assert_int_equal(record_wire_length(h), -EPROTO);
}

/* What authenticates but breaks RFC 8446 section 5: the sealed content is inner plaintext of our making. */
static void inner_form(void **state)
{
	struct record_aead *a = record_aead_new();
	struct record_keys k = some_keys(0x1301), r = k;
	uint8_t wire[128], out[128], type;
	uint8_t padded[] = { 'h', 'i', RECORD_DATA, 0, 0, 0 };
	size_t n;

	(void)state;
	/* The type byte that record_seal adds is zero padding here. */
	n = seal(a, &k, (enum record_type)0, padded, sizeof(padded), wire);
	assert_int_equal(record_open(a, &r, wire, n, out, &type), 2);
	assert_int_equal(type, RECORD_DATA);
	assert_memory_equal(out, "hi", 2);
	n = seal(a, &k, (enum record_type)0, "\0\0\0", 3, wire);
	assert_int_equal(record_open(a, &r, wire, n, out, &type), -EPROTO); /* no type at all */
	n = seal(a, &k, (enum record_type)20, "x", 1, wire);
	assert_int_equal(record_open(a, &r, wire, n, out, &type), -EPROTO);
	n = seal(a, &k, RECORD_ALERT, "", 0, wire);
	assert_int_equal(record_open(a, &r, wire, n, out, &type), -EPROTO);
	n = seal(a, &k, RECORD_HANDSHAKE, "k", 1, wire);
	assert_int_equal(record_open(a, &r, wire, n, out, &type), 1);
	assert_int_equal(type, RECORD_HANDSHAKE);
	assert_int_equal(record_open(a, &r, wire, 21, out, &type), -EPROTO);
	assert_int_equal(record_open(a, &r, wire, n + 1, out, &type), -EPROTO);
	record_aead_free(a);
}

static void key_update(void **state)
{
	struct record_aead *tx = record_aead_new(), *rx = record_aead_new();
	uint8_t wire[64], out[64], type;

	(void)state;
	for (size_t s = 0; s < 3; s++) {
		struct record_keys k = some_keys(suites[s]), r = k, old = k;

		for (uint32_t i = 1; i <= 3; i++) {
			size_t n = seal(tx, &k, RECORD_DATA, "before", 6, wire);

			assert_int_equal(record_open(rx, &r, wire, n, out, &type), 6);
			assert_int_equal(record_keys_update(&k), 0);
			assert_int_equal(record_keys_update(&r), 0);
			assert_int_equal(k.updates, i);
			assert_int_equal(k.seq, 0);
			assert_memory_not_equal(k.key, old.key, 16);
			n = seal(tx, &k, RECORD_DATA, "after", 5, wire);
			assert_int_equal(record_open(rx, &old, wire, n, out, &type), -EBADMSG);
			assert_int_equal(record_open(rx, &r, wire, n, out, &type), 5);
		}
	}
	record_aead_free(tx), record_aead_free(rx);
}

static void spent_key(void **state)
{
	struct record_aead *a = record_aead_new();
	struct record_keys k = some_keys(0x1301);
	struct iovec iov = { "x", 1 };
	uint8_t wire[64];

	(void)state;
	k.seq = (1u << 24) - 1;
	seal(a, &k, RECORD_DATA, "x", 1, wire);
	assert_int_equal(record_seal(a, &k, RECORD_DATA, &iov, 0, 1, wire), -EKEYEXPIRED);
	seal(a, &k, RECORD_HANDSHAKE, "x", 1, wire); /* the KeyUpdate itself */
	assert_int_equal(record_keys_update(&k), 0);
	seal(a, &k, RECORD_DATA, "x", 1, wire);
	k.seq = UINT64_MAX;
	assert_int_equal(record_seal(a, &k, RECORD_ALERT, &iov, 0, 1, wire), -EKEYEXPIRED);
	k = some_keys(0x1303);
	k.seq = 1u << 25;
	seal(a, &k, RECORD_DATA, "x", 1, wire);
	record_aead_free(a);
}

/* One context for many connections, directions and suites. */
static void shared_context(void **state)
{
	struct record_aead *a = record_aead_new();
	struct record_keys k[3], r[3];
	uint8_t wire[64], out[64], type;

	(void)state;
	for (size_t s = 0; s < 3; s++)
		k[s] = r[s] = some_keys(suites[s]);
	for (size_t i = 0; i < 30; i++) {
		size_t n = seal(a, &k[i % 3], RECORD_DATA, "shared", 6, wire);

		assert_int_equal(record_open(a, &r[i % 3], wire, n, out, &type), 6);
		assert_memory_equal(out, "shared", 6);
	}
	record_aead_free(a);
}

static void bad_keys(void **state)
{
	struct record_aead *a = record_aead_new();
	struct iovec iov = { "x", 1 };
	uint8_t secret[48] = { 0 }, wire[64];
	struct record_keys k;

	(void)state;
	assert_int_equal(record_keys_set(&k, 0x1304, secret, 32), -EPROTONOSUPPORT);
	assert_int_equal(record_keys_set(&k, 0x1301, secret, 48), -EPROTONOSUPPORT);
	assert_int_equal(record_keys_set(&k, 0xc02f, secret, 32), -EPROTONOSUPPORT);
	k = some_keys(0x1301);
	record_keys_wipe(&k);
	assert_int_equal(record_seal(a, &k, RECORD_DATA, &iov, 0, 1, wire), -EIO);
	assert_int_equal(record_keys_update(&k), -EPROTONOSUPPORT);
	assert_null(record_aead_free(a));
	assert_null(record_aead_free(NULL));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(rfc8448_keys),
		cmocka_unit_test(rfc8448_records),
		cmocka_unit_test(every_suite_and_size),
		cmocka_unit_test(vectors_and_skip),
		cmocka_unit_test(tampering),
		cmocka_unit_test(headers),
		cmocka_unit_test(inner_form),
		cmocka_unit_test(key_update),
		cmocka_unit_test(spent_key),
		cmocka_unit_test(shared_context),
		cmocka_unit_test(bad_keys),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
