/*
 * disk: a raw image or block device, behind one asynchronous interface.
 *
 * Requests go through io_uring where the kernel offers it, else they are carried out in the call
 * (short transfers continued, EINTR retried). Only raw: contents are never probed for a format.
 * The disk borrows the fd it is given; whoever opened it closes it, after
 * disk_destroy() or a disk_swap() away from it.
 *
 * The loop thread only, except disk_cancel().
 *
 * After disk_create() nothing is allocated and the only system calls are io_uring_enter, preadv2,
 * pwritev2, fsync and fallocate. SIGXFSZ must be ignored by the process (main does).
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
	bool unmap;	   /* DISK_WRITE_ZEROES: may leave a hole */
	bool durable;	   /* DISK_WRITE: on stable storage before `done` */
	u64 offset;	   /* bytes */
	u64 length;	   /* bytes; for reads and writes the sum of the iovecs */
	struct iovec *iov; /* advanced in place by short transfers */
	int n_iov;
	int result; /* 0, or a negative errno; a read past the end of file is -EIO, rest zeroed */
	void (*done)(struct disk_io *io); /* may submit again */

	/* The disk's own; set by disk_submit(). */
	u64 moved; /* bytes transferred so far */
	u8 way;	   /* which of the ways to zero or discard is being tried */
	u16 retries;
};

struct disk;

/*
 * Opens a drive's backing file as the contract wants it: regular files and block devices only
 * (no FIFO, directory, character device or symlink to one), O_CLOEXEC, never blocking. Returns the
 * fd. Error text is one line that names the path: "No such file or directory (os error 2) <path>".
 */
int disk_open(const char *path, bool read_only, struct err *err) MUST_CHECK;

/* Size in bytes of what `fd` refers to, rounded down to whole sectors (a warning tells of it). */
int disk_size(int fd, u64 *bytes, struct err *err) MUST_CHECK;

/*
 * `want_uring` false: always synchronous. The ring is made here, once. `settled` is called, from
 * the loop only, after each batch of `done` calls: the moment to signal the guest. Completions that
 * come during disk_submit, disk_kick and disk_drain are their caller's to signal.
 */
int disk_create(struct disk **disk, struct loop *loop, int fd, bool want_uring,
		void (*settled)(void *owner), void *owner, struct err *err) MUST_CHECK;

/* Drains; accepts NULL. */
void disk_destroy(struct disk *disk);

/* Queues one request; `done` may be called before this returns. Never fails: errors are results. */
void disk_submit(struct disk *disk, struct disk_io *io);

/* Hands what was queued to the kernel: once per batch. */
void disk_kick(struct disk *disk);

/* Returns when nothing is in flight; `done` was called for each. */
void disk_drain(struct disk *disk);

/*
 * Returns when nothing is in flight, as soon as the kernel has let go of each request: the rest of
 * one that is only half done is not asked for again (-ECANCELED). For a reset, so on any thread
 * with the machine lock, after a disk_kick(): makes no system call but io_uring_enter. `done` must
 * not submit.
 */
void disk_cancel(struct disk *disk);

/* Drains, then uses another fd. A failed flush is forgotten: it was the other file's. */
void disk_swap(struct disk *disk, int fd);

/* Whether the file given to disk_create() can discard at all (a hint: a discard never fails for
 * it). */
bool disk_can_discard(const struct disk *disk);

/* "io_uring" or "sync", for logs and tests. */
const char *disk_engine(const struct disk *disk);

#endif
