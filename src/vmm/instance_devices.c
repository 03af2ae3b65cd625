/*
 * instance_devices: requests that change a device of a machine that exists. Each checks everything,
 * then changes the device, then the configuration that shows it.
 */
#include "instance.h"

#include "../virtio/balloon.h"
#include "../virtio/disk.h"
#include "log.h"

/* ---- drives of a running machine ---------------------------------------------------------- */

/* The contract's sentence round a reason. Returns `r`. */
static int cannot_patch(struct err *err, int r)
{
	struct err reason = *err;

	return fail(
		err, r,
		"Drive config error: Unable to patch the block device: %.700s Please verify the "
		"request arguments.",
		reason.msg);
}

static int change_backing(struct instance *inst, struct drive_config *drive, const char *path,
			  struct err *err)
{
	CLEANUP_FD int fd = disk_open(path, drive->blk.read_only, err);
	int r;

	if (fd < 0)
		return fail_prefix(err, fd,
				   "Virtio backend error: Error manipulating the backing file: ");
	r = vm_swap_drive(inst->vm, drive->blk.id, fd, err);
	if (r < 0)
		return fail_prefix(err, r, "Virtio backend error: ");
	close(drive->blk.fd);
	drive->blk.fd = steal_fd(&fd);
	memcpy(drive->blk.path, path, strlen(path) + 1); /* it came in a field of that size */
	return 0;
}

/* A bucket that is absent stays; one that does not limit takes the limit away. */
static void change_limit(struct limit_config *limit, const struct limit_config *patch)
{
	if (patch->bandwidth.given)
		limit->bandwidth = patch->bandwidth;
	if (patch->ops.given)
		limit->ops = patch->ops;
	config_accept_limit(limit);
}

int instance_patch_drive(struct instance *inst, const struct drive_patch *patch, struct err *err)
{
	struct drive_config *drive;
	int r = instance_need_vm(inst, err);

	if (r < 0)
		return r;
	drive = config_find_drive(&inst->config, patch->id);
	if (!drive)
		return cannot_patch(err, fail(err, -ENOENT, "Device not found"));
	if (!patch->path_given && !patch->limit.given)
		return fail(err, -EINVAL,
			    "Drive config error: Unable to patch the block device: Running method "
			    "expected different backend. Please verify the request arguments.");
	if (patch->path_given) {
		r = change_backing(inst, drive, patch->path, err);
		if (r < 0)
			return cannot_patch(err, r);
	}
	if (patch->limit.given) {
		vm_limit_drive(inst->vm, patch->id, &patch->limit);
		change_limit(&drive->limit, &patch->limit);
	}
	return 0;
}

/* ---- network interfaces --------------------------------------------------------------------- */

int instance_patch_net(struct instance *inst, const struct net_patch *patch, struct err *err)
{
	struct net_request *net;
	int r = instance_need_vm(inst, err);

	if (r < 0)
		return r;
	net = config_find_net(&inst->config, patch->id);
	if (!net)
		return fail(err, -ENOENT, "Network config error: Device not found");
	vm_limit_net(inst->vm, patch->id, &patch->rx_limit, &patch->tx_limit);
	change_limit(&net->net.rx_limit, &patch->rx_limit);
	change_limit(&net->net.tx_limit, &patch->tx_limit);
	return 0;
}

/* ---- balloon ------------------------------------------------------------------------------ */

int instance_balloon(struct instance *inst, struct balloon **balloon, struct err *err)
{
	int r = instance_need_vm(inst, err);

	if (r < 0)
		return r;
	*balloon = vm_balloon(inst->vm);
	if (!*balloon)
		return fail(err, -ENOENT,
			    "Internal VMM error: Failed perform action on device: Device not found");
	return 0;
}

int instance_resize_balloon(struct instance *inst, u32 amount_mib, struct err *err)
{
	struct balloon *balloon;
	int r = instance_balloon(inst, &balloon, err);

	if (r < 0)
		return r;
	if (amount_mib > inst->config.machine.mem_mib)
		return fail(err, -EINVAL,
			    "Balloon update error: Requested memory should be less than %lluMiB",
			    (unsigned long long)inst->config.machine.mem_mib);
	balloon_resize(balloon, amount_mib);
	inst->config.balloon.balloon.amount_mib = amount_mib;
	return 0;
}

int instance_balloon_interval(struct instance *inst, u16 seconds, struct err *err)
{
	struct balloon *balloon;
	int r = instance_balloon(inst, &balloon, err);

	if (r < 0)
		return r;
	r = balloon_set_interval(balloon, seconds, err);
	if (r < 0)
		return fail_prefix(err, r, "Balloon update error: ");
	inst->config.balloon.balloon.stats_interval_s = seconds;
	return 0;
}

int instance_hint_start(struct instance *inst, bool acknowledge, struct err *err)
{
	struct balloon *balloon;
	int r = instance_balloon(inst, &balloon, err);

	if (r < 0)
		return r;
	r = balloon_hint_start(balloon, acknowledge, err);
	return r < 0 ? fail_prefix(err, r, "Balloon update error: ") : 0;
}

int instance_hint_stop(struct instance *inst, struct err *err)
{
	struct balloon *balloon;
	int r = instance_balloon(inst, &balloon, err);

	if (r < 0)
		return r;
	r = balloon_hint_stop(balloon, err);
	return r < 0 ? fail_prefix(err, r, "Balloon update error: ") : 0;
}
