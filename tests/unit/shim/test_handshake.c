/* Handshakes of ours with ours and with plain OpenSSL peers, in both roles; every peer that must be refused, and why. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "foreign.h"

#define ORDERS "spiffe://cluster.local/ns/default/sa/orders"
#define WEB "spiffe://cluster.local/ns/default/sa/web"

static struct {
	struct pki_ca ca[2], other,
		twin; /* root and intermediate; a stranger, one of them with the same name */
	struct identity *orders, *web;
} fixture;

static int setup(void **state)
{
	(void)state;
	assert_non_null(
		keypair_get()); /* before OpenSSL's first allocation of the test: the vault is then in force */
	fixture.ca[0] = pki_ca("root", NULL);
	fixture.ca[1] = pki_ca("intermediate", &fixture.ca[0]);
	fixture.other = pki_ca("another root", NULL);
	fixture.twin = pki_ca("root", NULL);
	fixture.orders = pki_identity(ORDERS, fixture.ca, 2);
	fixture.web = pki_identity(WEB, fixture.ca, 1);
	return fixture.orders && fixture.web ? 0 : -1;
}

static int teardown(void **state)
{
	(void)state;
	identity_unref(fixture.orders);
	identity_unref(fixture.web);
	for (int i = 0; i < 2; i++)
		pki_ca_done(&fixture.ca[i]);
	pki_ca_done(&fixture.other);
	pki_ca_done(&fixture.twin);
	return 0;
}

static void pair(int fd[2])
{
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fd), 0);
}

static struct wire_strs only(struct wire_str *one, const char *uri)
{
	*one = wire_str_of(uri);
	return (struct wire_strs){ one, 1 };
}

static struct handshake *our_client(const struct wire_strs *who)
{
	struct handshake_client c = { .sni = "orders.default", .identities = who };

	return handshake_new_client(fixture.web, &c);
}

/* ---- ours with ours ---- */

static int run_both(struct handshake *c, int cfd, struct handshake *s, int sfd, int *server_r)
{
	int cr = -EAGAIN, sr = -EAGAIN;

	for (int i = 0; i < 50 && (cr == -EAGAIN || sr == -EAGAIN); i++) {
		if (cr == -EAGAIN)
			cr = handshake_step(c, cfd);
		if (sr == -EAGAIN)
			sr = handshake_step(s, sfd);
	}
	*server_r = sr;
	return cr;
}

static void ours_with_ours(void **state)
{
	struct wire_str one;
	struct wire_strs who = only(&one, ORDERS);
	struct handshake *c = our_client(&who), *s = handshake_new_server(fixture.orders);
	struct handshake_result cr, sr;
	int fd[2], r;
	char byte;

	(void)state;
	pair(fd);
	assert_int_equal(handshake_wants(c), POLLOUT);
	assert_int_equal(handshake_wants(s), POLLIN);
	assert_int_equal(run_both(c, fd[0], s, fd[1], &r), 0);
	assert_int_equal(r, 0);
	handshake_result(c, &cr);
	handshake_result(s, &sr);
	assert_string_equal(cr.peer, ORDERS);
	assert_string_equal(sr.peer, WEB);
	assert_true(cr.weft && sr.weft);
	assert_int_equal(cr.tx.suite, 0x1301);
	assert_memory_equal(&cr.tx, &sr.rx, sizeof(cr.tx));
	assert_memory_equal(&cr.rx, &sr.tx, sizeof(cr.rx));
	assert_memory_not_equal(cr.rx.key, cr.tx.key, 16);
	/* No ticket, nothing left behind. */
	assert_int_equal(recv(fd[0], &byte, 1, MSG_DONTWAIT), -1);
	assert_int_equal(recv(fd[1], &byte, 1, MSG_DONTWAIT), -1);
	assert_null(handshake_free(c));
	handshake_free(s);
	close(fd[0]), close(fd[1]);
}

/* One flight, one send: the ClientHello, the server's flight, the client's. */
static void flights(void **state)
{
	struct wire_str one;
	struct wire_strs who = only(&one, ORDERS);
	struct handshake *c = our_client(&who), *s = handshake_new_server(fixture.orders);
	uint8_t b[16384];
	int fd[2];
	ssize_t n;

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, fd), 0);
	assert_int_equal(handshake_step(c, fd[0]), -EAGAIN);
	assert_int_equal(handshake_wants(c), POLLIN);
	n = recv(fd[1], b, sizeof(b), MSG_DONTWAIT);
	assert_true(n > 100);
	assert_int_equal((size_t)n, 5 + (size_t)(b[3] << 8 | b[4]));
	assert_int_equal(recv(fd[1], b, sizeof(b), MSG_DONTWAIT), -1);
	handshake_free(c), handshake_free(s);
	close(fd[0]), close(fd[1]);
}

