/* Two sessions over a real TCP connection on loopback: byte streams, readiness, short writes, peeks, key updates. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tls/session.h"

struct end {
	int fd;
	struct session s;
	struct session_aead a;
};

static void end_open(struct end *e, int fd, const struct record_keys *rx,
		     const struct record_keys *tx)
{
	*e = (struct end){ .fd = fd, .s.lowat = 1, .a = { record_aead_new(), record_aead_new() } };
	session_start(&e->s, rx, tx);
	fcntl(fd, F_SETFL, O_NONBLOCK);
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){ 1 }, sizeof(int));
}

static void end_close(struct end *e)
{
	session_wipe(&e->s);
	record_aead_free(e->a.rx);
	record_aead_free(e->a.tx);
	close(e->fd);
}

static void pair_open(struct end *a, struct end *b, int sndbuf)
{
	struct sockaddr_in sa = { .sin_family = AF_INET,
				  .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	int l = socket(AF_INET, SOCK_STREAM, 0), c = socket(AF_INET, SOCK_STREAM, 0);
	struct record_keys k1, k2;
	socklen_t len = sizeof(sa);
	uint8_t secret[32] = { 1 };

	assert_int_equal(record_keys_set(&k1, 0x1301, secret, 32), 0);
	secret[0] = 2;
	assert_int_equal(record_keys_set(&k2, 0x1301, secret, 32), 0);
	if (sndbuf) {
		setsockopt(c, SOL_SOCKET, SO_SNDBUF, &sndbuf, sizeof(sndbuf));
		setsockopt(l, SOL_SOCKET, SO_RCVBUF, &sndbuf, sizeof(sndbuf));
	}
	assert_int_equal(bind(l, (struct sockaddr *)&sa, len), 0);
	listen(l, 1);
	getsockname(l, (struct sockaddr *)&sa, &len);
	assert_int_equal(connect(c, (struct sockaddr *)&sa, len), 0);
	end_open(a, c, &k2, &k1);
	end_open(b, accept(l, NULL, NULL), &k1, &k2);
	close(l);
}

static ssize_t put(struct end *e, const void *p, size_t n)
{
	struct iovec iov = { .iov_base = (void *)(uintptr_t)p, .iov_len = n };

	return session_send(&e->s, &e->a, e->fd, &iov, 0, n, MSG_NOSIGNAL);
}

static ssize_t get(struct end *e, void *p, size_t n, int flags)
{
	struct iovec iov = { .iov_base = p, .iov_len = n };

	return session_recv(&e->s, &e->a, e->fd, &iov, 0, n, flags);
}

/* Does the kernel say "readable" within `ms`, after the gate had its say? Waits on as the hooks do. */
static bool readable(struct end *e, int ms)
{
	struct pollfd p = { .fd = e->fd, .events = POLLIN };

	while (poll(&p, 1, ms) == 1)
		if (session_ready(&e->s, &e->a, e->fd))
			return true;
	return false;
}

static void small_reads_of_a_large_record(void **state)
{
	struct end a, b;
	char out[3000], in[3000];
	size_t i;

	(void)state;
	pair_open(&a, &b, 0);
	for (i = 0; i < sizeof(out); i++)
		out[i] = (char)(i * 7);
	assert_int_equal(put(&a, out, sizeof(out)), sizeof(out));
	for (i = 0; i < sizeof(in); i++) {
		assert_true(
			readable(&b, 1000)); /* until the last byte is read, the kernel says so */
		assert_int_equal(session_unread(&b.s, &b.a, b.fd), sizeof(in) - i);
		assert_int_equal(get(&b, in + i, 1, 0), 1);
	}
	assert_false(readable(&b, 0));
	assert_int_equal(get(&b, in, 1, 0), -EAGAIN);
	assert_memory_equal(in, out, sizeof(in));
	end_close(&a);
	end_close(&b);
}

static void peek_takes_nothing(void **state)
{
	struct end a, b;
	char in[16] = { 0 };

	(void)state;
	pair_open(&a, &b, 0);
	put(&a, "hello", 5);
	assert_true(readable(&b, 1000));
	assert_int_equal(get(&b, in, sizeof(in), MSG_PEEK), 5);
	assert_int_equal(get(&b, in, 2, MSG_PEEK), 2);
	assert_true(readable(&b, 0));
	assert_int_equal(session_unread(&b.s, &b.a, b.fd), 5);
	assert_int_equal(get(&b, in, sizeof(in), 0), 5);
	assert_memory_equal(in, "hello", 5);
	assert_false(readable(&b, 0));
	end_close(&a);
	end_close(&b);
}

