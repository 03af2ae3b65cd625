/*
 * device_state: what a device is, as bytes: saved, and taken over again from a hostile source.
 *
 * Loading checks everything that the guest could not have brought about itself by register writes,
 * and activates queues by vq_activate(), as the guest's own DRIVER_OK does. The device is freshly made
 * from the same configuration, and paused. Loop thread, the machine is paused.
 */
#ifndef DEVICE_STATE_H
#define DEVICE_STATE_H

#include "device.h"

#define DEVICE_STATE_VERSION 2

struct vq_state {
	u64 desc_gpa, avail_gpa, used_gpa;
	u16 size, last_avail, used_idx, signalled;
	u8 ready;
	u8 pad[7];
};

struct device_state {
	u32 virtio_id;
	u32 n_queues;
	u64 offered, features;
	u32 config_len, config_generation;
	u32 isr;
	u32 own_size;
	u32 selector[3]; /* of the transport: device features, driver features, queue */
	u8 status;
	u8 pad[3];
	u8 config[DEVICE_CONFIG_MAX];
	char id[ALIGN_UP(DEVICE_ID_MAX + 1, 8)];
	u8 own[DEVICE_OWN_MAX];
	struct limit limit[DEVICE_LIMITS_MAX];
	struct vq_state vq[DEVICE_QUEUES_MAX];
};

/* The transport's selectors are left to the caller, in both directions. */
void device_save(const struct device *dev, struct device_state *state);

/* The line names what is wrong. On error the device is good for nothing but device_destroy(). */
int device_load(struct device *dev, const struct device_state *state, struct err *err) MUST_CHECK;

#endif
