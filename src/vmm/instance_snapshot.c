/*
 * instance_snapshot: the machine of this process to files, and from files.
 *
 * A load that is refused, at whatever point, leaves a process in which another load, or a
 * configuration and a start, are as possible as before.
 */
#include "instance.h"

#include "../jail/seccomp.h"
#include "live.h"
#include "log.h"
#include "schema.h"
#include "share.h"
#include "snapshot.h"
#include "touched.h"

#include <stdlib.h>

#define CONFIG_TEXT_SIZE KIB(256)

/* ---- create -------------------------------------------------------------------------------------- */

static int create(struct instance *inst, const struct snapshot_create_request *req, struct err *err)
{
	struct json_out out = { .buf = malloc(CONFIG_TEXT_SIZE), .size = CONFIG_TEXT_SIZE };
	int r;

	if (!out.buf)
		return fail(err, -ENOMEM, "no memory for the configuration");
	schema_print_config(&out, &inst->config);
	r = out.overflow ? fail(err, -E2BIG, "the configuration is too long for a snapshot")
			 : snapshot_create(inst->vm, out.buf, (enum snapshot_kind)req->kind,
					   req->state_path, req->mem_path, err);
	free(out.buf);
	return r;
}

int instance_create_snapshot(struct instance *inst, const struct snapshot_create_request *req,
			     struct err *err)
{
	struct live_progress live;
	u64 begin = loop_now_ns();
	int r = instance_need_vm(inst, err);

	if (r < 0)
		return r;
	if (instance_live_progress(inst, &live) && live.writing)
		return fail(err, -EBUSY,
			    "Create snapshot error: the live snapshot before is still being written");
	if (!vm_is_paused(inst->vm))
		return fail(err, -EBUSY,
			    "Create snapshot error: Cannot save the microVM: save/restore unavailable "
			    "while running");
	r = create(inst, req, err);
	if (r < 0)
		return fail_prefix(err, r, "Create snapshot error: ");
	log_info("'create %s snapshot' VMM action took %llu us.",
		 req->kind == SNAPSHOT_DIFF ? "diff" : "full",
		 (unsigned long long)((loop_now_ns() - begin) / 1000));
	return 0;
}

/* ---- load ---------------------------------------------------------------------------------------- */

static bool is_from(const struct snapshot_load_request *req, enum snapshot_backend backend)
{
	return req->memory.given && req->memory.type == backend;
}

static int check(const struct instance *inst, const struct snapshot_load_request *req,
		 struct err *err)
{
	if (req->memory.given && req->mem_path_given)
		return fail(err, -EINVAL,
			    "too many fields: either `mem_backend` or `mem_file_path` exclusively is "
			    "required.");
	if (!req->memory.given && !req->mem_path_given)
		return fail(err, -EINVAL,
			    "missing field: either `mem_backend` or `mem_file_path` is required");
	if (!req->state_path[0] && !is_from(req, SNAPSHOT_TEMPLATE))
		return fail(err, -EINVAL, "missing field `snapshot_path`");
	if (inst->config.boot_specific)
		return fail(err, -EPERM,
			    "Load snapshot error: Loading a microVM snapshot not allowed after "
			    "configuring boot-specific resources.");
	if (req->prefetch && req->memory.given && req->memory.type != SNAPSHOT_FILE)
		return fail(err, -EINVAL, "Load snapshot error: `prefetch` needs a memory file.");
	if (!is_from(req, SNAPSHOT_UFFD) &&
	    (req->huge_pages == MEM_PAGES_2M || req->huge_pages == MEM_PAGES_TRANSPARENT))
		return fail(err, -ENOTSUP,
			    "Load snapshot error: a memory file is mapped with ordinary pages only.");
	return 0;
}

/* ---- the working set ----------------------------------------------------------------------------- */

static void prefetch(struct instance *inst, const struct vm *vm, const char *path, const u8 *pair)
{
	u64 begin = loop_now_ns();

	if (touched_populate(vm_mem(vm), path, pair) == 0) {
		log_info("'prefetch' took %llu us.",
			 (unsigned long long)((loop_now_ns() - begin) / 1000));
		return;
	}
	inst->touched = strdup(path);
	memcpy(inst->touched_pair, pair, sizeof inst->touched_pair);
}