/* Bytes that follow the handshake at once stay in the socket. */
static void nothing_past_the_end(void **state)
{
	struct wire_str one;
	struct wire_strs who = only(&one, ORDERS);
	struct handshake *c = our_client(&who), *s = handshake_new_server(fixture.orders);
	char b[16];
	int fd[2];

	(void)state;
	pair(fd);
	while (handshake_step(c, fd[0]) == -EAGAIN)
		if (handshake_wants(c) == POLLIN)
			handshake_step(s, fd[1]);
	assert_int_equal(send(fd[0], "application", 11, 0), 11);
	assert_int_equal(handshake_step(s, fd[1]), 0);
	assert_int_equal(recv(fd[1], b, sizeof(b), MSG_DONTWAIT), 11);
	assert_memory_equal(b, "application", 11);
	handshake_free(c), handshake_free(s);
	close(fd[0]), close(fd[1]);
}

/* A socket that takes a few bytes at a time: the flight is kept and sent in parts. */
static void partial_sends(void **state)
{
	struct wire_str one;
	struct wire_strs who = only(&one, ORDERS);
	struct handshake *c = our_client(&who), *s = handshake_new_server(fixture.orders);
	char fill[4096] = { 0 };
	int fd[2], r;
	ssize_t left = 0, n;

	(void)state;
	pair(fd);
	while ((n = send(fd[0], fill, sizeof(fill), MSG_DONTWAIT)) > 0)
		left += n;
	assert_int_equal(handshake_step(c, fd[0]), -EAGAIN);
	assert_int_equal(handshake_wants(c), POLLOUT);
	while (left > 0)
		left -= recv(fd[1], fill,
			     left < (ssize_t)sizeof(fill) ? (size_t)left : sizeof(fill), 0);
	assert_int_equal(run_both(c, fd[0], s, fd[1], &r), 0);
	assert_int_equal(r, 0);
	handshake_free(c), handshake_free(s);
	close(fd[0]), close(fd[1]);
}

/* ---- application data, through our records on one side and SSL_read and SSL_write on the other ---- */

struct our_end {
	struct record_keys tx, rx;
	struct record_aead *aead;
	int fd;
};

static void our_write(struct our_end *o, enum record_type type, const void *data, size_t n)
{
	uint8_t wire[RECORD_WIRE_MAX];
	struct iovec iov = { (void *)(uintptr_t)data, n };
	ssize_t len = record_seal(o->aead, &o->tx, type, &iov, 0, n, wire);

	assert_int_equal(send(o->fd, wire, (size_t)len, 0), len);
}

/* The next record; its type is returned. */
static uint8_t our_read(struct our_end *o, uint8_t *out, ssize_t *n)
{
	uint8_t wire[RECORD_WIRE_MAX], type = 0;
	ssize_t len;

	assert_int_equal(recv(o->fd, wire, RECORD_HEADER, MSG_WAITALL), RECORD_HEADER);
	len = record_wire_length(wire);
	assert_true(len > 0);
	assert_int_equal(
		recv(o->fd, wire + RECORD_HEADER, (size_t)len - RECORD_HEADER, MSG_WAITALL),
		len - RECORD_HEADER);
	*n = record_open(o->aead, &o->rx, wire, (size_t)len, out, &type);
	assert_true(*n >= 0);
	return type;
}

static void echo(struct our_end *o, SSL *ssl, const char *text)
{
	uint8_t out[RECORD_WIRE_MAX];
	int len = (int)strlen(text);
	ssize_t n;

	our_write(o, RECORD_DATA, text, (size_t)len);
	assert_int_equal(SSL_read(ssl, out, sizeof(out)), len);
	assert_memory_equal(out, text, (size_t)len);
	assert_int_equal(SSL_write(ssl, text, len), len);
	assert_int_equal(our_read(o, out, &n), RECORD_DATA);
	assert_int_equal(n, len);
	assert_memory_equal(out, text, (size_t)len);
}

