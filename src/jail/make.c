/*
 * make: everything the jail leaves on disk. All of it is made while the directories still belong to
 * root, below held descriptors and exclusively; the directories are given away last, root at the
 * very end. A directory may be there already (drivers put kernels and disks into it beforehand);
 * nothing else may.
 *
 * A directory that was there can belong to the jail's user, who then races with us. He gains
 * nothing: no link is followed, and what is given to him is a file just made, of the right kind,
 * with one name.
 */
#include "jail.h"

#include <fcntl.h>
#include <sys/mount.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>

static int in_the_way(const struct jail *jail, const struct step *s, int r, const char *what,
		      struct err *err)
{
	char path[5000];

	path_of(jail, s->at, s->name, path, sizeof path);
	if (what)
		return fail(err, r, "--id: the jail cannot be made: %s %s", path, what);
	return fail(err, r, "--id: the jail cannot be made: %s: " OS_ERR, path, OS_ERR_ARGS(-r));
}

/* A directory that is there must be one whose owner can be trusted with a jail. */
static int hold_dir(struct jail *jail, const struct step *s, struct err *err)
{
	int fd = path_open(jail->place[s->at], s->name, O_RDONLY | O_DIRECTORY, 0);
	struct stat st;

	if (fd < 0)
		return fd == -ENOENT ? fd : in_the_way(jail, s, fd, NULL, err);
	jail->place[s->place] = fd;
	if (fstat(fd, &st) < 0)
		return in_the_way(jail, s, -errno, NULL, err);
	if (st.st_uid != 0 && st.st_uid != jail->args->uid && st.st_uid != jail->caller)
		return in_the_way(jail, s, -EPERM, "belongs to another user", err);
	if (s->place < PLACE_ROOT && st.st_uid == jail->args->uid && st.st_uid != 0 &&
	    !jail->args->userns)
		return in_the_way(jail, s, -EPERM, "belongs to the user of the jail", err);
	if (s->place < PLACE_ROOT && (st.st_mode & (S_IWGRP | S_IWOTH)))
		return in_the_way(jail, s, -EPERM, "may be written by others", err);
	if (!jail->args->userns && st.st_dev != jail->dev && s->place < PLACE_ROOT)
		return in_the_way(jail, s, -EXDEV, "is on another file system", err);
	return 0;
}

/* The same walk as the making, with nothing made. */
static int check_free(struct jail *jail, struct err *err)
{
	const struct plan *p = jail->plan;
	int r = 0;

	for (unsigned i = 0; i < p->steps && !r; i++) {
		struct step s = p->step[i];

		if (s.kind == STEP_SPAWN)
			s.at = PLACE_ROOT;
		else if (s.kind != STEP_MAKE_DIR && s.kind != STEP_MAKE_EXEC &&
			 s.kind != STEP_MAKE_NODE)
			continue;
		if (jail->place[s.at] < 0)
			continue;
		if (s.kind == STEP_MAKE_DIR) {
			r = hold_dir(jail, &s, err);
			r = r == -ENOENT ? 0 : r;
		} else {
			struct stat st;

			if (fstatat(jail->place[s.at], s.name, &st, AT_SYMLINK_NOFOLLOW) == 0)
				r = in_the_way(jail, &s, -EEXIST, NULL, err);
			else if (errno != ENOENT)
				r = in_the_way(jail, &s, -errno, NULL, err);
		}
	}
	return r;
}

/*
 * The directory of the monitor's name is shared by all its jails: another jailer may make it now,
 * and it is not removed after a failure, since another jailer may be using it.
 */
static int make_dir(struct jail *jail, const struct step *s, struct err *err)
{
	bool shared = s->place == PLACE_EXEC;
	mode_t mode =
		s->place < PLACE_ROOT ? 0755 : 0700; /* who may pass to the jail, who enters it */
	int r;

	if (jail->place[s->place] >= 0)
		return 0;
	if (mkdirat(jail->place[s->at], s->name, mode) < 0) {
		if (errno != EEXIST || !shared)
			return in_the_way(jail, s, -errno, NULL, err);
	} else if (!shared) {
		jail_made(jail, jail->place[s->at], s->name, AT_REMOVEDIR);
	}
	r = hold_dir(jail, s, err);
	return r == -ENOENT ? in_the_way(jail, s, r, NULL, err) : r;
}

/* An empty file, which the monitor will cover. Mode and owner as if it were a copy of it. */
static int make_file(struct jail *jail, const struct step *s, mode_t mode, struct stat *st,
		     struct err *err)
{
	CLEANUP_FD int fd =
		path_open(jail->place[s->at], s->name, O_WRONLY | O_CREAT | O_EXCL, mode);
	if (fd < 0)
		return in_the_way(jail, s, fd, NULL, err);
	jail_made(jail, jail->place[s->at], s->name, 0);
	if (fchmod(fd, mode) < 0 || fchown(fd, jail->args->uid, jail->args->gid) < 0 ||
	    fstat(fd, st) < 0)
		return in_the_way(jail, s, -errno, NULL, err);
	return 0;
}

