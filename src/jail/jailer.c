/*
 * mayfly-jailer: locks a monitor up and becomes it. Inherited state is settled, the command line is
 * parsed into a plan, the plan is printed or executed; nothing else happens here.
 *
 * Command line, layout of the jail and exit codes are those of Firecracker's jailer, so that
 * whoever drives that one changes nothing.
 */
#include "../vmm/version.h"
#include "jail.h"

#include <stdio.h>

static struct jail jail;
static struct args args;
static struct plan plan;

/* The minor number is dynamic; the host tells it. Negative: no such device. */
static int userfaultfd_minor(void)
{
	FILE *misc = fopen("/proc/misc", "re");
	char line[128], name[64];
	int minor, found = -1;

	while (misc && found < 0 && fgets(line, sizeof line, misc))
		if (sscanf(line, "%d %63s", &minor, name) == 2 && !strcmp(name, "userfaultfd"))
			found = minor;
	if (misc)
		fclose(misc);
	return found;
}

static int say(const struct err *err)
{
	fprintf(stderr, "Error: %s\n", err->msg);
	return 1;
}

int main(int argc, char **argv)
{
	static char text[1 << 16];
	struct err err;

	if (jail_inherit(&jail, &err) < 0)
		return say(&err);
	if (args_parse(&args, argc, argv, &err) < 0) {
		fprintf(stderr, "Arguments parsing error: %s\n\nFor more information try --help.\n",
			err.msg);
		return 1;
	}
	if (args.help) {
		args_print_help(argv[0]);
		return 0;
	}
	if (args.version) {
		printf("Jailer v%s\n\nmayfly-jailer %s\n", VERSION_API, VERSION_MAYFLY);
		return 0;
	}
	plan_make(&plan, &args, userfaultfd_minor());
	if (args.dry_run) {
		fwrite(text, 1, plan_print(&plan, text, sizeof text), stdout);
		return 0;
	}
	if (args.uid == 0 || args.gid == 0)
		fputs("Warning: the monitor keeps the user or group number 0.\n", stderr);
	jail_run(&jail, &plan, &err);
	return say(&err);
}
