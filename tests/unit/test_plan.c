/* args, plan, cgroup_match: a command line becomes a list of steps, or one line that says why not.
 */
#include "test.h"

#include "src/jail/jail.h"

#include <sched.h>
#include <stdio.h>

static struct args args;
static struct plan plan;
static struct err err;
static char text[1 << 16];

#define REQUIRED                                                                                   \
	"jailer", "--id", "an-id", "--exec-file", "/opt/bin/mayfly", "--uid", "123", "--gid", "456"

static int parse(const char **words, int n)
{
	char *argv[128];

	assert_true(n < 128);
	for (int i = 0; i < n; i++)
		argv[i] = (char *)(uintptr_t)words[i];
	argv[n] = NULL;
	memset(&err, 0, sizeof err);
	return args_parse(&args, n, argv, &err);
}

#define PARSE(...)                                                                                 \
	parse((const char *[]){ REQUIRED, __VA_ARGS__ },                                           \
	      sizeof((const char *[]){ REQUIRED, __VA_ARGS__ }) / sizeof(char *))

static const char *printed(int userfaultfd)
{
	plan_make(&plan, &args, userfaultfd);
	plan_print(&plan, text, sizeof text);
	return text;
}

static int index_of(enum step_kind kind)
{
	for (unsigned i = 0; i < plan.steps; i++)
		if (plan.step[i].kind == kind)
			return (int)i;
	return -1;
}

static unsigned count(enum step_kind kind)
{
	unsigned n = 0;

	for (unsigned i = 0; i < plan.steps; i++)
		n += plan.step[i].kind == kind;
	return n;
}

static void defaults(void **state)
{
	(void)state;
	assert_int_equal(PARSE("--daemonize"), 0);
	assert_string_equal(args.base, "/srv/jailer");
	assert_string_equal(args.exec_name, "mayfly");
	assert_string_equal(args.parent_cgroup, "mayfly");
	assert_int_equal(args.cgroup_version, 1);
	assert_int_equal(args.no_file, 2048);
	assert_int_equal(args.uid, 123);
	assert_int_equal(args.gid, 456);
	assert_true(args.daemonize);
	assert_int_equal(args.extras, 0);
}

static void what_follows_two_dashes_is_the_monitors(void **state)
{
	(void)state;
	assert_int_equal(PARSE("--", "--id", "--help", "--"), 0);
	assert_false(args.help);
	assert_int_equal(args.extras, 3);
	assert_string_equal(args.extra[0], "--id");
	assert_string_equal(args.extra[2], "--");
}

static void each_step_is_printed(void **state)
{
	(void)state;
	assert_int_equal(PARSE("--cgroup", "cpu.shares=7", "--cgroup", "cpuset.cpus=0-1", "--netns",
			       "/run/netns/x", "--new-pid-ns", "--chroot-base-dir", "/jails"),
			 0);
	assert_string_equal(
		printed(257),
		"new namespaces: mount ipc uts\n"
		"open monitor /opt/bin/mayfly\n"
		"open <base> = /jails\n"
		"open network namespace /run/netns/x\n"
		"find cgroup v1 cpu: mayfly/an-id\n"
		"find cgroup v1 cpuset: mayfly/an-id\n"
		"check that nothing of what follows is there\n"
		"mkdir <base>/mayfly 0755, unless there\n"
		"mkdir <base>/<exec>/an-id 0755, unless there\n"
		"mkdir <base>/<exec>/<id>/root 0700, unless there\n"
		"create <root>/mayfly 0755 123:456\n"
		"mkdir <root>/dev 0700, unless there\n"
		"mkdir <root>/dev/net 0700, unless there\n"
		"mkdir <root>/run 0700, unless there\n"
		"mknod <root>/dev/net/tun c 10:200 0600 123:456\n"
		"mknod <root>/dev/kvm c 10:232 0600 123:456\n"
		"mknod <root>/dev/urandom c 1:9 0600 123:456 (may fail)\n"
		"mknod <root>/dev/userfaultfd c 10:257 0600 123:456\n"
		"mkdir cgroup #0 mayfly/an-id\n"
		"mkdir cgroup #1 mayfly/an-id\n"
		"write cgroup #0 cpu.shares = 7\n"
		"write cgroup #1 cpuset.cpus = 0-1\n"
		"enter network namespace /run/netns/x\n"
		"give <root>/dev/net 0700 123:456\n"
		"give <root>/dev 0700 123:456\n"
		"give <root>/run 0700 123:456\n"
		"give <root> 0700 123:456\n"
		"mount <root> nosuid,noexec; mount monitor on <root>/mayfly ro; pivot_root\n"
		"fork; new namespaces: pid; write mayfly.pid\n"
		"limit no-file = 2048\n"
		"limit core = 0\n"
		"join 2 cgroups; new namespaces: cgroup\n"
		"no groups, gid 456, uid 123, no capabilities, no_new_privs, a core of its own\n"
		"exec /mayfly --id an-id\n");
}

/* Whatever the options: checks before things, things before giving away, the drop before the exec.
 */
