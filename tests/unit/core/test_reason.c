#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>

#include "weft/reason.h"

static void each_has_name_text_and_errno(void **state)
{
	(void)state;
	assert_string_equal(reason_name(WEFT_REASON_AUTHZ_DENIED), "AUTHZ_DENIED");
	assert_string_equal(reason_text(WEFT_REASON_NO_BROKER),
			    "weftd does not answer and WEFT_NO_BROKER is closed");
	assert_int_equal(reason_errno(WEFT_REASON_CONNECT_TIMEOUT), ETIMEDOUT);
	assert_int_equal(reason_errno(WEFT_REASON_NONE), 0);
	for (int r = 0; r < WEFT_REASON_MAX; r++) {
		assert_non_null(reason_name(r));
		assert_non_null(reason_text(r));
	}
}

static void unknown_answers_as_none(void **state)
{
	(void)state;
	assert_string_equal(reason_name(WEFT_REASON_MAX), "NONE");
	assert_string_equal(reason_name((enum weft_reason) - 1), "NONE");
	assert_int_equal(reason_errno((enum weft_reason)9999), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_has_name_text_and_errno),
		cmocka_unit_test(unknown_answers_as_none),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
