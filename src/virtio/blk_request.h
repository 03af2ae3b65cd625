/*
 * blk_request: one request of a virtio disk, from its header to its status. blk.c's own.
 *
 * Loop thread; blk_slot_* and the answers also under the machine lock (reset).
 */
#ifndef BLK_REQUEST_H
#define BLK_REQUEST_H

#include "blk.h"
#include "throttle.h"

/* Feature bits (5.2.3) */
#define BLK_F_SEG_MAX	   2
#define BLK_F_RO	   5
#define BLK_F_BLK_SIZE	   6
#define BLK_F_FLUSH	   9
#define BLK_F_DISCARD	   13
#define BLK_F_WRITE_ZEROES 14

/* Limits of discard and write zeroes. The second may have to be done by writing. */
#define BLK_RANGES_MAX	    16
#define BLK_DISCARD_SECTORS (GIB(1) / DISK_SECTOR)
#define BLK_ZEROES_SECTORS  (MIB(16) / DISK_SECTOR)

#define BLK_ID_LEN 20
#define BLK_OVERHEAD (16 + 1) /* header and status of a request, 5.2.6 */
#define BLK_FEW	   16

struct blk {
	struct device dev;
	struct vq vq[1];
	struct throttle throttle;
	struct disk *disk;
	bool read_only;
	bool resetting; /* completions are dropped */
	bool pushed;	/* since the guest was last told */
	u8 id[BLK_ID_LEN];
	u64 sectors;
	u8 *slots; /* of requests: DISK_DEPTH of them */
	u16 free[DISK_DEPTH];
	unsigned n_free;
};

struct blk_request {
	struct disk_io io;
	struct blk *blk;
	u32 type;
	struct iovec few[BLK_FEW]; /* the view of most requests: in the slot's first page */
	struct chain chain;
	struct iovec many[CHAIN_IOV_MAX];
};

/* The slots are one mapping that is resident only where it was used. */
int blk_slots_create(struct blk *blk, struct err *err) MUST_CHECK;
void blk_slots_destroy(struct blk *blk);

/* Never NULL: there are as many as chains can be in flight. */
struct blk_request *blk_slot_take(struct blk *blk);
void blk_slot_free(struct blk_request *rq);

/* rq->chain was just popped. The request may be answered when this returns, and its slot free. */
void blk_request_begin(struct blk_request *rq);

#endif
