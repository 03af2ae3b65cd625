/*
 * balloon: virtio-balloon (virtio 1.2, section 5.5): the guest gives memory back, and tells how it
 * fares. Inflate, deflate, statistics, free page hinting, free page reporting. Contract 1.4, 3.4.
 *
 * What the guest gives leaves the process (mem_discard) before the guest is told that it was taken.
 * A guest that names pages it does not have, or goes on using those that it gave, hurts itself.
 *
 * Loop thread or a dispatcher under the machine lock.
 */
#ifndef BALLOON_H
#define BALLOON_H

#include "device.h"

struct balloon_config {
	u32 amount_mib;
	bool deflate_on_oom;
	u16 stats_interval_s; /* 0: no statistics */
	bool hinting;
	bool reporting;
};

/* In the order of the tags (5.5.6.4, and those that Linux 6.12 added). */
enum balloon_stat {
	BALLOON_SWAP_IN,
	BALLOON_SWAP_OUT,
	BALLOON_MAJOR_FAULTS,
	BALLOON_MINOR_FAULTS,
	BALLOON_FREE,
	BALLOON_TOTAL,
	BALLOON_AVAILABLE,
	BALLOON_CACHES,
	BALLOON_HUGETLB_ALLOCATIONS,
	BALLOON_HUGETLB_FAILURES,
	BALLOON_OOM_KILL,
	BALLOON_ALLOC_STALL,
	BALLOON_ASYNC_SCAN,
	BALLOON_DIRECT_SCAN,
	BALLOON_ASYNC_RECLAIM,
	BALLOON_DIRECT_RECLAIM,
	BALLOON_STATS,
};

/* What the device is, beside what every device is. */
struct balloon_state {
	u64 stat[BALLOON_STATS]; /* as the guest told last; each at most once */
	u32 stats_known;	 /* bit set of those it has told */
	u32 host_cmd;		 /* free page hinting: what we asked for last */
	u32 last_run;		 /* number of the last run: Linux ignores one that it knows */
	u32 guest_cmd;		 /* what the guest said last */
	bool guest_said;
	bool acknowledge; /* a run that the guest has ended is ended by us too */
	u16 stats_interval_s;
};

struct balloon_metrics {
	u64 inflate_count, deflate_count, stats_updates_count, stats_update_fails, event_fails;
	u64 report_count, report_freed, report_fails;
	u64 hint_count, hint_freed, hint_fails;
};

struct balloon;

int balloon_create(struct balloon **balloon, const struct balloon_config *cfg,
		   const struct mem *mem, struct loop *loop, struct err *err) MUST_CHECK;
void balloon_destroy(struct balloon *balloon);
struct device *balloon_device(struct balloon *balloon);

/* Tells the guest how large to become; it follows as far as it can. At most the size of RAM. */
void balloon_resize(struct balloon *balloon, u32 amount_mib);
u32 balloon_target_pages(const struct balloon *balloon); /* 4 KiB each */
u32 balloon_actual_pages(const struct balloon *balloon);

/* -EINVAL, with the contract's line: from or to 0, where the queue is or is not there. */
int balloon_set_interval(struct balloon *balloon, u16 seconds, struct err *err) MUST_CHECK;

/* Free page hinting; the device has to be offered it and be active. */
int balloon_hint_start(struct balloon *balloon, bool acknowledge, struct err *err) MUST_CHECK;
int balloon_hint_stop(struct balloon *balloon, struct err *err) MUST_CHECK;
bool balloon_can_hint(const struct balloon *balloon);

const struct balloon_state *balloon_state(const struct balloon *balloon);
const struct balloon_metrics *balloon_metrics(const struct balloon *balloon);

#endif
