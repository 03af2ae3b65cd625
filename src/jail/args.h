/*
 * args: the jailer's command line (contract 2.3) as a checked structure; nothing is touched yet.
 *
 * `--name value` and `--name=value` mean the same; what follows `--` belongs to the monitor.
 * Strings point into argv. Every refusal names the argument and says why.
 */
#ifndef ARGS_H
#define ARGS_H

#include "../vmm/base.h"
#include "../vmm/err.h"

enum {
	ARGS_CGROUPS_MAX = 64,
	ARGS_ID_MAX = 64,
	ARGS_CGROUP_TEXT_MAX = 1024,
	ARGS_CGROUP_DEPTH_MAX = 7, /* levels of --parent-cgroup */
};

struct args_cgroup {
	char controller[32]; /* what stands before the first dot of `file` */
	char file[64];
	const char *value;
};

struct args {
	const char *id, *exec_file, *base, *netns, *parent_cgroup;
	const char *exec_name; /* last component of exec_file; filled in by args_parse too */
	u32 uid, gid;
	u32 cgroup_version;
	struct args_cgroup cgroup[ARGS_CGROUPS_MAX];
	unsigned cgroups;
	u64 no_file, fsize; /* fsize: bytes; ~0 = not given */
	bool daemonize, new_pid_ns;
	bool userns, new_net_ns, wait, dry_run, share_core; /* ours */
	bool help, version;
	char **extra; /* for the monitor */
	int extras;
};

/* Returns 0 or -EINVAL. After --help or --version nothing else is looked at. */
int args_parse(struct args *args, int argc, char **argv, struct err *err) MUST_CHECK;

void args_print_help(const char *program);

#endif
