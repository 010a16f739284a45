/* Sessions written down for another program and read there: by reference, as a copy, and from bytes that somebody made up. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "conduit/carry_int.h"

#define PEER "spiffe://cluster.local/ns/default/sa/peer"

/* --- two ends of a connection, without a handshake --- */

static struct conn *open_end(int fd, uint8_t in, uint8_t out)
{
	struct conn *c = conn_new(fd, AF_INET);
	struct record_keys rx, tx;
	uint8_t secret[32] = { in };

	assert_non_null(c);
	assert_int_equal(record_keys_set(&rx, 0x1301, secret, 32), 0);
	secret[0] = out;
	assert_int_equal(record_keys_set(&tx, 0x1301, secret, 32), 0);
	session_start(c->session, &rx, &tx);
	c->aead.rx = record_aead_new();
	c->aead.tx = record_aead_new();
	c->peer = strdup(PEER);
	c->server = in > out;
	conn_move(c, CONN_OPEN);
	return c;
}

static void close_end(struct conn *c)
{
	conn_move(c, CONN_CLOSED);
	conn_put(c);
}

struct ends {
	int fd[2];
	struct conn *c[2];
};

static int setup(void **state)
{
	struct sockaddr_in sa = { .sin_family = AF_INET,
				  .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof(sa);
	struct ends *e = calloc(1, sizeof(*e));
	int l = socket(AF_INET, SOCK_STREAM, 0);

	share_start();
	e->fd[0] = socket(AF_INET, SOCK_STREAM, 0);
	assert_int_equal(bind(l, (struct sockaddr *)&sa, len), 0);
	assert_int_equal(listen(l, 1), 0);
	assert_int_equal(getsockname(l, (struct sockaddr *)&sa, &len), 0);
	assert_int_equal(connect(e->fd[0], (struct sockaddr *)&sa, len), 0);
	e->fd[1] = accept(l, NULL, NULL);
	close(l);
	e->c[0] = open_end(e->fd[0], 1, 2);
	e->c[1] = open_end(e->fd[1], 2, 1);
	*state = e;
	return 0;
}

/* --- what carry_in() adopted --- */

static struct conn *got[4];
static int n_got;

static void attach(int fd, struct conn *c)
{
	(void)fd;
	assert_true(n_got < 4);
	got[n_got++] = c;
}

static void let_go(void)
{
	while (n_got > 0)
		close_end(got[--n_got]);
}

static int teardown(void **state)
{
	struct ends *e = *state;
	int i;

	let_go();
	for (i = 0; i < 2; i++) {
		close_end(e->c[i]);
		close(e->fd[i]);
	}
	free(e);
	return 0;
}

static ssize_t put(struct conn *c, int fd, const void *bytes, size_t n)
{
	struct iovec iov = { (void *)(uintptr_t)bytes, n };

	return session_send(c->session, &c->aead, fd, &iov, 0, n, MSG_NOSIGNAL);
}

static ssize_t get(struct conn *c, int fd, void *buf, size_t n)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };
	struct iovec iov = { buf, n };
	ssize_t r;

	do
		r = session_recv(c->session, &c->aead, fd, &iov, 0, n, 0);
	while (r == -EAGAIN && poll(&p, 1, 2000) == 1);
	return r;
}

/* As another program, that does not know of the connections that this one has. */
static int take_in(struct ends *e, int memfd, const int *fds, int n)
{
	uint64_t cookie[2] = { e->c[0]->cookie, e->c[1]->cookie };
	int r;

	e->c[0]->cookie = e->c[1]->cookie = 0;
	r = carry_in(memfd, fds, n, attach);
	e->c[0]->cookie = cookie[0];
	e->c[1]->cookie = cookie[1];
	return r;
}

static void talk(struct conn *a, int a_fd, struct conn *b, int b_fd)
{
	char buf[64];

	assert_int_equal(put(a, a_fd, "to b", 4), 4);
	assert_int_equal(get(b, b_fd, buf, sizeof(buf)), 4);
	assert_memory_equal(buf, "to b", 4);
	assert_int_equal(put(b, b_fd, "and back", 8), 8);
	assert_int_equal(get(a, a_fd, buf, sizeof(buf)), 8);
	assert_memory_equal(buf, "and back", 8);
}

