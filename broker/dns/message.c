#include "dns/message.h"

#include <arpa/nameser.h>
#include <errno.h>
#include <resolv.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HEADER NS_HFIXEDSZ
#define FLAG_QR 0x80 /* of byte 2 */
#define FLAG_AA 0x04
#define FLAG_TC 0x02
#define FLAG_RD 0x01
#define POINTER_TO_QUESTION (0xc000 | HEADER)
#define EDNS_UDP_MAX 1232

struct answer {
	uint8_t *p;
	size_t n, room;
	bool full;
};

static void put(struct answer *a, const void *bytes, size_t n)
{
	if (n > a->room - a->n) {
		a->full = true;
		return;
	}
	memcpy(a->p + a->n, bytes, n);
	a->n += n;
}

static void put16(struct answer *a, unsigned v)
{
	put(a, (uint8_t[]){ (uint8_t)(v >> 8), (uint8_t)v }, 2);
}

static void put_record(struct answer *a, unsigned type, const void *data, size_t n)
{
	put16(a, POINTER_TO_QUESTION);
	put16(a, type);
	put16(a, ns_c_in);
	put16(a, 0);
	put16(a, DNS_TTL_S);
	put16(a, (unsigned)n);
	put(a, data, n);
	a->p[7]++; /* ANCOUNT */
}

/* RFC 6891: who says that it knows EDNS hears that we do. */
static void put_edns(struct answer *a)
{
	put(a, "", 1);
	put16(a, ns_t_opt);
	put16(a, EDNS_UDP_MAX);
	put(a, "\0\0\0\0\0\0", 6);
	a->p[11]++; /* ARCOUNT */
}

static bool has_edns(ns_msg *m)
{
	ns_rr rr;

	for (int i = 0; i < ns_msg_count(*m, ns_s_ar); i++)
		if (ns_parserr(m, ns_s_ar, i, &rr) == 0 && ns_rr_type(rr) == ns_t_opt)
			return true;
	return false;
}

/* "1.0.240.239.in-addr.arpa", or 32 nibbles in front of ip6.arpa. 0 or -EINVAL. */
static int parse_reverse(const char *name, struct weft_addr *a)
{
	unsigned b[4];
	char text[16], *end;
	int n = 0;

	if (sscanf(name, "%3u.%3u.%3u.%3u.%n", &b[0], &b[1], &b[2], &b[3], &n) == 4 && n &&
	    strcasecmp(name + n, "in-addr.arpa") == 0) {
		snprintf(text, sizeof(text), "%u.%u.%u.%u", b[3] & 255, b[2] & 255, b[1] & 255,
			 b[0] & 255);
		return addr_parse(a, text);
	}
	*a = (struct weft_addr){ 0 };
	if (strlen(name) != 64 + strlen("ip6.arpa") || strcasecmp(name + 64, "ip6.arpa") != 0)
		return -EINVAL;
	for (size_t i = 0; i < 32; i++) {
		char nibble[2] = { name[2 * i], '\0' };

		a->ip[15 - i / 2] |= (uint8_t)(strtoul(nibble, &end, 16) << (i % 2 ? 4 : 0));
		if (*end || name[2 * i] == '-' || name[2 * i + 1] != '.')
			return -EINVAL;
	}
	return 0;
}

static int answer_reverse(struct answer *a, const struct dns_source *s, const char *name)
{
	char target[WEFT_HOST_MAX + 1];
	uint8_t wire[NS_MAXCDNAME];
	struct weft_addr vip;
	int n;

	if (parse_reverse(name, &vip) < 0 || !addr_is_vip(&vip) ||
	    s->by_vip(s->arg, &vip, target) < 0)
		return ns_r_refused;
	n = ns_name_pton(target, wire, sizeof(wire)) < 0 ? -1
							 : dn_skipname(wire, wire + sizeof(wire));
	if (n < 0)
		return ns_r_servfail;
	put_record(a, ns_t_ptr, wire, (size_t)n);
	return ns_r_noerror;
}

static bool is_set(const struct weft_addr *a)
{
	static const uint8_t zero[16];

	return memcmp(a->ip, zero, sizeof(zero)) != 0;
}

static int answer_forward(struct answer *a, const struct dns_source *s, const char *name, int type)
{
	struct weft_names_service svc;

	if (s->by_name(s->arg, name, &svc) < 0 || (!is_set(&svc.vip4) && !is_set(&svc.vip6)))
		return ns_r_refused;
	if ((type == ns_t_a || type == ns_t_any) && is_set(&svc.vip4))
		put_record(a, ns_t_a, svc.vip4.ip + 12, 4);
	if ((type == ns_t_aaaa || type == ns_t_any) && is_set(&svc.vip6))
		put_record(a, ns_t_aaaa, svc.vip6.ip, 16);
	return ns_r_noerror;
}

/* The rcode. The question stands in `a` already. */
static int answer(struct answer *a, const struct dns_source *s, const ns_rr *q)
{
	if (ns_rr_class(*q) != ns_c_in)
		return ns_r_refused;
	if (ns_rr_type(*q) == ns_t_ptr)
		return answer_reverse(a, s, ns_rr_name(*q));
	return answer_forward(a, s, ns_rr_name(*q), ns_rr_type(*q));
}

static size_t finish(struct answer *a, int rcode)
{
	a->p[2] |= rcode == ns_r_noerror ? FLAG_AA : 0;
	a->p[3] = (uint8_t)rcode;
	return a->n;
}

/* Without answers, and perhaps without the question. */
static size_t cut(struct answer *a, size_t n, uint8_t flag, int rcode)
{
	a->n = n;
	a->p[2] |= flag;
	a->p[5] = n > HEADER;
	a->p[7] = a->p[11] = 0;
	return finish(a, rcode);
}

size_t dns_answer(const uint8_t *in, size_t n, const struct dns_source *s, bool udp,
		  uint8_t out[static DNS_ANSWER_MAX])
{
	struct answer a = { .p = out, .room = udp ? DNS_UDP_MAX : DNS_ANSWER_MAX };
	int rcode, len;
	size_t asked;
	ns_msg m;
	ns_rr q;

	if (n < HEADER || n > DNS_QUERY_MAX || in[2] & FLAG_QR)
		return 0;
	memset(out, 0, HEADER);
	put(&a, in, 2);
	a.n = HEADER;
	out[2] = FLAG_QR | (in[2] & 0x78) | (in[2] & FLAG_RD);
	if (in[2] & 0x78)
		return cut(&a, HEADER, 0, ns_r_notimpl);
	if (ns_initparse(in, (int)n, &m) < 0 || ns_msg_count(m, ns_s_qd) != 1 ||
	    ns_parserr(&m, ns_s_qd, 0, &q) < 0)
		return cut(&a, HEADER, 0, ns_r_formerr);
	len = dn_skipname(in + HEADER, in + n);
	if (len < 0)
		return cut(&a, HEADER, 0, ns_r_formerr);
	asked = (size_t)len + NS_QFIXEDSZ;
	put(&a, in + HEADER, asked); /* as it came: letters keep their case */
	out[5] = 1;
	rcode = answer(&a, s, &q);
	if (has_edns(&m))
		put_edns(&a);
	return a.full ? cut(&a, HEADER + asked, FLAG_TC, rcode) : finish(&a, rcode);
}