static void several_records_fill_one_read(void **state)
{
	struct end a, b;
	char in[64];
	int i;

	(void)state;
	pair_open(&a, &b, 0);
	for (i = 0; i < 10; i++)
		put(&a, "abcdef", 6);
	assert_true(readable(&b, 1000));
	usleep(20000);
	assert_int_equal(session_unread(&b.s, &b.a, b.fd), 60);
	assert_int_equal(get(&b, in, 7, 0), 7); /* one record and a byte of the next */
	assert_true(readable(&b, 0));
	assert_int_equal(get(&b, in, sizeof(in), 0), 53);
	assert_int_equal(get(&b, in, sizeof(in), 0), -EAGAIN);
	end_close(&a);
	end_close(&b);
}

static void arrived(struct end *e, int n)
{
	int have = 0, tries = 0;

	while (have + (int)e->s.rx_have < n && tries++ < 1000) {
		ioctl(e->fd, FIONREAD, &have);
		usleep(1000);
	}
	assert_int_equal(have + (int)e->s.rx_have, n);
}

/* A record whose bytes come one by one is not readable until its last byte is there. */
static void partial_record_is_not_readable(void **state)
{
	struct end a, b, tap;
	uint8_t wire[200];
	char in[200];
	ssize_t n, i;

	(void)state;
	pair_open(&a, &tap, 0);
	put(&a, "partial record", 14);
	poll(&(struct pollfd){ .fd = tap.fd, .events = POLLIN }, 1, 1000);
	n = recv(tap.fd, wire, sizeof(wire), 0);
	assert_int_equal(n, 14 + RECORD_OVERHEAD);
	end_close(&a);
	end_close(&tap);

	pair_open(&a, &b, 0);
	for (i = 0; i < n; i++) {
		assert_int_equal(send(a.fd, wire + i, 1, 0), 1);
		arrived(&b, (int)i + 1);
		assert_int_equal(readable(&b, 0), i == n - 1);
		assert_int_equal(session_unread(&b.s, &b.a, b.fd), i == n - 1 ? 14 : 0);
	}
	assert_int_equal(get(&b, in, sizeof(in), 0), 14);
	assert_int_equal(b.s.lowat, 1);
	end_close(&a);
	end_close(&b);
}

/* Random sizes both ways through small buffers: every byte once, in order, and never "readable" for nothing. */
static void stream(int sndbuf, size_t total, unsigned seed)
{
	struct end a, b;
	char *out = malloc(total), *in = malloc(total), tmp[40000];
	size_t sent = 0, got = 0, i;

	srand(seed);
	pair_open(&a, &b, sndbuf);
	for (i = 0; i < total; i++)
		out[i] = (char)rand();
	while (got < total) {
		size_t n = 1 + (size_t)rand() % 40000;
		ssize_t r;

		if (sent < total) {
			r = put(&a, out + sent, n < total - sent ? n : total - sent);
			assert_true(r > 0 || r == -EAGAIN);
			sent += r > 0 ? (size_t)r : 0;
		}
		n = 1 + (size_t)rand() % (rand() % 2 ? 30 : sizeof(tmp));
		if (readable(&b, sent == total ? 2000 : 0)) {
			r = get(&b, tmp, n, 0);
			assert_true(r > 0);
			memcpy(in + got, tmp, (size_t)r);
			got += (size_t)r;
		}
	}
	assert_memory_equal(in, out, total);
	session_alert(&a.s, &a.a, a.fd, 0);
	shutdown(a.fd, SHUT_WR);
	assert_true(readable(&b, 1000));
	assert_int_equal(get(&b, tmp, 1, 0), 0);
	end_close(&a);
	end_close(&b);
	free(out);
	free(in);
}

static void streams(void **state)
{
	(void)state;
	stream(0, 3000000, 1);
	stream(4096, 300000, 2);
	stream(2048, 100000, 3);
	stream(20000, 2000000, 4);
}

