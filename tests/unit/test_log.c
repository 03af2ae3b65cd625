/* log: the form of a line, and that nothing at the other end can hold the writer up. */
#include "test.h"

#include "src/vmm/log.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

static char dir[] = "/tmp/mayfly-log-XXXXXX";
static char path[64];
static struct err err;

static int fresh(void **state)
{
	(void)state;
	snprintf(path, sizeof path, "%s/log", dir);
	unlink(path);
	return 0;
}

static struct log_config settings(enum log_level level)
{
	struct log_config cfg = { .level = level };

	strcpy(cfg.path, path);
	return cfg;
}

static void start(enum log_level level)
{
	struct log_config cfg = settings(level);

	assert_int_equal(log_configure(&cfg, &err), 0);
}

static const char *content(void)
{
	static char text[200000];
	int fd = open(path, O_RDONLY);
	ssize_t n = read(fd, text, sizeof text - 1);

	assert_true(n >= 0);
	text[n] = '\0';
	close(fd);
	return text;
}

static void a_line_has_the_contracts_form(void **state)
{
	int year, month, day, hour, minute, second, nano, used = 0;

	(void)state;
	start(LOG_INFO);
	log_info("hello %d", 7);
	assert_int_equal(sscanf(content(), "%4d-%2d-%2dT%2d:%2d:%2d.%9d [an-id:main] hello 7%n",
				&year, &month, &day, &hour, &minute, &second, &nano, &used),
			 7);
	assert_string_equal(content() + used, "\n");
	assert_int_equal(strlen(content()), 29 + sizeof " [an-id:main] hello 7\n" - 1);
}

static void level_and_origin_come_when_asked_for(void **state)
{
	struct log_config cfg = settings(LOG_DEBUG);
	char expected[128];

	(void)state;
	cfg.show_level = true;
	cfg.show_origin = true;
	assert_int_equal(log_configure(&cfg, &err), 0);
	snprintf(expected, sizeof expected, "[an-id:main:DEBUG:%s:%d] x\n", __FILE__, __LINE__ + 1);
	log_debug("x");
	assert_non_null(strstr(content(), expected));
	cfg.show_origin = false;
	assert_int_equal(log_configure(&cfg, &err), 0);
	log_error("y");
	assert_non_null(strstr(content(), "[an-id:main:ERROR] y\n"));
}

static void quieter_levels_are_left_out(void **state)
{
	(void)state;
	start(LOG_WARN);
	log_info("no");
	log_warn("yes");
	log_error("yes");
	assert_null(strstr(content(), "no"));
	start(LOG_OFF);
	log_error("no");
	assert_null(strstr(content(), "no"));
}

static void a_module_filters_by_origin(void **state)
{
	struct log_config cfg = settings(LOG_INFO);

	(void)state;
	strcpy(cfg.module, "src/elsewhere");
	assert_int_equal(log_configure(&cfg, &err), 0);
	log_info("no");
	strcpy(cfg.module, "tests/unit");
	assert_int_equal(log_configure(&cfg, &err), 0);
	log_info("yes");
	assert_null(strstr(content(), "no"));
	assert_non_null(strstr(content(), "yes"));
}

static void nothing_can_forge_a_line(void **state)
{
	(void)state;
	start(LOG_INFO);
	log_info("%s", "a\nb\r\x1b[31m\x7f\t\xc3\xa9");
	assert_non_null(strstr(content(), "] a\\nb\\r\\x1b[31m\\x7f\\t\xc3\xa9\n"));
}

static void long_lines_are_clipped(void **state)
{
	static char text[10000];

	(void)state;
	memset(text, 'x', sizeof text - 1);
	start(LOG_INFO);
	log_info("%s", text);
	assert_true(strlen(content()) <= 4096);
	assert_int_equal(content()[strlen(content()) - 1], '\n');
	memset(text, '\n', sizeof text - 1);
	log_info("%s", text);
	assert_int_equal(content()[strlen(content()) - 1], '\n');
}

static void an_empty_path_keeps_the_sink(void **state)
{
	struct log_config cfg;

	(void)state;
	start(LOG_WARN);
	log_settings(&cfg);
	assert_string_equal(cfg.path, "");
	assert_int_equal(cfg.level, LOG_WARN);
	cfg.level = LOG_INFO;
	assert_int_equal(log_configure(&cfg, &err), 0);
	log_info("still here");
	assert_non_null(strstr(content(), "still here"));
}

static void a_bad_path_changes_nothing(void **state)
{
	struct log_config cfg = settings(LOG_DEBUG);

	(void)state;
	start(LOG_INFO);
	strcpy(cfg.path, "/nonexistent/log");
	assert_int_equal(log_configure(&cfg, &err), -ENOENT);
	assert_string_equal(err.msg, "Failed to open target file: No such file or directory (os "
				     "error 2): /nonexistent/log");
	strcpy(cfg.path, dir);
	assert_int_equal(log_configure(&cfg, &err), -EISDIR);
	log_debug("no");
	log_info("yes");
	assert_null(strstr(content(), "no"));
	assert_non_null(strstr(content(), "yes"));
}

