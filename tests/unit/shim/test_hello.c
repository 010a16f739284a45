/* hello_peek: real ClientHellos of OpenSSL, cut at every byte, spread over records, mutated; and what is none. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <openssl/ssl.h>

#include "tls/handshake.h"
#include "weft/env.h"

/* What an OpenSSL client sends first. */
static size_t client_hello(const void *alpn, size_t alpn_len, bool tls12, uint8_t *out, size_t size)
{
	SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());
	BIO *wire = BIO_new(BIO_s_mem());
	SSL *ssl = SSL_new(ctx);
	int n;

	assert_int_equal(SSL_set_alpn_protos(ssl, alpn, (unsigned)alpn_len), 0);
	if (tls12)
		SSL_set_max_proto_version(ssl, TLS1_2_VERSION);
	SSL_set_tlsext_host_name(ssl, "orders.default");
	BIO_up_ref(wire);
	SSL_set_bio(ssl, BIO_new(BIO_s_mem()), wire);
	SSL_connect(ssl);
	n = BIO_read(wire, out, (int)size);
	assert_true(n > 0);
	SSL_free(ssl);
	BIO_free(wire);
	SSL_CTX_free(ctx);
	return (size_t)n;
}

#define WEFT_AND_HTTP "\x02h2\x06weft/1\x08http/1.1"

static void offers(void **state)
{
	uint8_t b[2048];
	size_t need, n;

	(void)state;
	n = client_hello(WEFT_ALPN_WIRE, sizeof(WEFT_ALPN_WIRE) - 1, false, b, sizeof(b));
	assert_int_equal(hello_peek(b, n, &need), 1);
	n = client_hello(WEFT_AND_HTTP, sizeof(WEFT_AND_HTTP) - 1, false, b, sizeof(b));
	assert_int_equal(hello_peek(b, n, &need), 1);
	n = client_hello(WEFT_ALPN_WIRE, sizeof(WEFT_ALPN_WIRE) - 1, true, b, sizeof(b));
	assert_int_equal(hello_peek(b, n, &need), 1);
	n = client_hello("\x02h2", 3, false, b, sizeof(b));
	assert_int_equal(hello_peek(b, n, &need), 0);
	n = client_hello("\x07weft/10\x05weft/", 14, false, b, sizeof(b));
	assert_int_equal(hello_peek(b, n, &need), 0);
	n = client_hello(NULL, 0, false, b, sizeof(b));
	assert_int_equal(hello_peek(b, n, &need), 0);
}

/* Any prefix asks for more, for bytes that are going to come, and never for fewer than it has. */
static void prefixes(void **state)
{
	uint8_t b[2048];
	size_t n = client_hello(WEFT_AND_HTTP, sizeof(WEFT_AND_HTTP) - 1, false, b, sizeof(b));
	bool told = false;

	(void)state;
	for (size_t i = 0; i <= n; i++) {
		uint8_t *exact = malloc(i ? i : 1); /* ASan: nothing past it is read */
		size_t need = 0;
		int r;

		memcpy(exact, b, i);
		r = hello_peek(exact, i, &need);
		if (r == -EAGAIN) {
			assert_false(told);
			assert_true(need > i && need <= n);
		} else {
			assert_int_equal(r, 1);
			told = true;
		}
		free(exact);
	}
	assert_true(told);
}

/* The same ClientHello in records of `piece` bytes. */
static size_t respread(const uint8_t *in, size_t n, size_t piece, uint8_t *out)
{
	size_t o = 0;

	for (size_t at = 5; at < n; at += piece) {
		size_t part = n - at < piece ? n - at : piece;

		memcpy(out + o, (uint8_t[]){ 22, 3, 1, (uint8_t)(part >> 8), (uint8_t)part }, 5);
		memcpy(out + o + 5, in + at, part);
		o += 5 + part;
	}
	return o;
}

static void several_records(void **state)
{
	static uint8_t b[2048], spread[2048 * 6];
	size_t n = client_hello(WEFT_ALPN_WIRE, sizeof(WEFT_ALPN_WIRE) - 1, false, b, sizeof(b)),
	       need;

	(void)state;
	for (size_t piece = 1; piece < n; piece += piece < 10 ? 1 : 37) {
		size_t m = respread(b, n, piece, spread);

		assert_int_equal(hello_peek(spread, m, &need), 1);
		if (piece > 40)
			continue; /* the first record may tell already */
		assert_int_equal(hello_peek(spread, 5 + piece, &need), -EAGAIN);
		assert_true(need > 5 + piece && need <= m);
	}
}

static int peek(const void *bytes, size_t n)
{
	size_t need;

	return hello_peek(bytes, n, &need);
}

static void not_tls(void **state)
{
	size_t need = 0;

	(void)state;
	assert_int_equal(hello_peek((const uint8_t *)"", 0, &need), -EAGAIN);
	assert_int_equal(need, 1);
	assert_int_equal(peek("G", 1), 0);
	assert_int_equal(peek("GET / HTTP/1.1\r\n\r\n", 18), 0);
	assert_int_equal(peek("SSH-2.0-x\r\n", 11), 0);
	assert_int_equal(peek("\x16X", 2), 0);
	assert_int_equal(peek("\x16\x03\x09", 3), 0);
	assert_int_equal(peek("\x16\x03\x01\x00\x00", 5), 0);     /* an empty record */
	assert_int_equal(peek("\x16\x03\x01\x40\x01", 5), 0);     /* a record that is too long */
	assert_int_equal(peek("\x16\x03\x01\x01\x00\x02", 6), 0); /* a ServerHello */
	assert_int_equal(peek("\x16\x03\x01\x01\x00\x01\x01\x00\x00", 9),
			 0); /* 64 KiB of ClientHello */
	assert_int_equal(peek("\x16\x03\x01\x00\x05\x01\x00\x00\x01\x03\x15\x03\x01", 13),
			 0);                                          /* ends too early */
	assert_int_equal(peek("\x15\x03\x01\x00\x02\x01\x00", 7), 0); /* an alert */
	assert_int_equal(peek("\x80\x2e\x01\x00\x02", 5), 0);         /* SSLv2 */
}

/* One byte changed, or the tail replaced by noise: an answer, and no byte read that is not there. */
static void mutations(void **state)
{
	uint8_t b[2048], *m;
	size_t n = client_hello(WEFT_AND_HTTP, sizeof(WEFT_AND_HTTP) - 1, false, b, sizeof(b)),
	       need;
	unsigned seed = 1;

	(void)state;
	m = malloc(n);
	for (size_t i = 0; i < n; i++) {
		for (unsigned v = 0; v < 256; v += 15) {
			int r;

			memcpy(m, b, n);
			m[i] = (uint8_t)v;
			need = n + 1;
			r = hello_peek(m, n, &need);
			assert_true(r == 0 || r == 1 || (r == -EAGAIN && need > n));
		}
		memcpy(m, b, i);
		for (size_t j = i; j < n; j++)
			m[j] = (uint8_t)((seed = seed * 1103515245 + 12345) >> 16);
		hello_peek(m, n, &need);
	}
	free(m);
}

static void alerts(void **state)
{
	uint8_t a[2];

	(void)state;
	alert_make(a, 49);
	assert_memory_equal(a, "\x02\x31", 2);
	alert_make(a, 0);
	assert_memory_equal(a, "\x01\x00", 2);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(offers),          cmocka_unit_test(prefixes),
		cmocka_unit_test(several_records), cmocka_unit_test(not_tls),
		cmocka_unit_test(mutations),       cmocka_unit_test(alerts),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
