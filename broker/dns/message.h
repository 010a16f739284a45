/* DNS messages (RFC 1035): one question in, one answer out. Pure; what comes in is untrusted.
 *
 * Answered are A, AAAA and PTR of mesh names and virtual addresses, with authority. Everything else is REFUSED and no
 * recursion is offered: a resolver then asks its next server. A mesh name without an address of the family asked for has an
 * empty answer. */
#ifndef DNS_MESSAGE_H
#define DNS_MESSAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "weft/addr.h"
#include "weft/shm.h"

#define DNS_QUERY_MAX 4096 /* bytes of a query that is looked at */
#define DNS_ANSWER_MAX 1024
#define DNS_UDP_MAX 512 /* longer answers are cut, and asked for again over TCP */
#define DNS_TTL_S 30

/* Where the answers come from. Each 0, or -ENOENT. */
struct dns_source {
	int (*by_name)(void *arg, const char *name, struct weft_names_service *out);
	int (*by_vip)(void *arg, const struct weft_addr *vip, char name[static WEFT_HOST_MAX + 1]);
	void *arg;
};

/* Bytes of the answer in `out`, or 0 where none is due: what is no query gets no answer. */
size_t dns_answer(const uint8_t *in, size_t n, const struct dns_source *s, bool udp,
		  uint8_t out[static DNS_ANSWER_MAX]);

#endif
