/*
 * blk_request: see blk_request.h. Knows what a virtio disk is asked for; not descriptors, not
 * files.
 *
 * A request (virtio 1.2, 5.2.6) is a chain: a header of 16 readable bytes { type, reserved, sector
 * }, then data, readable for what the driver gives and writable for what it wants, and as the last
 * writable byte the status. How the driver cut this into descriptors means nothing (2.7.4).
 *
 *   popped -> checked -> submitted to the disk (or answered at once) -> status written -> pushed
 *
 * Requests complete in any order. A flush is not a barrier: it covers the writes that were
 * completed before it was made available (5.2.6.2), and those have left the disk's queue by then.
 *
 * What is wrong with a request and can be said in its status is said there: IOERR for a range
 * outside the disk, a length that is no whole number of sectors, a missing header, a write to a
 * read-only disk; UNSUPP for a type or flag that was not offered. A chain without a writable byte
 * is different: its sender cannot be told that the request failed, and must not come to believe
 * that it worked. So it breaks the device.
 *
 * Memory: a request lives in a slot. There is one for each chain the ring can have in flight, so
 * none is ever missing; the slots are one mapping, used in last-in first-out order, so a guest that
 * has at most n requests in flight makes n of them (one page each, mostly) resident, and an idle
 * disk none.
 *
 * Invariant: a slot is either on the free list or owns exactly one chain in flight.
 */
#include "blk_request.h"

#include "../vmm/log.h"

#include <sys/mman.h>

/* Request types and status (5.2.6) */
#define T_IN	       0
#define T_OUT	       1
#define T_FLUSH	       4
#define T_GET_ID       8
#define T_DISCARD      11
#define T_WRITE_ZEROES 13

#define S_OK	 0
#define S_IOERR	 1
#define S_UNSUPP 2

#define RANGE_UNMAP 1u

struct blk_header {
	u32 type, reserved;
	u64 sector;
};

struct blk_range { /* 5.2.6: of discard and write zeroes */
	u64 sector;
	u32 n_sectors, flags;
};

static_assert(sizeof(struct blk_header) == 16 && sizeof(struct blk_range) == 16, "layout of 5.2.6");

static_assert(offsetof(struct blk_request, chain.iov[BLK_FEW]) <= 4096,
	      "small requests touch one page");
static_assert(DISK_DEPTH >= VQ_SIZE_MAX, "a slot for every chain in flight");

#define SLOT_SIZE ALIGN_UP(sizeof(struct blk_request), 4096)

/* ---- slots -------------------------------------------------------------------------------- */

