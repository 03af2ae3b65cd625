/*
 * mmio: the virtio-mmio transport, version 2 (virtio 1.2, 4.2). The only file that knows it.
 *
 * One window of MMIO_WINDOW bytes per device. Guest accesses arrive through the bus under the
 * machine lock, except InterruptStatus and InterruptACK, which are one atomic word and are mapped
 * as a lockless entry of their own: the guest's acknowledge never waits behind the loop.
 */
#ifndef MMIO_H
#define MMIO_H

#include "../vmm/bus.h"
#include "device.h"

#define MMIO_WINDOW	  0x1000
#define MMIO_QUEUE_NOTIFY 0x50 /* ioeventfds sit here, matched by queue number, 4 bytes */

struct mmio {
	struct device *dev;
	/* Guest-visible selectors: plain values, bounded at each use. */
	u32 device_features_sel, driver_features_sel, queue_sel;
};

/* Binds transport and device and adds the window's three entries to the bus. */
int mmio_map(struct mmio *mmio, struct device *dev, struct bus *bus, u64 base,
	     struct err *err) MUST_CHECK;

#endif