static int add_bind(struct jail *jail, const struct step *s, int tree, u64 attributes,
		    const struct stat *st, struct err *err)
{
	struct mount_attr attr = { .attr_set = attributes, .propagation = MS_PRIVATE };

	bool bare = false;

	assert(jail->binds < JAIL_BINDS_MAX);
	if (syscall(SYS_mount_setattr, tree, "", AT_EMPTY_PATH, &attr, sizeof attr) < 0) {
		if (errno != ENOSYS)
			return in_the_way(jail, s, -errno, NULL, err);
		bare = true;
	}
	jail->bind[jail->binds++] = (struct jail_bind){ .tree = tree,
							.at = s->at,
							.name = s->name,
							.bare = bare,
							.dev = st->st_dev,
							.ino = st->st_ino };
	return 0;
}

static int make_exec(struct jail *jail, const struct step *s, struct err *err)
{
	struct stat st;
	int tree, r = make_file(jail, s, 0755, &st, err);

	if (r)
		return r;
	tree = (int)syscall(SYS_open_tree, jail->exec, "",
			    OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH);
	if (tree < 0)
		return fail(err, -errno, "--exec-file: cannot be mounted: " OS_ERR,
			    OS_ERR_ARGS(errno));
	return add_bind(jail, s, tree, MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV,
			&st, err);
}

/*
 * mknod does not say what it made: the node is looked at before it is given away, so that a file
 * that somebody put in its place stays whose it was.
 */
static int make_node(struct jail *jail, const struct step *s, struct err *err)
{
	const struct args *a = jail->args;
	dev_t dev = makedev(s->major, s->minor);
	CLEANUP_FD int fd = -1;
	struct stat st;

	if (mknodat(jail->place[s->at], s->name, S_IFCHR | 0600, dev) < 0)
		return in_the_way(jail, s, -errno, NULL, err);
	fd = path_open(jail->place[s->at], s->name, O_PATH, 0);
	if (fd < 0 || fstat(fd, &st) < 0)
		return in_the_way(jail, s, fd < 0 ? fd : -errno, NULL, err);
	if (!S_ISCHR(st.st_mode) || st.st_rdev != dev || st.st_uid != jail->caller ||
	    st.st_nlink != 1)
		return in_the_way(jail, s, -EEXIST, "was exchanged while it was made", err);
	jail_made(jail, jail->place[s->at], s->name, 0);
	if (fchownat(fd, "", a->uid, a->gid, AT_EMPTY_PATH) < 0)
		return in_the_way(jail, s, -errno, NULL, err);
	return 0;
}

/* In a user namespace nobody makes nodes: the host's own is mounted, with the host's own
 * permissions. */
static int bind_node(struct jail *jail, const struct step *s, struct err *err)
{
	char path[64];
	struct stat st;
	int tree, r;

	snprintf(path, sizeof path, "/dev/%s%s", s->at == PLACE_NET ? "net/" : "", s->name);
	tree = (int)syscall(SYS_open_tree, AT_FDCWD, path,
			    OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_SYMLINK_NOFOLLOW);
	if (tree < 0)
		return in_the_way(jail, s, -errno, NULL, err);
	if (fstat(tree, &st) < 0 || !S_ISCHR(st.st_mode) ||
	    st.st_rdev != makedev(s->major, s->minor)) {
		close(tree);
		return in_the_way(jail, s, -ENXIO, "would be something else than on other hosts",
				  err);
	}
	r = make_file(jail, s, 0600, &st, err);
	return r ? r : add_bind(jail, s, tree, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC, &st, err);
}

static int node(struct jail *jail, const struct step *s, struct err *err)
{
	int r = jail->args->userns ? bind_node(jail, s, err) : make_node(jail, s, err);

	if (r && s->optional) {
		fprintf(stderr, "Warning: %s\n", err->msg);
		return 0;
	}
	return r;
}

static int give_dir(struct jail *jail, const struct step *s, struct err *err)
{
	const struct args *a = jail->args;
	int fd = jail->place[s->place];

	if (fchmod(fd, 0700) < 0 || fchown(fd, a->uid, a->gid) < 0)
		return fail(err, -errno,
			    "--uid: a directory of the jail cannot be given to %u:%u: " OS_ERR,
			    a->uid, a->gid, OS_ERR_ARGS(errno));
	return 0;
}

int make_step(struct jail *jail, const struct step *s, struct err *err)
{
	switch (s->kind) {
	case STEP_CHECK_FREE:
		return check_free(jail, err);
	case STEP_MAKE_DIR:
		return make_dir(jail, s, err);
	case STEP_MAKE_EXEC:
		return make_exec(jail, s, err);
	case STEP_MAKE_NODE:
		return node(jail, s, err);
	default:
		return give_dir(jail, s, err);
	}
}
