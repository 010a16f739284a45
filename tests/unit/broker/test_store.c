/* Where Redis is, and whose data it holds: the pure parts of store/. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "store/marker.h"
#include "store/target.h"

static struct store_target parse(const char *url)
{
	struct store_target t;
	const char *why = NULL;

	assert_int_equal(target_parse(&t, url, &why), 0);
	return t;
}

static void target_takes_tcp_urls(void **state)
{
	struct store_target t = parse("redis://redis.example");

	(void)state;
	assert_string_equal(t.host, "redis.example");
	assert_int_equal(t.port, 6379);
	assert_string_equal(t.path, "");
	t = parse("redis://bob:p%40ss%2Fw@[2001:db8::1]:6380/3");
	assert_string_equal(t.user, "bob");
	assert_string_equal(t.password, "p@ss/w");
	assert_string_equal(t.host, "2001:db8::1");
	assert_int_equal(t.port, 6380);
	assert_int_equal(t.db, 3);
	t = parse("redis://:secret@10.0.0.1/");
	assert_string_equal(t.user, "");
	assert_string_equal(t.password, "secret");
}

static void target_takes_unix_paths(void **state)
{
	(void)state;
	assert_string_equal(parse("unix:/run/r.sock").path, "/run/r.sock");
	struct store_target t = parse("unix:///run/r.sock?db=2");
	assert_string_equal(t.path, "/run/r.sock");
	assert_int_equal(t.db, 2);
}

static void target_refuses_the_rest(void **state)
{
	static const char *const bad[] = {
		"",
		"http://h",
		"redis://",
		"rediss://h",
		"redis://h:0",
		"redis://h:65536",
		"redis://h:x",
		"redis://h/db",
		"redis://h/99999",
		"redis://u:%zz@h",
		"redis://u:%4@h",
		"redis://u:%00@h",
		"redis://[::1",
		"redis://[::1]x",
		"unix:relative",
		"unix:/r.sock?db=one",
		"unix:/r.sock?other=1",
	};
	char longer[600] = "unix:/";
	struct store_target t;
	const char *why;

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		why = NULL;
		if (target_parse(&t, bad[i], &why) != -EINVAL || !why)
			fail_msg("accepted %s", bad[i]);
	}
	memset(longer + 6, 'x', 200);
	assert_int_equal(target_parse(&t, longer, &why), -EINVAL);
	memcpy(longer, "redis://", 8);
	memset(longer + 8, 'x', 500);
	assert_int_equal(target_parse(&t, longer, &why), -EINVAL);
}

static void target_is_shown_without_password(void **state)
{
	struct store_target t = parse("redis://bob:secret@10.0.0.1:6380/1");
	char text[300];

	(void)state;
	assert_string_equal(target_format(&t, text, sizeof(text)), "redis://10.0.0.1:6380/1");
}

static void marker_says_whose_data_it_is(void **state)
{
	static const struct {
		struct marker known, seen;
		enum marker_verdict verdict;
	} cases[] = {
		{ { "", 0 }, { "", 0 }, MARKER_NEW },    { { "", 0 }, { "a", 7 }, MARKER_OURS },
		{ { "a", 7 }, { "a", 7 }, MARKER_OURS }, { { "a", 7 }, { "a", 9 }, MARKER_OURS },
		{ { "a", 7 }, { "a", 6 }, MARKER_HELD }, { { "a", 7 }, { "b", 9 }, MARKER_HELD },
		{ { "a", 7 }, { "", 0 }, MARKER_HELD },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		const char *why = NULL;
		assert_int_equal(marker_judge(&cases[i].known, &cases[i].seen, &why),
				 cases[i].verdict);
		assert_int_equal(*why != '\0', cases[i].verdict == MARKER_HELD);
	}
}

static void marker_is_kept_in_a_file(void **state)
{
	char dir[] = "/tmp/weft-test-XXXXXX", path[64];
	const struct marker m = { "39035c28b29ab14a", 42 };
	struct marker read;
	struct stat st;

	(void)state;
	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/mesh", dir);
	assert_int_equal(marker_load(&read, path), 0);
	assert_string_equal(read.id, "");
	assert_int_equal(marker_save(&m, path), 0);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	assert_int_equal(marker_load(&read, path), 0);
	assert_string_equal(read.id, m.id);
	assert_int_equal(read.revision, 42);
	unlink(path);
	rmdir(dir);
}

static void marker_refuses_what_is_none(void **state)
{
	static const char *const bad[] = { "",
					   "[]",
					   "{}",
					   "{\"id\":\"\"}",
					   "{\"id\":\"a b\"}",
					   "{\"id\":\"a\",\"revision\":-1}",
					   "{\"id\":7}" };
	struct marker m;

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
		assert_int_equal(marker_parse(&m, bad[i], strlen(bad[i])), -EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(target_takes_tcp_urls),
		cmocka_unit_test(target_takes_unix_paths),
		cmocka_unit_test(target_refuses_the_rest),
		cmocka_unit_test(target_is_shown_without_password),
		cmocka_unit_test(marker_says_whose_data_it_is),
		cmocka_unit_test(marker_is_kept_in_a_file),
		cmocka_unit_test(marker_refuses_what_is_none),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
