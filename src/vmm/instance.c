/*
 * instance: see instance.h.
 *
 * Invariant: `vm` is NULL or a whole machine. Configuration functions run only before, the verbs
 * below only after; both sides are checked where they are entered (routes.c) and here.
 */
#include "instance.h"

#include "../jail/seccomp.h"
#include "live.h"
#include "log.h"
#include "share.h"

#include <ctype.h>
#include <stdlib.h>

int instance_id_check(const char *id, struct err *err)
{
	size_t len = strlen(id);

	if (len < 1 || len > CONFIG_ID_MAX)
		return fail(err, -EINVAL,
			    "Invalid instance ID: Invalid len (%zu);  the length must be between 1 "
			    "and %d",
			    len, CONFIG_ID_MAX);
	for (size_t i = 0; i < len; i++)
		if (!isalnum((unsigned char)id[i]) && id[i] != '-')
			return fail(err, -EINVAL,
				    "Invalid instance ID: Invalid char (%c) at position %zu", id[i],
				    i);
	return 0;
}

/* What fails here fails again at the start, where somebody is there to be told. */
static void prepare(void *owner)
{
	struct instance *inst = owner;
	struct err err;

	if (!inst->vm && !inst->shell && vm_shell_create(&inst->shell, &err) < 0)
		log_debug("not prepared: %s", err.msg);
}

void instance_stand_by(struct instance *inst)
{
	struct err err;

	prepare(inst);
	if (!inst->shell || !vm_shell_prepare(inst->shell, inst->loop, &err))
		return;
	log_debug("not prepared: %s", err.msg);
	vm_shell_destroy(inst->shell);
	inst->shell = NULL;
}

void instance_expect_start(struct instance *inst)
{
	if (!inst->vm && !inst->shell)
		loop_call(inst->loop, &inst->prepare);
}

int instance_create(struct instance **out, const char *id, struct loop *loop,
		    const struct vm_callbacks *callbacks, struct err *err)
{
	/* Mostly room for drives: zero pages until they are configured. */
	struct instance *inst = calloc(1, sizeof *inst);

	*out = NULL;
	if (!inst)
		return fail(err, -ENOMEM, "no memory for the configuration");
	assert(strlen(id) <= CONFIG_ID_MAX);
	memcpy(inst->id, id, strlen(id) + 1);
	config_init(&inst->config);
	inst->loop = loop;
	inst->callbacks = *callbacks;
	inst->prepare = (struct loop_work){ .run = prepare, .owner = inst };
	*out = inst;
	return 0;
}

void instance_destroy(struct instance *inst)
{
	if (!inst)
		return;
	loop_uncall(inst->loop, &inst->prepare);
	live_destroy(inst->live);
	share_destroy(inst->share);
	instance_record_touched(inst);
	vm_shell_destroy(inst->shell);
	vm_destroy(inst->vm);
	config_destroy(&inst->config);
	free(inst);
}

enum instance_state instance_state(const struct instance *inst)
{
	if (!inst->vm)
		return INSTANCE_NOT_STARTED;
	return vm_is_paused(inst->vm) ? INSTANCE_PAUSED : INSTANCE_RUNNING;
}

const char *instance_state_name(enum instance_state state)
{
	static const char *const name[] = {
		[INSTANCE_NOT_STARTED] = "Not started",
		[INSTANCE_RUNNING] = "Running",
		[INSTANCE_PAUSED] = "Paused",
	};

	static_assert(ARRAY_SIZE(name) == INSTANCE_STATES, "a name for each");
	return name[state];
}

/* ---- verbs -------------------------------------------------------------------------------- */

int instance_need_vm(const struct instance *inst, struct err *err)
{
	if (inst->vm)
		return 0;
	return fail(err, -EPERM,
		    "The requested operation is not supported before starting the microVM.");
}

static void log_duration(const char *action, u64 since_ns)
{
	log_info("'%s' VMM action took %llu us.", action,
		 (unsigned long long)((loop_now_ns() - since_ns) / 1000));
}

static int build_and_run(struct instance *inst, struct vm **vm, struct err *err)
{
	int r;

	log_debug("event_start: build microvm for boot");
	r = vm_create(vm, &inst->config, inst->shell, inst->loop, &inst->callbacks, err);
	inst->shell = NULL;
	if (r < 0)
		return r;
	log_debug("event_end: build microvm for boot");
	log_debug("event_start: boot microvm");
	r = seccomp_install(FILTER_RUN, err);
	if (!r)
		r = vm_resume(*vm, err);
	log_debug("event_end: boot microvm");
	return r;
}

int instance_start(struct instance *inst, struct err *err)
{
	struct vm *vm = NULL;
	int r;

	if (inst->vm)
		return fail(err, -EPERM,
			    "The requested operation is not supported after starting the microVM.");
	if (inst->config.boot.kernel_fd < 0)
		return fail(
			err, -ENOENT,
			"Start microvm error: Cannot start microvm without kernel configuration.");
	r = build_and_run(inst, &vm, err);
	if (r < 0) {
		if (vm)
			vm_destroy(vm);
		return fail_prefix(err, r, "Start microvm error: ");
	}
	inst->vm = vm;
	return 0;
}

int instance_pause(struct instance *inst, struct err *err)
{
	u64 begin = loop_now_ns();
	int r = instance_need_vm(inst, err);

	if (r < 0)
		return r;
	r = vm_pause(inst->vm, err);
	if (r < 0)
		return fail_prefix(err, r, "Internal VMM error: ");
	log_duration("pause vm", begin);
	instance_record_touched(inst);
	return 0;
}

int instance_resume(struct instance *inst, struct err *err)
{
	u64 begin = loop_now_ns();
	int r = instance_need_vm(inst, err);

	if (r < 0)
		return r;
	r = vm_resume(inst->vm, err);
	if (r < 0)
		return fail_prefix(err, r, "Internal VMM error: ");
	log_duration("resume vm", begin);
	return 0;
}

int instance_ctrl_alt_del(struct instance *inst, struct err *err)
{
	int r = instance_need_vm(inst, err);

	if (r < 0)
		return r;
	r = vm_ctrl_alt_del(inst->vm, err);
	return r < 0 ? fail_prefix(err, r, "Internal VMM error: ") : 0;
}
