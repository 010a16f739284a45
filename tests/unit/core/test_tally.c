#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "weft/tally.h"

static struct weft_addr addr(const char *text, uint16_t port)
{
	struct weft_addr a;

	assert_int_equal(addr_parse(&a, text), 0);
	a.port = port;
	return a;
}

static uint32_t count_of(const struct weft_tally_mem *m, enum weft_tally kind, uint16_t port)
{
	enum weft_reason reason;
	struct weft_addr peer;
	uint32_t n, sum = 0;
	enum weft_tally k;

	for (unsigned at = 0; tally_next(m, &at, &k, &reason, &peer, &n) == 0;)
		if (k == kind && peer.port == port)
			sum += n;
	return sum;
}

static void counts(void **state)
{
	struct weft_tally_mem m = { 0 };
	struct weft_addr a = addr("10.0.0.1", 80), b = addr("fd00::1", 81);

	(void)state;
	tally_count(&m, WEFT_TALLY_PLAIN, &a, WEFT_REASON_NONE);
	tally_count(&m, WEFT_TALLY_PLAIN, &a, WEFT_REASON_NONE);
	tally_count(&m, WEFT_TALLY_PLAIN, &b, WEFT_REASON_NONE);
	tally_count(&m, WEFT_TALLY_REFUSED, &a, WEFT_REASON_NOT_TLS);
	tally_count(&m, WEFT_TALLY_ADMITTED, NULL, WEFT_REASON_NONE);
	assert_int_equal(tally_total(&m, WEFT_TALLY_PLAIN), 3);
	assert_int_equal(tally_total(&m, WEFT_TALLY_ADMITTED), 1);
	assert_int_equal(count_of(&m, WEFT_TALLY_PLAIN, 80), 2);
	assert_int_equal(count_of(&m, WEFT_TALLY_PLAIN, 81), 1);
	assert_int_equal(count_of(&m, WEFT_TALLY_REFUSED, 80), 1);
}

static void a_full_table_counts_on(void **state)
{
	struct weft_tally_mem m = { 0 };
	uint32_t listed = 0;

	(void)state;
	for (uint16_t port = 1; port <= 2 * WEFT_TALLY_ROWS; port++) {
		struct weft_addr a = addr("10.0.0.1", port);

		tally_count(&m, WEFT_TALLY_PLAIN, &a, WEFT_REASON_NONE);
	}
	for (uint16_t port = 1; port <= 2 * WEFT_TALLY_ROWS; port++)
		listed += count_of(&m, WEFT_TALLY_PLAIN, port);
	assert_int_equal(listed, WEFT_TALLY_ROWS);
	assert_int_equal(m.unlisted, WEFT_TALLY_ROWS);
	assert_int_equal(tally_total(&m, WEFT_TALLY_PLAIN), 2 * WEFT_TALLY_ROWS);
}

static void merges(void **state)
{
	struct weft_tally_mem one = { 0 }, two = { 0 };
	struct weft_addr a = addr("10.0.0.1", 80);

	(void)state;
	tally_count(&one, WEFT_TALLY_UDP, &a, WEFT_REASON_NONE);
	tally_count(&two, WEFT_TALLY_UDP, &a, WEFT_REASON_NONE);
	tally_merge(&one, &two);
	assert_int_equal(count_of(&one, WEFT_TALLY_UDP, 80), 2);
	assert_int_equal(tally_total(&one, WEFT_TALLY_UDP), 2);
}

/* The memory is the guest's: whatever lies in it, what comes out is within bounds. */
static void takes_no_lies(void **state)
{
	struct weft_tally_mem lie, sum = { 0 };
	enum weft_reason reason;
	struct weft_addr peer;
	enum weft_tally kind;
	uint32_t n;

	(void)state;
	srand(1);
	for (int turn = 0; turn < 2000; turn++) {
		for (size_t i = 0; i < sizeof(lie); i++)
			((uint8_t *)&lie)[i] = (uint8_t)(rand() % 5 ? rand() % 4 : rand());
		for (unsigned at = 0; tally_next(&lie, &at, &kind, &reason, &peer, &n) == 0;)
			assert_true(kind < WEFT_TALLY_MAX && reason < WEFT_REASON_MAX);
		tally_merge(&sum, &lie);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(counts),
		cmocka_unit_test(a_full_table_counts_on),
		cmocka_unit_test(merges),
		cmocka_unit_test(takes_no_lies),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
