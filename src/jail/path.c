/* path: files are reached from directories that are held open, and never through a link. See
 * jail.h. */
#include "jail.h"

#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <sys/syscall.h>

int path_open(int at, const char *path, u64 flags, mode_t mode)
{
	struct open_how how = {
		.flags = flags | O_CLOEXEC | O_NOFOLLOW,
		.mode = mode,
		.resolve = RESOLVE_NO_SYMLINKS | RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS,
	};
	long fd;

	do
		fd = syscall(SYS_openat2, at, path, &how, sizeof how);
	while (fd < 0 && errno == EAGAIN); /* a rename elsewhere; the kernel could not be sure */
	return fd < 0 ? -errno : (int)fd;
}

int path_open_canonical(const char *path, u64 flags)
{
	struct open_how how = {
		.flags = flags | O_CLOEXEC | O_NOFOLLOW,
		.resolve = RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS,
	};
	long fd = syscall(SYS_openat2, AT_FDCWD, path, &how, sizeof how);

	return fd < 0 ? -errno : (int)fd;
}

const char *path_of(const struct jail *jail, enum place at, const char *name, char *text,
		    size_t size)
{
	const struct args *a = jail->args;
	static const char *const below[PLACES] = {
		[PLACE_DEV] = "/dev",
		[PLACE_NET] = "/dev/net",
		[PLACE_RUN] = "/run",
	};

	if (at == PLACE_BASE)
		snprintf(text, size, "%s/%s", jail->base, name);
	else if (at == PLACE_EXEC)
		snprintf(text, size, "%s/%s/%s", jail->base, a->exec_name, name);
	else if (at == PLACE_ID)
		snprintf(text, size, "%s/%s/%s/%s", jail->base, a->exec_name, a->id, name);
	else
		snprintf(text, size, "%s/%s/%s/root%s/%s", jail->base, a->exec_name, a->id,
			 below[at] ? below[at] : "", name);
	return text;
}

ssize_t path_read(int at, const char *name, char *text, size_t size)
{
	CLEANUP_FD int fd = path_open(at, name, O_RDONLY, 0);
	ssize_t n;

	if (fd < 0)
		return fd;
	n = read(fd, text, size - 1);
	if (n < 0)
		return -errno;
	while (n > 0 && text[n - 1] == '\n')
		n--;
	text[n] = 0;
	return n;
}

/* In one piece, as cgroup files want it. */
int path_write(int at, const char *name, const char *text)
{
	CLEANUP_FD int fd = path_open(at, name, O_WRONLY, 0);

	if (fd < 0)
		return fd;
	return write(fd, text, strlen(text)) < 0 ? -errno : 0;
}
