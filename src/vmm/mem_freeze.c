/*
 * mem_freeze: RAM that stops changing under a machine that goes on (mem.h, docs/architecture.md).
 *
 * The frozen bytes are a memfd, laid out like a memory file. A machine whose RAM is a shared memfd
 * already has it: the same file is mapped a second time, private, and nothing is copied. One that was
 * frozen before, for itself alone, has what it has written since put back into that file. Of any other
 * machine all that it has is copied into a new one, which takes as long as that takes.
 *
 * Invariant: from the moment mem_freeze() succeeds nobody writes to the file but through the old
 * mapping, which the caller no longer lets anybody write to, and a later freeze of the same machine.
 */
#include "mem.h"

#include <fcntl.h>
#include <linux/memfd.h>
#include <sys/mman.h>

/* Linux 5.1 */
#ifndef F_SEAL_FUTURE_WRITE
#define F_SEAL_FUTURE_WRITE 0x0010
#endif

static int copy_out(const struct mem *mem, struct err *err)
{
	CLEANUP_FD int fd = memfd_create("frozen-ram", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	int r;

	if (fd < 0 || ftruncate(fd, (off_t)mem->size) < 0)
		return fail(err, -errno, "no memory to freeze RAM into: " OS_ERR, OS_ERR_ARGS(errno));
	r = mem_copy(mem, fd);
	if (r < 0)
		return fail(err, r, "RAM cannot be copied to be frozen: " OS_ERR, OS_ERR_ARGS(-r));
	return steal_fd(&fd);
}

/*
 * The private pages into the base itself, which nobody else looks at. If that fails in the middle
 * nothing is lost: what was written is below the private pages it came from.
 */
static int fold(const struct mem *mem, struct err *err)
{
	int r = mem_copy_private(mem, mem->fd);

	if (r < 0)
		return fail(err, r, "RAM cannot be written to be frozen: " OS_ERR, OS_ERR_ARGS(-r));
	return 0;
}

static int frozen_file(const struct mem *mem, struct err *err)
{
	int fd;

	if (!mem_is_shared(mem) && !mem->alone)
		return copy_out(mem, err);
	if (mem->based && fold(mem, err) < 0)
		return -EIO;
	fd = fcntl(mem->fd, F_DUPFD_CLOEXEC, 0);
	return fd < 0 ? fail(err, -errno, "freezing RAM: " OS_ERR, OS_ERR_ARGS(errno)) : fd;
}

int mem_freeze(const struct mem *mem, struct mem *next, bool alone, struct err *err)
{
	CLEANUP_FD int fd = frozen_file(mem, err);
	int r;

	if (fd < 0)
		return fd;
	/* What is mapped stays writable until it is unmapped; nothing new can be. */
	if (!alone && fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_FUTURE_WRITE) < 0)
		return fail(err, -errno, "sealing RAM: " OS_ERR, OS_ERR_ARGS(errno));
	r = mem_open(next, mem->size, fd, err);
	if (!r)
		next->alone = alone;
	return r;
}