/* Whatever a short write reported is what arrives, even if the writer then stops and closes. */
static void short_write_is_flushed_at_the_end(void **state)
{
	struct end a, b;
	char *out = calloc(1, 1 << 20), in[65536];
	size_t sent = 0, got = 0;
	ssize_t r;

	(void)state;
	pair_open(&a, &b, 8192);
	while ((r = put(&a, out, 1 << 20)) > 0)
		sent += (size_t)r;
	assert_int_equal(r, -EAGAIN);
	while (readable(&b, 50) && got < sent / 2 && (r = get(&b, in, sizeof(in), 0)) > 0)
		got += (size_t)r;
	if (fork() == 0) { /* the end waits for room, so somebody else reads */
		session_alert(&a.s, &a.a, a.fd, 0);
		shutdown(a.fd, SHUT_WR);
		_exit(0);
	}
	while (readable(&b, 3000) && (r = get(&b, in, sizeof(in), 0)) > 0)
		got += (size_t)r;
	assert_int_equal(r, 0);
	assert_in_range(got, sent, sent + 1); /* the byte held back may arrive */
	end_close(&a);
	end_close(&b);
	free(out);
}

static void truncation_is_told_from_end(void **state)
{
	struct end a, b;
	char in[8];

	(void)state;
	pair_open(&a, &b, 0);
	put(&a, "x", 1);
	shutdown(a.fd, SHUT_WR);
	assert_true(readable(&b, 1000));
	assert_int_equal(get(&b, in, 8, 0), 1);
	assert_true(readable(&b, 1000));
	assert_int_equal(get(&b, in, 8, 0), -ECONNRESET);
	assert_int_equal(b.s.reason, WEFT_REASON_TRUNCATED);
	end_close(&a);
	end_close(&b);
}

static void a_flipped_bit_ends_the_stream(void **state)
{
	struct end a, b;
	uint8_t wire[100];
	char in[64] = { 0 };
	ssize_t n;

	(void)state;
	pair_open(&a, &b, 0);
	put(&a, "secret", 6);
	poll(&(struct pollfd){ .fd = b.fd, .events = POLLIN }, 1, 1000);
	n = recv(b.fd, wire, sizeof(wire), 0);
	end_close(&a);
	end_close(&b);
	pair_open(&a, &b, 0);
	wire[8] ^= 1;
	send(a.fd, wire, (size_t)n, 0);
	assert_true(readable(&b, 1000));
	assert_int_equal(get(&b, in, sizeof(in), 0), -ECONNRESET);
	assert_int_equal(b.s.reason, WEFT_REASON_BAD_RECORD);
	assert_int_equal(get(&b, in, sizeof(in), 0), -ECONNRESET);
	end_close(&a);
	end_close(&b);
}

/* A KeyUpdate that asks for ours: invisible to pollers, obeyed in both directions. */
static void key_update(void **state)
{
	static uint8_t ask[5] = { 24, 0, 0, 1, 1 };
	struct iovec iov = { .iov_base = ask, .iov_len = 5 };
	struct end a, b;
	uint8_t wire[64];
	char in[16];
	ssize_t n;

	(void)state;
	pair_open(&a, &b, 0);
	n = record_seal(a.a.tx, &a.s.tx, RECORD_HANDSHAKE, &iov, 0, 5, wire);
	record_keys_update(&a.s.tx);
	send(a.fd, wire, (size_t)n, 0);
	assert_false(readable(&b, 1000));
	put(&a, "after", 5);
	assert_true(readable(&b, 1000));
	assert_int_equal(get(&b, in, 16, 0), 5);
	assert_memory_equal(in, "after", 5);
	put(&b, "reply", 5);
	poll(&(struct pollfd){ .fd = a.fd, .events = POLLIN }, 1, 1000);
	usleep(10000);
	assert_true(readable(&a, 1000));
	assert_int_equal(get(&a, in, 16, 0), 5);
	assert_int_equal(a.s.rx.updates, 1);
	assert_int_equal(b.s.rx.updates, 1);
	end_close(&a);
	end_close(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(small_reads_of_a_large_record),
		cmocka_unit_test(peek_takes_nothing),
		cmocka_unit_test(several_records_fill_one_read),
		cmocka_unit_test(partial_record_is_not_readable),
		cmocka_unit_test(streams),
		cmocka_unit_test(short_write_is_flushed_at_the_end),
		cmocka_unit_test(truncation_is_told_from_end),
		cmocka_unit_test(a_flipped_bit_ends_the_stream),
		cmocka_unit_test(key_update),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
