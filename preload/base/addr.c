#include "weft/addr.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stddef.h>
#include <string.h>

static const uint8_t v4_prefix[12] = { [10] = 0xff, [11] = 0xff };

/* env.h: WEFT_VIP4_CIDR and WEFT_VIP6_PREFIX */
static const struct weft_cidr vip4 = { .ip = { [10] = 0xff, [11] = 0xff, [12] = 239, [13] = 240 },
				       .bits = 96 + 16 };
static const struct weft_cidr vip6 = { .ip = { 0xff, 0x3e, 0x77, 0x65, 0x66, 0x74 }, .bits = 48 };

/* The kernel takes a sockaddr_in6 without its scope id (RFC 2133), and so do we. */
#define SIN6_MIN offsetof(struct sockaddr_in6, sin6_scope_id)

static void set_v4(struct weft_addr *a, const void *ip)
{
	memcpy(a->ip, v4_prefix, sizeof(v4_prefix));
	memcpy(a->ip + 12, ip, 4);
}

int addr_from_sockaddr(struct weft_addr *a, const struct sockaddr *sa, socklen_t len)
{
	struct sockaddr_in in;
	struct sockaddr_in6 in6;

	if (!sa || len < sizeof(sa->sa_family))
		return -EINVAL;
	switch (sa->sa_family) {
	case AF_INET:
		if (len < sizeof(in))
			return -EINVAL;
		memcpy(&in, sa, sizeof(in));
		set_v4(a, &in.sin_addr);
		a->port = ntohs(in.sin_port);
		return 0;
	case AF_INET6:
		if (len < SIN6_MIN)
			return -EINVAL;
		memcpy(&in6, sa, SIN6_MIN);
		memcpy(a->ip, &in6.sin6_addr, 16);
		a->port = ntohs(in6.sin6_port);
		return 0;
	default:
		return -EAFNOSUPPORT;
	}
}

int addr_to_sockaddr(const struct weft_addr *a, int family, struct sockaddr_storage *sa)
{
	struct sockaddr_in in = { .sin_family = AF_INET, .sin_port = htons(a->port) };
	struct sockaddr_in6 in6 = { .sin6_family = AF_INET6, .sin6_port = htons(a->port) };

	if (family == AF_INET6) {
		memcpy(&in6.sin6_addr, a->ip, 16);
		memcpy(sa, &in6, sizeof(in6));
		return sizeof(in6);
	}
	if (family != AF_INET || !addr_is_v4(a))
		return -EAFNOSUPPORT;
	memcpy(&in.sin_addr, a->ip + 12, 4);
	memcpy(sa, &in, sizeof(in));
	return sizeof(in);
}

int addr_parse(struct weft_addr *a, const char *text)
{
	uint8_t ip[16];

	if (inet_pton(AF_INET, text, ip) == 1)
		set_v4(a, ip);
	else if (inet_pton(AF_INET6, text, ip) == 1)
		memcpy(a->ip, ip, 16);
	else
		return -EINVAL;
	a->port = 0;
	return 0;
}

/* ":" and the decimal digits of `port` to `out`. */
static void append_port(char *out, uint16_t port)
{
	char digits[5];
	int n = 0;

	do
		digits[n++] = (char)('0' + port % 10);
	while (port /= 10);
	*out++ = ':';
	while (n)
		*out++ = digits[--n];
	*out = '\0';
}

const char *addr_format(const struct weft_addr *a, char out[static WEFT_ADDR_TEXT])
{
	bool v4 = addr_is_v4(a), brackets = a->port && !v4;
	char *ip = out + brackets;

	*out = '[';
	if (!inet_ntop(v4 ? AF_INET : AF_INET6, v4 ? a->ip + 12 : a->ip, ip, INET6_ADDRSTRLEN))
		*ip = '\0';
	ip += strlen(ip);
	if (brackets)
		*ip++ = ']';
	if (a->port)
		append_port(ip, a->port);
	return out;
}

