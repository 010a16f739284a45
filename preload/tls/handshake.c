#include "tls/handshake.h"

#include <errno.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "identity/peer.h"
#include "tls/flight.h"
#include "weft/env.h"

struct handshake {
	SSL *ssl;
	struct identity *id;
	struct peer peer;
	struct flight flight;
	bool server, done;
	short wants;
	enum weft_reason reason; /* NONE while it may still succeed */
	int error;               /* -errno that goes with it */
	char detail[160];
};

static struct handshake *handshake_new(struct identity *id, bool server)
{
	struct handshake *h = calloc(1, sizeof(*h));
	BIO *bio = h ? flight_bio(&h->flight) : NULL;

	if (!bio)
		goto fail;
	h->server = server;
	h->wants = server ? POLLIN : POLLOUT;
	h->id = identity_ref(id);
	h->ssl = SSL_new(server ? id->server : id->client);
	if (!h->ssl) {
		BIO_free(bio);
		goto fail;
	}
	SSL_set_bio(h->ssl, bio, bio);
	SSL_set_app_data(h->ssl, &h->peer);
	if (server)
		SSL_set_accept_state(h->ssl);
	else
		SSL_set_connect_state(h->ssl);
	return h;
fail:
	ERR_clear_error();
	return handshake_free(h);
}

struct handshake *handshake_new_client(struct identity *id, const struct handshake_client *c)
{
	struct handshake *h = handshake_new(id, false);

	if (!h)
		return NULL;
	h->peer.expected = c->identities;
	if (c->sni && c->sni[0] && !SSL_set_tlsext_host_name(h->ssl, c->sni)) {
		ERR_clear_error();
		return handshake_free(h);
	}
	return h;
}

struct handshake *handshake_new_server(struct identity *id)
{
	return handshake_new(id, true);
}

struct handshake *handshake_free(struct handshake *h)
{
	if (!h)
		return NULL;
	SSL_free(h->ssl);
	flight_done(&h->flight);
	identity_unref(h->id);
	OPENSSL_cleanse(h, sizeof(*h));
	free(h);
	return NULL;
}

static int fail(struct handshake *h, enum weft_reason reason, const char *detail)
{
	h->reason = reason;
	h->error = h->flight.error ? h->flight.error : -reason_errno(reason);
	snprintf(h->detail, sizeof(h->detail), "%s", detail ? detail : reason_text(reason));
	return h->error;
}

static int fail_socket(struct handshake *h)
{
	char text[64];

	return fail(h, WEFT_REASON_HANDSHAKE_FAILED,
		    strerror_r(-h->flight.error, text, sizeof(text)));
}

/* What OpenSSL's error means to an operator. It has sent the alert already, if one was due. */
static int fail_ssl(struct handshake *h, unsigned long err)
{
	int code = ERR_GET_LIB(err) == ERR_LIB_SSL ? ERR_GET_REASON(err) : 0;
	const char *text = ERR_reason_error_string(err);

	if (h->peer.reason)
		return fail(h, h->peer.reason, h->peer.detail);
	if (flight_is_foreign(&h->flight))
		return fail(h, WEFT_REASON_NOT_TLS, text);
	if (h->flight.error)
		return fail_socket(h);
	if (code == SSL_AD_REASON_OFFSET + SSL_AD_ACCESS_DENIED)
		return fail(h, WEFT_REASON_PEER_REFUSED, text);
	if (code == SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE)
		return fail(h, WEFT_REASON_NO_CLIENT_CERT, text);
	return fail(h, WEFT_REASON_HANDSHAKE_FAILED,
		    h->flight.eof ? "peer closed within the handshake" : text);
}

/* SSL_do_handshake did not return 1. */
static int stopped(struct handshake *h, int r)
{
	switch (SSL_get_error(h->ssl, r)) {
	case SSL_ERROR_WANT_READ:
		if (flight_is_foreign(&h->flight)) /* the rest of its header may never come */
			return fail(h, WEFT_REASON_NOT_TLS, NULL);
		h->wants = POLLIN;
		return -EAGAIN;
	case SSL_ERROR_WANT_WRITE:
		h->wants = POLLOUT;
		return -EAGAIN;
	default:
		return fail_ssl(h, ERR_peek_error());
	}
}

static int completed(struct handshake *h)
{
	if (!h->peer.uri[0] || h->peer.secrets != PEER_SECRETS_ALL)
		return fail(h, WEFT_REASON_HANDSHAKE_FAILED, "OpenSSL told no peer or no secret");
	h->done = true;
	return 0;
}

int handshake_step(struct handshake *h, int fd)
{
	int r = 0;

	if (h->reason)
		return h->error;
	h->flight.fd = fd;
	ERR_clear_error();
	if (!h->done) {
		r = SSL_do_handshake(h->ssl);
		r = r == 1 ? completed(h) : stopped(h, r);
	}
	if (!r && flight_flush(&h->flight) == -EAGAIN) {
		h->wants = POLLOUT;
		r = -EAGAIN;
	} else if (!r && h->flight.error) {
		r = fail_socket(h);
	}
	ERR_clear_error();
	return r;
}

short handshake_wants(const struct handshake *h)
{
	return h->wants;
}

enum weft_reason handshake_reason(const struct handshake *h)
{
	return h->reason;
}

bool handshake_heard(const struct handshake *h)
{
	return h->flight.answered;
}

bool handshake_ended(const struct handshake *h)
{
	/* EPIPE: after the peer's FIN, and a RST for what we sent then */
	return h->reason == WEFT_REASON_HANDSHAKE_FAILED &&
	       (h->flight.eof || h->flight.error == -EPIPE);
}

const char *handshake_detail(const struct handshake *h)
{
	return h->detail;
}

void handshake_result(const struct handshake *h, struct handshake_result *r)
{
	uint16_t suite = SSL_CIPHER_get_protocol_id(SSL_get_current_cipher(h->ssl));
	const unsigned char *alpn;
	unsigned len;

	*r = (struct handshake_result){ .weft = false };
	record_keys_set(h->server ? &r->rx : &r->tx, suite, h->peer.client_secret,
			h->peer.secret_len);
	record_keys_set(h->server ? &r->tx : &r->rx, suite, h->peer.server_secret,
			h->peer.secret_len);
	memcpy(r->peer, h->peer.uri, sizeof(r->peer));
	SSL_get0_alpn_selected(h->ssl, &alpn, &len);
	r->weft = len == sizeof(WEFT_ALPN) - 1 && !memcmp(alpn, WEFT_ALPN, len);
}
