/* Addresses as the mesh sees them: IPv4 is kept v4-mapped, so that one form compares. Pure. */
#ifndef WEFT_ADDR_H
#define WEFT_ADDR_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

struct weft_addr {
	uint8_t ip[16]; /* network order; IPv4 as ::ffff:a.b.c.d */
	uint16_t port;  /* host order; 0 is "any" where a text says so */
};

#define WEFT_ADDR_TEXT 56 /* "[v6]:port" and its NUL */

/* 0, or -EAFNOSUPPORT for anything but AF_INET and AF_INET6, -EINVAL if len is too short. */
int addr_from_sockaddr(struct weft_addr *a, const struct sockaddr *sa, socklen_t len);

/* Writes the form that a socket of `family` takes (v4-mapped for IPv4 on AF_INET6).
 * Returns the length, or -EAFNOSUPPORT where an IPv6 address does not fit AF_INET. */
int addr_to_sockaddr(const struct weft_addr *a, int family, struct sockaddr_storage *sa);

/* "1.2.3.4", "::1"; port stays 0. 0 or -EINVAL. */
int addr_parse(struct weft_addr *a, const char *text);

/* "1.2.3.4:80", "[::1]:80"; the port is left out if 0. Returns `out`. */
const char *addr_format(const struct weft_addr *a, char out[static WEFT_ADDR_TEXT]);

bool addr_is_v4(const struct weft_addr *a);
bool addr_is_loopback(const struct weft_addr *a);
bool addr_is_any(const struct weft_addr *a);
bool addr_is_vip(const struct weft_addr *a);     /* in the default VIP ranges of env.h */
bool addr_is_private(const struct weft_addr *a); /* reached within a site or a machine */
bool addr_equal(const struct weft_addr *a, const struct weft_addr *b); /* ip and port */
bool addr_equal_ip(const struct weft_addr *a, const struct weft_addr *b);

/* A CIDR block "10.0.0.0/8", "fd00::/8", or a single address. */
struct weft_cidr {
	uint8_t ip[16];
	uint8_t bits; /* of the 128-bit form: 96 + n for IPv4 */
};
int cidr_parse(struct weft_cidr *c, const char *text); /* 0 or -EINVAL */
bool cidr_contains(const struct weft_cidr *c, const struct weft_addr *a);

#endif
