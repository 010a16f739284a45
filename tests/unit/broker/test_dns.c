/* Questions, right and wrong, against a mesh of one service. */
#include <arpa/inet.h>
#include <arpa/nameser.h>
#include <errno.h>
#include <resolv.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include <cmocka.h>

#include "dns/message.h"

static int by_name(void *arg, const char *name, struct weft_names_service *out)
{
	(void)arg;
	if (strcasecmp(name, "orders") != 0 && strcasecmp(name, "orders.weft") != 0 &&
	    strcasecmp(name, "nowhere") != 0)
		return -ENOENT;
	*out = (struct weft_names_service){ 0 };
	if (strcasecmp(name, "nowhere") == 0)
		return 0; /* a service without virtual addresses */
	assert_int_equal(addr_parse(&out->vip4, "239.240.0.1"), 0);
	if (strcasecmp(name, "orders") == 0)
		assert_int_equal(addr_parse(&out->vip6, "ff3e:7765:6674::1"), 0);
	return 0;
}

static int by_vip(void *arg, const struct weft_addr *vip, char name[static WEFT_HOST_MAX + 1])
{
	struct weft_addr four, six;

	(void)arg;
	addr_parse(&four, "239.240.0.1");
	addr_parse(&six, "ff3e:7765:6674::1");
	if (!addr_equal_ip(vip, &four) && !addr_equal_ip(vip, &six))
		return -ENOENT;
	snprintf(name, WEFT_HOST_MAX + 1, "orders.default.svc.cluster.local");
	return 0;
}

static const struct dns_source source = { by_name, by_vip, NULL };

static size_t question(uint8_t *q, const char *name, int type, int class)
{
	size_t n = NS_HFIXEDSZ;

	memcpy(q, "\x12\x34\x01\0\0\x01\0\0\0\0\0\0", n);
	assert_true(ns_name_pton(name, q + n, NS_MAXCDNAME) >= 0);
	n += (size_t)dn_skipname(q + n, q + 512);
	q[n++] = 0;
	q[n++] = (uint8_t)type;
	q[n++] = 0;
	q[n++] = (uint8_t) class;
	return n;
}

struct reply {
	int rcode, answers;
	char data[128]; /* of the first */
	bool authority, truncated, recursion, edns;
};

static struct reply parse(const uint8_t *p, size_t n)
{
	struct reply r = { 0 };
	ns_msg m;
	ns_rr rr;

	assert_int_equal(ns_initparse(p, (int)n, &m), 0);
	assert_int_equal(ns_msg_id(m), 0x1234);
	assert_true(ns_msg_getflag(m, ns_f_qr));
	r.rcode = ns_msg_getflag(m, ns_f_rcode);
	r.authority = ns_msg_getflag(m, ns_f_aa);
	r.truncated = ns_msg_getflag(m, ns_f_tc);
	r.recursion = ns_msg_getflag(m, ns_f_ra);
	r.edns = ns_msg_count(m, ns_s_ar);
	r.answers = ns_msg_count(m, ns_s_an);
	if (r.answers) {
		assert_int_equal(ns_parserr(&m, ns_s_an, 0, &rr), 0);
		assert_int_equal(ns_rr_ttl(rr), DNS_TTL_S);
		if (ns_rr_type(rr) == ns_t_ptr)
			assert_true(dn_expand(p, p + n, ns_rr_rdata(rr), r.data, sizeof(r.data)) >
				    0);
		else
			inet_ntop(ns_rr_type(rr) == ns_t_a ? AF_INET : AF_INET6, ns_rr_rdata(rr),
				  r.data, sizeof(r.data));
	}
	return r;
}

static struct reply ask(const char *name, int type, int class)
{
	uint8_t q[1024], out[DNS_ANSWER_MAX];
	size_t n = dns_answer(q, question(q, name, type, class), &source, true, out);

	assert_true(n >= NS_HFIXEDSZ);
	return parse(out, n);
}

static void answers_mesh_names(void **state)
{
	struct reply r = ask("oRdErs", ns_t_a, ns_c_in);

	(void)state;
	assert_int_equal(r.rcode, ns_r_noerror);
	assert_string_equal(r.data, "239.240.0.1");
	assert_true(r.authority && !r.recursion && !r.edns);
	assert_string_equal(ask("orders", ns_t_aaaa, ns_c_in).data, "ff3e:7765:6674::1");
	assert_int_equal(ask("orders", ns_t_any, ns_c_in).answers, 2);
	r = ask("orders.weft", ns_t_aaaa, ns_c_in); /* it is one, and has none */
	assert_true(r.rcode == ns_r_noerror && !r.answers && r.authority);
	assert_int_equal(ask("orders", ns_t_mx, ns_c_in).answers, 0);
}