static void the_order_is_always_the_same(void **state)
{
	(void)state;
	for (unsigned bits = 0; bits < 32; bits++) {
		const char *words[32] = { REQUIRED };
		int n = 9;

		if (bits & 1)
			words[n++] = "--daemonize";
		if (bits & 2)
			words[n++] = "--new-pid-ns";
		if (bits & 4)
			words[n++] = "--userns";
		if (bits & 8)
			words[n++] = "--cgroup=pids.max=1";
		if (bits & 16)
			words[n++] = "--cgroup-version=2";
		assert_int_equal(parse(words, n), 0);
		plan_make(&plan, &args, -1);
		assert_int_equal(index_of(STEP_NAMESPACES), 0);
		for (unsigned i = 0; i < plan.steps; i++) {
			enum step_kind kind = plan.step[i].kind;

			if (kind == STEP_MAKE_DIR || kind == STEP_MAKE_EXEC ||
			    kind == STEP_MAKE_NODE || kind == STEP_MAKE_CGROUP) {
				assert_true((int)i > index_of(STEP_CHECK_FREE));
				assert_true((int)i < index_of(STEP_GIVE_DIR));
			}
		}
		assert_true(index_of(STEP_ENTER_ROOT) < index_of(STEP_SPAWN));
		assert_int_equal(index_of(STEP_JOIN_CGROUPS), (int)plan.steps - 3);
		assert_int_equal(index_of(STEP_DROP), (int)plan.steps - 2);
		assert_int_equal(index_of(STEP_EXEC), (int)plan.steps - 1);
		assert_true(!!(plan.step[0].number & CLONE_NEWUSER) == !!(bits & 4));
		assert_true(plan.move_to_parent == ((bits & 24) == 16));
	}
}

static void cgroups_are_one_hierarchy_in_v2(void **state)
{
	(void)state;
	assert_int_equal(PARSE("--cgroup", "cpu.max=1 2", "--cgroup", "memory.max=5", "--cgroup",
			       "cpu.weight=1", "--cgroup-version", "2"),
			 0);
	plan_make(&plan, &args, -1);
	assert_int_equal(count(STEP_FIND_CGROUP), 1);
	assert_int_equal(count(STEP_MAKE_CGROUP), 1);
	assert_int_equal(count(STEP_WRITE_CGROUP), 3);
	args.cgroup_version = 1;
	plan_make(&plan, &args, -1);
	assert_int_equal(count(STEP_FIND_CGROUP), 2);
	assert_int_equal(count(STEP_MAKE_CGROUP), 2);
	assert_int_equal(plan.groups, 2);
}

static void the_longest_plan_fits(void **state)
{
	static char file[ARGS_CGROUPS_MAX][32];
	const char *words[9 + ARGS_CGROUPS_MAX + 1] = { REQUIRED };

	(void)state;
	for (int i = 0; i < ARGS_CGROUPS_MAX; i++) {
		snprintf(file[i], sizeof file[i], "--cgroup=c%d.x=1", i);
		words[9 + i] = file[i];
	}
	assert_int_equal(parse(words, 9 + ARGS_CGROUPS_MAX), 0);
	plan_make(&plan, &args, 1);
	assert_int_equal(plan.groups, ARGS_CGROUPS_MAX);
	words[9 + ARGS_CGROUPS_MAX] = "--cgroup=one.more=1";
	assert_int_equal(parse(words, 10 + ARGS_CGROUPS_MAX), -EINVAL);
	assert_non_null(strstr(err.msg, "--cgroup: more than"));
}

static void printing_is_clipped(void **state)
{
	char small[64];

	(void)state;
	assert_int_equal(PARSE("--new-pid-ns"), 0);
	plan_make(&plan, &args, -1);
	memset(small, 'x', sizeof small);
	assert_int_equal(plan_print(&plan, small, 32), 31);
	assert_int_equal(small[31], 0);
	assert_int_equal(small[32], 'x');
}

static void no_arguments_at_all(void **state)
{
	char *argv[] = { NULL };

	(void)state;
	assert_int_equal(args_parse(&args, 0, argv, &err), -EINVAL);
}

static void mounts_are_told_apart(void **state)
{
	static const struct {
		const char *line, *controller, *path;
		u32 version;
	} rows[] = {
		{ "cgroup /sys/fs/cgroup/cpu cgroup rw,relatime,cpu 0 0\n", "cpu",
		  "/sys/fs/cgroup/cpu", 1 },
		{ "cgroup /c cgroup rw,cpuacct,cpu 0 0\n", "cpu", "/c", 1 },
		{ "cgroup /c cgroup rw,cpuset 0 0\n", "cpu", NULL, 1 },
		{ "cgroup /c cgroup rw,cpu 0 0\n", "cpu", NULL, 2 },
		{ "cgroup2 /u cgroup2 rw 0 0\n", "", "/u", 2 },
		{ "cgroup2 /u cgroup2 rw,cpu 0 0\n", "cpu", NULL, 1 },
		{ "none /a\\040b cgroup2 rw 0 0\n", "", "/a b", 2 },
		{ "none /a\\04 cgroup2 rw 0 0\n", "", NULL, 2 },
		{ "none /a\\ cgroup2 rw\n", "", NULL, 2 },
		{ "none /a cgroup2", "", NULL, 2 },
		{ "", "", NULL, 2 },
		{ "tmpfs /t tmpfs rw,cpu 0 0\n", "cpu", NULL, 1 },
	};
	char path[32];

	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(rows); i++) {
		bool found = cgroup_match(rows[i].line, rows[i].version, rows[i].controller, path,
					  sizeof path);

		assert_int_equal(found, rows[i].path != NULL);
		if (found)
			assert_string_equal(path, rows[i].path);
	}
	assert_false(cgroup_match("n /a-path-that-is-longer-than-32-bytes cgroup2 rw 0 0\n", 2, "",
				  path, sizeof path));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(defaults),
		cmocka_unit_test(what_follows_two_dashes_is_the_monitors),
		cmocka_unit_test(each_step_is_printed),
		cmocka_unit_test(the_order_is_always_the_same),
		cmocka_unit_test(cgroups_are_one_hierarchy_in_v2),
		cmocka_unit_test(the_longest_plan_fits),
		cmocka_unit_test(printing_is_clipped),
		cmocka_unit_test(no_arguments_at_all),
		cmocka_unit_test(mounts_are_told_apart),
	};

	return cmocka_run_group_tests_name("plan", tests, NULL, NULL);
}
