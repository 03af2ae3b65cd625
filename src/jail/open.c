/*
 * open: the last moment at which the host's paths are trusted to mean what the operator meant. They
 * are made canonical, opened without following a link, looked at, and held from then on.
 */
#include "jail.h"

#include <elf.h>
#include <fcntl.h>
#include <linux/nsfs.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/statvfs.h>

/* A static program for this processor: nothing else could run in an empty root. */
static const char *not_a_monitor(int fd)
{
	Elf64_Ehdr e;
	Elf64_Phdr p;

	if (pread(fd, &e, sizeof e, 0) != sizeof e || memcmp(e.e_ident, ELFMAG, SELFMAG) != 0)
		return "not an ELF program";
	if (e.e_ident[EI_CLASS] != ELFCLASS64 || e.e_ident[EI_DATA] != ELFDATA2LSB ||
	    e.e_machine != EM_X86_64 || e.e_phentsize != sizeof p)
		return "a program for another machine";
	if (e.e_type != ET_EXEC && e.e_type != ET_DYN)
		return "an ELF file, but not a program";
	if (e.e_phnum > 64)
		return "an ELF program with too many headers";
	for (unsigned i = 0; i < e.e_phnum; i++) {
		if (pread(fd, &p, sizeof p, (off_t)(e.e_phoff + i * sizeof p)) != sizeof p)
			return "a damaged ELF program";
		if (p.p_type == PT_INTERP)
			return "a dynamic program, which would lack its libraries in the jail";
	}
	return NULL;
}

static int check_exec(const char *path, int fd, struct err *err)
{
	struct statvfs fs;
	struct stat st;
	const char *why;

	if (fstat(fd, &st) < 0 || fstatvfs(fd, &fs) < 0)
		return fail(err, -errno, "--exec-file: %s: " OS_ERR, path, OS_ERR_ARGS(errno));
	if (st.st_mode & (S_ISUID | S_ISGID))
		return fail(err, -EINVAL, "--exec-file: %s is a set-user-id program", path);
	if (st.st_mode & S_IWOTH)
		return fail(err, -EINVAL, "--exec-file: %s may be written by anybody", path);
	if (!(st.st_mode & S_IXOTH) && !(st.st_mode & S_IXUSR))
		return fail(err, -EACCES, "--exec-file: %s is not executable", path);
	if (fs.f_flag & ST_NOEXEC)
		return fail(err, -EACCES, "--exec-file: %s is on a file system mounted noexec",
			    path);
	why = not_a_monitor(fd);
	return why ? fail(err, -EINVAL, "--exec-file: %s is %s", path, why) : 0;
}

static int open_exec(struct jail *jail, const struct step *s, struct err *err)
{
	char path[4096];
	struct stat st;

	if (!realpath(s->path, path))
		return fail(err, -errno, "--exec-file: Failed to canonicalize path %.500s: " OS_ERR,
			    s->path, OS_ERR_ARGS(errno));
	if (lstat(path, &st) == 0 && !S_ISREG(st.st_mode))
		return fail(err, -EINVAL, "--exec-file: %s is not a file", path);
	jail->exec = path_open_canonical(path, O_RDONLY | O_NONBLOCK);
	if (jail->exec < 0)
		return fail(err, jail->exec, "--exec-file: %s: " OS_ERR, path,
			    OS_ERR_ARGS(-jail->exec));
	if (fstat(jail->exec, &st) < 0 || !S_ISREG(st.st_mode))
		return fail(err, -EINVAL, "--exec-file: %s is not a file", path);
	return check_exec(path, jail->exec, err);
}

/* Where others could exchange what lies below, no jail is safe; a sticky directory is. */
static const char *unsafe_base(const struct jail *jail, int fd)
{
	const struct args *a = jail->args;
	struct statvfs fs;
	struct stat st;

	if (fstat(fd, &st) < 0 || fstatvfs(fd, &fs) < 0)
		return err_text(errno);
	if ((st.st_mode & (S_IWGRP | S_IWOTH)) && !(st.st_mode & S_ISVTX))
		return "it may be written by others than its owner";
	if (!a->userns && a->uid != 0 && st.st_uid == a->uid)
		return "it belongs to the user of the jail";
	if (fs.f_flag & ST_RDONLY)
		return "it is on a file system mounted read-only";
	if (!a->userns && (fs.f_flag & ST_NODEV))
		return "it is on a file system mounted nodev, where /dev/kvm would not work";
	return NULL;
}

static int open_base(struct jail *jail, const struct step *s, struct err *err)
{
	const char *why;
	struct stat st;
	int fd;

	if (!realpath(s->path, jail->base))
		return fail(err, -errno,
			    "--chroot-base-dir: Failed to canonicalize path %.500s: " OS_ERR,
			    s->path, OS_ERR_ARGS(errno));
	fd = path_open_canonical(jail->base, O_RDONLY | O_DIRECTORY);
	if (fd < 0)
		return fail(err, fd, "--chroot-base-dir: %s: " OS_ERR, jail->base,
			    OS_ERR_ARGS(-fd));
	jail->place[PLACE_BASE] = fd;
	why = unsafe_base(jail, fd);
	if (why)
		return fail(err, -EINVAL, "--chroot-base-dir: %s: %s", jail->base, why);
	if (fstat(fd, &st) < 0)
		return fail(err, -errno, "--chroot-base-dir: %s: " OS_ERR, jail->base,
			    OS_ERR_ARGS(errno));
	jail->dev = st.st_dev;
	return 0;
}

/* Links are followed here: /run/netns is full of them. What is opened must be a network namespace.
 */
static int open_netns(struct jail *jail, const struct step *s, struct err *err)
{
	jail->netns = open(s->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	if (jail->netns < 0)
		return fail(err, -errno, "--netns: Failed to open %.500s: " OS_ERR, s->path,
			    OS_ERR_ARGS(errno));
	if (ioctl(jail->netns, NS_GET_NSTYPE) != CLONE_NEWNET)
		return fail(err, -EINVAL, "--netns: %.500s is not a network namespace", s->path);
	return 0;
}

int open_step(struct jail *jail, const struct step *s, struct err *err)
{
	switch (s->kind) {
	case STEP_OPEN_EXEC:
		return open_exec(jail, s, err);
	case STEP_OPEN_BASE:
		return open_base(jail, s, err);
	default:
		return open_netns(jail, s, err);
	}
}