static void answers_virtual_addresses(void **state)
{
	const char *six =
		"1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.4.7.6.6.5.6.7.7.e.3.f.f.ip6.arpa";

	(void)state;
	assert_string_equal(ask("1.0.240.239.in-addr.arpa", ns_t_ptr, ns_c_in).data,
			    "orders.default.svc.cluster.local");
	assert_string_equal(ask(six, ns_t_ptr, ns_c_in).data, "orders.default.svc.cluster.local");
	assert_int_equal(ask("2.0.240.239.in-addr.arpa", ns_t_ptr, ns_c_in).rcode, ns_r_refused);
	assert_int_equal(ask("1.0.0.127.in-addr.arpa", ns_t_ptr, ns_c_in).rcode, ns_r_refused);
	assert_int_equal(ask("1.0.240.239.in-addr.arpa.x", ns_t_ptr, ns_c_in).rcode, ns_r_refused);
	assert_int_equal(ask(six + 2, ns_t_ptr, ns_c_in).rcode, ns_r_refused);
}

static void refuses_the_rest(void **state)
{
	struct reply r = ask("example.com", ns_t_a, ns_c_in);

	(void)state;
	assert_true(r.rcode == ns_r_refused && !r.answers && !r.authority && !r.recursion);
	assert_int_equal(ask("nowhere", ns_t_a, ns_c_in).rcode, ns_r_refused);
	assert_int_equal(ask("orders", ns_t_a, ns_c_chaos).rcode, ns_r_refused);
	assert_int_equal(ask(".", ns_t_ns, ns_c_in).rcode, ns_r_refused);
}

static void hears_edns(void **state)
{
	uint8_t q[1024], out[DNS_ANSWER_MAX];
	size_t n = question(q, "orders", ns_t_a, ns_c_in);
	struct reply r;

	(void)state;
	memcpy(q + n, "\0\0\x29\x04\xd0\0\0\0\0\0\0", 11);
	q[11] = 1;
	r = parse(out, dns_answer(q, n + 11, &source, true, out));
	assert_true(r.edns && r.answers == 1);
}

static void says_what_is_wrong(void **state)
{
	uint8_t q[1024], out[DNS_ANSWER_MAX];
	size_t n = question(q, "orders", ns_t_a, ns_c_in);

	(void)state;
	for (size_t cut = 0; cut < n; cut++) {
		size_t len = dns_answer(q, cut, &source, true, out);

		if (cut < NS_HFIXEDSZ)
			assert_int_equal(len, 0);
		else
			assert_int_equal(parse(out, len).rcode, ns_r_formerr);
	}
	q[2] = 0x81; /* an answer: two servers would talk for ever */
	assert_int_equal(dns_answer(q, n, &source, true, out), 0);
	q[2] = 0x28; /* UPDATE */
	assert_int_equal(parse(out, dns_answer(q, n, &source, true, out)).rcode, ns_r_notimpl);
	q[2] = 0x01;
	q[5] = 2;
	assert_int_equal(parse(out, dns_answer(q, n, &source, true, out)).rcode, ns_r_formerr);
	q[5] = 1;
	memcpy(q + NS_HFIXEDSZ, "\xc0\x0c", 2); /* a name that points to itself */
	assert_int_equal(parse(out, dns_answer(q, n, &source, true, out)).rcode, ns_r_formerr);
}

/* Random changes of good queries: every answer is well-formed, within bounds, and to this question. */
static void survives_garbage(void **state)
{
	const char *names[] = { "orders", "example.com", "1.0.240.239.in-addr.arpa", "." };
	uint8_t q[1024] = { 0 }, out[DNS_ANSWER_MAX];
	ns_msg m;

	(void)state;
	srand(1);
	for (int turn = 0; turn < 200000; turn++) {
		const char *name = names[rand() % 4];
		size_t n = question(q, name, rand() % 40, 1), len;

		for (int i = rand() % 6; i > 0; i--)
			q[rand() % (int)n] = (uint8_t)rand();
		if (rand() % 4 == 0)
			n = (size_t)rand() % sizeof(q);
		len = dns_answer(q, n, &source, rand() % 2, out);
		if (!len)
			continue;
		assert_true(len >= NS_HFIXEDSZ && len <= DNS_ANSWER_MAX);
		assert_memory_equal(out, q, 2);
		assert_true(out[2] & 0x80);
		/* A name may hold a pointer into the query that means nothing in the answer; else it parses. */
		if (n > NS_HFIXEDSZ && !memchr(q + NS_HFIXEDSZ, 0xc0, n - NS_HFIXEDSZ))
			assert_int_equal(ns_initparse(out, (int)len, &m), 0);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(answers_mesh_names), cmocka_unit_test(answers_virtual_addresses),
		cmocka_unit_test(refuses_the_rest),   cmocka_unit_test(hears_edns),
		cmocka_unit_test(says_what_is_wrong), cmocka_unit_test(survives_garbage),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
