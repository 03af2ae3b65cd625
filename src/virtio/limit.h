/*
 * limit: what a rate limiter is configured to (contract 1.4). Plain data.
 *
 * A bucket whose size or refill time is 0 does not limit.
 */
#ifndef LIMIT_H
#define LIMIT_H

#include "../vmm/base.h"

struct limit_bucket {
	u64 size; /* bytes or operations */
	u64 burst;
	u64 refill_ms;
	bool given, burst_given; /* whether the user said so: GET /vm/config shows it again */
};

struct limit_config {
	struct limit_bucket bandwidth, ops;
	bool given;
};

#endif
