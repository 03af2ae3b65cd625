/* handlers_balloon: the requests about the balloon; see handlers.h. */
#include "handlers.h"

#define PAGES_PER_MIB 256

static void put_number(struct json_out *out, const char *before, const char *key, u64 n)
{
	json_put(out, before);
	json_put_string(out, key);
	json_put(out, ":");
	json_put_u64(out, n);
}

int handlers_get_balloon(struct call *c)
{
	struct balloon *balloon;

	if (c->inst->vm && instance_balloon(c->inst, &balloon, c->err) < 0)
		return -ENOENT;
	if (!c->inst->config.balloon.present)
		return fail(c->err, -ENOENT, "Balloon config error: No balloon device found.");
	json_put_object(c->out, &schema_balloon, &c->inst->config.balloon);
	return 0;
}

int handlers_put_balloon(struct call *c)
{
	return config_put_balloon(&c->inst->config, &c->body->balloon, c->err);
}

int handlers_patch_balloon(struct call *c)
{
	return instance_resize_balloon(c->inst, c->body->balloon_size.amount_mib, c->err);
}

int handlers_get_balloon_stats(struct call *c)
{
	static const char *const name[] = {
		[BALLOON_SWAP_IN] = "swap_in",
		[BALLOON_SWAP_OUT] = "swap_out",
		[BALLOON_MAJOR_FAULTS] = "major_faults",
		[BALLOON_MINOR_FAULTS] = "minor_faults",
		[BALLOON_FREE] = "free_memory",
		[BALLOON_TOTAL] = "total_memory",
		[BALLOON_AVAILABLE] = "available_memory",
		[BALLOON_CACHES] = "disk_caches",
		[BALLOON_HUGETLB_ALLOCATIONS] = "hugetlb_allocations",
		[BALLOON_HUGETLB_FAILURES] = "hugetlb_failures",
		[BALLOON_OOM_KILL] = "oom_kill",
		[BALLOON_ALLOC_STALL] = "alloc_stall",
		[BALLOON_ASYNC_SCAN] = "async_scan",
		[BALLOON_DIRECT_SCAN] = "direct_scan",
		[BALLOON_ASYNC_RECLAIM] = "async_reclaim",
		[BALLOON_DIRECT_RECLAIM] = "direct_reclaim",
	};
	const struct balloon_state *state;
	struct balloon *balloon;
	u32 target, actual;

	static_assert(ARRAY_SIZE(name) == BALLOON_STATS, "a name for each");
	if (instance_balloon(c->inst, &balloon, c->err) < 0)
		return -ENOENT;
	state = balloon_state(balloon);
	if (!state->stats_interval_s)
		return fail(c->err, -EINVAL,
			    "Balloon update error: Received stats query when stats are disabled.");
	target = balloon_target_pages(balloon);
	actual = balloon_actual_pages(balloon);
	put_number(c->out, "{", "target_pages", target);
	put_number(c->out, ",", "actual_pages", actual);
	put_number(c->out, ",", "target_mib", target / PAGES_PER_MIB);
	put_number(c->out, ",", "actual_mib", actual / PAGES_PER_MIB);
	for (unsigned i = 0; i < BALLOON_STATS; i++)
		if (state->stats_known >> i & 1)
			put_number(c->out, ",", name[i], state->stat[i]);
	json_put(c->out, "}");
	return 0;
}

int handlers_patch_balloon_stats(struct call *c)
{
	return instance_balloon_interval(c->inst, c->body->balloon_interval.seconds, c->err);
}

/* Without a body, and without the field, the run is acknowledged. */
void handlers_prepare_hint(struct call *c)
{
	c->body->balloon_hint.acknowledge = true;
}

int handlers_hint_start(struct call *c)
{
	return instance_hint_start(c->inst, c->body->balloon_hint.acknowledge, c->err);
}

int handlers_hint_stop(struct call *c)
{
	return instance_hint_stop(c->inst, c->err);
}

int handlers_hint_status(struct call *c)
{
	const struct balloon_state *state;
	struct balloon *balloon;

	if (instance_balloon(c->inst, &balloon, c->err) < 0)
		return -ENOENT;
	if (!balloon_can_hint(balloon))
		return fail(c->err, -EINVAL,
			    "Balloon update error: Attempting to use hinting when not enabled");
	state = balloon_state(balloon);
	put_number(c->out, "{", "host_cmd", state->host_cmd);
	json_put(c->out, ",\"guest_cmd\":");
	if (state->guest_said)
		json_put_u64(c->out, state->guest_cmd);
	else
		json_put(c->out, "null");
	json_put(c->out, "}");
	return 0;
}
