/*
 * limit: rate limits as token buckets (contract 1.4): one for bytes, one for operations.
 *
 * A bucket holds at most `size` tokens and refills evenly, `size` of them in `refill_ms`. The burst
 * is spent before them, and once only. A request that is larger than the bucket takes all of a full
 * one and leaves a debt, which is refilled before anybody gets more: so it passes, and the rate
 * holds. A bucket whose size or refill time is 0 does not limit.
 *
 * Plain data, so that a machine's levels can be saved; the clock is the caller's (CLOCK_MONOTONIC in
 * nanoseconds, loop_now_ns()). Loop thread or a dispatcher under the machine lock.
 */
#ifndef LIMIT_H
#define LIMIT_H

#include "../vmm/base.h"

/* ---- as configured ---- */

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

/* ---- as it is ---- */

struct limit_level {
	u64 size;      /* 0: no limit */
	u64 period_ns; /* in which `size` tokens come */
	u64 left;      /* tokens there are */
	u64 burst;     /* of the one-time burst */
	u64 debt;      /* tokens that a larger request has taken in advance */
	u64 fraction;  /* of the next token, in 1 / period_ns of one */
};

struct limit {
	struct limit_level bytes, ops;
	u64 since_ns; /* the levels are those of this moment */
};

/* Both buckets as in `config`, full. */
void limit_set(struct limit *limit, const struct limit_config *config, u64 now_ns);

/* A change: a bucket that is given becomes that, and full; one that is not stays as it is. */
void limit_patch(struct limit *limit, const struct limit_config *config, u64 now_ns);

/* The levels came from another machine, at another time: they hold from now on. */
void limit_loaded(struct limit *limit, u64 now_ns);

/* Levels that no sequence of the calls above can lead to: a saved state that lies. */
bool limit_plausible(const struct limit *limit);

static inline bool limit_none(const struct limit *limit)
{
	return !limit->bytes.size && !limit->ops.size;
}

/* Takes all of it, or (false) nothing. */
bool limit_take(struct limit *limit, u64 ops, u64 bytes, u64 now_ns);

/* How long until limit_take() of the same can succeed; 0: now. */
u64 limit_wait_ns(struct limit *limit, u64 ops, u64 bytes, u64 now_ns);

#endif
