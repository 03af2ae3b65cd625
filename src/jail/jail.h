/*
 * jail: a plan being executed: what is held open, what was made, and how each kind of step is done.
 *
 * Internal to src/jail; one thread, one process until STEP_SPAWN. Whatever was made before an error
 * is removed again by jail_undo(), through the directories that are still held.
 */
#ifndef JAIL_H
#define JAIL_H

#include "plan.h"

#include <sys/stat.h>

enum { JAIL_UNDO_MAX = 48 + (ARGS_CGROUP_DEPTH_MAX + 1) * ARGS_CGROUPS_MAX, JAIL_BINDS_MAX = 8 };

/* A file that is covered by a mount: the monitor; devices too, where nobody may make nodes. */
struct jail_bind {
	int tree; /* detached mount */
	enum place at;
	const char *name;
	bool bare; /* the kernel could not give it its attributes before it is mounted */
	dev_t dev; /* of the file below */
	ino_t ino;
};

struct jail_undo {
	int at;	   /* a held directory */
	int flags; /* of unlinkat */
	bool cgroup;
	char name[256];
};

struct jail {
	const struct plan *plan;
	const struct args *args;
	int place[PLACES]; /* -1: not there yet */
	char base[4096];
	int exec, netns, null;
	dev_t dev;
	struct jail_bind bind[JAIL_BINDS_MAX];
	unsigned binds, covered; /* made, mounted */
	int cgroup_mount[ARGS_CGROUPS_MAX], cgroup_dir[ARGS_CGROUPS_MAX];
	bool in_cgroup; /* born in it, or entered */
	struct jail_undo undo[JAIL_UNDO_MAX];
	unsigned undos;
	uid_t caller;
	mode_t umask; /* the caller's, which the monitor gets */
	u64 start_us, start_cpu_us;
	int report; /* where a spawned process says what went wrong; -1: it is still the first one
		     */
};

/* Inherited state made harmless; before anything is parsed. */
int jail_inherit(struct jail *jail, struct err *err) MUST_CHECK;

/* Returns only with an error: else this process has become the monitor, or has ended. */
void jail_run(struct jail *jail, const struct plan *plan, struct err *err);

/* Removes what was made, last first. */
void jail_undo(struct jail *jail);
/* Only the cgroups, which outlive the monitor for nobody's good. */
void jail_undo_cgroups(struct jail *jail);
/* `at` stays open until the end. */
struct jail_undo *jail_made(struct jail *jail, int at, const char *name, int unlink_flags);

/* Steps, by file. Each returns 0 or a negative errno. */
int open_step(struct jail *jail, const struct step *step, struct err *err) MUST_CHECK; /* open.c */
int make_step(struct jail *jail, const struct step *step, struct err *err) MUST_CHECK; /* make.c */
int cgroup_step(struct jail *jail, const struct step *step, struct err *err) MUST_CHECK;
void cgroup_leave(struct jail *jail); /* a group cannot be removed from within */
int enter_step(struct jail *jail, const struct step *step, struct err *err) MUST_CHECK;
void enter_uncover(struct jail *jail); /* nor a file that something is mounted on */
int spawn_step(struct jail *jail, const struct step *step, struct err *err) MUST_CHECK;
int become_step(struct jail *jail, const struct step *step, struct err *err) MUST_CHECK;

/* ---- shared helpers (path.c)
 * --------------------------------------------------------------------- */

/* openat2 below `at`: no symbolic link, no "..", no magic link. A descriptor or a negative errno.
 */
int path_open(int at, const char *path, u64 flags, mode_t mode);
/* An absolute path that has been made canonical: no component may have become a link since. */
int path_open_canonical(const char *path, u64 flags);
/* Human-readable name of a place, for errors. */
const char *path_of(const struct jail *jail, enum place at, const char *name, char *text,
		    size_t size);
/* Reads a small file below `at` as text; its length or a negative errno. */
ssize_t path_read(int at, const char *name, char *text, size_t size);
int path_write(int at, const char *name, const char *text);

/* cgroup.c: whether a line of /proc/mounts is the hierarchy looked for; `path` gets its mount
 * point. */
bool cgroup_match(const char *line, u32 version, const char *controller, char *path, size_t size);

#endif
