/*
 * blk: see blk.h. Knows the device: features, config space, its queue, its life; requests are
 * blk_request.c's, files disk.c's.
 *
 * Invariant: once reset() returns no slot is in use, so nothing of an old request can land.
 */
#include "blk_request.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

/* A turn of the loop: this many bytes or requests, then the other devices have theirs. */
#define TURN_BYTES MIB(8)
#define TURN_MIN   KIB(32) /* what the smallest request counts as: at most 256 in a turn */

#define DISCARD_ALIGNMENT (KIB(4) / DISK_SECTOR) /* less would not make a hole */
#define SPACE_LEN	  60

struct blk_space {    /* 5.2.4 */
	u64 capacity; /* sectors */
	u32 size_max;
	u32 seg_max;
	u8 geometry[4];
	u32 blk_size;
	u8 topology[8];
	u8 writeback;
	u8 unused0;
	u16 num_queues;
	u32 max_discard_sectors;
	u32 max_discard_seg;
	u32 discard_sector_alignment;
	u32 max_write_zeroes_sectors;
	u32 max_write_zeroes_seg;
	u8 write_zeroes_may_unmap;
	u8 unused1[3];
};

static_assert(sizeof(struct blk_space) == 64 && sizeof(struct blk_space) <= DEVICE_CONFIG_MAX,
	      "layout of 5.2.4, up to the fields of secure erase, and padding");
static_assert(offsetof(struct blk_space, write_zeroes_may_unmap) == 56, "layout of 5.2.4");

static void signal_guest(void *owner)
{
	struct blk *blk = owner;

	if (blk->pushed || blk->vq[0].broken)
		device_signal_queue(&blk->dev, 0);
	blk->pushed = false;
}

/* ---- verbs -------------------------------------------------------------------------------- */

/* How many bytes of the turn the request takes. */
static u64 cost(const struct chain *chain)
{
	return TURN_MIN + MAX(chain->read_left, chain->write_left);
}

/* What the limit counts: not the header, not the status. */
static u64 data_bytes(const struct chain *chain)
{
	u64 all = (u64)chain->read_left + chain->write_left;

	return all > BLK_OVERHEAD ? all - BLK_OVERHEAD : 0;
}

/* False: it is back in the ring, and the throttle will come back for it. */
static bool may_begin(struct blk *blk, const struct chain *chain)
{
	if (throttle_take(&blk->throttle, 1, data_bytes(chain)))
		return true;
	vq_unpop(&blk->vq[0], chain);
	return false;
}

static void blk_notify(struct device *dev, unsigned q)
{
	struct blk *blk = container_of(dev, struct blk, dev);
	u64 turn = 0;

	vq_suppress_kicks(&blk->vq[0]);
	while (turn < TURN_BYTES && device_active(dev)) {
		struct blk_request *rq = blk_slot_take(blk);

		if (vq_pop(&blk->vq[0], &rq->chain) <= 0 || !may_begin(blk, &rq->chain)) {
			blk_slot_free(rq);
			break;
		}
		turn += cost(&rq->chain);
		blk_request_begin(rq);
	}
	disk_kick(blk->disk);
	signal_guest(blk);
	if (turn >= TURN_BYTES)
		device_wake(dev, q);
}

static void blk_reset(struct device *dev)
{
	struct blk *blk = container_of(dev, struct blk, dev);

	blk->resetting = true;
	disk_cancel(blk->disk);
	blk->resetting = false;
	blk->pushed = false;
	assert(blk->n_free == DISK_DEPTH);
}

static void blk_drain(struct device *dev)
{
	struct blk *blk = container_of(dev, struct blk, dev);

	disk_drain(blk->disk);
	signal_guest(blk);
}

static const struct device_type blk_type = {
	.name = "block",
	.virtio_id = 2,
	.notify = blk_notify,
	.reset = blk_reset,
	.drain = blk_drain,
};

/* ---- life --------------------------------------------------------------------------------- */

/* The serial number that Firecracker gives: guests find their disks by it. */
static int identify(int fd, u8 id[BLK_ID_LEN], struct err *err)
{
	char text[3 * 20 + 1] = { 0 }; /* three numbers of 64 bits */
	struct stat st;

	if (fstat(fd, &st) < 0)
		return fail(err, -errno, "the drive's file cannot be examined: " OS_ERR,
			    OS_ERR_ARGS(errno));
	snprintf(text, sizeof text, "%llu%llu%llu", (unsigned long long)st.st_dev,
		 (unsigned long long)st.st_rdev, (unsigned long long)st.st_ino);
	memcpy(id, text, BLK_ID_LEN);
	return 0;
}

