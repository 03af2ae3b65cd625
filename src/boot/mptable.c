/*
 * mptable: see mptable.h. Chapter 4 of the specification; table and section numbers are its own.
 *
 * Written even when there is ACPI: Linux looks for the floating pointer before it reads ACPI
 * tables, finds this one at once, and need not search the 64 KiB below 1 MiB, page fault by page
 * fault.
 */
#include "mptable.h"

#define OEM	"MAYFLY  "
#define PRODUCT "MICROVM     "
#define ISA_BUS 0

/* 4.1, floating pointer */
struct mp_floating {
	char signature[4];
	u32 config;
	u8 length; /* in 16 bytes */
	u8 spec;
	u8 checksum;
	u8 feature[5]; /* [0] 0: there is a configuration table; [1] 0: virtual wire mode */
};
static_assert(sizeof(struct mp_floating) == 16, "4.1");

/* 4.2, configuration table header */
struct mp_header {
	char signature[4];
	u16 length;
	u8 spec;
	u8 checksum;
	char oem[8];
	char product[12];
	u32 oem_table;
	u16 oem_table_size;
	u16 entries;
	u32 lapic;
	u16 ext_length;
	u8 ext_checksum;
	u8 reserved;
};
static_assert(sizeof(struct mp_header) == 44, "4.2");

enum { MP_PROCESSOR, MP_BUS, MP_IOAPIC, MP_INTERRUPT, MP_LOCAL_INTERRUPT };

/* 4.3.1 */
struct mp_processor {
	u8 type, apic_id, apic_version;
	u8 flags; /* bit 0 enabled, bit 1 boots */
	u32 signature, features;
	u32 reserved[2];
};
static_assert(sizeof(struct mp_processor) == 20, "4.3.1");

/* 4.3.2 */
struct mp_bus {
	u8 type, id;
	char name[6];
};
static_assert(sizeof(struct mp_bus) == 8, "4.3.2");

/* 4.3.3 */
struct mp_ioapic {
	u8 type, id, version, flags;
	u32 addr;
};
static_assert(sizeof(struct mp_ioapic) == 8, "4.3.3");

/* 4.3.4 and 4.3.5 are the same shape */
struct mp_interrupt {
	u8 type, kind;
	u16 flags; /* bits 0-1 polarity, 2-3 trigger */
	u8 source_bus, source_irq, apic_id, pin;
};
static_assert(sizeof(struct mp_interrupt) == 8, "4.3.4");

enum { KIND_INT, KIND_NMI, KIND_SMI, KIND_EXTINT };
#define AS_BUS	  0x0 /* polarity and trigger as the bus has them */
#define EDGE_HIGH 0x5

#define LAPIC_VERSION  0x14
#define IOAPIC_VERSION 0x11
#define FEATURES       0x201 /* FPU and APIC; the rest is CPUID's to tell */

static_assert(sizeof(struct mp_header) + 32 * sizeof(struct mp_processor) + sizeof(struct mp_bus) +
			      sizeof(struct mp_ioapic) +
			      (LAYOUT_IOAPIC_PINS_MAX + 2) * sizeof(struct mp_interrupt) <=
		      LAYOUT_MPCONFIG_END - LAYOUT_MPCONFIG,
	      "the largest table fits");

struct table {
	u8 *to;
	u64 len, room;
	u16 entries;
};

static void add(struct table *t, const void *entry, u64 len)
{
	assert(range_ok(t->len, len, t->room));
	memcpy(t->to + t->len, entry, len);
	t->len += len;
	t->entries++;
}

static u8 checksum(const void *from, u64 len)
{
	const u8 *bytes = from;
	u8 sum = 0;

	for (u64 i = 0; i < len; i++)
		sum = (u8)(sum + bytes[i]);
	return (u8)-sum;
}

static void add_processors(struct table *t, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		add(t,
		    &(struct mp_processor){
			    .type = MP_PROCESSOR,
			    .apic_id = (u8)i,
			    .apic_version = LAPIC_VERSION,
			    .flags = i == 0 ? 3 : 1,
			    .features = FEATURES,
		    },
		    sizeof(struct mp_processor));
}

static void add_interrupt(struct table *t, u8 type, u8 kind, u16 flags, u8 irq, u8 apic_id, u8 pin)
{
	add(t,
	    &(struct mp_interrupt){
		    .type = type,
		    .kind = kind,
		    .flags = flags,
		    .source_bus = ISA_BUS,
		    .source_irq = irq,
		    .apic_id = apic_id,
		    .pin = pin,
	    },
	    sizeof(struct mp_interrupt));
}

static void add_all(struct table *t, const struct boot_machine *machine)
{
	u8 ioapic_id = (u8)machine->n_vcpus; /* local APICs have the ids below */

	add_processors(t, machine->n_vcpus);
	add(t, &(struct mp_bus){ MP_BUS, ISA_BUS, { 'I', 'S', 'A', ' ', ' ', ' ' } },
	    sizeof(struct mp_bus));
	add(t, &(struct mp_ioapic){ MP_IOAPIC, ioapic_id, IOAPIC_VERSION, 1, LAYOUT_IOAPIC },
	    sizeof(struct mp_ioapic));
	for (unsigned pin = 0; pin < machine->ioapic_pins; pin++)
		add_interrupt(t, MP_INTERRUPT, KIND_INT, EDGE_HIGH, (u8)pin, ioapic_id, (u8)pin);
	/* 0xff: every local APIC has its inputs wired so. */
	add_interrupt(t, MP_LOCAL_INTERRUPT, KIND_EXTINT, AS_BUS, 0, 0xff, 0);
	add_interrupt(t, MP_LOCAL_INTERRUPT, KIND_NMI, AS_BUS, 0, 0xff, 1);
}

int mptable_write(const struct mem *mem, const struct boot_machine *machine, struct err *err)
{
	const u64 room = LAYOUT_MPCONFIG_END - LAYOUT_MPCONFIG;
	struct mp_floating pointer = { { '_', 'M', 'P', '_' }, LAYOUT_MPCONFIG, 1, 4, 0, { 0 } };
	struct mp_header header = { .signature = { 'P', 'C', 'M', 'P' }, .spec = 4 };
	struct table t = { .to = mem_at(mem, LAYOUT_MPCONFIG, room), .room = room };
	u8 *floating = mem_at(mem, LAYOUT_MPTABLE, sizeof pointer);

	if (!t.to || !floating)
		return fail(err, -EINVAL, "no guest memory for the MP table");
	t.len = sizeof header;
	add_all(&t, machine);

	memcpy(header.oem, OEM, sizeof header.oem);
	memcpy(header.product, PRODUCT, sizeof header.product);
	header.length = (u16)t.len;
	header.entries = t.entries;
	header.lapic = LAYOUT_LAPIC;
	memcpy(t.to, &header, sizeof header);
	header.checksum = checksum(t.to, t.len);
	memcpy(t.to, &header, sizeof header);

	pointer.checksum = checksum(&pointer, sizeof pointer);
	memcpy(floating, &pointer, sizeof pointer);
	return 0;
}
