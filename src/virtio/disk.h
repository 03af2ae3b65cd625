/*
 * disk: a raw image or block device, behind one asynchronous interface.
 *
 * Requests go through io_uring where the kernel offers it, else they are carried out in the call
 * (short transfers continued, EINTR retried). Only raw: contents are never probed for a format.
 * The loop thread only. The disk borrows the fd it is given; whoever opened it closes it, after
 * disk_destroy() or a disk_swap() away from it.
 */
#ifndef DISK_H
#define DISK_H

#include "../vmm/base.h"
#include "../vmm/err.h"
#include "../vmm/loop.h"

#include <sys/uio.h>

#define DISK_SECTOR 512
#define DISK_DEPTH  256 /* requests in flight at most: one per descriptor of the ring */

enum disk_op { DISK_READ, DISK_WRITE, DISK_FLUSH, DISK_DISCARD, DISK_WRITE_ZEROES, DISK_OPS };

/* Embedded in the device's request; must stay put, with its iovecs, until `done` was called. */
struct disk_io {
	enum disk_op op;
	u64 offset;	       /* bytes */
	u64 length;	       /* bytes; for reads and writes the sum of the iovecs */
	struct iovec *iov;     /* advanced in place by short transfers */
	int n_iov;
	int result;	       /* 0, or a negative errno; a read past the end of file is -EIO */
	void (*done)(struct disk_io *io);
	u64 moved;	       /* bytes transferred so far */
};

struct disk;

/* Opens a drive's backing file as the contract wants it: regular files and block devices only
 * (no FIFO, directory, character device or symlink to one), O_CLOEXEC, never blocking. Returns the
 * fd. Error text is one line that names the path. */
int disk_open(const char *path, bool read_only, struct err *err) MUST_CHECK;

/* Size in bytes of what `fd` refers to, rounded down to whole sectors. */
int disk_size(int fd, u64 *bytes, struct err *err) MUST_CHECK;

/* `want_uring` false: always synchronous. The ring is made here, once. */
int disk_create(struct disk **disk, struct loop *loop, int fd, bool want_uring,
		struct err *err) MUST_CHECK;
void disk_destroy(struct disk *disk);

/* Queues one request; `done` may be called before this returns. Never fails: errors are results. */
void disk_submit(struct disk *disk, struct disk_io *io);

/* Hands what was queued to the kernel: once per batch. */
void disk_kick(struct disk *disk);

/* Returns when nothing is in flight; `done` was called for each. */
void disk_drain(struct disk *disk);

/* Drains, then uses another fd. */
void disk_swap(struct disk *disk, int fd);

/* "io_uring" or "sync", for logs and tests. */
const char *disk_engine(const struct disk *disk);

#endif
