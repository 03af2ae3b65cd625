/* draft: see draft.h. */
#include "draft.h"

#include "io.h"
#include "snapshot.h"

#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#define COPY_AT_ONCE KIB(256)

int draft_create(struct draft *d, const char *path, struct err *err)
{
	struct stat st;

	*d = (struct draft){ .path = path, .fd = -1 };
	if (stat(path, &st) == 0 && !S_ISREG(st.st_mode))
		return fail(err, -EINVAL, "%.512s: not a regular file", path);
	snprintf(d->temporary, sizeof d->temporary, "%s.XXXXXX", path);
	d->fd = mkostemp(d->temporary, O_CLOEXEC);
	if (d->fd < 0) {
		d->temporary[0] = '\0';
		return fail(err, -errno, "%.512s: cannot be created: " OS_ERR, path,
			    OS_ERR_ARGS(errno));
	}
	return 0;
}

/* Whatever became of it: no temporary name stays. */
void draft_destroy(struct draft *d)
{
	if (d->temporary[0])
		unlink(d->temporary);
	if (d->fd >= 0)
		close(d->fd);
}

int draft_sync(const struct draft *d, struct err *err)
{
	if (fsync(d->fd) < 0)
		return fail(err, -errno, "%.512s: cannot be synced: " OS_ERR, d->path,
			    OS_ERR_ARGS(errno));
	return 0;
}

static int sync_directory(const char *path)
{
	char copy[SNAPSHOT_PATH_MAX];
	CLEANUP_FD int fd = -1;

	snprintf(copy, sizeof copy, "%s", path);
	fd = open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return fd < 0 || fsync(fd) < 0 ? -errno : 0;
}

int draft_publish(struct draft *d, struct err *err)
{
	if (rename(d->temporary, d->path) < 0 || sync_directory(d->path) < 0)
		return fail(err, -errno, "%.512s: cannot take its place: " OS_ERR, d->path,
			    OS_ERR_ARGS(errno));
	d->temporary[0] = '\0';
	return 0;
}

/* The old memory keeps a name until the new state has its own. */
int draft_publish_pair(struct draft *mem, struct draft *state, struct err *err)
{
	char previous[SNAPSHOT_PATH_MAX + sizeof SNAPSHOT_PREVIOUS];
	int r;

	snprintf(previous, sizeof previous, "%s" SNAPSHOT_PREVIOUS, mem->path);
	unlink(previous);
	if (link(mem->path, previous) < 0 && errno != ENOENT)
		return fail(err, -errno, "%.512s: the previous one cannot be kept: " OS_ERR,
			    mem->path, OS_ERR_ARGS(errno));
	r = draft_publish(mem, err);
	if (!r)
		r = draft_publish(state, err);
	/* The state still is the old one: so is the memory again. */
	if (r < 0)
		(void)!rename(previous, mem->path);
	else
		unlink(previous);
	return r;
}

/* ---- contents ----------------------------------------------------------------------------------- */

int draft_write(int fd, const u8 *from, u64 len, u64 offset)
{
	while (len) {
		ssize_t n = io_pwrite(fd, from, len, offset);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		from += n;
		offset += (u64)n;
		len -= (u64)n;
	}
	return 0;
}

static int copy_range(int from, int to, off_t at, off_t end, u8 *buffer)
{
	while (at < end) {
		ssize_t n = io_pread(from, buffer, MIN((size_t)(end - at), COPY_AT_ONCE), (u64)at);
		int r;

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -EIO; /* it became shorter under our hands */
		r = draft_write(to, buffer, (u64)n, (u64)at);
		if (r < 0)
			return r;
		at += n;
	}
	return 0;
}

static int copy_data(int from, int to, u64 size, u8 *buffer)
{
	off_t at = 0;
	int r = 0;

	while (!r && (u64)at < size) {
		off_t data = lseek(from, at, SEEK_DATA), hole;

		if (data < 0)
			return errno == ENXIO ? 0 : -errno;
		hole = lseek(from, data, SEEK_HOLE);
		if (hole < 0)
			return -errno;
		r = copy_range(from, to, data, hole, buffer);
		at = hole;
	}
	return r;
}

int draft_copy(int from, int to, u64 size)
{
	u8 *buffer = malloc(COPY_AT_ONCE);
	int r = buffer ? copy_data(from, to, size, buffer) : -ENOMEM;

	free(buffer);
	return r;
}