/* Both directions re-key, each side asking once. */
static void key_updates(struct our_end *o, SSL *ssl)
{
	static const uint8_t update[] = { 24, 0, 0, 1, 0 }, update_requested[] = { 24, 0, 0, 1, 1 };
	uint8_t out[RECORD_WIRE_MAX], big[WEFT_RECORD_MAX];
	ssize_t n;

	assert_true(SSL_key_update(ssl, SSL_KEY_UPDATE_REQUESTED));
	assert_int_equal(SSL_write(ssl, "x", 1), 1);
	assert_int_equal(our_read(o, out, &n), RECORD_HANDSHAKE);
	assert_memory_equal(out, update_requested, sizeof(update));
	assert_int_equal(record_keys_update(&o->rx), 0);
	our_write(o, RECORD_HANDSHAKE, update, sizeof(update));
	assert_int_equal(record_keys_update(&o->tx), 0);
	assert_int_equal(our_read(o, out, &n), RECORD_DATA);
	echo(o, ssl, "after their key update");

	our_write(o, RECORD_HANDSHAKE, update_requested, sizeof(update));
	assert_int_equal(record_keys_update(&o->tx), 0);
	memset(big, 'b', sizeof(big));
	our_write(o, RECORD_DATA, big, sizeof(big));
	assert_int_equal(SSL_read(ssl, out, sizeof(big)), sizeof(big));
	assert_memory_equal(out, big, sizeof(big));
	assert_int_equal(SSL_write(ssl, "y", 1), 1);
	assert_int_equal(our_read(o, out, &n), RECORD_HANDSHAKE);
	assert_memory_equal(out, update, sizeof(update));
	assert_int_equal(record_keys_update(&o->rx), 0);
	assert_int_equal(our_read(o, out, &n), RECORD_DATA);
	echo(o, ssl, "after ours");
}

static void exchange(struct handshake *h, int fd, SSL *ssl)
{
	struct handshake_result r;
	struct our_end o = { .aead = record_aead_new(), .fd = fd };
	uint8_t out[64];
	ssize_t n;

	handshake_result(h, &r);
	o.tx = r.tx, o.rx = r.rx;
	SSL_set_mode(ssl, SSL_MODE_AUTO_RETRY);
	echo(&o, ssl, "hello");
	key_updates(&o, ssl);
	alert_make(out, 0);
	our_write(&o, RECORD_ALERT, out, 2);
	assert_int_equal(SSL_read(ssl, out, 1), 0);
	assert_int_equal(SSL_get_error(ssl, 0), SSL_ERROR_ZERO_RETURN);
	SSL_shutdown(ssl);
	assert_int_equal(our_read(&o, out, &n), RECORD_ALERT);
	assert_memory_equal(out, "\x01\x00", 2);
	record_aead_free(o.aead);
}

static const char *const suites[] = { "TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384",
				      "TLS_CHACHA20_POLY1305_SHA256" };
static const struct pki_leaf good_orders = { .san = "URI:" ORDERS },
			     good_web = { .san = "URI:" WEB };

static void client_with_openssl_server(void **state)
{
	(void)state;
	for (size_t i = 0; i < 3; i++) {
		struct wire_str one;
		struct wire_strs who = only(&one, ORDERS);
		struct handshake *h = our_client(&who);
		struct handshake_result r;
		struct foreign f;
		int fd[2];

		pair(fd);
		foreign_start(&f, true, &fixture.ca[1], &good_orders, NULL, fd[1], suites[i]);
		SSL_set_num_tickets(f.ssl, 0);
		assert_int_equal(run_against(h, fd[0], &f), 0);
		assert_int_equal(f.r, 1);
		handshake_result(h, &r);
		assert_false(r.weft); /* it selected no ALPN: acceptable */
		assert_int_equal(r.tx.suite, 0x1301 + i);
		assert_string_equal(r.peer, ORDERS);
		assert_string_equal(SSL_get_servername(f.ssl, TLSEXT_NAMETYPE_host_name),
				    "orders.default");
		exchange(h, fd[0], f.ssl);
		handshake_free(h);
		foreign_done(&f);
		close(fd[0]), close(fd[1]);
	}
}

