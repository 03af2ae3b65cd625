/*
 * fuzz_plan: any command line of the jailer, one word per line. What is refused says why in one
 * line; what is accepted gives a plan whose every name is harmless and whose order is the right
 * one. The same bytes are also a line of /proc/mounts.
 */
#include "src/jail/jail.h"

#include <ctype.h>
#include <stdlib.h>

#define check(x) ((x) ? (void)0 : abort())

enum { WORDS_MAX = 200 };

static struct args args;
static struct plan plan;
static char text[1 << 14];

static void one_line(const struct err *err)
{
	check(err->msg[0] && memchr(err->msg, 0, sizeof err->msg));
}

/* One component, and not one that leads anywhere. */
static void harmless(const char *name)
{
	check(*name && !strchr(name, '/') && strcmp(name, ".") != 0 && strcmp(name, "..") != 0);
	check(strlen(name) <= 255);
}

static void check_plan(void)
{
	int free_at = -1;

	plan_make(&plan, &args, 257);
	check(plan.steps > 0 && plan.steps <= PLAN_STEPS_MAX);
	check(plan_print(&plan, text, sizeof text) < sizeof text);
	harmless(plan.pid_name);
	for (unsigned i = 0; i < plan.steps; i++) {
		const struct step *s = &plan.step[i];

		if (s->kind == STEP_CHECK_FREE)
			free_at = (int)i;
		if (s->kind >= STEP_MAKE_DIR && s->kind <= STEP_MAKE_NODE) {
			check(free_at >= 0);
			harmless(s->name);
		}
		if (s->kind == STEP_WRITE_CGROUP) {
			harmless(s->name);
			check(s->value[0] && s->group < plan.groups);
		}
	}
	check(plan.step[plan.steps - 2].kind == STEP_DROP);
	check(plan.step[plan.steps - 1].kind == STEP_EXEC);
}

static void check_args(void)
{
	check(args.uid != UINT32_MAX && args.gid != UINT32_MAX);
	for (const char *c = args.id; *c; c++)
		check(isalnum((unsigned char)*c) || *c == '-');
	check(strlen(args.id) >= 1 && strlen(args.id) <= ARGS_ID_MAX);
	check(args.parent_cgroup[0] != '/' && !strstr(args.parent_cgroup, "/../"));
	check(args.cgroups <= ARGS_CGROUPS_MAX);
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t size);

int LLVMFuzzerTestOneInput(const u8 *data, size_t size)
{
	char *words = malloc(size + 1), *rest = words, *word, path[256];
	char *argv[WORDS_MAX + 1];
	struct err err = { "" };
	int argc = 0;

	memcpy(words, data, size);
	words[size] = '\0';
	for (u32 version = 1; version <= 2; version++)
		cgroup_match(words, version, "cpu", path, sizeof path);
	while (argc < WORDS_MAX && (word = strsep(&rest, "\n")))
		argv[argc++] = word;
	argv[argc] = NULL;
	if (args_parse(&args, argc, argv, &err) < 0) {
		one_line(&err);
	} else if (!args.help && !args.version) {
		check_args();
		check_plan();
	}
	free(words);
	return 0;
}