/* --- tests --- */

/* Half of a record was read: the rest of it lies in the session, its last byte in the socket. */
static void a_copy_goes_on_where_the_session_was(void **state)
{
	struct ends *e = *state;
	char buf[64];
	int memfd;

	talk(e->c[0], e->fd[0], e->c[1], e->fd[1]);
	assert_int_equal(put(e->c[0], e->fd[0], "one half, other", 15), 15);
	assert_int_equal(get(e->c[1], e->fd[1], buf, 10), 10);
	memfd = carry_exec(&e->fd[1], 1, CARRY_SELF);
	assert_true(memfd >= 0);
	assert_int_equal(take_in(e, memfd, &e->fd[1], 1), 1);
	assert_string_equal(got[0]->peer, PEER);
	assert_true(got[0]->server);
	assert_null(got[0]->share);
	carry_stay(&e->fd[1], 1, CARRY_SELF);
	conn_move(e->c[1], CONN_CLOSED); /* as the exec would have */
	assert_int_equal(get(got[0], e->fd[1], buf, sizeof(buf)), 5);
	assert_memory_equal(buf, "other", 5);
	talk(e->c[0], e->fd[0], got[0], e->fd[1]);
	let_go();
	close(memfd);
}

/* Whoever went on with the session meanwhile, sealed with the same key and number: never twice. */
static void a_stale_copy_is_not_used(void **state)
{
	struct ends *e = *state;
	char buf[64];
	int i, memfd;

	for (i = 0; i < 2; i++) {
		memfd = carry_exec(&e->fd[1], 1, CARRY_SELF);
		assert_true(memfd >= 0);
		carry_stay(&e->fd[1], 1, CARRY_SELF);
		if (i == 0) {
			assert_int_equal(put(e->c[1], e->fd[1], "sent", 4), 4);
		} else {
			assert_int_equal(put(e->c[0], e->fd[0], "read", 4), 4);
			assert_int_equal(get(e->c[1], e->fd[1], buf, sizeof(buf)), 4);
		}
		assert_int_equal(take_in(e, memfd, &e->fd[1], 1), 1);
		assert_int_equal(put(got[0], e->fd[1], "x", 1), -ECONNRESET);
		assert_int_equal(get(got[0], e->fd[1], buf, sizeof(buf)), -ECONNRESET);
		let_go();
		close(memfd);
	}
}

static void a_fin_in_between_makes_no_copy_stale(void **state)
{
	struct ends *e = *state;
	char buf[64];
	int memfd;

	assert_int_equal(put(e->c[0], e->fd[0], "last", 4), 4);
	memfd = carry_exec(&e->fd[1], 1, CARRY_SELF);
	carry_stay(&e->fd[1], 1, CARRY_SELF);
	session_alert(e->c[0]->session, &e->c[0]->aead, e->fd[0], 0);
	shutdown(e->fd[0], SHUT_WR);
	usleep(10000);
	assert_int_equal(take_in(e, memfd, &e->fd[1], 1), 1);
	assert_int_equal(get(got[0], e->fd[1], buf, sizeof(buf)), 4);
	assert_int_equal(get(got[0], e->fd[1], buf, sizeof(buf)), 0);
	let_go();
	close(memfd);
}

static void holders_share_one_session(void **state)
{
	struct ends *e = *state;
	int memfd = carry_out(e->fd, 2), i;

	assert_true(memfd >= 0);
	assert_non_null(e->c[0]->share);
	assert_int_equal(take_in(e, memfd, e->fd, 2), 2);
	assert_int_equal(n_got, 2);
	for (i = 0; i < 3; i++) {
		talk(e->c[0], e->fd[0], got[1], e->fd[1]);
		talk(got[0], e->fd[0], e->c[1], e->fd[1]);
	}
	let_go();
	close(memfd);
}