/* A foreign server sends tickets right after the handshake: records of type 22 for the session to skip. */
static void tickets_of_a_foreign_server(void **state)
{
	struct handshake *h = our_client(NULL);
	struct handshake_result r;
	struct our_end o = { .aead = record_aead_new() };
	struct foreign f;
	uint8_t out[2048];
	ssize_t n;
	int fd[2];

	(void)state;
	pair(fd);
	foreign_start(&f, true, &fixture.ca[1], &good_orders, NULL, fd[1], NULL);
	SSL_CTX_set_session_id_context(f.ctx, (const unsigned char *)"t", 1);
	SSL_set_session_id_context(f.ssl, (const unsigned char *)"t", 1);
	assert_int_equal(run_against(h, fd[0], &f), 0);
	handshake_result(h, &r);
	o.rx = r.rx, o.tx = r.tx, o.fd = fd[0];
	for (int i = 0; i < 2; i++) {
		assert_int_equal(our_read(&o, out, &n), RECORD_HANDSHAKE);
		assert_int_equal(out[0], 4); /* NewSessionTicket */
	}
	echo(&o, f.ssl, "after the tickets");
	record_aead_free(o.aead);
	handshake_free(h);
	foreign_done(&f);
	close(fd[0]), close(fd[1]);
}

static void server_with_openssl_client(void **state)
{
	(void)state;
	for (size_t i = 0; i < 3; i++) {
		struct handshake *h = handshake_new_server(fixture.orders);
		struct handshake_result r;
		struct foreign f;
		int fd[2];

		pair(fd);
		foreign_start(&f, false, &fixture.ca[1], &good_web, NULL, fd[1], suites[i]);
		if (i)
			SSL_set_alpn_protos(f.ssl, (const unsigned char *)"\x08http/1.1", 9);
		assert_int_equal(run_against(h, fd[0], &f), 0);
		handshake_result(h, &r);
		assert_false(r.weft);
		assert_string_equal(r.peer, WEB);
		assert_int_equal(sk_X509_num(SSL_get_peer_cert_chain(f.ssl)),
				 2); /* our intermediate is sent */
		exchange(h, fd[0], f.ssl);
		handshake_free(h);
		foreign_done(&f);
		close(fd[0]), close(fd[1]);
	}
}

/* ---- peers that must be refused ---- */

struct bad {
	struct pki_leaf leaf;
	enum weft_reason reason;
	int err;
	const char *alert;           /* what the peer's OpenSSL says of the alert it got */
	const struct pki_ca *signer; /* NULL: ours */
};

static const struct bad bad_peers[] = {
	{ { .san = "URI:" ORDERS },
	  WEFT_REASON_CERT_UNTRUSTED,
	  -ECONNRESET,
	  "alert unknown ca",
	  &fixture.other },
	{ { .san = "URI:" ORDERS },
	  WEFT_REASON_CERT_UNTRUSTED,
	  -ECONNRESET,
	  "alert decrypt error",
	  &fixture.twin },
	{ { .san = "URI:" ORDERS, .until = -10 },
	  WEFT_REASON_CERT_EXPIRED,
	  -ECONNRESET,
	  "alert certificate expired",
	  NULL },
	{ { .san = "URI:" ORDERS, .from = 600 },
	  WEFT_REASON_CERT_EXPIRED,
	  -ECONNRESET,
	  "alert bad certificate",
	  NULL },
	{ { .san = NULL },
	  WEFT_REASON_CERT_NO_IDENTITY,
	  -ECONNRESET,
	  "alert bad certificate",
	  NULL },
	{ { .san = "DNS:orders" },
	  WEFT_REASON_CERT_NO_IDENTITY,
	  -ECONNRESET,
	  "alert bad certificate",
	  NULL },
	{ { .san = "URI:" ORDERS ",URI:" WEB },
	  WEFT_REASON_CERT_NO_IDENTITY,
	  -ECONNRESET,
	  "alert bad certificate",
	  NULL },
	{ { .san = "URI:https://orders" },
	  WEFT_REASON_CERT_NO_IDENTITY,
	  -ECONNRESET,
	  "alert bad certificate",
	  NULL },
	{ { .san = "URI:spiffe://cluster.local/orders" },
	  WEFT_REASON_CERT_NO_IDENTITY,
	  -ECONNRESET,
	  "bad certificate",
	  NULL },
	{ { .san = "URI:" ORDERS, .basic = "critical,CA:TRUE" },
	  WEFT_REASON_CERT_NO_IDENTITY,
	  -ECONNRESET,
	  "alert bad certificate",
	  NULL },
	{ { .san = "URI:" ORDERS, .usage = "critical,digitalSignature,keyCertSign" },
	  WEFT_REASON_CERT_NO_IDENTITY,
	  -ECONNRESET,
	  "alert bad certificate",
	  NULL },
	{ { .san = "URI:" ORDERS, .eku = "codeSigning" },
	  WEFT_REASON_CERT_UNTRUSTED,
	  -ECONNRESET,
	  "alert unsupported certificate",
	  NULL },
	{ { .san = "URI:spiffe://elsewhere/ns/default/sa/orders" },
	  WEFT_REASON_CERT_UNTRUSTED,
	  -ECONNRESET,
	  "alert unknown ca",
	  NULL },
};
#define BAD_PEERS (sizeof(bad_peers) / sizeof(*bad_peers))

