#include "tls/flight.h"

#include <errno.h>
#include <openssl/crypto.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include "identity/crypto.h"
#include "sys/sys.h"
#include "tls/record.h"
#include "weft/limits.h"

#define FLIGHT_START 4096
/* A whole chain, base and record overhead of it, and what else a flight holds. */
#define FLIGHT_MAX (2 * WEFT_CHAIN_MAX * WEFT_CERT_MAX)

static long io(long call, const struct flight *f, const void *buf, size_t n)
{
	long r;

	do
		r = sys_call(call, f->fd, (long)buf, (long)n, MSG_DONTWAIT | MSG_NOSIGNAL, 0, 0);
	while (r == -EINTR);
	return r;
}

int flight_flush(struct flight *f)
{
	f->full = false;
	while (f->out_sent < f->out_len && !f->error) {
		long r = io(SYS_sendto, f, f->out + f->out_sent, f->out_len - f->out_sent);

		if (r == -EAGAIN) {
			f->full = true;
			return -EAGAIN;
		}
		if (r < 0)
			f->error = (int)r;
		else
			f->out_sent += (size_t)r;
	}
	f->out_len = f->out_sent = 0;
	return f->error;
}

void flight_done(struct flight *f)
{
	if (f->out)
		OPENSSL_cleanse(f->out, f->out_size);
	free(f->out);
	f->out = NULL;
	f->out_size = f->out_len = f->out_sent = 0;
}

bool flight_is_foreign(const struct flight *f)
{
	/* An alert or a handshake record; 21 is what a client that gave up sends. */
	return (f->n_first > 0 && f->first[0] != RECORD_HANDSHAKE && f->first[0] != RECORD_ALERT) ||
	       (f->n_first > 1 && f->first[1] != 3) || (f->n_first > 2 && f->first[2] > 4);
}

static int flight_write(BIO *b, const char *data, int n)
{
	struct flight *f = BIO_get_data(b);
	size_t need = f->out_len + (size_t)n;

	BIO_clear_retry_flags(b);
	if (n <= 0 || need > FLIGHT_MAX)
		return -1;
	f->answered = true;
	if (need > f->out_size) {
		size_t size = need < FLIGHT_START ? FLIGHT_START : need + need / 2;
		uint8_t *p = realloc(f->out, size);

		if (!p)
			return -1;
		f->out = p;
		f->out_size = size;
	}
	memcpy(f->out + f->out_len, data, (size_t)n);
	f->out_len = need;
	return n;
}

static void note_first(struct flight *f, const char *data, long n)
{
	for (long i = 0; i < n && f->n_first < sizeof(f->first); i++)
		f->first[f->n_first++] = (uint8_t)data[i];
}

static int flight_read(BIO *b, char *data, int n)
{
	struct flight *f = BIO_get_data(b);
	long r;

	BIO_clear_retry_flags(b);
	if (n <= 0)
		return 0;
	r = flight_flush(f);
	if (r == -EAGAIN)
		BIO_set_retry_write(b);
	if (r < 0)
		return -1;
	r = io(SYS_recvfrom, f, data, (size_t)n);
	if (r == -EAGAIN)
		BIO_set_retry_read(b);
	else if (r < 0)
		f->error = (int)r;
	f->eof = r == 0;
	note_first(f, data, r);
	return r < 0 ? -1 : (int)r;
}

static long flight_ctrl(BIO *b, int cmd, long num, void *ptr)
{
	struct flight *f = BIO_get_data(b);

	(void)num, (void)ptr;
	switch (cmd) {
	case BIO_CTRL_FLUSH:
		/* OpenSSL's own buffer above us loses a retry flag. What is not sent yet waits here: it goes before the
		 * next read, and before the handshake ends. */
		(void)flight_flush(f);
		return f->error ? -1 : 1;
	case BIO_CTRL_EOF:
		return f->eof;
	case BIO_CTRL_WPENDING:
		return (long)(f->out_len - f->out_sent);
	default:
		return 0;
	}
}

static BIO_METHOD *method_make(void)
{
	BIO_METHOD *m = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "weft flight");

	if (m && BIO_meth_set_write(m, flight_write) && BIO_meth_set_read(m, flight_read) &&
	    BIO_meth_set_ctrl(m, flight_ctrl))
		return m;
	BIO_meth_free(m);
	return NULL;
}

static BIO_METHOD *method_get(void)
{
	static _Atomic(BIO_METHOD *) method;
	BIO_METHOD *m = atomic_load_explicit(&method, memory_order_acquire), *none = NULL;

	if (m)
		return m;
	m = method_make();
	if (m && !atomic_compare_exchange_strong(&method, &none, m)) {
		BIO_meth_free(m); /* another thread was first */
		m = none;
	}
	return m;
}

BIO *flight_bio(struct flight *f)
{
	const struct crypto *c = crypto_get();
	BIO_METHOD *m = c ? method_get() : NULL;
	BIO *b = m ? BIO_new_ex(c->lib, m) : NULL;

	if (b) {
		BIO_set_data(b, f);
		BIO_set_init(b, 1);
	}
	return b;
}
