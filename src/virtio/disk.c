/*
 * disk: see disk.h. Knows files and io_uring; must not know virtqueues, chains or guests.
 *
 * One state machine (disk_ask.c), two engines. The synchronous engine is a loop: ask the kernel,
 * look at the answer, until the request is finished. The ring engine puts each ask into a
 * submission entry and looks at the answer when its completion comes.
 *
 * What was measured (Linux 6.18, ext4 on a nested host, 4 KiB, median):
 *  - A cached read costs 1.1 us by preadv2(RWF_NOWAIT), 2.1 us by io_uring with the completion
 * picked up right after submission. So reads are first tried without waiting, up to the first miss
 * of a batch; from there on the ring, submitted once per batch. A miss costs 0.5 us of a cold
 * read's 65 us.
 *  - Registering the file would save 0.05 us a request: not worth a system call at boot and another
 *    one for each swap. The ring's own fd in epoll saves 0.4 us against an eventfd, which has to be
 *    read to be cleared, and saves that eventfd.
 *  - A buffered write to ext4 always goes to a kernel worker: 9 us against 2.7 us for pwritev. So
 * be it: pwritev may block for a journal commit or dirty page throttling, under the machine lock.
 *  - What is in the page cache is copied by the submission itself: 0.13 ms for 1 MiB, 14 ms for 64.
 *    A guest may ask for gigabytes at once, so large transfers are sent to a worker (+ 0.1 ms).
 *  - 64 submission and 256 completion entries take 12 KiB of shared rings, 256 and 512 take 28.
 *
 * Threads: the loop thread made and drives the ring. A vCPU thread comes here only to reset the
 * device (disk_cancel), and then only to wait in the ring, never to put anything into it.
 *
 * Invariants: in_flight counts the requests whose entry is filled and whose completion was not
 * seen; it never exceeds DISK_DEPTH, so the completion ring cannot overflow. Whenever the machine
 * lock is free, every filled entry has been submitted.
 */
#include "disk_ask.h"

#include "../vmm/log.h"

#include <fcntl.h>
#include <liburing.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

#define INLINE_MAX MIB(1) /* bytes moved in the call: 0.1 ms, if they are in the page cache */
#define SQ_ENTRIES 64	  /* a batch larger than this is submitted in pieces */
#define WORKERS	   16	  /* kernel threads at most for one machine's blocking requests */

struct disk {
	int fd;
	bool uring;
	bool nowait; /* the file system serves RWF_NOWAIT */
	bool missed; /* a read of this batch was not in the page cache */
	bool can_discard;
	bool cancelling; /* what would have to be asked again is given up instead */
	int flush_error; /* sticky, see above */
	unsigned in_flight;
	void (*settled)(void *owner);
	void *owner;
	struct loop *loop;
	struct loop_source source; /* the ring's fd: readable while completions wait */
	struct io_uring ring;
};

/* ---- files ------------------------------------------------------------------------------ */

static bool is_disk(const struct stat *st)
{
	return S_ISREG(st->st_mode) || S_ISBLK(st->st_mode);
}

