/* The revision is of what a document says, not of how it is written. */
#include "documents.h"

static void revision(const char *text, char out[static DOC_REVISION + 1])
{
	char *json = quoted(text);

	doc_revision(json, strlen(json), out);
	free(json);
}

static void assert_same(const char *a, const char *b, bool same)
{
	char ra[DOC_REVISION + 1], rb[DOC_REVISION + 1];

	revision(a, ra);
	revision(b, rb);
	assert_int_equal(strlen(ra), DOC_REVISION);
	assert_int_equal(strcmp(ra, rb) == 0, same);
}

static void test_canonical(void **state)
{
	(void)state;
	assert_same("{'a': 1, 'b': {'c': [1, 2], 'd': null}}", "{\n'b':{'d':null,'c':[1,2]},'a':1}",
		    true);
	assert_same("{'a': 1}", "{'a': 2}", false);
	assert_same("{'a': [1, 2]}", "{'a': [2, 1]}", false);
	assert_same("{'a': 1}", "{'a': '1'}", false);
}

static void test_not_json(void **state)
{
	(void)state;
	assert_same("{'a': 1", "{'a': 1", true);
	assert_same("{'a': 1", "{'a':  1", false);
	assert_same("", "", true);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_canonical),
					    cmocka_unit_test(test_not_json) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
