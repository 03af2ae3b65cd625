/*
 * device: a virtio device model, without its transport.
 *
 * A model is constant data (device_type) and at most five verbs; an instance is queues, feature
 * bits, config bytes and a status. It depends on guest memory, eventfds and a backend fd only:
 * kicks arrive on eventfds (KVM's ioeventfd writes them), interrupts leave by one (KVM's irqfd
 * reads it). No KVM header here, so the same code runs in unit tests and fuzzers.
 *
 * The transport (mmio.c) calls device_*; it never writes into the type's table. All of it runs on
 * the loop thread, or on a vCPU thread holding the machine lock. A vCPU thread may do little more
 * than write to an eventfd, so each function and verb says where it may run.
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
#include "limit.h"
#include "vq.h"

#include <stdatomic.h>

#define DEVICE_CONFIG_MAX 64
#define DEVICE_ID_MAX	  64 /* longest API id of a device, without the terminator */
#define DEVICE_QUEUES_MAX 17
#define DEVICE_LIMITS_MAX 2
#define DEVICE_OWN_MAX	  256 /* bytes of state beyond what every device has */

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

/* Feature bits of every device (virtio 1.2, 6). INDIRECT_DESC, RING_PACKED are never offered. */
#define DEVICE_F_EVENT_IDX 29
#define DEVICE_F_VERSION_1 32

struct device;

struct device_type {
	const char *name; /* "block", as it stands in logs */
	u32 virtio_id;	  /* virtio 1.2, section 5 */

	/*
	 * Queue `q` may have new chains. Only called while active and not paused. Loop thread. A
	 * device that has done enough for one turn calls device_wake() and returns.
	 */
	void (*notify)(struct device *dev, unsigned q);
	/*
	 * The guest wrote config bytes (already range-checked, not yet stored); NULL: read-only.
	 * Possibly on a vCPU thread.
	 */
	void (*config_write)(struct device *dev, u32 off, const void *data, u32 len);
	/*
	 * Forget every request; nothing may touch guest memory after it returns, no chain may be
	 * pushed. Any status, also one that never was active. Possibly on a vCPU thread: a driver
	 * does not wait for a reset, so it cannot be put off. May be NULL.
	 */
	void (*reset)(struct device *dev);
	/* Return when no request is in flight (pause); NULL if none ever is. Loop thread. */
	void (*drain)(struct device *dev);
	/*
	 * The device became active, by DRIVER_OK or by a loaded state; comes before the first
	 * notify. Loop thread. May be NULL.
	 */
	void (*loaded)(struct device *dev);
	/*
	 * Whether `own` (own_size bytes, of a snapshot, hostile) can be the device's own state; the
	 * device is not yet loaded. NULL: any bytes can. Loop thread.
	 */
	bool (*plausible)(struct device *dev, const void *own);
};

/* What the callback of one kick eventfd is given. */
struct device_kick {
	struct device *dev;
	unsigned q;
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
	struct vq *vq; /* n_queues of them, inside the concrete device */
	unsigned n_queues;
	struct loop_source kick[DEVICE_QUEUES_MAX]; /* eventfds */
	struct device_kick kick_of[DEVICE_QUEUES_MAX];
	int irq_fd; /* eventfd */
	void *own; /* the concrete device's own state, a struct without pointers; or NULL */
	u32 own_size;
	struct limit *limit[DEVICE_LIMITS_MAX]; /* whose levels are part of the state; or NULL */
	bool paused;
	bool fresh;	       /* active since a moment ago: `loaded` is still to be called */
	const char *complaint; /* how the guest broke it: still to be logged */
};

/*
 * Makes the eventfds and registers the kicks with the loop. The concrete device has zeroed the
 * struct and set type, id, features_offered (without VERSION_1 and EVENT_IDX, which are added
 * here), config, vq, n_queues and each vq[i].size_max. On error nothing is left to destroy.
 */
int device_init(struct device *dev, const struct mem *mem, struct loop *loop,
		struct err *err) MUST_CHECK;

/* Loop thread; requests are drained already. Accepts a zeroed struct. */
void device_destroy(struct device *dev);

/*
 * For the transport, on any thread with the machine lock. Each is the whole reaction to one
 * register write; what comes at the wrong time or in the wrong order is ignored, and status tells.
 *
 * Status: bits are added in the order of 3.1.1 (several at once if none is left out) and taken back
 * by a reset only. FEATURES_OK is not set if the driver wants what was not offered, or does not
 * want VERSION_1. DRIVER_OK activates the queues that are ready; one that cannot be activated
 * breaks the device. After NEEDS_RESET or FAILED only a reset moves anything.
 *
 * Features: between DRIVER and FEATURES_OK; halves other than 0 (low) and 1 (high) do not exist.
 *
 * Config: bytes beyond config_len read as zero; a write that is not wholly inside goes nowhere.
 */
void device_set_status(struct device *dev, u32 status);
void device_set_features(struct device *dev, u32 half, u32 bits);
void device_config_read(struct device *dev, u32 off, void *data, u32 len);
void device_config_write(struct device *dev, u32 off, const void *data, u32 len);

/* Whether queue registers may be written now: after FEATURES_OK, before DRIVER_OK. */
bool device_queue_open(const struct device *dev);

/* Any thread, also without the lock: the loop serves queue `q` soon. Any q is safe. */
void device_wake(struct device *dev, u32 q);

/* Loop thread: serves queue `q` now, if it, the device and the machine are up for it. Any q. */
void device_kick(struct device *dev, u32 q);

/* Status has bit `has`, but not bit `lacks`, and the device is well. */
static inline bool device_expects(const struct device *dev, u8 has, u8 lacks)
{
	return (dev->status & (has | lacks | DEVICE_NEEDS_RESET | DEVICE_FAILED)) == has;
}

static inline bool device_active(const struct device *dev)
{
	return device_expects(dev, DEVICE_DRIVER_OK, 0);
}

static inline bool device_has(const struct device *dev, unsigned bit)
{
	return dev->features >> bit & 1;
}

/*
 * For the concrete device. After pushes (and pops that failed) to a set of queues: interrupts, once,
 * if the guest wants it for one of them; a broken queue breaks its device here, and after `notify`,
 * so that vq_pop() < 0 just means stop.
 */
void device_signal_queues(struct device *dev, u32 queues);

static inline void device_signal_queue(struct device *dev, unsigned q)
{
	device_signal_queues(dev, 1u << q);
}

/* After changing dev->config. */
void device_config_changed(struct device *dev);

/* NEEDS_RESET, a config interrupt, one log line. `why` is a constant string. */
void device_break(struct device *dev, const char *why);

/*
 * Guest memory has moved in the host (mem.h): the views of the rings are taken anew. The device is
 * paused. What was good stays good; -EINVAL would be our own mistake.
 */
int device_remap(struct device *dev, struct err *err) MUST_CHECK;

/*
 * Pause: serve no more kicks, drain. Resume: kick every ready queue and re-signal what is pending -
 * edges are hints, state is in memory, so nothing can be lost in between. Loop thread.
 */
void device_pause(struct device *dev);
void device_resume(struct device *dev);

#endif
