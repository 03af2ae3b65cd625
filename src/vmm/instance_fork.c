/*
 * instance_fork: snapshots of a machine that goes on, and machines that others are made from.
 *
 * Shape of both: pause if it runs, freeze, resume if it ran. Whatever fails, the machine is in the
 * state it was in.
 */
#include "instance.h"

#include "live.h"
#include "log.h"
#include "schema.h"
#include "share.h"

#include <stdlib.h>

#define CONFIG_TEXT_SIZE KIB(256)

/* The configuration as it goes into a saved state; the caller frees it. */
static char *config_text(const struct instance *inst, struct err *err)
{
	struct json_out out = { .buf = malloc(CONFIG_TEXT_SIZE), .size = CONFIG_TEXT_SIZE };

	if (out.buf)
		schema_print_config(&out, &inst->config);
	if (out.buf && !out.overflow)
		return out.buf;
	fail(err, -E2BIG, "the configuration is too long for a snapshot");
	free(out.buf);
	return NULL;
}

struct standstill {
	bool was_paused;
	u64 begin_ns;
};

static int stand_still(struct instance *inst, struct standstill *s, struct err *err)
{
	s->was_paused = vm_is_paused(inst->vm);
	s->begin_ns = loop_now_ns();
	return vm_pause(inst->vm, err);
}

/* Also after a failure; the first error is the one that is told. */
static int go_on(struct instance *inst, const struct standstill *s, u64 *pause_us, int r,
		 struct err *err)
{
	struct err second;
	int resumed = s->was_paused ? 0 : vm_resume(inst->vm, r < 0 ? &second : err);

	*pause_us = s->was_paused ? 0 : (loop_now_ns() - s->begin_ns) / 1000;
	return r < 0 ? r : resumed;
}

/* ---- live snapshots --------------------------------------------------------------------------- */

bool instance_live_progress(const struct instance *inst, struct live_progress *progress)
{
	if (inst->live)
		live_progress(inst->live, progress);
	return inst->live != NULL;
}

static bool is_writing(const struct instance *inst)
{
	struct live_progress progress;

	return instance_live_progress(inst, &progress) && progress.writing;
}

int instance_create_live(struct instance *inst, const struct snapshot_create_request *req,
			 u64 *pause_us, struct err *err)
{
	struct standstill still;
	struct live *live = NULL;
	char *config;
	int r = instance_need_vm(inst, err);

	if (r < 0)
		return r;
	if (req->kind != SNAPSHOT_FULL)
		return fail(err, -ENOTSUP, "Create snapshot error: a live snapshot is always a full one");
	if (is_writing(inst))
		return fail(err, -EBUSY,
			    "Create snapshot error: the live snapshot before is still being written");
	config = config_text(inst, err);
	if (!config)
		return -E2BIG;
	r = stand_still(inst, &still, err);
	if (!r)
		r = live_begin(&live, inst->vm, config, req->state_path, req->mem_path, inst->loop, err);
	r = go_on(inst, &still, pause_us, r, err);
	free(config);
	if (r < 0) {
		live_destroy(live);
		return fail_prefix(err, r, "Create snapshot error: ");
	}
	live_set_pause(live, *pause_us);
	live_destroy(inst->live);
	inst->live = live;
	log_info("'create live snapshot' VMM action paused the machine for %llu us.",
		 (unsigned long long)*pause_us);
	return 0;
}

/* ---- sources ------------------------------------------------------------------------------------ */

int instance_share(struct instance *inst, const char *socket_path, u64 *pause_us, struct err *err)
{
	struct standstill still;
	struct share *share = NULL;
	char *config;
	int r = instance_need_vm(inst, err);

	if (r < 0)
		return r;
	if (is_writing(inst))
		return fail(err, -EBUSY, "Share error: a live snapshot is still being written");
	config = config_text(inst, err);
	if (!config)
		return -E2BIG;
	r = stand_still(inst, &still, err);
	if (!r)
		r = share_create(&share, inst->vm, config, socket_path, inst->loop, err);
	r = go_on(inst, &still, pause_us, r, err);
	free(config);
	if (r < 0) {
		share_destroy(share);
		return fail_prefix(err, r, "Share error: ");
	}
	/* Who took the machine as it was before keeps it. */
	share_destroy(inst->share);
	inst->share = share;
	return 0;
}