void instance_record_touched(struct instance *inst)
{
	const struct mem *mem = inst->vm ? vm_mem(inst->vm) : NULL;
	struct err err;

	if (!inst->touched || !mem || vm_pause(inst->vm, &err) < 0)
		return;
	/* Frozen since, it is no longer mapped from that file. */
	if (mem->saved && !mem->alone &&
	    touched_record(mem, inst->touched, inst->touched_pair, &err) < 0)
		log_warn("The working set is not recorded: %s", err.msg);
	free(inst->touched);
	inst->touched = NULL;
}

static int make(struct instance *inst, const struct snapshot_load_request *req,
		struct vm_source *source, struct vm **vm, struct err *err)
{
	const char *path = req->mem_path_given ? req->mem_path : req->memory.path;
	CLEANUP_FD int mem_fd = -1;
	int r = instance_restore_config(inst, state_config(source->state), req, err);

	if (r < 0)
		return r;
	if (MIB(inst->config.machine.mem_mib) != state_mem_size(source->state))
		return fail(err, -EINVAL, "records machine and config contradict each other");
	if (is_from(req, SNAPSHOT_UFFD)) {
		source->handler = path;
	} else if (source->mem_fd < 0) {
		mem_fd = snapshot_open_memory(source->state, path, err);
		if (mem_fd < 0)
			return fail_prefix(err, mem_fd,
					   "Failed to load guest memory: Error creating guest "
					   "memory from file: ");
		source->mem_fd = mem_fd;
	}
	inst->config.boot_timer |= state_boot_timer(source->state);
	r = vm_recv(vm, &inst->config, inst->shell, inst->loop, &inst->callbacks, source, err);
	inst->shell = NULL;
	if (!r && req->prefetch)
		prefetch(inst, *vm, path, state_pair(source->state));
	return r;
}

/* The state's bytes; of a template its memory too. */
static int open_state(const struct snapshot_load_request *req, struct stream *stream, int *mem_fd,
		      struct err *err)
{
	CLEANUP_FD int state_fd = -1;
	int r;

	if (!is_from(req, SNAPSHOT_TEMPLATE))
		return stream_load(stream, req->state_path, err);
	r = share_take(req->memory.path, &state_fd, mem_fd, err);
	return r < 0 ? r : stream_load_fd(stream, state_fd, err);
}

static int load(struct instance *inst, const struct snapshot_load_request *req, struct vm **vm,
		struct err *err)
{
	struct vm_source source = { .realtime = req->realtime, .mem_fd = -1 };
	CLEANUP_FD int template_mem = -1;
	struct stream stream = { 0 };
	int r = open_state(req, &stream, &template_mem, err);

	source.mem_fd = template_mem;
	source.no_file = template_mem >= 0;
	if (!r)
		r = state_open(&source.state, &stream, err);
	if (r < 0)
		fail_prefix(err, r, "Failed to get snapshot state from file: ");
	else
		r = make(inst, req, &source, vm, err);
	/* As at a start: what only the making of a machine needs is not allowed from here on. */
	if (!r) {
		r = seccomp_install(FILTER_RUN, err);
		if (!r && req->resume)
			r = vm_resume(*vm, err);
		if (r < 0)
			vm_destroy(*vm);
	}
	state_destroy(source.state);
	stream_destroy(&stream);
	return r;
}

int instance_load_snapshot(struct instance *inst, const struct snapshot_load_request *req,
			   struct err *err)
{
	u64 begin = loop_now_ns();
	bool boot_timer = inst->config.boot_timer;
	struct vm *vm = NULL;
	int r = check(inst, req, err);

	if (r < 0)
		return r;
	r = load(inst, req, &vm, err);
	if (r < 0) {
		config_forget(&inst->config);
		inst->config.boot_timer = boot_timer;
		return fail_prefix(err, r, "Load snapshot error: Failed to restore from snapshot: ");
	}
	inst->vm = vm;
	log_info("'load snapshot' VMM action took %llu us.",
		 (unsigned long long)((loop_now_ns() - begin) / 1000));
	return 0;
}