int blk_slots_create(struct blk *blk, struct err *err)
{
	size_t size = DISK_DEPTH * SLOT_SIZE;
	void *p = mmap(NULL, size, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (p == MAP_FAILED)
		return fail(err, -errno, "no memory for the requests of drive \"%s\": " OS_ERR,
			    blk->dev.id, OS_ERR_ARGS(errno));
	/* One huge page would be resident at once, for the sake of the first slot. */
	madvise(p, size, MADV_NOHUGEPAGE);
	blk->slots = p;
	for (u16 i = 0; i < DISK_DEPTH; i++)
		blk->free[blk->n_free++] = DISK_DEPTH - 1 - i;
	return 0;
}

void blk_slots_destroy(struct blk *blk)
{
	if (blk->slots)
		munmap(blk->slots, DISK_DEPTH * SLOT_SIZE);
}

struct blk_request *blk_slot_take(struct blk *blk)
{
	struct blk_request *rq;

	assert(blk->n_free);
	rq = (struct blk_request *)(void *)(blk->slots + blk->free[--blk->n_free] * SLOT_SIZE);
	rq->blk = blk;
	return rq;
}

void blk_slot_free(struct blk_request *rq)
{
	struct blk *blk = rq->blk;

	blk->free[blk->n_free++] = (u16)((size_t)((u8 *)rq - blk->slots) / SLOT_SIZE);
}

/* ---- answers ------------------------------------------------------------------------------ */

static void answer(struct blk_request *rq, u8 status)
{
	struct blk *blk = rq->blk;
	bool told;

	if (!blk->resetting) {
		told = chain_write_last(&rq->chain, status);
		assert(told); /* blk_request_begin() has seen a writable byte */
		(void)told;
		vq_push(&blk->vq[0], &rq->chain);
		blk->pushed = true;
	}
	blk_slot_free(rq);
}

static u8 status_of(const struct blk_request *rq)
{
	const struct disk_io *io = &rq->io;

	if (io->result == 0)
		return S_OK;
	if (!rq->blk->resetting)
		log_guest("block device \"%s\": request type %u of %llu bytes at %llu "
			  "failed: " OS_ERR,
			  rq->blk->dev.id, rq->type, (unsigned long long)io->length,
			  (unsigned long long)io->offset, OS_ERR_ARGS(-io->result));
	return S_IOERR;
}

static void io_done(struct disk_io *io)
{
	struct blk_request *rq = container_of(io, struct blk_request, io);

	answer(rq, status_of(rq));
}

/* ---- read, write, flush, id --------------------------------------------------------------- */

static void submit(struct blk_request *rq, enum disk_op op, void (*done)(struct disk_io *io))
{
	rq->io.op = op;
	rq->io.done = done;
	disk_submit(rq->blk->disk, &rq->io);
}

/* Sectors are checked as sectors: their number times 512 need not fit 64 bits. */
static bool place(struct blk_request *rq, u64 sector, u64 n_sectors)
{
	if (!range_ok(sector, n_sectors, rq->blk->sectors))
		return false;
	rq->io.offset = sector * DISK_SECTOR;
	rq->io.length = n_sectors * DISK_SECTOR;
	return true;
}

typedef int chain_iov_fn(const struct chain *chain, u32 len, struct iovec *iov, int max);

static void view(struct blk_request *rq, chain_iov_fn *view_of, u32 len)
{
	struct disk_io *io = &rq->io;

	io->iov = rq->few;
	io->n_iov = view_of(&rq->chain, len, rq->few, BLK_FEW);
	if (io->n_iov >= 0)
		return;
	io->iov = rq->many;
	io->n_iov = view_of(&rq->chain, len, rq->many, CHAIN_IOV_MAX);
	assert(io->n_iov >= 0); /* `len` is what is left, in no more segments than the chain has */
}

static void begin_in(struct blk_request *rq, u64 sector)
{
	u32 len = rq->chain.write_left - 1;

	if (len % DISK_SECTOR || !place(rq, sector, len / DISK_SECTOR)) {
		answer(rq, S_IOERR);
		return;
	}
	view(rq, chain_write_iov, len);
	submit(rq, DISK_READ, io_done);
}

static void begin_out(struct blk_request *rq, u64 sector)
{
	struct blk *blk = rq->blk;
	u32 len = rq->chain.read_left;

	if (blk->read_only || len % DISK_SECTOR || !place(rq, sector, len / DISK_SECTOR)) {
		answer(rq, S_IOERR);
		return;
	}
	/* A driver that was offered flush and declined counts on every write to be stable
	 * (5.2.6.2). */
	rq->io.durable = blk->dev.features_offered & 1ull << BLK_F_FLUSH &&
			 !device_has(&blk->dev, BLK_F_FLUSH);
	view(rq, chain_read_iov, len);
	submit(rq, DISK_WRITE, io_done);
}

static void begin_flush(struct blk_request *rq, u64 sector)
{
	(void)sector; /* 5.2.6.1: the driver must set it to 0; nothing depends on it */
	rq->io.offset = rq->io.length = 0;
	submit(rq, DISK_FLUSH, io_done);
}

static void begin_get_id(struct blk_request *rq, u64 sector)
{
	(void)sector;
	/* The last writable byte is the status, and not for the id. */
	if (rq->chain.write_left <= BLK_ID_LEN || !chain_write(&rq->chain, rq->blk->id, BLK_ID_LEN))
		answer(rq, S_IOERR);
	else
		answer(rq, S_OK);
}

/* ---- discard, write zeroes ---------------------------------------------------------------- */

static void next_range(struct blk_request *rq);

static void range_done(struct disk_io *io)
{
	struct blk_request *rq = container_of(io, struct blk_request, io);

	if (io->result < 0 || rq->blk->resetting)
		answer(rq, status_of(rq));
	else
		next_range(rq);
}

/* S_OK: the range may be done (5.2.6.2). */
static u8 check_range(struct blk_request *rq, const struct blk_range *range)
{
	bool discard = rq->type == T_DISCARD;

	if (range->flags & ~(discard ? 0 : RANGE_UNMAP))
		return S_UNSUPP;
	if (range->n_sectors > (discard ? BLK_DISCARD_SECTORS : BLK_ZEROES_SECTORS))
		return S_IOERR;
	return place(rq, range->sector, range->n_sectors) ? S_OK : S_IOERR;
}

/*
 * One range after the other, each read from the chain when its turn comes. A disk that works in the
 * call comes back here through range_done(), as deep as there are ranges: BLK_RANGES_MAX.
 */
static void next_range(struct blk_request *rq)
{
	struct blk_range range;
	u8 status;

	if (!chain_read(&rq->chain, &range, sizeof range)) {
		answer(rq, S_OK);
		return;
	}
	status = check_range(rq, &range);
	if (status != S_OK) {
		answer(rq, status);
		return;
	}
	rq->io.unmap = range.flags & RANGE_UNMAP;
	submit(rq, rq->type == T_DISCARD ? DISK_DISCARD : DISK_WRITE_ZEROES, range_done);
}

static void begin_ranges(struct blk_request *rq, u64 sector)
{
	u32 len = rq->chain.read_left;

	(void)sector;
	if (rq->blk->read_only || !len || len % sizeof(struct blk_range) ||
	    len / sizeof(struct blk_range) > BLK_RANGES_MAX)
		answer(rq, S_IOERR);
	else
		next_range(rq);
}

/* ---- types -------------------------------------------------------------------------------- */

static const struct blk_request_type {
	u32 type;
	u8 feature; /* that must have been offered; 0: none */
	void (*begin)(struct blk_request *rq, u64 sector);
} request_types[] = {
	{ T_IN, 0, begin_in },
	{ T_OUT, 0, begin_out },
	{ T_FLUSH, BLK_F_FLUSH, begin_flush },
	{ T_GET_ID, 0, begin_get_id },
	{ T_DISCARD, BLK_F_DISCARD, begin_ranges },
	{ T_WRITE_ZEROES, BLK_F_WRITE_ZEROES, begin_ranges },
};

static const struct blk_request_type *find_type(const struct blk *blk, u32 type)
{
	for (size_t i = 0; i < ARRAY_SIZE(request_types); i++) {
		const struct blk_request_type *t = &request_types[i];

		if (t->type == type)
			return !t->feature || blk->dev.features_offered >> t->feature & 1 ? t
											  : NULL;
	}
	return NULL;
}

void blk_request_begin(struct blk_request *rq)
{
	const struct blk_request_type *type;
	struct blk_header header;

	if (!rq->chain.write_left) {
		device_break(&rq->blk->dev, "a request without room for its status");
		blk_slot_free(rq);
		return;
	}
	if (!chain_read(&rq->chain, &header, sizeof header)) {
		answer(rq, S_IOERR);
		return;
	}
	rq->type = header.type;
	rq->io.durable = rq->io.unmap = false;
	type = find_type(rq->blk, header.type);
	if (type)
		type->begin(rq, header.sector);
	else
		answer(rq, S_UNSUPP);
}