static void refused(struct handshake *h, int fd, struct foreign *f, const struct bad *b)
{
	assert_int_equal(run_against(h, fd, f), b->err);
	assert_int_equal(handshake_reason(h), b->reason);
	assert_true(handshake_detail(h)[0]);
	assert_int_equal(handshake_step(h, fd), b->err); /* and stays so */
	if (!strstr(foreign_error(f), b->alert))
		fail_msg("%s: peer saw '%s'", handshake_detail(h), f->error);
}

static void client_refuses(void **state)
{
	static const struct bad wrong = { { .san = "URI:" WEB },
					  WEFT_REASON_CERT_WRONG_IDENTITY,
					  -EACCES,
					  "alert bad certificate",
					  NULL };

	(void)state;
	for (size_t i = 0; i <= BAD_PEERS; i++) {
		const struct bad *b = i < BAD_PEERS ? &bad_peers[i] : &wrong;
		struct wire_str one;
		struct wire_strs who = only(&one, ORDERS);
		struct handshake *h = our_client(&who);
		struct foreign f;
		int fd[2];

		pair(fd);
		foreign_start(&f, true, b->signer ? b->signer : &fixture.ca[1], &b->leaf, NULL,
			      fd[1], NULL);
		refused(h, fd[0], &f, b);
		handshake_free(h);
		foreign_done(&f);
		close(fd[0]), close(fd[1]);
	}
}

static void server_refuses(void **state)
{
	static const struct bad none = { .reason = WEFT_REASON_NO_CLIENT_CERT,
					 .err = -ECONNRESET,
					 .alert = "alert certificate required" };

	(void)state;
	for (size_t i = 0; i <= BAD_PEERS; i++) {
		const struct bad *b = i < BAD_PEERS ? &bad_peers[i] : &none;
		struct handshake *h = handshake_new_server(fixture.orders);
		struct foreign f;
		int fd[2];

		pair(fd);
		foreign_start(&f, false, b->signer ? b->signer : &fixture.ca[1],
			      b == &none ? NULL : &b->leaf, NULL, fd[1], NULL);
		refused(h, fd[0], &f, b);
		handshake_free(h);
		foreign_done(&f);
		close(fd[0]), close(fd[1]);
	}
}

/* A stream that is no TLS, or ends, in either role. */
static void no_tls_at_all(void **state)
{
	static const struct {
		const char *bytes;
		size_t n;
		enum weft_reason reason;
	} streams[] = {
		{ "GET / HTTP/1.1\r\nHost: orders\r\n\r\n", 32, WEFT_REASON_NOT_TLS },
		{ "HTTP/1.1 400 Bad Request\r\n\r\n", 28, WEFT_REASON_NOT_TLS },
		{ "SSH-2.0-OpenSSH\r\n", 17, WEFT_REASON_NOT_TLS },
		{ "\0\0\0\0\0\0\0\0\0\0\0\0", 12, WEFT_REASON_NOT_TLS },
		{ "abc", 3, WEFT_REASON_NOT_TLS },
		{ "\n", 1, WEFT_REASON_NOT_TLS },
		{ "\x16\x02", 2, WEFT_REASON_NOT_TLS },
		{ "\x16\x03\x01\x00\x10garbage in here!", 21, WEFT_REASON_HANDSHAKE_FAILED },
		{ "\x16\x03\x01\x02", 4,
		  WEFT_REASON_HANDSHAKE_FAILED }, /* half a header, then the end */
		{ "", 0, WEFT_REASON_HANDSHAKE_FAILED },
		{ "\x15\x03\x03\x00\x02\x02\x28", 7, WEFT_REASON_HANDSHAKE_FAILED },
	};

	(void)state;
	for (size_t i = 0; i < 2 * sizeof(streams) / sizeof(*streams); i++) {
		struct handshake *h =
			i % 2 ? our_client(NULL) : handshake_new_server(fixture.orders);
		int fd[2], r = -EAGAIN;

		pair(fd);
		if (streams[i / 2].n)
			assert_int_equal(send(fd[1], streams[i / 2].bytes, streams[i / 2].n, 0),
					 streams[i / 2].n);
		if (streams[i / 2].reason != WEFT_REASON_NOT_TLS) /* that shows before the end */
			shutdown(fd[1], SHUT_WR);
		for (int n = 0; n < 5 && r == -EAGAIN; n++)
			r = handshake_step(h, fd[0]);
		if (handshake_reason(h) != streams[i / 2].reason)
			fail_msg("stream %zu, %s: %s", i / 2, i % 2 ? "client" : "server",
				 handshake_detail(h));
		assert_int_equal(r, -reason_errno(streams[i / 2].reason));
		assert_true(handshake_detail(h)[0]);
		handshake_free(h);
		close(fd[0]), close(fd[1]);
	}
}

