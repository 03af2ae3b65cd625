/*
 * cgroup: limits that are in force before the monitor exists. The hierarchy is found in
 * /proc/mounts, everything below it is reached from its held root. The monitor enters as late as it
 * can: born into the group where the kernel can do that (v2, a process of its own), else by writing
 * its pid once.
 */
#include "jail.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <sched.h>
#include <stdio.h>
#include <sys/vfs.h>

/* Mount points in /proc/mounts have spaces and the like as \ooo. */
static bool unescape(char *to, size_t size, const char *from, size_t len)
{
	size_t used = 0;

	for (size_t i = 0; i < len; i++) {
		char c = from[i];

		if (c == '\\') {
			unsigned n = 0;

			if (len - i < 4)
				return false;
			for (int k = 1; k <= 3; k++) {
				if (from[i + (size_t)k] < '0' || from[i + (size_t)k] > '7')
					return false;
				n = n * 8 + (unsigned)(from[i + (size_t)k] - '0');
			}
			c = (char)n;
			i += 3;
		}
		if (used + 1 >= size)
			return false;
		to[used++] = c;
	}
	to[used] = 0;
	return true;
}

static bool has_word(const char *list, size_t len, const char *word, char between)
{
	size_t n = strlen(word);

	for (size_t i = 0; i < len;) {
		const char *end = memchr(list + i, between, len - i);
		size_t this = end ? (size_t)(end - (list + i)) : len - i;

		if (this == n && memcmp(list + i, word, n) == 0)
			return true;
		i += this + 1;
	}
	return false;
}

/* device mountpoint type options dump pass */
bool cgroup_match(const char *line, u32 version, const char *controller, char *path, size_t size)
{
	const char *field[4];
	size_t len[4];

	for (int i = 0; i < 4; i++) {
		field[i] = line;
		len[i] = strcspn(line, " \n");
		if (!len[i])
			return false;
		line += len[i];
		line += *line == ' ';
	}
	if (version == 2) {
		if (len[2] != 7 || memcmp(field[2], "cgroup2", 7) != 0)
			return false;
	} else if (len[2] != 6 || memcmp(field[2], "cgroup", 6) != 0 ||
		   !has_word(field[3], len[3], controller, ',')) {
		return false;
	}
	return unescape(path, size, field[1], len[1]);
}

static bool find_mount(u32 version, const char *controller, char *path, size_t size)
{
	FILE *mounts = fopen("/proc/self/mounts", "re");
	char line[8192];
	bool found = false;

	if (!mounts)
		return false;
	while (!found && fgets(line, sizeof line, mounts))
		found = cgroup_match(line, version, controller, path, size);
	fclose(mounts);
	return found;
}

/* Whether every controller that is asked for may be used at all. */
static int check_controllers(const struct jail *jail, int mount, struct err *err)
{
	char text[1024];

	if (path_read(mount, "cgroup.controllers", text, sizeof text) < 0)
		return fail(err, -errno,
			    "--cgroup-version: the cgroup v2 hierarchy cannot be read");
	for (unsigned i = 0; i < jail->args->cgroups; i++) {
		const char *name = jail->args->cgroup[i].controller;

		if (strcmp(name, "cgroup") != 0 && !has_word(text, strlen(text), name, ' '))
			return fail(
				err, -ENOENT,
				"--cgroup: the controller '%s' is not available in cgroup v2 here",
				name);
	}
	return 0;
}

/* A group that is left over may be used again, unless somebody lives in it. */
static int check_empty(const struct jail *jail, const struct step *s, struct err *err)
{
	CLEANUP_FD int dir =
		path_open(jail->cgroup_mount[s->group], s->path, O_RDONLY | O_DIRECTORY, 0);
	char text[64];

	if (dir == -ENOENT)
		return 0;
	if (dir < 0)
		return fail(err, dir, "--parent-cgroup: %s: " OS_ERR, s->path, OS_ERR_ARGS(-dir));
	if (!s->may_exist && path_read(dir, "cgroup.procs", text, sizeof text) > 0)
		return fail(err, -EEXIST, "--id: the cgroup %s exists already and holds processes",
			    s->path);
	return 0;
}