static void sent_to_itself(void **state)
{
	struct ends *e = *state;
	int memfd = carry_out(&e->fd[0], 1), copy = dup(e->fd[0]);

	assert_int_equal(carry_in(memfd, &copy, 1, attach), 1);
	assert_ptr_equal(got[0], e->c[0]);
	assert_int_equal(e->c[0]->fds, 2);
	assert_true(share_is_last(e->c[0]));
	conn_put(got[--n_got]);
	close(copy);
	close(memfd);
}

static void what_is_not_listed_is_left_alone(void **state)
{
	struct ends *e = *state;
	int memfd = carry_out(&e->fd[0], 1), pipes[2];

	assert_true(memfd >= 0);
	assert_int_equal(take_in(e, memfd, &e->fd[1], 1), 0);
	assert_int_equal(take_in(e, memfd, &(int){ -1 }, 1), 0);
	assert_int_equal(pipe(pipes), 0);
	assert_int_equal(take_in(e, memfd, pipes, 2), 0);
	assert_int_equal(carry_out(pipes, 2), -ENOENT);
	carry_revoke(memfd, &e->fd[0], 1);
	close(memfd);
	close(pipes[0]);
	close(pipes[1]);
}

/* A memfd with these bytes, sealed as ours are. */
static int made_up(const void *bytes, size_t n, bool sealed)
{
	int fd = memfd_create("made up", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, bytes, n), (ssize_t)n);
	if (sealed)
		assert_int_equal(fcntl(fd, F_ADD_SEALS, CARRY_SEALS), 0);
	return fd;
}

static size_t written(struct ends *e, uint8_t **bytes)
{
	int memfd = carry_exec(e->fd, 2, CARRY_SELF);
	struct stat st;

	assert_true(memfd >= 0);
	carry_stay(e->fd, 2, CARRY_SELF);
	assert_int_equal(fstat(memfd, &st), 0);
	*bytes = malloc((size_t)st.st_size);
	assert_int_equal(pread(memfd, *bytes, (size_t)st.st_size, 0), st.st_size);
	close(memfd);
	return (size_t)st.st_size;
}

static int read_made_up(struct ends *e, const uint8_t *bytes, size_t n)
{
	int fd = made_up(bytes, n, true), r = take_in(e, fd, e->fd, 2);

	close(fd);
	return r;
}

static void lengths_are_not_believed(void **state)
{
	static const uint8_t values[] = { 0x00, 0x01, 0x7f, 0x80, 0xff };
	struct ends *e = *state;
	uint8_t *bytes, was;
	size_t n = written(e, &bytes), at, v;
	int fd;

	for (at = 0; at < n; at++) /* cut off */
		assert_true(read_made_up(e, bytes, at) < 0);
	for (at = 0; at < n; at++) { /* changed: refused, or no worse than a broken connection */
		was = bytes[at];
		for (v = 0; v < sizeof(values); v++) {
			bytes[at] = values[v];
			read_made_up(e, bytes, n);
			if (n_got)
				session_unread(got[0]->session, &got[0]->aead, e->fd[0]);
			let_go();
		}
		bytes[at] = was;
	}
	fd = made_up(bytes, n, false);
	assert_int_equal(carry_in(fd, e->fd, 2, attach), -EPROTO);
	close(fd);
	assert_int_equal(read_made_up(e, bytes, n), 2);
	let_go();
	free(bytes);
}

/* It says which connections it cannot take, and these fail. */
static void another_release_is_told_apart(void **state)
{
	struct ends *e = *state;
	struct carry_head *h;
	uint8_t *bytes;
	size_t n = written(e, &bytes);

	h = (struct carry_head *)(void *)bytes;
	h->version++;
	assert_int_equal(read_made_up(e, bytes, n), 2);
	assert_int_equal(put(got[0], e->fd[0], "x", 1), -ECONNRESET);
	let_go();
	free(bytes);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(a_copy_goes_on_where_the_session_was),
		TEST(a_stale_copy_is_not_used),
		TEST(a_fin_in_between_makes_no_copy_stale),
		TEST(holders_share_one_session),
		TEST(sent_to_itself),
		TEST(what_is_not_listed_is_left_alone),
		TEST(lengths_are_not_believed),
		TEST(another_release_is_told_apart),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
