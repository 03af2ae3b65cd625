/*
 * device: a virtio device model, without its transport.
 *
 * A model is constant data (device_type) and at most five verbs; an instance is queues, feature
 * bits, config bytes and a status. It depends on guest memory, eventfds and a backend fd only: kicks
 * arrive on eventfds (KVM's ioeventfd writes them), interrupts leave by one (KVM's irqfd reads it).
 * No KVM header here, so the same code runs in unit tests and fuzzers.
 *
 * The transport (mmio.c) calls device_*; it never writes into the type's table. All of it runs on
 * the loop thread, or on a vCPU thread holding the machine lock.
 *
 * Life: device_init -> (guest) ACKNOWLEDGE, DRIVER, FEATURES_OK, queues, DRIVER_OK = active ->
 * reset -> ... ; device_destroy accepts the half-built. A guest that breaks its device gets
 * NEEDS_RESET and a config interrupt; nothing else in the monitor notices.
 */
#ifndef DEVICE_H
#define DEVICE_H

#include "../vmm/base.h"
#include "../vmm/err.h"
#include "../vmm/loop.h"
#include "../vmm/mem.h"
#include "vq.h"

#include <stdatomic.h>

#define DEVICE_CONFIG_MAX 64
#define DEVICE_ID_MAX	  64 /* longest API id of a device, without the terminator */
#define DEVICE_QUEUES_MAX 16

/* Status bits (virtio 1.2, 2.1) */
#define DEVICE_ACKNOWLEDGE 1
#define DEVICE_DRIVER	   2
#define DEVICE_DRIVER_OK   4
#define DEVICE_FEATURES_OK 8
#define DEVICE_NEEDS_RESET 64
#define DEVICE_FAILED	   128

/* InterruptStatus bits (virtio 1.2, 4.2.2) */
#define DEVICE_ISR_USED	  1u
#define DEVICE_ISR_CONFIG 2u

struct device;

struct device_type {
	const char *name; /* "block", as it stands in logs */
	u32 virtio_id;	  /* virtio 1.2, section 5 */

	/* Queue `q` may have new chains. Only called while active and not paused. */
	void (*notify)(struct device *dev, unsigned q);
	/* The guest wrote config bytes (already range-checked, not yet stored); may be NULL. */
	void (*config_write)(struct device *dev, u32 off, const void *data, u32 len);
	/* Forget every request; nothing may touch guest memory after it returns. May be NULL. */
	void (*reset)(struct device *dev);
	/* Return when no request is in flight (pause, snapshot); may be NULL if none ever is. */
	void (*drain)(struct device *dev);
	/* The device became active: by DRIVER_OK or by a loaded state; may be NULL. */
	void (*loaded)(struct device *dev);
};

struct device {
	/* What it is. */
	const struct device_type *type;
	u64 features_offered;
	u64 features; /* acknowledged by the driver; fixed by FEATURES_OK */
	u8 config[DEVICE_CONFIG_MAX];
	u32 config_len;
	u32 config_generation;
	u8 status;
	_Atomic u32 isr; /* read and acknowledged by the guest without the machine lock */

	/* What it holds. */
	char id[DEVICE_ID_MAX + 1];
	const struct mem *mem;
	struct loop *loop;
	struct vq *vq;	    /* n_queues of them, inside the concrete device */
	unsigned n_queues;
	struct loop_source kick[DEVICE_QUEUES_MAX]; /* eventfds */
	int irq_fd;	    /* eventfd; -1 before device_init */
	bool paused;
};

/*
 * Makes the eventfds and registers the kicks with the loop. The concrete device has set type,
 * id, features_offered (without VERSION_1 and EVENT_IDX, which are added here), config, vq,
 * n_queues and each vq[i].size_max.
 */
int device_init(struct device *dev, const struct mem *mem, struct loop *loop,
		struct err *err) MUST_CHECK;
void device_destroy(struct device *dev);

/* For the transport. Each is the whole reaction to one register write. */
void device_set_status(struct device *dev, u32 status);
void device_set_features(struct device *dev, u32 half, u32 bits); /* half: 0 low, 1 high */
void device_config_read(struct device *dev, u32 off, void *data, u32 len);
void device_config_write(struct device *dev, u32 off, const void *data, u32 len);
void device_kick(struct device *dev, u32 q); /* a kick that came as an exit; any q is safe */

static inline bool device_active(const struct device *dev)
{
	return (dev->status & (DEVICE_DRIVER_OK | DEVICE_NEEDS_RESET)) == DEVICE_DRIVER_OK;
}

static inline bool device_has(const struct device *dev, unsigned bit)
{
	return dev->features >> bit & 1;
}

/* For the concrete device. */
void device_signal_queue(struct device *dev, unsigned q); /* interrupt if the guest wants one */
void device_config_changed(struct device *dev);		  /* after changing dev->config */
void device_break(struct device *dev, const char *why);	  /* NEEDS_RESET, one log line */

/*
 * Pause: serve no more kicks, drain. Resume: kick every ready queue and re-signal what is pending -
 * edges are hints, state is in memory, so nothing can be lost in between.
 */
void device_pause(struct device *dev);
void device_resume(struct device *dev);

#endif
