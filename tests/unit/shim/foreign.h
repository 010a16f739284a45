/* A plain OpenSSL peer at the other end of a handshake of ours. After <cmocka.h>. */
#ifndef TESTS_FOREIGN_H
#define TESTS_FOREIGN_H

#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "pki.h"
#include "tls/handshake.h"

struct foreign {
	SSL_CTX *ctx;
	SSL *ssl;
	X509 *leaf;
	EVP_PKEY *key;
	int r;           /* of its last SSL_do_handshake */
	char error[160]; /* why it failed */
};

static inline int trust_all(int ok, X509_STORE_CTX *store)
{
	(void)ok, (void)store;
	return 1;
}

/* `leaf` NULL: no certificate. `key` is taken over; NULL: a new one on P-256. `suites` NULL: the default. */
static inline void foreign_start(struct foreign *f, bool server, const struct pki_ca *ca,
				 const struct pki_leaf *leaf, EVP_PKEY *key, int fd,
				 const char *suites)
{
	*f = (struct foreign){ .ctx = SSL_CTX_new(TLS_method()),
			       .key = key ? key : EVP_EC_gen("P-256") };
	if (leaf) {
		f->leaf = pki_sign(ca, f->key, leaf);
		assert_true(SSL_CTX_use_certificate(f->ctx, f->leaf) &&
			    SSL_CTX_use_PrivateKey(f->ctx, f->key));
		assert_true(SSL_CTX_add1_chain_cert(f->ctx, ca->cert));
	}
	SSL_CTX_set_verify(f->ctx, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, trust_all);
	if (suites)
		assert_true(SSL_CTX_set_ciphersuites(f->ctx, suites));
	f->ssl = SSL_new(f->ctx);
	SSL_set_fd(f->ssl, fd);
	assert_int_equal(fcntl(fd, F_SETFL, O_NONBLOCK), 0);
	if (server)
		SSL_set_accept_state(f->ssl);
	else
		SSL_set_connect_state(f->ssl);
}

static inline void foreign_done(struct foreign *f)
{
	SSL_free(f->ssl);
	SSL_CTX_free(f->ctx);
	X509_free(f->leaf);
	EVP_PKEY_free(f->key);
	ERR_clear_error();
}

static inline void foreign_step(struct foreign *f)
{
	int e;

	if (f->r == 1 || f->error[0])
		return;
	ERR_clear_error();
	f->r = SSL_do_handshake(f->ssl);
	e = SSL_get_error(f->ssl, f->r);
	if (f->r != 1 && e != SSL_ERROR_WANT_READ && e != SSL_ERROR_WANT_WRITE)
		snprintf(f->error, sizeof(f->error), "%s",
			 ERR_reason_error_string(ERR_peek_error()));
}

/* The alert that our refusal sent it: a client has already finished, and reads it. */
static inline const char *foreign_error(struct foreign *f)
{
	char byte;

	foreign_step(f);
	if (f->r == 1 && SSL_read(f->ssl, &byte, 1) <= 0)
		snprintf(f->error, sizeof(f->error), "%s",
			 ERR_reason_error_string(ERR_peek_error()));
	return f->error;
}

static inline int run_against(struct handshake *h, int fd, struct foreign *f)
{
	int r = -EAGAIN;

	for (int i = 0; i < 50 && (r == -EAGAIN || (!r && f->r != 1)); i++) {
		if (r == -EAGAIN)
			r = handshake_step(h, fd);
		foreign_step(f);
	}
	return r;
}

#endif
