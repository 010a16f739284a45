#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <arpa/inet.h>
#include <cmocka.h>
#include <errno.h>
#include <string.h>

#include "weft/addr.h"

static struct weft_addr addr(const char *text, uint16_t port)
{
	struct weft_addr a;

	assert_int_equal(addr_parse(&a, text), 0);
	a.port = port;
	return a;
}

static void sockaddr_of_both_families(void **state)
{
	struct sockaddr_in in = { .sin_family = AF_INET, .sin_port = htons(80) };
	struct weft_addr a, b = addr("10.1.2.3", 80);
	struct sockaddr_storage ss;
	struct sockaddr_in6 in6;

	(void)state;
	inet_pton(AF_INET, "10.1.2.3", &in.sin_addr);
	assert_int_equal(addr_from_sockaddr(&a, (struct sockaddr *)&in, sizeof(in)), 0);
	assert_true(addr_equal(&a, &b));
	assert_true(addr_is_v4(&a));

	assert_int_equal(addr_to_sockaddr(&a, AF_INET, &ss), sizeof(in));
	assert_memory_equal(&ss, &in, sizeof(in));
	assert_int_equal(addr_to_sockaddr(&a, AF_INET6, &ss), sizeof(in6));
	memcpy(&in6, &ss, sizeof(in6));
	assert_true(IN6_IS_ADDR_V4MAPPED(&in6.sin6_addr));
	assert_int_equal(addr_from_sockaddr(&b, (struct sockaddr *)&ss, sizeof(in6)), 0);
	assert_true(addr_equal(&a, &b));

	a = addr("2001:db8::1", 1);
	assert_int_equal(addr_to_sockaddr(&a, AF_INET, &ss), -EAFNOSUPPORT);
	assert_int_equal(addr_to_sockaddr(&a, AF_UNIX, &ss), -EAFNOSUPPORT);
}

static void sockaddr_too_short_or_foreign(void **state)
{
	struct sockaddr_in6 in6 = { .sin6_family = AF_INET6 };
	struct sockaddr sa = { .sa_family = AF_UNIX };
	struct weft_addr a;

	(void)state;
	assert_int_equal(addr_from_sockaddr(&a, NULL, 16), -EINVAL);
	assert_int_equal(addr_from_sockaddr(&a, &sa, 1), -EINVAL);
	assert_int_equal(addr_from_sockaddr(&a, &sa, sizeof(sa)), -EAFNOSUPPORT);
	sa.sa_family = AF_INET;
	assert_int_equal(addr_from_sockaddr(&a, &sa, 15), -EINVAL);
	assert_int_equal(addr_from_sockaddr(&a, (struct sockaddr *)&in6, 23), -EINVAL);
	/* RFC 2133's length, without a scope id: the kernel takes it too. */
	assert_int_equal(addr_from_sockaddr(&a, (struct sockaddr *)&in6, 24), 0);
}

static void texts(void **state)
{
	char out[WEFT_ADDR_TEXT];
	struct weft_addr a = addr("1.2.3.4", 80);

	(void)state;
	assert_string_equal(addr_format(&a, out), "1.2.3.4:80");
	a = addr("1.2.3.4", 0);
	assert_string_equal(addr_format(&a, out), "1.2.3.4");
	a = addr("::1", 65535);
	assert_string_equal(addr_format(&a, out), "[::1]:65535");
	a = addr("2001:db8:ffff:ffff:ffff:ffff:ffff:ffff", 65535);
	assert_string_equal(addr_format(&a, out), "[2001:db8:ffff:ffff:ffff:ffff:ffff:ffff]:65535");
	for (const char *const *bad = (const char *const[]){ "", "1.2.3", "1.2.3.4.5", "256.1.1.1",
							     "::g", "host", "1.2.3.4 ", NULL };
	     *bad; bad++)
		assert_int_equal(addr_parse(&a, *bad), -EINVAL);
}

static void kinds(void **state)
{
	(void)state;
	assert_true(addr_is_loopback(&(struct weft_addr){ .ip = { [15] = 1 } }));
	struct weft_addr a = addr("127.8.0.1", 0);
	assert_true(addr_is_loopback(&a));
	a = addr("::ffff:127.0.0.1", 0);
	assert_true(addr_is_loopback(&a) && addr_is_v4(&a));
	a = addr("0.0.0.0", 7);
	assert_true(addr_is_any(&a));
	a = addr("::", 0);
	assert_true(addr_is_any(&a));
	a = addr("0.0.0.1", 0);
	assert_false(addr_is_any(&a));
	a = addr("239.240.255.1", 0);
	assert_true(addr_is_vip(&a));
	a = addr("239.241.0.1", 0);
	assert_false(addr_is_vip(&a));
	a = addr("ff3e:7765:6674::42", 0);
	assert_true(addr_is_vip(&a));
	a = addr("ff3e:7765:6675::42", 0);
	assert_false(addr_is_vip(&a));
}

static void cidr(void **state)
{
	static const struct {
		const char *block, *addr;
		bool in;
	} cases[] = {
		{ "10.0.0.0/8", "10.255.0.1", true },
		{ "10.0.0.0/8", "11.0.0.1", false },
		{ "10.0.0.0/9", "10.127.0.1", true },
		{ "10.0.0.0/9", "10.128.0.1", false },
		{ "0.0.0.0/0", "8.8.8.8", true },
		{ "0.0.0.0/0", "::1", false },
		{ "::/0", "8.8.8.8", true },
		{ "fd00::/8", "fdff::1", true },
		{ "fd00::/8", "fe00::1", false },
		{ "1.2.3.4", "1.2.3.4", true },
		{ "1.2.3.4", "1.2.3.5", false },
		{ "10.1.2.3/31", "10.1.2.2", true },
		{ "::ffff:10.0.0.0/104", "10.9.9.9", true },
	};
	struct weft_cidr c;

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct weft_addr a = addr(cases[i].addr, 0);

		assert_int_equal(cidr_parse(&c, cases[i].block), 0);
		assert_int_equal(cidr_contains(&c, &a), cases[i].in);
	}
	for (const char *const *bad =
		     (const char *const[]){
			     "", "/", "/8", "10.0.0.0/", "10.0.0.0/33", "::/129", "10.0.0.0/-1",
			     "10.0.0.0/ 8", "10.0.0.0/8/8", "10.0.0.0/0008",
			     "2001:db8:0000:0000:0000:0000:0000:0000:0000:0000/1", NULL };
	     *bad; bad++)
		assert_int_equal(cidr_parse(&c, *bad), -EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(sockaddr_of_both_families),
		cmocka_unit_test(sockaddr_too_short_or_foreign),
		cmocka_unit_test(texts),
		cmocka_unit_test(kinds),
		cmocka_unit_test(cidr),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