static int find(struct jail *jail, const struct step *s, struct err *err)
{
	u32 version = jail->args->cgroup_version;
	char path[4096];
	struct statfs fs;
	int fd, r;

	if (!find_mount(version, s->name, path, sizeof path)) {
		if (version == 2)
			return s->may_exist ? 0
					    : fail(err, -ENOENT,
						   "--cgroup-version: cgroup v2 is not mounted");
		return fail(err, -ENOENT,
			    "--cgroup: no cgroup v1 with the controller '%s' is mounted", s->name);
	}
	fd = path_open_canonical(path, O_RDONLY | O_DIRECTORY);
	if (fd < 0)
		return fail(err, fd, "--cgroup: %s: " OS_ERR, path, OS_ERR_ARGS(-fd));
	jail->cgroup_mount[s->group] = fd;
	if (fstatfs(fd, &fs) < 0 ||
	    (u64)fs.f_type != (version == 2 ? CGROUP2_SUPER_MAGIC : CGROUP_SUPER_MAGIC))
		return fail(err, -EINVAL, "--cgroup: %s is not a cgroup v%u hierarchy", path,
			    version);
	r = version == 2 ? check_controllers(jail, fd, err) : 0;
	return r ? r : check_empty(jail, s, err);
}

/* v2: a group hands controllers on only after it was told so. */
static int hand_on(const struct jail *jail, int dir, const char *path, struct err *err)
{
	for (unsigned i = 0; i < jail->args->cgroups; i++) {
		const char *name = jail->args->cgroup[i].controller;
		char text[40];
		int r;

		if (strcmp(name, "cgroup") == 0)
			continue;
		snprintf(text, sizeof text, "+%s", name);
		r = path_write(dir, "cgroup.subtree_control", text);
		if (r < 0)
			return fail(err, r,
				    "--cgroup: the controller '%s' cannot be used below cgroup "
				    "/%s: " OS_ERR,
				    name, path, OS_ERR_ARGS(-r));
	}
	return 0;
}

/* v1: a new cpuset is empty, and an empty one takes no process. */
static int inherit_cpuset(int parent, int dir)
{
	static const char *const files[] = { "cpuset.cpus", "cpuset.mems" };
	char text[1024];
	ssize_t n;
	int r = 0;

	for (unsigned i = 0; i < ARRAY_SIZE(files) && !r; i++) {
		n = path_read(dir, files[i], text, sizeof text);
		if (n != 0)
			continue;
		n = path_read(parent, files[i], text, sizeof text);
		r = n <= 0 ? (int)n : path_write(dir, files[i], text);
	}
	return r;
}

/* One level down; `at` is what remains open of the level above. */
static int descend(struct jail *jail, int at, const char *name, struct err *err)
{
	bool made = mkdirat(at, name, 0755) == 0;
	int dir;

	if (!made && errno != EEXIST)
		return fail(err, -errno, "--cgroup: the cgroup %s cannot be made: " OS_ERR, name,
			    OS_ERR_ARGS(errno));
	if (made)
		jail_made(jail, at, name, AT_REMOVEDIR)->cgroup = true;
	dir = path_open(at, name, O_RDONLY | O_DIRECTORY, 0);
	if (dir < 0)
		return fail(err, dir, "--cgroup: the cgroup %s: " OS_ERR, name, OS_ERR_ARGS(-dir));
	return dir;
}

