/*
 * ioapic: the interrupt lines' redirection table (Intel 82093AA), for a split interrupt controller.
 *
 * Lines are edges: whoever raises one writes an eventfd that KVM turns into the message which this
 * table says. So nothing passes through here when an interrupt happens; only when the guest
 * reprograms a line, the table of messages is handed to KVM again.
 *
 * Under the machine lock (the bus), like every device.
 */
#ifndef IOAPIC_H
#define IOAPIC_H

#include "../boot/layout.h"
#include "base.h"
#include "bus.h"
#include "kvm.h"

struct ioapic {
	/* What it is. */
	u64 redirection[LAYOUT_IOAPIC_PINS_MAX];
	u8 select;
	u8 id;
	unsigned n_pins;

	/* What it holds. */
	void (*routed)(void *owner, const struct kvm_route *routes, unsigned n);
	/* Line `pin` was just unmasked: an edge that came before was lost, so pending state must be
	 * signalled again. */
	void (*unmasked)(void *owner, unsigned pin);
	void *owner;
};

/* `n_pins` lines, all masked. The caller has set the two callbacks and their owner. */
int ioapic_init(struct ioapic *ioapic, unsigned n_pins, struct bus *mmio, struct err *err) MUST_CHECK;

/* A new controller takes n_pins entries from a snapshot, any bits in them, and publishes them. */
void ioapic_load(struct ioapic *ioapic, const u64 *redirection);

#endif
