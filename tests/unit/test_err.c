/* err: one line, clipped and never overrun, with context put in front. */
#include "test.h"

#include "src/vmm/err.h"

static void fail_returns_the_code_and_keeps_the_line(void **state)
{
	struct err err;

	(void)state;
	assert_int_equal(fail(&err, -ENOENT, "open %s: " OS_ERR, "x", OS_ERR_ARGS(ENOENT)), -ENOENT);
	assert_string_equal(err.msg, "open x: No such file or directory (os error 2)");
}

static void a_prefix_goes_in_front(void **state)
{
	struct err err;

	(void)state;
	fail(&err, -1, "inner");
	assert_int_equal(fail_prefix(&err, -5, "outer %d: ", 7), -5);
	assert_string_equal(err.msg, "outer 7: inner");
}

static void long_lines_are_clipped(void **state)
{
	char text[4096];
	struct err err;

	(void)state;
	memset(text, 'a', sizeof text - 1);
	text[sizeof text - 1] = 0;
	fail(&err, -1, "%s", text);
	assert_int_equal(strlen(err.msg), sizeof err.msg - 1);
	fail_prefix(&err, -1, "%s", text);
	assert_int_equal(strlen(err.msg), sizeof err.msg - 1);
}

static void every_number_has_a_text(void **state)
{
	(void)state;
	assert_string_equal(err_text(9999), "Unknown error");
	assert_string_equal(err_text(EACCES), "Permission denied");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(fail_returns_the_code_and_keeps_the_line),
		cmocka_unit_test(a_prefix_goes_in_front),
		cmocka_unit_test(long_lines_are_clipped),
		cmocka_unit_test(every_number_has_a_text),
	};

	return cmocka_run_group_tests_name("err", tests, NULL, NULL);
}
