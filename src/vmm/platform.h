/*
 * platform: the registers by which a guest ends itself (hardware-reduced ACPI: sleep control and
 * reset), and the page by which it says that it is up (boot timer).
 *
 * Under the machine lock.
 */
#ifndef PLATFORM_H
#define PLATFORM_H

#include "base.h"
#include "bus.h"
#include "err.h"

struct platform {
	void (*power_off)(void *owner);
	void (*reset)(void *owner);
	void (*booted)(void *owner); /* the guest wrote the boot timer's magic byte */
	void *owner;
};

/* The caller has set the callbacks and their owner. */
int platform_init(struct platform *platform, struct bus *port, struct bus *mmio, bool boot_timer,
		  struct err *err) MUST_CHECK;

#endif
