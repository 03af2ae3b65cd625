/*
 * plan: what the jailer will do, as data. Made from the arguments without touching anything, then
 * printed (--dry-run) or executed by jail.c, step by step; the order is the security argument.
 *
 * Parsing has no privilege to lose, executing parses nothing. A step names places (directories that
 * are held open once they are known) and single names in them, never a path to be walked again.
 */
#ifndef PLAN_H
#define PLAN_H

#include "args.h"

/* Directories; each is opened once, below the one before, and held. */
enum place {
	PLACE_NONE,
	PLACE_BASE,
	PLACE_EXEC,
	PLACE_ID,
	PLACE_ROOT,
	PLACE_DEV,
	PLACE_NET,
	PLACE_RUN,
	PLACES
};

enum step_kind {
	STEP_NAMESPACES,   /* flags: CLONE_NEW* */
	STEP_OPEN_EXEC,	   /* path */
	STEP_OPEN_BASE,	   /* path */
	STEP_OPEN_NETNS,   /* path */
	STEP_FIND_CGROUP,  /* group; name: controller; path: directory below the mount */
	STEP_CHECK_FREE,   /* nothing that MAKE_* would make may be there */
	STEP_MAKE_DIR,	   /* at, name, place; may_exist */
	STEP_MAKE_EXEC,	   /* at, name: an empty file, to be covered by the monitor */
	STEP_MAKE_NODE,	   /* at, name, major, minor; optional: failure only warns */
	STEP_MAKE_CGROUP,  /* group */
	STEP_WRITE_CGROUP, /* group, name: file, value */
	STEP_ENTER_NETNS,
	STEP_LIMIT,	 /* name, resource, number */
	STEP_GIVE_DIR,	 /* place: mode 0700, owner: the jail's */
	STEP_ENTER_ROOT, /* mounts, pivot_root */
	STEP_SPAWN, /* the process that becomes the monitor, where it is not this one; pid file */
	STEP_JOIN_CGROUPS,
	STEP_DROP, /* groups, gid, uid, capabilities, no_new_privs */
	STEP_EXEC,
};

struct step {
	enum step_kind kind;
	enum place at, place;
	const char *name, *path, *value;
	u64 number; /* flags of namespaces, limit */
	u32 group, resource, major, minor;
	bool may_exist, optional;
};

enum { PLAN_STEPS_MAX = 64 + 3 * ARGS_CGROUPS_MAX, PLAN_TEXT_MAX = 4096 };

struct plan {
	const struct args *args;
	struct step step[PLAN_STEPS_MAX];
	unsigned steps;
	unsigned groups;     /* cgroup directories */
	bool move_to_parent; /* v2 without --cgroup: join the parent if it is there */
	char pid_name[256], cgroup_path[1024];
};

/* `userfaultfd_minor` is that of /proc/misc, negative where the host has none. */
void plan_make(struct plan *plan, const struct args *args, int userfaultfd_minor);

/* Writes one line per step into `text`; returns its length. For --dry-run and the tests. */
size_t plan_print(const struct plan *plan, char *text, size_t size);

#endif