static int make(struct jail *jail, const struct step *s, struct err *err)
{
	int at = jail->cgroup_mount[s->group], dir, r;
	char path[1024], *name, *rest = path;

	snprintf(path, sizeof path, "%s", s->path);
	while ((name = strsep(&rest, "/"))) {
		if (jail->args->cgroup_version == 2) {
			r = hand_on(jail, at, name, err);
			if (r)
				return r;
		}
		/* Levels stay open: the clean-up removes names in them. */
		dir = descend(jail, at, name, err);
		if (dir < 0)
			return dir;
		if (jail->args->cgroup_version == 1) {
			r = inherit_cpuset(at, dir);
			if (r)
				return fail(err, r, "--cgroup: the cpuset %s: " OS_ERR, name,
					    OS_ERR_ARGS(-r));
		}
		at = dir;
	}
	jail->cgroup_dir[s->group] = at;
	return 0;
}

static int set(struct jail *jail, const struct step *s, struct err *err)
{
	int r = path_write(jail->cgroup_dir[s->group], s->name, s->value);

	return r < 0 ? fail(err, r, "--cgroup: %s=%s: " OS_ERR, s->name, s->value, OS_ERR_ARGS(-r))
		     : 0;
}

/* v2 without --cgroup: the parent group, if somebody has made it. */
static int join_parent(struct jail *jail, const char *pid, struct err *err)
{
	const char *parent = jail->args->parent_cgroup;
	CLEANUP_FD int dir = -1;
	int r;

	if (jail->cgroup_mount[0] < 0)
		return 0;
	dir = path_open(jail->cgroup_mount[0], parent, O_RDONLY | O_DIRECTORY, 0);
	if (dir < 0)
		return dir == -ENOENT ? 0
				      : fail(err, dir, "--parent-cgroup: %s: " OS_ERR, parent,
					     OS_ERR_ARGS(-dir));
	r = path_write(dir, "cgroup.procs", pid);
	if (r < 0)
		return fail(err, r,
			    "--parent-cgroup: Failed to move process to cgroup (%s): " OS_ERR ".%s",
			    parent, OS_ERR_ARGS(-r),
			    r == -EBUSY
				    ? " Hint: a cgroup that hands controllers on takes no process."
				    : "");
	return 0;
}

static const char *processes_file(const struct jail *jail)
{
	return jail->args->cgroup_version == 2 ? "cgroup.procs" : "tasks";
}

void cgroup_leave(struct jail *jail)
{
	for (u32 g = 0; jail->in_cgroup && g < jail->plan->groups; g++)
		(void)path_write(jail->cgroup_mount[g], processes_file(jail), "0");
}

static int join(struct jail *jail, struct err *err)
{
	char pid[16];
	int r = 0;

	/*
	 * A thread that moves itself (v1: 0, to `tasks`) need not wait for every processor, which
	 * takes the kernel some milliseconds; this process has one thread.
	 */
	snprintf(pid, sizeof pid, "%d", jail->args->cgroup_version == 2 ? getpid() : 0);
	if (jail->plan->move_to_parent)
		r = join_parent(jail, pid, err);
	else if (!jail->in_cgroup)
		for (u32 g = 0; g < jail->plan->groups && !r; g++) {
			r = path_write(jail->cgroup_dir[g], processes_file(jail), pid);
			jail->in_cgroup = true;
			if (r)
				fail(err, r,
				     "--cgroup: Failed to move process to cgroup (%s): " OS_ERR,
				     jail->plan->cgroup_path, OS_ERR_ARGS(-r));
		}
	if (r)
		return r;
	/* From here on the group is the root of what can be seen. Best effort: nothing depends on
	 * it. */
	(void)!unshare(CLONE_NEWCGROUP);
	return 0;
}

int cgroup_step(struct jail *jail, const struct step *s, struct err *err)
{
	switch (s->kind) {
	case STEP_FIND_CGROUP:
		return find(jail, s, err);
	case STEP_MAKE_CGROUP:
		return make(jail, s, err);
	case STEP_WRITE_CGROUP:
		return set(jail, s, err);
	default:
		return join(jail, err);
	}
}
