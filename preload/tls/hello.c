#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include "tls/handshake.h"
#include "weft/env.h"

#define HELLO_CLIENT 1
#define HELLO_MAX 16384 /* bytes of a ClientHello; ours has about 300 */
#define EXTENSION_ALPN 16

/* Reads the handshake stream inside a sequence of records. A read past what is there, or past what may be, sets `stop`
 * and gives zeros from then on, so that the parser need not look after each byte. */
struct cursor {
	const uint8_t *p;
	size_t n, at;   /* bytes there are; next one */
	size_t record;  /* bytes of the current record not yet read */
	size_t message; /* bytes of the ClientHello not yet read */
	size_t need;    /* with -EAGAIN: bytes there must be to go on */
	int stop;       /* 0, -EAGAIN or -EPROTO */
};

static void cursor_stop(struct cursor *c, int err, size_t need)
{
	if (!c->stop) {
		c->stop = err;
		c->need = need;
	}
}

/* As far as its bytes are there, is this the header of a handshake record, and not an empty or oversized one? */
static bool header_may_be(const uint8_t *h, size_t n)
{
	size_t len = n > 4 ? (size_t)h[3] << 8 | h[4] : 1;

	return (n < 1 || h[0] == RECORD_HANDSHAKE) && (n < 2 || h[1] == 3) &&
	       (n < 3 || h[2] <= 4) && len && len <= WEFT_RECORD_MAX;
}

static void next_record(struct cursor *c)
{
	const uint8_t *h = c->p + c->at;
	size_t left = c->n - c->at;

	if (!header_may_be(h, left))
		cursor_stop(c, -EPROTO, 0);
	else if (!left)
		cursor_stop(c, -EAGAIN, c->at + 1); /* garbage may be shorter than a header */
	else if (left < RECORD_HEADER)
		cursor_stop(c, -EAGAIN, c->at + RECORD_HEADER);
	if (c->stop)
		return;
	c->record = (size_t)h[3] << 8 | h[4];
	c->at += RECORD_HEADER;
}

static uint8_t u8(struct cursor *c)
{
	if (!c->message)
		cursor_stop(c, -EPROTO, 0);
	if (!c->stop && !c->record)
		next_record(c);
	if (!c->stop && c->at == c->n)
		cursor_stop(c, -EAGAIN, c->at + c->record);
	if (c->stop)
		return 0;
	c->message--;
	c->record--;
	return c->p[c->at++];
}

static size_t u16(struct cursor *c)
{
	size_t hi = u8(c);

	return hi << 8 | u8(c);
}

static void skip(struct cursor *c, size_t n)
{
	while (n-- && !c->stop)
		u8(c);
}

/* The ProtocolNameList of ALPN (RFC 7301 section 3.1): is weft's name in it? */
static bool offers_weft(struct cursor *c)
{
	size_t left = u16(c);
	bool found = false;

	while (left && !c->stop) {
		size_t len = u8(c);
		bool same = len == sizeof(WEFT_ALPN) - 1;

		if (!len || len >= left)
			cursor_stop(c, -EPROTO, 0);
		for (size_t i = 0; i < len && !c->stop; i++)
			same = u8(c) == (uint8_t)WEFT_ALPN[i < sizeof(WEFT_ALPN) ? i : 0] && same;
		found = found || same;
		left -= len + 1;
	}
	return found && !c->stop;
}

/* RFC 8446 section 4.1.2. */
static bool parse_hello(struct cursor *c)
{
	size_t left;

	if (u8(c) != HELLO_CLIENT)
		cursor_stop(c, -EPROTO, 0);
	left = (size_t)u8(c) << 16;
	left |= u16(c);
	if (left > HELLO_MAX)
		cursor_stop(c, -EPROTO, 0);
	c->message = left;
	skip(c, 2 + 32); /* version, random */
	skip(c, u8(c));  /* session id */
	skip(c, u16(c)); /* cipher suites */
	skip(c, u8(c));  /* compression */
	left = u16(c);
	while (left >= 4 && !c->stop) {
		size_t type = u16(c), len = u16(c);

		if (len > left - 4)
			return false;
		if (type == EXTENSION_ALPN)
			return offers_weft(c);
		skip(c, len);
		left -= 4 + len;
	}
	return false;
}

int hello_peek(const uint8_t *bytes, size_t n, size_t *need)
{
	struct cursor c = { .p = bytes, .n = n, .message = 4 };
	bool found = parse_hello(&c);

	if (c.stop == -EAGAIN) {
		*need = c.need;
		return -EAGAIN;
	}
	return found && !c.stop;
}

void alert_make(uint8_t out[2], uint8_t description)
{
	out[0] = description ? 2 : 1; /* fatal, or the warning that close_notify is */
	out[1] = description;
}