static void set_features(struct blk *blk, const struct blk_config *cfg)
{
	u64 bits = 1ull << BLK_F_SEG_MAX | 1ull << BLK_F_BLK_SIZE;

	if (cfg->cache == BLK_WRITEBACK)
		bits |= 1ull << BLK_F_FLUSH;
	if (cfg->read_only)
		bits |= 1ull << BLK_F_RO;
	else
		bits |= 1ull << BLK_F_WRITE_ZEROES;
	if (!cfg->read_only && disk_can_discard(blk->disk))
		bits |= 1ull << BLK_F_DISCARD;
	blk->dev.features_offered = bits;
}

/* What does not go with an offered feature reads as zero (5.2.4). */
static void set_space(struct blk *blk)
{
	u64 offered = blk->dev.features_offered;
	struct blk_space space = {
		.capacity = blk->sectors,
		.seg_max = VQ_SIZE_MAX - 2, /* a descriptor each for header and status */
		.blk_size = DISK_SECTOR,
		.num_queues = 1,
	};

	space.writeback = offered >> BLK_F_FLUSH & 1;
	if (offered & 1ull << BLK_F_DISCARD) {
		space.max_discard_sectors = BLK_DISCARD_SECTORS;
		space.max_discard_seg = BLK_RANGES_MAX;
		space.discard_sector_alignment = DISCARD_ALIGNMENT;
	}
	if (offered & 1ull << BLK_F_WRITE_ZEROES) {
		space.max_write_zeroes_sectors = BLK_ZEROES_SECTORS;
		space.max_write_zeroes_seg = BLK_RANGES_MAX;
		space.write_zeroes_may_unmap = 1;
	}
	memcpy(blk->dev.config, &space, SPACE_LEN);
	blk->dev.config_len = SPACE_LEN;
}

/* All but the device; blk_destroy() takes back what was made. */
static int set_up(struct blk *blk, const struct blk_config *cfg, struct loop *loop, struct err *err)
{
	u64 bytes;
	int r = disk_size(cfg->fd, &bytes, err);

	if (r < 0)
		return r;
	blk->sectors = bytes / DISK_SECTOR;
	r = identify(cfg->fd, blk->id, err);
	if (r < 0)
		return r;
	r = blk_slots_create(blk, err);
	if (r < 0)
		return r;
	return disk_create(&blk->disk, loop, cfg->fd, !cfg->no_uring, signal_guest, blk, err);
}

int blk_create(struct blk **out, const struct blk_config *cfg, const struct mem *mem,
	       struct loop *loop, struct err *err)
{
	struct blk *blk = calloc(1, sizeof *blk);
	int r;

	*out = NULL;
	if (!blk)
		return fail(err, -ENOMEM, "no memory for drive \"%s\"", cfg->id);
	blk->read_only = cfg->read_only;
	blk->vq[0].size_max = VQ_SIZE_MAX;
	blk->dev.type = &blk_type;
	blk->dev.vq = blk->vq;
	blk->dev.n_queues = ARRAY_SIZE(blk->vq);
	memcpy(blk->dev.id, cfg->id, sizeof blk->dev.id);
	r = set_up(blk, cfg, loop, err);
	if (r == 0) {
		set_features(blk, cfg);
		set_space(blk);
		r = device_init(&blk->dev, mem, loop, err);
	}
	if (r == 0)
		r = throttle_init(&blk->throttle, &blk->dev, 0, 0, err);
	if (r < 0) {
		blk_destroy(blk);
		return r;
	}
	*out = blk;
	return 0;
}

void blk_destroy(struct blk *blk)
{
	if (!blk)
		return;
	blk->resetting = true;
	disk_destroy(blk->disk);
	throttle_destroy(&blk->throttle);
	device_destroy(&blk->dev);
	blk_slots_destroy(blk);
	free(blk);
}

struct device *blk_device(struct blk *blk)
{
	return &blk->dev;
}

void blk_limit(struct blk *blk, const struct limit_config *limit)
{
	throttle_patch(&blk->throttle, limit);
}

int blk_swap(struct blk *blk, int fd, struct err *err)
{
	u8 id[BLK_ID_LEN];
	u64 bytes;
	int r = disk_size(fd, &bytes, err);

	if (r < 0)
		return r;
	r = identify(fd, id, err);
	if (r < 0)
		return r;
	disk_swap(blk->disk, fd);
	signal_guest(blk);
	memcpy(blk->id, id, sizeof id);
	blk->sectors = bytes / DISK_SECTOR;
	set_space(blk);
	device_config_changed(&blk->dev);
	return 0;
}