int disk_open(const char *path, bool read_only, struct err *err)
{
	/* O_NONBLOCK: a FIFO without a peer must not hold us up before fstat() can refuse it. */
	int flags = (read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC | O_NONBLOCK | O_NOCTTY;
	CLEANUP_FD int fd = open(path, flags);
	struct stat st;

	if (fd < 0)
		return fail(err, -errno, OS_ERR " %s", OS_ERR_ARGS(errno), path);
	if (fstat(fd, &st) < 0)
		return fail(err, -errno, OS_ERR " %s", OS_ERR_ARGS(errno), path);
	if (!is_disk(&st))
		return fail(err, -EINVAL, OS_ERR " %s is neither a regular file nor a block device",
			    OS_ERR_ARGS(EINVAL), path);
	/* Off again: io_uring before 5.19 answers EAGAIN for such a file when it would have to
	 * wait. */
	if (fcntl(fd, F_SETFL, 0) < 0)
		return fail(err, -errno, OS_ERR " %s", OS_ERR_ARGS(errno), path);
	return steal_fd(&fd);
}

int disk_size(int fd, u64 *bytes, struct err *err)
{
	/* lseek knows block devices too and is in the filter; all transfers are positioned ones. */
	off_t end = lseek(fd, 0, SEEK_END);

	if (end < 0)
		return fail(err, -errno, "the size of the disk is not to be had: " OS_ERR,
			    OS_ERR_ARGS(errno));
	*bytes = ALIGN_DOWN((u64)end, DISK_SECTOR);
	if (*bytes != (u64)end)
		log_warn("Disk size %llu is not a multiple of sector size %d; the remainder will "
			 "not be visible to the guest.",
			 (unsigned long long)end, DISK_SECTOR);
	return 0;
}

/*
 * A regular file is taken to have holes: where its file system has none, discards do nothing, which
 * is allowed. A block device is asked with a range that no kernel accepts: EOPNOTSUPP comes first.
 */
static bool probe_discard(int fd)
{
	const u64 odd[2] = { 1, DISK_SECTOR };
	struct stat st;

	if (fstat(fd, &st) < 0)
		return false;
	return S_ISREG(st.st_mode) || ioctl(fd, BLKDISCARD, odd) == 0 || errno == EINVAL;
}

/* ---- the synchronous engine ------------------------------------------------------------- */

static ssize_t perform(int fd, const struct disk_ask *ask)
{
	const struct iovec one = { ask->base, ask->len };
	const struct iovec *iov = ask->iov ? ask->iov : &one;

	switch (ask->kind) {
	case ASK_READ:
		return preadv2(fd, iov, ask->n_iov, (off_t)ask->pos, ask->flags);
	case ASK_WRITE:
		return pwritev2(fd, iov, ask->n_iov, (off_t)ask->pos, ask->flags);
	case ASK_SYNC:
		return fsync(fd);
	case ASK_FALLOCATE:
		return fallocate(fd, ask->flags, (off_t)ask->pos, (off_t)ask->span);
	case ASK_NOTHING:
		break;
	}
	return 0;
}

static int perform_next(struct disk *disk, const struct disk_io *io, int flags)
{
	struct disk_ask ask = disk_ask_next(io);
	ssize_t n;

	ask.flags |= flags;
	n = perform(disk->fd, &ask);
	return n < 0 ? -errno : (int)n;
}

static void run_sync(struct disk *disk, struct disk_io *io)
{
	while (!disk_ask_answer(io, perform_next(disk, io, 0), &disk->flush_error))
		;
	io->done(io);
}

/* ---- the ring engine -------------------------------------------------------------------- */

static void ring_submit(struct disk *disk)
{
	int r;

	/* The kernel may take fewer than there are; and be short of memory for a moment. */
	while (io_uring_sq_ready(&disk->ring)) {
		r = io_uring_submit(&disk->ring);
		assert(r >= 0 || r == -EINTR || r == -EAGAIN || r == -EBUSY || r == -ENOMEM);
		(void)r;
	}
}

static void fill_transfer(struct io_uring_sqe *sqe, int fd, const struct disk_ask *ask)
{
	bool read = ask->kind == ASK_READ;

	if (ask->n_iov == 1)
		io_uring_prep_rw(read ? IORING_OP_READ : IORING_OP_WRITE, sqe, fd, ask->base,
				 ask->len, ask->pos);
	else
		io_uring_prep_rw(read ? IORING_OP_READV : IORING_OP_WRITEV, sqe, fd, ask->iov,
				 (unsigned)ask->n_iov, ask->pos);
	sqe->rw_flags = ask->flags;
}

static void ring_queue(struct disk *disk, struct disk_io *io)
{
	struct disk_ask ask = disk_ask_next(io);
	struct io_uring_sqe *sqe = io_uring_get_sqe(&disk->ring);

	if (!sqe) {
		ring_submit(disk);
		sqe = io_uring_get_sqe(&disk->ring);
	}
	assert(sqe && disk->in_flight < DISK_DEPTH);
	switch (ask.kind) {
	case ASK_READ:
	case ASK_WRITE:
		fill_transfer(sqe, disk->fd, &ask);
		break;
	case ASK_SYNC:
		io_uring_prep_fsync(sqe, disk->fd, IORING_FSYNC_DATASYNC);
		break;
	case ASK_FALLOCATE:
		io_uring_prep_fallocate(sqe, disk->fd, ask.flags, (off_t)ask.pos, (off_t)ask.span);
		break;
	case ASK_NOTHING:
		io_uring_prep_nop(sqe);
		break;
	}
	/* Or the kernel would copy it here and now, with the machine lock held by us. */
	if (io->length > INLINE_MAX)
		sqe->flags |= IOSQE_ASYNC;
	io_uring_sqe_set_data(sqe, io);
	disk->in_flight++;
}

/* True: over, by its answer or because nobody wants the rest of it. */
static bool is_over(struct disk *disk, struct disk_io *io, int res)
{
	if (disk_ask_answer(io, res, &disk->flush_error))
		return true;
	if (disk->cancelling)
		io->result = -ECANCELED;
	return disk->cancelling;
}

/* Everything that has completed. What has to be asked again is queued, not yet submitted. */
static void ring_reap(struct disk *disk)
{
	struct io_uring_cqe *cqe;

	while (io_uring_peek_cqe(&disk->ring, &cqe) == 0) {
		struct disk_io *io = io_uring_cqe_get_data(cqe);
		int res = cqe->res;

		io_uring_cqe_seen(&disk->ring, cqe);
		disk->in_flight--;
		if (is_over(disk, io, res))
			io->done(io);
		else
			ring_queue(disk, io);
	}
}

static void ring_ready(void *owner, u32 events)
{
	struct disk *disk = owner;

	(void)events;
	ring_reap(disk);
	ring_submit(disk);
	disk->settled(disk->owner);
}

/* True: all of it was in the page cache and the request is finished. */
static bool read_cached(struct disk *disk, struct disk_io *io)
{
	int res;

	if (io->op != DISK_READ || !disk->nowait || disk->missed || io->length > INLINE_MAX)
		return false;
	res = perform_next(disk, io, RWF_NOWAIT);
	if (res > 0 && disk_ask_answer(io, res, &disk->flush_error))
		return true;
	/* End of file and errors are for a call that may wait to find out. */
	disk->missed = true;
	if (res == -EOPNOTSUPP)
		disk->nowait = false;
	return false;
}

/* Any failure means: without. Whether the kernel lacks it, forbids it or is short of memory. */
static bool ring_create(struct disk *disk)
{
	struct io_uring_params params = { .flags = IORING_SETUP_CQSIZE, .cq_entries = DISK_DEPTH };
	unsigned workers[2] = { WORKERS, WORKERS };
	int r = io_uring_queue_init_params(SQ_ENTRIES, &disk->ring, &params);

	if (r < 0) {
		log_info("no io_uring (" OS_ERR "): this disk is served synchronously",
			 OS_ERR_ARGS(-r));
		return false;
	}
	/* Else a guest could have four spawned per host CPU. Linux before 5.15 does not know it. */
	io_uring_register_iowq_max_workers(&disk->ring, workers);
	return true;
}

/* ---- the interface ---------------------------------------------------------------------- */

int disk_create(struct disk **out, struct loop *loop, int fd, bool want_uring,
		void (*settled)(void *owner), void *owner, struct err *err)
{
	struct disk *disk = calloc(1, sizeof *disk);
	int r = 0;

	*out = NULL;
	if (!disk)
		return fail(err, -ENOMEM, "no memory for a disk");
	*disk = (struct disk){ .fd = fd,
			       .nowait = true,
			       .loop = loop,
			       .settled = settled,
			       .owner = owner,
			       .can_discard = probe_discard(fd) };
	disk->uring = want_uring && ring_create(disk);
	disk->source = (struct loop_source){
		.fd = -1, .events = EPOLLIN, .ready = ring_ready, .owner = disk
	};
	if (disk->uring) {
		disk->source.fd = disk->ring.ring_fd;
		r = loop_add(loop, &disk->source);
	}
	if (r < 0) {
		disk->source.fd = -1;
		disk_destroy(disk);
		return fail(err, r, "cannot watch the disk: " OS_ERR, OS_ERR_ARGS(-r));
	}
	*out = disk;
	return 0;
}

void disk_destroy(struct disk *disk)
{
	if (!disk)
		return;
	disk_drain(disk);
	if (disk->source.fd >= 0)
		loop_del(disk->loop, &disk->source);
	if (disk->uring)
		io_uring_queue_exit(&disk->ring);
	free(disk);
}

void disk_submit(struct disk *disk, struct disk_io *io)
{
	io->moved = 0;
	io->way = 0;
	io->retries = 0;
	io->result = 0;
	if (io->op == DISK_FLUSH)
		io->result = disk->flush_error;
	if (io->result < 0 || (io->op != DISK_FLUSH && !io->length))
		io->done(io);
	else if (!disk->uring)
		run_sync(disk, io);
	else if (read_cached(disk, io))
		io->done(io);
	else
		ring_queue(disk, io);
}

void disk_kick(struct disk *disk)
{
	disk->missed = false;
	if (!disk->in_flight)
		return;
	ring_submit(disk);
	/* What the kernel could do at once is done. The rest announces itself through the loop. */
	ring_reap(disk);
	ring_submit(disk);
}

void disk_drain(struct disk *disk)
{
	while (disk->in_flight) {
		int r = io_uring_submit_and_wait(&disk->ring, 1);

		assert(r >= 0 || r == -EINTR || r == -EAGAIN || r == -EBUSY || r == -ENOMEM);
		(void)r;
		ring_reap(disk);
	}
}

void disk_cancel(struct disk *disk)
{
	struct io_uring_cqe *cqe;

	assert(!disk->uring || !io_uring_sq_ready(&disk->ring));
	disk->cancelling = true;
	while (disk->in_flight) {
		int r = io_uring_wait_cqe(&disk->ring, &cqe);

		assert(r == 0 || r == -EINTR || r == -EAGAIN);
		(void)r;
		ring_reap(disk);
	}
	disk->cancelling = false;
}

void disk_swap(struct disk *disk, int fd)
{
	disk_drain(disk);
	disk->fd = fd;
	disk->flush_error = 0;
	disk->nowait = true;
}

bool disk_can_discard(const struct disk *disk)
{
	return disk->can_discard;
}

const char *disk_engine(const struct disk *disk)
{
	return disk->uring ? "io_uring" : "sync";
}