static void peer_refuses_us(void **state)
{
	struct handshake *h = our_client(NULL);
	int fd[2];

	(void)state;
	pair(fd);
	assert_int_equal(send(fd[1], "\x15\x03\x03\x00\x02\x02\x31", 7, 0), 7); /* access_denied */
	assert_int_equal(handshake_step(h, fd[0]), -ECONNREFUSED);
	assert_int_equal(handshake_reason(h), WEFT_REASON_PEER_REFUSED);
	handshake_free(h);
	close(fd[0]), close(fd[1]);
}

static void old_versions_are_refused(void **state)
{
	struct handshake *h = handshake_new_server(fixture.orders);
	struct foreign f;
	int fd[2];

	(void)state;
	pair(fd);
	foreign_start(&f, false, &fixture.ca[1], &good_web, NULL, fd[1], NULL);
	SSL_set_max_proto_version(f.ssl, TLS1_2_VERSION);
	assert_int_equal(run_against(h, fd[0], &f), -ECONNRESET);
	assert_int_equal(handshake_reason(h), WEFT_REASON_HANDSHAKE_FAILED);
	assert_non_null(strstr(foreign_error(&f), "alert protocol version"));
	handshake_free(h);
	foreign_done(&f);
	close(fd[0]), close(fd[1]);
}

static void socket_errors(void **state)
{
	struct handshake *h = our_client(NULL);
	int fd[2];

	(void)state;
	pair(fd);
	close(fd[1]);
	assert_int_equal(handshake_step(h, fd[0]), -EPIPE);
	assert_int_equal(handshake_reason(h), WEFT_REASON_HANDSHAKE_FAILED);
	assert_string_equal(handshake_detail(h), "Broken pipe");
	handshake_free(h);
	assert_null(handshake_free(NULL));
	close(fd[0]);
}

/* Two handshakes of one process after a fork: the generator of our library context must not repeat itself. */
static void fork_reseeds(void **state)
{
	uint8_t hello[2][43];
	int fd[2], to[2];
	pid_t child;

	(void)state;
	pair(fd), pair(to);
	child = fork();
	if (child >= 0) {
		struct handshake *h = our_client(NULL);

		handshake_step(h, child ? fd[0] : to[0]);
		handshake_free(h);
	}
	if (!child)
		_exit(0);
	assert_int_equal(recv(fd[1], hello[0], 43, MSG_WAITALL), 43);
	assert_int_equal(recv(to[1], hello[1], 43, MSG_WAITALL), 43);
	assert_memory_equal(hello[0], hello[1], 3);
	assert_memory_not_equal(hello[0] + 11, hello[1] + 11, 32); /* the randoms */
	close(fd[0]), close(fd[1]), close(to[0]), close(to[1]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(ours_with_ours),
		cmocka_unit_test(flights),
		cmocka_unit_test(nothing_past_the_end),
		cmocka_unit_test(partial_sends),
		cmocka_unit_test(client_with_openssl_server),
		cmocka_unit_test(tickets_of_a_foreign_server),
		cmocka_unit_test(server_with_openssl_client),
		cmocka_unit_test(client_refuses),
		cmocka_unit_test(server_refuses),
		cmocka_unit_test(no_tls_at_all),
		cmocka_unit_test(peer_refuses_us),
		cmocka_unit_test(old_versions_are_refused),
		cmocka_unit_test(socket_errors),
		cmocka_unit_test(fork_reseeds),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
