/*
 * throttle: a limit on a queue of a device, or on several of a kind, and the timer that comes back for what it held up.
 *
 * The device asks before it serves a request; a no means: put it back (vq_unpop) and stop. The queue
 * is then kicked when it can go on. No timer runs while nothing is held up. Loop thread.
 */
#ifndef THROTTLE_H
#define THROTTLE_H

#include "device.h"
#include "limit.h"

struct throttle {
	struct limit limit;
	struct device *dev;
	unsigned q, step;
	struct loop_timer timer;
	u64 held_up; /* how often it said no */
};

/*
 * For queue `q` and, if `step` is not 0, every step-th queue after it. No limit at first. On error
 * nothing is left to destroy.
 */
int throttle_init(struct throttle *throttle, struct device *dev, unsigned q, unsigned step,
		  struct err *err) MUST_CHECK;

/* Accepts a zeroed struct. */
void throttle_destroy(struct throttle *throttle);

/* Buckets that are given become those; what waits is looked at again at once. */
void throttle_patch(struct throttle *throttle, const struct limit_config *config);

/* True: serve it. False: the queue will be kicked when there is enough for such a request. */
bool throttle_take(struct throttle *throttle, u64 ops, u64 bytes);

#endif
