/* handlers: see handlers.h. */
#include "handlers.h"

#include "../src/vmm/log.h"
#include "../src/vmm/version.h"

static void put_pair(struct json_out *out, const char *before, const char *key, const char *value)
{
	json_put(out, before);
	json_put_string(out, key);
	json_put(out, ":");
	json_put_string(out, value);
}

int handlers_get_info(struct call *c)
{
	put_pair(c->out, "{", "id", c->inst->id);
	put_pair(c->out, ",", "state", instance_state_name(instance_state(c->inst)));
	put_pair(c->out, ",", "vmm_version", VERSION_API);
	put_pair(c->out, ",", "app_name", VERSION_APP_NAME);
	json_put(c->out, "}");
	return 0;
}

int handlers_get_version(struct call *c)
{
	put_pair(c->out, "{", "firecracker_version", VERSION_API);
	json_put(c->out, "}");
	return 0;
}

int handlers_get_config(struct call *c)
{
	schema_print_config(c->out, &c->inst->config);
	return 0;
}

int handlers_get_machine(struct call *c)
{
	json_put_object(c->out, &schema_machine, &c->inst->config.machine);
	return 0;
}

void handlers_prepare_machine_put(struct call *c)
{
	config_machine_defaults(&c->inst->config, &c->body->machine);
}

void handlers_prepare_machine_patch(struct call *c)
{
	c->body->machine = c->inst->config.machine;
	c->body->machine.template_given = false;
	c->body->machine.pages_given = c->inst->config.machine.pages_chosen;
}

int handlers_put_machine(struct call *c)
{
	return config_put_machine(&c->inst->config, &c->body->machine, c->err);
}

int handlers_patch_machine(struct call *c)
{
	if (!c->given)
		return fail(c->err, -EINVAL, "Empty PATCH request.");
	return handlers_put_machine(c);
}

int handlers_put_boot(struct call *c)
{
	return config_put_boot(&c->inst->config, &c->body->boot, c->err);
}

int handlers_put_drive(struct call *c)
{
	return config_put_drive(&c->inst->config, &c->body->drive, c->err);
}

int handlers_patch_drive(struct call *c)
{
	return instance_patch_drive(c->inst, &c->body->drive_patch, c->err);
}

int handlers_put_net(struct call *c)
{
	return config_put_net(&c->inst->config, &c->body->net, c->err);
}

int handlers_patch_net(struct call *c)
{
	return instance_patch_net(c->inst, &c->body->net_patch, c->err);
}

int handlers_put_vsock(struct call *c)
{
	return config_put_vsock(&c->inst->config, &c->body->vsock, c->err);
}

/* Never reached: the phases of these rows let nothing through. */
int handlers_needs_pci(struct call *c)
{
	return fail(c->err, -EPERM, "PCI is not enabled");
}

int handlers_put_entropy(struct call *c)
{
	return config_put_entropy(&c->inst->config, &c->body->entropy, c->err);
}

int handlers_put_serial(struct call *c)
{
	return config_put_serial(&c->inst->config, &c->body->serial, c->err);
}

/* What is absent stays, but for the level. */
void handlers_prepare_logger(struct call *c)
{
	log_settings(&c->body->logger);
	c->body->logger.level = LOG_INFO;
}

int handlers_put_logger(struct call *c)
{
	int r = log_configure(&c->body->logger, c->err);

	return r < 0 ? fail_prefix(c->err, r, "Logger error: ") : 0;
}

int handlers_put_action(struct call *c)
{
	switch (c->body->actions.action) {
	case ACTION_START:
		return instance_start(c->inst, c->err);
	case ACTION_CTRL_ALT_DEL:
		return instance_ctrl_alt_del(c->inst, c->err);
	case ACTION_FLUSH_METRICS:
		/* PUT /metrics is refused so far, so there is never a sink: nothing to flush. */
		if (!c->inst->vm)
			break;
		return 0;
	}
	return fail(c->err, -EPERM,
		    "The requested operation is not supported before starting the microVM.");
}

int handlers_patch_vm(struct call *c)
{
	return c->body->vm.paused ? instance_pause(c->inst, c->err)
				  : instance_resume(c->inst, c->err);
}

static void put_number(struct json_out *out, const char *key, u64 n)
{
	json_put(out, out->len ? "," : "{");
	json_put_string(out, key);
	json_put(out, ":");
	json_put_u64(out, n);
}

static int put_pause(struct call *c, int r, u64 pause_us)
{
	if (r < 0)
		return r;
	put_number(c->out, "pause_us", pause_us);
	json_put(c->out, "}");
	return 0;
}

int handlers_share_snapshot(struct call *c)
{
	u64 pause_us = 0;
	int r = instance_share(c->inst, c->body->snapshot_share.socket_path, &pause_us, c->err);

	return put_pause(c, r, pause_us);
}

int handlers_get_live(struct call *c)
{
	struct live_progress live = { .writing = false };
	bool any = instance_live_progress(c->inst, &live);

	put_number(c->out, "pause_us", live.pause_us);
	put_number(c->out, "bytes", live.bytes);
	json_put(c->out, ",\"state\":");
	json_put_string(c->out, !any ? "None" : live.writing ? "Writing" : live.failed ? "Failed" : "Done");
	if (live.failed) {
		json_put(c->out, ",\"fault_message\":");
		json_put_string(c->out, live.fault);
	}
	json_put(c->out, "}");
	return 0;
}

int handlers_create_snapshot(struct call *c)
{
	u64 pause_us = 0;
	int r;

	if (c->body->snapshot_create.live) {
		r = instance_create_live(c->inst, &c->body->snapshot_create, &pause_us, c->err);
		return put_pause(c, r, pause_us);
	}
	return instance_create_snapshot(c->inst, &c->body->snapshot_create, c->err);
}

int handlers_load_snapshot(struct call *c)
{
	return instance_load_snapshot(c->inst, &c->body->snapshot_load, c->err);
}
