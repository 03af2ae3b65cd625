/*
 * blk: virtio-blk (virtio 1.2, section 5.2): one queue, any number of segments per request, flush,
 * discard, write zeroes, id. Contract 3.4 and more.
 *
 * Loop thread or a dispatcher under the machine lock.
 */
#ifndef BLK_H
#define BLK_H

#include "device.h"
#include "disk.h"
#include "limit.h"

enum blk_cache { BLK_UNSAFE, BLK_WRITEBACK, BLK_CACHES };
enum blk_engine { BLK_SYNC, BLK_ASYNC, BLK_ENGINES };

#define BLK_PATH_MAX	 4096
#define BLK_PARTUUID_MAX 64

/* One drive of the configuration: plain data, filled by the API. */
struct blk_config {
	char id[DEVICE_ID_MAX + 1];
	char path[BLK_PATH_MAX];
	char partuuid[BLK_PARTUUID_MAX + 1]; /* empty: none */
	bool is_root;
	bool read_only;
	enum blk_cache cache;
	enum blk_engine engine; /* as configured; io_uring is used whenever it is to be had */
	bool no_uring;		/* never io_uring: tests, and hosts that do not trust it */
	int fd; /* opened when the drive was configured; the configuration owns it */
};

struct blk;

/* The device borrows cfg->fd, copies the rest. */
int blk_create(struct blk **blk, const struct blk_config *cfg, const struct mem *mem,
	       struct loop *loop, struct err *err) MUST_CHECK;
void blk_destroy(struct blk *blk);

struct device *blk_device(struct blk *blk);

/* Buckets that are given apply from now on (none at first): an operation each, and its data. */
void blk_limit(struct blk *blk, const struct limit_config *limit);

/*
 * A running machine gets another backing file (or the same one, grown): drains, swaps, sets the new
 * capacity, raises a config change. The caller keeps owning both fds. On error nothing changed.
 */
int blk_swap(struct blk *blk, int fd, struct err *err) MUST_CHECK;

#endif
