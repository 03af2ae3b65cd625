/*
 * disk_ask: see disk_ask.h. Knows what short counts, errno values and end of file mean.
 *
 * Everything that is hard to get right is here, once, for both engines: the rest of a short
 * transfer, interrupted calls, a file cut off under us, the ways of zeroing or discarding a range
 * in the order of preference, and what a failed flush means.
 *
 * A flush that failed is never followed by a good one: the kernel tells of a lost page once, and
 * the page counts as clean afterwards, so the next fsync would succeed without the data being
 * there.
 *
 * Invariant: a request ends. Each answer moves it on, picks the next way, or uses up one of a
 * bounded number of retries; moved never exceeds length.
 */
#include "disk_ask.h"

#include <fcntl.h>

#define RETRIES_MAX 1000       /* EINTR and EAGAIN without progress */
#define RW_MAX	    0x7ffff000 /* what Linux transfers at most in one call */

/* Never written to; not const, so that it takes no room in the file and shares the zero page. */
static u8 zeros[KIB(256)];

/* ---- what to ask for -------------------------------------------------------------------- */

/* The ways to do it, best first; each is tried when the one before is not supported. */
#define PUNCH (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE)
#define ZERO  (FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE)
#define WRITE (-1) /* write zeros */
#define NOOP  (-2) /* leave it */

static const int ways_discard[] = { PUNCH, NOOP };
static const int ways_zero[] = { ZERO, WRITE };
static const int ways_unmap[] = { PUNCH, ZERO, WRITE };

static int way_of(const struct disk_io *io)
{
	if (io->op == DISK_DISCARD)
		return ways_discard[io->way];
	return io->unmap ? ways_unmap[io->way] : ways_zero[io->way];
}

static struct disk_ask ask_range(const struct disk_io *io)
{
	struct disk_ask ask = { .pos = io->offset + io->moved, .span = io->length - io->moved };
	int way = way_of(io);

	if (way == NOOP) {
		ask.kind = ASK_NOTHING;
	} else if (way == WRITE) {
		ask.kind = ASK_WRITE;
		ask.n_iov = 1;
		ask.base = zeros;
		ask.len = (u32)MIN(ask.span, sizeof zeros);
	} else {
		ask.kind = ASK_FALLOCATE;
		ask.flags = way;
	}
	return ask;
}

struct disk_ask disk_ask_next(const struct disk_io *io)
{
	switch (io->op) {
	case DISK_READ:
	case DISK_WRITE:
		assert(io->n_iov > 0);
		return (struct disk_ask){
			.kind = io->op == DISK_READ ? ASK_READ : ASK_WRITE,
			.flags = io->durable ? RWF_DSYNC : 0,
			.iov = io->iov,
			.n_iov = io->n_iov,
			.base = io->iov->iov_base,
			.len = (u32)MIN(io->iov->iov_len, RW_MAX),
			.pos = io->offset + io->moved,
		};
	case DISK_FLUSH:
		return (struct disk_ask){ .kind = ASK_SYNC };
	default:
		return ask_range(io);
	}
}

/* ---- what an answer means --------------------------------------------------------------- */

static void iov_advance(struct disk_io *io, u64 n)
{
	io->moved += n;
	for (; io->n_iov && n >= io->iov->iov_len; io->iov++, io->n_iov--)
		n -= io->iov->iov_len;
	if (n) {
		assert(io->n_iov);
		io->iov->iov_base = (u8 *)io->iov->iov_base + n;
		io->iov->iov_len -= n;
	}
}

/* Somebody cut the file under us: what is not there reads as zeros, and as an error. */
static void zero_rest(struct disk_io *io)
{
	for (int i = 0; i < io->n_iov; i++)
		memset(io->iov[i].iov_base, 0, io->iov[i].iov_len);
}

static bool advance_transfer(struct disk_io *io, int res)
{
	if (res <= 0) {
		if (io->op == DISK_READ && res == 0)
			zero_rest(io);
		io->result = res < 0 ? res : -EIO;
		return true;
	}
	io->retries = 0;
	if (io->op == DISK_WRITE_ZEROES)
		io->moved += (u64)res;
	else
		iov_advance(io, (u64)res);
	return io->moved == io->length;
}

static bool advance_flush(struct disk_io *io, int res, int *flush_error)
{
	if (res < 0)
		*flush_error = -EIO;
	io->result = *flush_error; /* also if it was another one, in flight beside us */
	return true;
}

/* EINVAL: a range that does not fit the blocks of a block device. */
static bool unsupported(int res)
{
	return res == -EOPNOTSUPP || res == -ENOSYS || res == -EINVAL || res == -ENODEV;
}

static bool advance_range(struct disk_io *io, int res)
{
	if (way_of(io) == WRITE)
		return advance_transfer(io, res);
	if (unsupported(res)) {
		io->way++;
		return false;
	}
	io->result = res;
	return true;
}

bool disk_ask_answer(struct disk_io *io, int res, int *flush_error)
{
	if ((res == -EINTR || res == -EAGAIN) && io->retries < RETRIES_MAX) {
		io->retries++;
		return false;
	}
	switch (io->op) {
	case DISK_READ:
	case DISK_WRITE:
		return advance_transfer(io, res);
	case DISK_FLUSH:
		return advance_flush(io, res, flush_error);
	default:
		return advance_range(io, res);
	}
}
