/*
 * limit: see limit.h.
 *
 * Refilling is exact: what is left over of a token is carried on, so no rate drifts, however often
 * it is looked at. Products of two 64-bit numbers are made in 128 bits, sums saturate.
 */
#include "limit.h"

__extension__ typedef unsigned __int128 u128;

#define NS_PER_MS 1000000u

static u64 saturate(u128 n)
{
	return n > UINT64_MAX ? UINT64_MAX : (u64)n;
}

static void level_set(struct limit_level *level, const struct limit_bucket *bucket)
{
	*level = (struct limit_level){ 0 };
	if (!bucket->given || !bucket->size || !bucket->refill_ms)
		return;
	level->size = level->left = bucket->size;
	level->burst = bucket->burst;
	level->period_ns = saturate((u128)bucket->refill_ms * NS_PER_MS);
}

static void level_refill(struct limit_level *level, u64 elapsed_ns)
{
	u128 parts, tokens;
	u64 paid;

	if (!level->size || (level->left == level->size && !level->debt))
		return;
	parts = (u128)elapsed_ns * level->size + level->fraction;
	tokens = parts / level->period_ns;
	level->fraction = (u64)(parts % level->period_ns);
	paid = (u64)MIN(tokens, (u128)level->debt);
	level->debt -= paid;
	tokens -= paid;
	if (tokens >= level->size - level->left) {
		level->left = level->size;
		level->fraction = 0;
	} else {
		level->left += (u64)tokens;
	}
}

static void refill(struct limit *limit, u64 now_ns)
{
	u64 elapsed_ns = now_ns > limit->since_ns ? now_ns - limit->since_ns : 0;

	level_refill(&limit->bytes, elapsed_ns);
	level_refill(&limit->ops, elapsed_ns);
	limit->since_ns = now_ns;
}

/* How many tokens have to come before `n` can be taken. */
static u64 level_lacks(const struct limit_level *level, u64 n)
{
	u64 wanted = n > level->burst ? MIN(n - level->burst, level->size) : 0;

	if (!level->size || !wanted)
		return 0;
	if (level->debt)
		return saturate((u128)level->debt + wanted);
	return wanted > level->left ? wanted - level->left : 0;
}

static void level_take(struct limit_level *level, u64 n)
{
	u64 of_burst = MIN(n, level->burst), of_left;

	if (!level->size)
		return;
	level->burst -= of_burst;
	n -= of_burst;
	of_left = MIN(n, level->left);
	level->left -= of_left;
	level->debt = saturate((u128)level->debt + (n - of_left));
}

static u64 level_wait_ns(const struct limit_level *level, u64 n)
{
	u64 lacks = level_lacks(level, n);

	if (!lacks)
		return 0;
	return saturate(((u128)lacks * level->period_ns - level->fraction + level->size - 1) /
			level->size);
}

void limit_set(struct limit *limit, const struct limit_config *config, u64 now_ns)
{
	level_set(&limit->bytes, &config->bandwidth);
	level_set(&limit->ops, &config->ops);
	limit->since_ns = now_ns;
}

void limit_patch(struct limit *limit, const struct limit_config *config, u64 now_ns)
{
	refill(limit, now_ns);
	if (config->bandwidth.given)
		level_set(&limit->bytes, &config->bandwidth);
	if (config->ops.given)
		level_set(&limit->ops, &config->ops);
}

void limit_loaded(struct limit *limit, u64 now_ns)
{
	limit->since_ns = now_ns;
}

static bool level_plausible(const struct limit_level *level)
{
	if (!level->size)
		return !level->left && !level->debt && !level->fraction;
	return level->period_ns && level->left <= level->size &&
	       level->fraction < level->period_ns && !(level->left && level->debt);
}

bool limit_plausible(const struct limit *limit)
{
	return level_plausible(&limit->bytes) && level_plausible(&limit->ops);
}

bool limit_take(struct limit *limit, u64 ops, u64 bytes, u64 now_ns)
{
	if (limit_none(limit))
		return true;
	refill(limit, now_ns);
	if (level_lacks(&limit->bytes, bytes) || level_lacks(&limit->ops, ops))
		return false;
	level_take(&limit->bytes, bytes);
	level_take(&limit->ops, ops);
	return true;
}

u64 limit_wait_ns(struct limit *limit, u64 ops, u64 bytes, u64 now_ns)
{
	u64 for_bytes, for_ops;

	if (limit_none(limit))
		return 0;
	refill(limit, now_ns);
	for_bytes = level_wait_ns(&limit->bytes, bytes);
	for_ops = level_wait_ns(&limit->ops, ops);
	return MAX(for_bytes, for_ops);
}
