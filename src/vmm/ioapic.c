/*
 * ioapic: see ioapic.h. Register layout: 82093AA datasheet, sections 3.1 and 3.2.
 *
 * The guest's tables (ACPI, MP) announce every line as edge triggered, so there is no remote IRR and
 * no end-of-interrupt to track. A line that is programmed as level all the same is delivered as one
 * message per edge.
 */
#include "ioapic.h"

#define REG_SELECT 0x00
#define REG_WINDOW 0x10
#define WINDOW_LEN 0x20

#define INDEX_ID	  0x00
#define INDEX_VERSION	  0x01
#define INDEX_ARBITRATION 0x02
#define INDEX_REDIRECTION 0x10

#define VERSION 0x11

#define ENTRY_MASKED	(1ull << 16)
#define ENTRY_READ_ONLY (1ull << 12 | 1ull << 14) /* delivery status, remote IRR */

static struct kvm_route route_of(unsigned pin, u64 entry)
{
	u32 vector = entry & 0xff, delivery = entry >> 8 & 7, logical = entry >> 11 & 1;
	u32 destination = entry >> 56;

	return (struct kvm_route){
		.gsi = pin,
		.address_lo = 0xfee00000u | destination << 12 | logical << 2,
		.data = vector | delivery << 8,
	};
}

static void publish(const struct ioapic *ioapic)
{
	struct kvm_route routes[LAYOUT_IOAPIC_PINS_MAX];
	unsigned n = 0;

	for (unsigned pin = 0; pin < ioapic->n_pins; pin++)
		if (!(ioapic->redirection[pin] & ENTRY_MASKED))
			routes[n++] = route_of(pin, ioapic->redirection[pin]);
	ioapic->routed(ioapic->owner, routes, n);
}

/* A kernel masks and programs each half of each line at boot: only what KVM can see is published. */
static void set_redirection(struct ioapic *ioapic, unsigned pin, u64 entry)
{
	u64 old = ioapic->redirection[pin];
	bool was_masked = old & ENTRY_MASKED, is_masked = entry & ENTRY_MASKED;

	entry &= ~ENTRY_READ_ONLY;
	ioapic->redirection[pin] = entry;
	if ((was_masked && is_masked) || entry == old)
		return;
	publish(ioapic);
	if (was_masked)
		ioapic->unmasked(ioapic->owner, pin);
}

static u32 window_read(const struct ioapic *ioapic)
{
	unsigned pin = (ioapic->select - INDEX_REDIRECTION) / 2;

	switch (ioapic->select) {
	case INDEX_ID:
	case INDEX_ARBITRATION:
		return (u32)ioapic->id << 24;
	case INDEX_VERSION:
		return VERSION | (ioapic->n_pins - 1) << 16;
	}
	if (ioapic->select < INDEX_REDIRECTION || pin >= ioapic->n_pins)
		return 0;
	return (u32)(ioapic->redirection[pin] >> (ioapic->select & 1 ? 32 : 0));
}

static void window_write(struct ioapic *ioapic, u32 value)
{
	unsigned pin = (ioapic->select - INDEX_REDIRECTION) / 2;
	u64 entry;

	if (ioapic->select == INDEX_ID)
		ioapic->id = value >> 24 & 0xf;
	if (ioapic->select < INDEX_REDIRECTION || pin >= ioapic->n_pins)
		return;
	entry = ioapic->redirection[pin];
	if (ioapic->select & 1)
		entry = (entry & 0xffffffffu) | (u64)value << 32;
	else
		entry = (entry & ~0xffffffffull) | value;
	set_redirection(ioapic, pin, entry);
}

static void on_read(void *owner, u64 off, void *data, unsigned len)
{
	struct ioapic *ioapic = owner;
	u32 value = off == REG_WINDOW ? window_read(ioapic) : off == REG_SELECT ? ioapic->select : 0;

	memset(data, 0, len);
	memcpy(data, &value, MIN(len, sizeof value));
}

static void on_write(void *owner, u64 off, const void *data, unsigned len)
{
	struct ioapic *ioapic = owner;
	u32 value = 0;

	memcpy(&value, data, MIN(len, sizeof value));
	if (off == REG_SELECT)
		ioapic->select = (u8)value;
	else if (off == REG_WINDOW && len == 4)
		window_write(ioapic, value);
}

int ioapic_init(struct ioapic *ioapic, unsigned n_pins, struct bus *mmio, struct err *err)
{
	struct bus_entry entry = { .base = LAYOUT_IOAPIC,
				   .len = WINDOW_LEN,
				   .read = on_read,
				   .write = on_write,
				   .owner = ioapic };

	assert(n_pins && n_pins <= LAYOUT_IOAPIC_PINS_MAX);
	ioapic->n_pins = n_pins;
	for (unsigned pin = 0; pin < n_pins; pin++)
		ioapic->redirection[pin] = ENTRY_MASKED;
	return bus_add(mmio, &entry, err);
}

/* Where no line is open KVM has nothing to learn, and what it learns costs a grace period of RCU. */
void ioapic_load(struct ioapic *ioapic, const u64 *redirection)
{
	bool open = false;

	for (unsigned pin = 0; pin < ioapic->n_pins; pin++) {
		ioapic->redirection[pin] = redirection[pin] & ~ENTRY_READ_ONLY;
		open |= !(redirection[pin] & ENTRY_MASKED);
	}
	if (open)
		publish(ioapic);
}
