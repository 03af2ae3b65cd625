/*
 * vm_devices: the virtio devices of a machine: made from the configuration, changed while it runs,
 * destroyed. A new kind of device is a row here and in vm_parts.h.
 */
#include "vm_parts.h"

static int attach(struct vm *vm, struct device *dev, struct err *err)
{
	unsigned i = vm->n_devices;

	if (i == LAYOUT_DEVICES_MAX)
		return fail(err, -ENOSPC, "too many devices: %s %s is number %u, there is room for %u",
			    dev->type->name, dev->id, i + 1, LAYOUT_DEVICES_MAX);
	vm->device[i] = dev;
	vm->n_devices++;
	return mmio_map(&vm->window[i], dev, &vm->mmio, LAYOUT_VIRTIO + i * LAYOUT_VIRTIO_STEP, err);
}

int vm_create_devices(struct vm *vm, struct err *err)
{
	const struct config *cfg = vm->cfg;
	int r = 0;

	for (unsigned i = 0; i < cfg->n_drives && !r; i++) {
		r = blk_create(&vm->blk[i], &cfg->drives[i].blk, &vm->mem, vm->loop, err);
		if (!r)
			blk_limit(vm->blk[i], &cfg->drives[i].limit);
		if (!r)
			r = attach(vm, blk_device(vm->blk[i]), err);
	}
	for (unsigned i = 0; i < cfg->n_nets && !r; i++) {
		r = net_create(&vm->net[i], &cfg->nets[i].net, &vm->mem, vm->loop, err);
		if (!r)
			r = attach(vm, net_device(vm->net[i]), err);
	}
	if (!r && cfg->vsock.present) {
		r = vsock_create(&vm->vsock, &cfg->vsock.vsock, &vm->mem, vm->loop, err);
		if (!r)
			r = attach(vm, vsock_device(vm->vsock), err);
	}
	if (!r && cfg->balloon.present) {
		r = balloon_create(&vm->balloon, &cfg->balloon.balloon, &vm->mem, vm->loop, err);
		if (!r)
			r = attach(vm, balloon_device(vm->balloon), err);
	}
	if (!r && cfg->entropy.present) {
		r = rng_create(&vm->rng, &vm->mem, vm->loop, err);
		if (!r)
			rng_limit(vm->rng, &cfg->entropy.limit);
		if (!r)
			r = attach(vm, rng_device(vm->rng), err);
	}
	return r;
}

void vm_destroy_devices(struct vm *vm)
{
	for (unsigned i = 0; i < ARRAY_SIZE(vm->blk); i++)
		blk_destroy(vm->blk[i]);
	for (unsigned i = 0; i < ARRAY_SIZE(vm->net); i++)
		net_destroy(vm->net[i]);
	vsock_destroy(vm->vsock);
	balloon_destroy(vm->balloon);
	rng_destroy(vm->rng);
}

/* ---- changes to a running machine ---------------------------------------------------------------- */

static struct blk *find_drive(struct vm *vm, const char *drive_id)
{
	for (unsigned i = 0; i < vm->cfg->n_drives; i++)
		if (strcmp(vm->cfg->drives[i].blk.id, drive_id) == 0)
			return vm->blk[i];
	return NULL;
}

int vm_swap_drive(struct vm *vm, const char *drive_id, int fd, struct err *err)
{
	struct blk *blk = find_drive(vm, drive_id);

	return blk ? blk_swap(blk, fd, err)
		   : fail(err, -ENOENT, "there is no drive %s", drive_id);
}

void vm_limit_drive(struct vm *vm, const char *drive_id, const struct limit_config *limit)
{
	struct blk *blk = find_drive(vm, drive_id);

	if (blk)
		blk_limit(blk, limit);
}

struct balloon *vm_balloon(struct vm *vm)
{
	return vm->balloon;
}

void vm_limit_net(struct vm *vm, const char *iface_id, const struct limit_config *rx,
		  const struct limit_config *tx)
{
	for (unsigned i = 0; i < vm->cfg->n_nets; i++)
		if (strcmp(vm->cfg->nets[i].net.id, iface_id) == 0)
			net_limit(vm->net[i], rx, tx);
}
