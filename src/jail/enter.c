/*
 * enter: namespaces and the new root.
 *
 * The mount namespace comes first of all: what is opened afterwards belongs to it, so held
 * directories can be mounted without walking to them again. Mounts of the host still arrive in it
 * (a driver may mount a disk into a jail that runs), nothing of ours goes the other way.
 */
#include "jail.h"

#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

static int write_map(const char *file, u32 inside, u32 outside)
{
	char path[64], text[64];
	CLEANUP_FD int fd = -1;

	snprintf(path, sizeof path, "/proc/self/%s", file);
	snprintf(text, sizeof text, "%u %u 1", inside, outside);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	return fd < 0 || write(fd, text, strlen(text)) < 0 ? -errno : 0;
}

/* A further one would give capabilities back. Best effort: the monitor's filter says the same. */
static void forbid_user_namespaces(void)
{
	CLEANUP_FD int fd = open("/proc/sys/user/max_user_namespaces", O_WRONLY | O_CLOEXEC);

	if (fd >= 0)
		(void)!write(fd, "0", 1);
}

/* One user, one group: those of the caller, under the numbers of the jail. */
static int map_user(struct jail *jail, uid_t uid, gid_t gid, struct err *err)
{
	CLEANUP_FD int fd = -1;
	int r = 0;

	prctl(PR_SET_DUMPABLE, 1, 0, 0, 0); /* else these files are root's */
	fd = open("/proc/self/setgroups", O_WRONLY | O_CLOEXEC);
	if (fd < 0 || write(fd, "deny", 4) < 0)
		return fail(err, -errno, "--userns: groups: " OS_ERR, OS_ERR_ARGS(errno));
	r = write_map("uid_map", jail->args->uid, uid);
	if (!r)
		r = write_map("gid_map", jail->args->gid, gid);
	if (r)
		return fail(err, r, "--userns: the user cannot be mapped: " OS_ERR,
			    OS_ERR_ARGS(-r));
	forbid_user_namespaces();
	prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
	jail->caller = jail->args->uid;
	return 0;
}

static int namespaces(struct jail *jail, const struct step *s, struct err *err)
{
	uid_t uid = geteuid();
	gid_t gid = getegid();
	int r = 0;

	if (jail->args->userns && uid == 0)
		return fail(err, -EINVAL, "--userns: is for callers without root");
	if (unshare((int)s->number) < 0)
		return fail(err, -errno, "%s: namespaces cannot be made: " OS_ERR,
			    jail->args->userns ? "--userns" : "no root", OS_ERR_ARGS(errno));
	if (jail->args->userns)
		r = map_user(jail, uid, gid, err);
	if (!r && mount(NULL, "/", NULL, MS_SLAVE | MS_REC, NULL) < 0)
		return fail(err, -errno, "mounts cannot be separated: " OS_ERR, OS_ERR_ARGS(errno));
	return r;
}

static int enter_netns(struct jail *jail, const struct step *s, struct err *err)
{
	if (setns(jail->netns, CLONE_NEWNET) < 0)
		return fail(err, -errno, "--netns: Failed to enter %.500s: " OS_ERR, s->path,
			    OS_ERR_ARGS(errno));
	return 0;
}

static const char *bind_path(const struct jail_bind *b, char *path, size_t size)
{
	static const char *const below[PLACES] = {
		[PLACE_ROOT] = "",
		[PLACE_DEV] = "dev/",
		[PLACE_NET] = "dev/net/",
	};

	snprintf(path, size, "%s%s", below[b->at], b->name);
	return path;
}

void enter_uncover(struct jail *jail)
{
	char path[300];

	for (; jail->covered; jail->covered--)
		umount2(bind_path(&jail->bind[jail->covered - 1], path, sizeof path),
			MNT_DETACH | UMOUNT_NOFOLLOW);
}

/* Kernels before 5.12 give a mount its attributes only where it is mounted. */
static int restrict_late(const char *path, unsigned long flags, struct err *err)
{
	if (mount(NULL, path, NULL, MS_REMOUNT | MS_BIND | MS_NOSUID | flags, NULL) < 0)
		return fail(err, -errno, "the mount /%s in the jail cannot be restricted: " OS_ERR,
			    path, OS_ERR_ARGS(errno));
	return 0;
}

/* The file that is covered must be the one that was made, whatever happened in between. */
static int cover(const struct jail *jail, int root, const struct jail_bind *b, struct err *err)
{
	char path[300];
	CLEANUP_FD int fd = -1;
	struct stat st;

	bind_path(b, path, sizeof path);
	fd = path_open(root, path, O_PATH, 0);
	if (fd < 0 || fstat(fd, &st) < 0)
		return fail(err, fd < 0 ? fd : -errno, "--id: %s/%s in the jail: " OS_ERR,
			    jail->base, path, OS_ERR_ARGS(fd < 0 ? -fd : errno));
	if (st.st_ino != b->ino || st.st_dev != b->dev)
		return fail(err, -EEXIST, "--id: /%s in the jail was exchanged while it was made",
			    path);
	if (syscall(SYS_move_mount, b->tree, "", fd, "",
		    MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH) < 0)
		return fail(err, -errno, "/%s cannot be mounted in the jail: " OS_ERR, path,
			    OS_ERR_ARGS(errno));
	if (b->bare)
		return restrict_late(path, b->at == PLACE_ROOT ? MS_RDONLY | MS_NODEV : MS_NOEXEC,
				     err);
	return 0;
}

/*
 * The root of the jail becomes a mount of its own, on top of the host's root, and then takes its
 * place. Neither an old_root directory nor a path is needed. Programs can be executed only from
 * mounts of ours (the monitor), set-user-id means nothing.
 */
static int enter_root(struct jail *jail, struct err *err)
{
	struct mount_attr attr = { .attr_set = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC };
	CLEANUP_FD int root =
		(int)syscall(SYS_open_tree, jail->place[PLACE_ROOT], "",
			     OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH | AT_RECURSIVE);
	bool bare = false;
	int r = 0;

	if (root >= 0 && syscall(SYS_mount_setattr, root, "", AT_EMPTY_PATH | AT_RECURSIVE, &attr,
				 sizeof attr) < 0) {
		bare = errno == ENOSYS;
		r = -!bare;
	}
	if (root < 0 || r < 0 ||
	    syscall(SYS_move_mount, root, "", AT_FDCWD, "/", MOVE_MOUNT_F_EMPTY_PATH) < 0)
		return fail(err, -errno, "the root of the jail cannot be mounted: " OS_ERR,
			    OS_ERR_ARGS(errno));
	if (fchdir(root) < 0 || syscall(SYS_pivot_root, ".", ".") < 0 ||
	    umount2(".", MNT_DETACH) < 0 || chdir("/") < 0)
		return fail(err, -errno, "the jail cannot be entered: " OS_ERR, OS_ERR_ARGS(errno));
	if (bare)
		r = restrict_late(".", MS_NOEXEC, err);
	for (; jail->covered < jail->binds && !r; jail->covered += !r)
		r = cover(jail, root, &jail->bind[jail->covered], err);
	return r;
}

int enter_step(struct jail *jail, const struct step *s, struct err *err)
{
	switch (s->kind) {
	case STEP_NAMESPACES:
		return namespaces(jail, s, err);
	case STEP_ENTER_NETNS:
		return enter_netns(jail, s, err);
	default:
		return enter_root(jail, err);
	}
}