static void what_a_file_has_stays(void **state)
{
	FILE *f = fopen(path, "w");

	(void)state;
	fputs("before\n", f);
	fclose(f);
	start(LOG_INFO);
	log_info("after");
	assert_memory_equal(content(), "before\n", 7);
	assert_non_null(strstr(content(), "after"));
}

/* A FIFO: no reader yet, a full pipe, a reader that comes late. */
static void a_fifo_never_holds_us_up(void **state)
{
	u64 missed = log_missed();
	char byte;
	int fd;

	(void)state;
	assert_int_equal(mkfifo(path, 0600), 0);
	start(LOG_INFO);
	for (int i = 0; i < 5000; i++)
		log_info("line %d", i);
	assert_true(log_missed() > missed);
	fd = open(path, O_RDONLY | O_NONBLOCK);
	assert_true(fd >= 0);
	while (read(fd, &byte, 1) == 1)
		;
	missed = log_missed();
	log_info("late");
	assert_int_equal(log_missed(), missed);
	assert_int_equal(read(fd, &byte, 1), 1);
	close(fd);
	log_info("the reader has gone, and we are the only writer and reader");
}

static void a_full_disk_is_counted(void **state)
{
	u64 missed = log_missed();

	(void)state;
	strcpy(path, "/dev/full");
	start(LOG_INFO);
	log_info("lost");
	assert_int_equal(log_missed(), missed + 1);
}

/* Runs `body` in a child whose stdout is `out`; its exit code is the number of missed lines. */
static int in_child(int out, int lines)
{
	pid_t pid = fork();
	int status;

	if (!pid) {
		dup2(out, STDOUT_FILENO);
		signal(SIGPIPE, SIG_DFL);
		alarm(10);
		log_init("child");
		for (int i = 0; i < lines; i++)
			log_info("%060d", i);
		_exit((int)MIN(log_missed(), 200u));
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	return WEXITSTATUS(status);
}

static void standard_output_does_not_block_either(void **state)
{
	int ends[2], flags;

	(void)state;
	assert_int_equal(pipe(ends), 0);
	assert_int_equal(in_child(ends[1], 3), 0);
	assert_int_equal(in_child(ends[1], 2000), 200); /* full: dropped, counted, alive */
	flags = fcntl(ends[1], F_GETFL);
	assert_int_equal(flags & O_NONBLOCK, 0); /* ours is another description */
	close(ends[0]);
	assert_int_equal(in_child(ends[1], 3), 3); /* broken: no SIGPIPE */
	close(ends[1]);
}

static void levels_have_names_in_any_case(void **state)
{
	enum log_level level;

	(void)state;
	assert_int_equal(log_level_parse("wArNiNg", &level), 0);
	assert_int_equal(level, LOG_WARN);
	assert_int_equal(log_level_parse("OFF", &level), 0);
	assert_int_equal(level, LOG_OFF);
	assert_int_equal(log_level_parse("Trace", &level), 0);
	assert_int_equal(log_level_parse("", &level), -EINVAL);
	assert_int_equal(log_level_parse("Infos", &level), -EINVAL);
}

static void a_call_site_has_ten_lines_in_five_seconds(void **state)
{
	struct log_limit limit = { 0 };
	int passed = 0;

	(void)state;
	start(LOG_INFO);
	for (int i = 0; i < 25; i++)
		passed += log_limit_pass(&limit);
	assert_int_equal(passed, 10);
	assert_int_equal(limit.dropped, 15);
	limit.window_ns -= 5000000000u;
	assert_true(log_limit_pass(&limit));
	assert_non_null(strstr(content(), "15 lines like the next one were not logged."));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(a_line_has_the_contracts_form, fresh),
		cmocka_unit_test_setup(level_and_origin_come_when_asked_for, fresh),
		cmocka_unit_test_setup(quieter_levels_are_left_out, fresh),
		cmocka_unit_test_setup(a_module_filters_by_origin, fresh),
		cmocka_unit_test_setup(nothing_can_forge_a_line, fresh),
		cmocka_unit_test_setup(long_lines_are_clipped, fresh),
		cmocka_unit_test_setup(an_empty_path_keeps_the_sink, fresh),
		cmocka_unit_test_setup(a_bad_path_changes_nothing, fresh),
		cmocka_unit_test_setup(what_a_file_has_stays, fresh),
		cmocka_unit_test_setup(a_fifo_never_holds_us_up, fresh),
		cmocka_unit_test_setup(a_full_disk_is_counted, fresh),
		cmocka_unit_test_setup(levels_have_names_in_any_case, fresh),
		cmocka_unit_test_setup(a_call_site_has_ten_lines_in_five_seconds, fresh),
	};
	const struct CMUnitTest before_init[] = {
		cmocka_unit_test(standard_output_does_not_block_either),
	};
	int failed;

	if (!mkdtemp(dir))
		return 1;
	failed = cmocka_run_group_tests_name("log on stdout", before_init, NULL, NULL);
	log_init("an-id");
	failed += cmocka_run_group_tests_name("log", tests, NULL, NULL);
	fresh(NULL);
	rmdir(dir);
	return failed;
}