bool addr_is_v4(const struct weft_addr *a)
{
	return memcmp(a->ip, v4_prefix, sizeof(v4_prefix)) == 0;
}

bool addr_is_loopback(const struct weft_addr *a)
{
	static const uint8_t one[16] = { [15] = 1 };

	return addr_is_v4(a) ? a->ip[12] == 127 : memcmp(a->ip, one, 16) == 0;
}

bool addr_is_any(const struct weft_addr *a)
{
	static const uint8_t zero[16];

	return memcmp(addr_is_v4(a) ? a->ip + 12 : a->ip, zero, addr_is_v4(a) ? 4 : 16) == 0;
}

bool addr_is_vip(const struct weft_addr *a)
{
	return cidr_contains(&vip4, a) || cidr_contains(&vip6, a);
}

bool addr_is_private(const struct weft_addr *a)
{
	/* RFC 1918, 6598, 3927, 4193, 4291; loopback */
	static const struct weft_cidr blocks[] = {
#define V4(a, b, n) { .ip = { [10] = 0xff, [11] = 0xff, a, b }, .bits = 96 + (n) }
		V4(10, 0, 8),
		V4(172, 16, 12),
		V4(192, 168, 16),
		V4(100, 64, 10),
		V4(169, 254, 16),
		V4(127, 0, 8),
#undef V4
		{ .ip = { 0xfc }, .bits = 7 },
		{ .ip = { 0xfe, 0x80 }, .bits = 10 },
		{ .ip = { [15] = 1 }, .bits = 128 },
	};

	for (size_t i = 0; i < sizeof(blocks) / sizeof(blocks[0]); i++)
		if (cidr_contains(&blocks[i], a))
			return true;
	return false;
}

bool addr_equal(const struct weft_addr *a, const struct weft_addr *b)
{
	return a->port == b->port && addr_equal_ip(a, b);
}

bool addr_equal_ip(const struct weft_addr *a, const struct weft_addr *b)
{
	return memcmp(a->ip, b->ip, 16) == 0;
}

/* The digits after the slash: 0..max, without sign or blank. */
static int parse_bits(const char *s, unsigned max)
{
	unsigned bits = 0;

	if (!*s || strlen(s) > 3)
		return -EINVAL;
	for (; *s; s++) {
		if (*s < '0' || *s > '9')
			return -EINVAL;
		bits = bits * 10 + (unsigned)(*s - '0');
	}
	return bits <= max ? (int)bits : -EINVAL;
}

int cidr_parse(struct weft_cidr *c, const char *text)
{
	const char *slash = strchr(text, '/');
	size_t n = slash ? (size_t)(slash - text) : strlen(text);
	char ip[INET6_ADDRSTRLEN];
	struct weft_addr a;
	int bits = 128;

	if (n >= sizeof(ip))
		return -EINVAL;
	memcpy(ip, text, n);
	ip[n] = '\0';
	if (addr_parse(&a, ip) < 0)
		return -EINVAL;
	/* "::ffff:10.0.0.0/104" counts 128 bits, "10.0.0.0/8" counts 32. */
	if (slash) {
		bool v4 = !strchr(ip, ':');

		bits = parse_bits(slash + 1, v4 ? 32 : 128);
		if (bits < 0)
			return -EINVAL;
		bits += v4 ? 96 : 0;
	}
	memcpy(c->ip, a.ip, 16);
	c->bits = (uint8_t)bits;
	return 0;
}

bool cidr_contains(const struct weft_cidr *c, const struct weft_addr *a)
{
	unsigned bits = c->bits <= 128 ? c->bits : 128;
	unsigned whole = bits / 8, rest = bits % 8;

	if (memcmp(c->ip, a->ip, whole) != 0)
		return false;
	return !rest || ((c->ip[whole] ^ a->ip[whole]) & (0xff00u >> rest) & 0xff) == 0;
}
