/*
 * acpi: see acpi.h. Section numbers are of ACPI 6.4.
 *
 * The machine is hardware-reduced (3.11.1): no PIC, no PM timer, no SCI, no fixed events. It is
 * switched off and reset by writing a byte to a port (4.8.3.5, 4.8.3.6). Nothing here has to be
 * interpreted while the guest boots, except names: the one method runs when the machine was
 * restored as another one (VM generation id, VM clock).
 *
 * Every interrupt is an edge, active high, and goes to our own IOAPIC, whose pins are GSIs.
 */
#include "acpi.h"
#include "aml.h"

#include <stdio.h>

#define OEM_ID	     "MAYFLY"
#define OEM_REVISION 1
#define CREATOR_ID   "MFLY"

struct acpi_header {
	char signature[4];
	u32 length;
	u8 revision;
	u8 checksum;
	char oem_id[6];
	char oem_table_id[8];
	u32 oem_revision;
	char creator_id[4];
	u32 creator_revision;
} __attribute__((packed));
static_assert(sizeof(struct acpi_header) == 36, "5.2.6");

/* 5.2.3.2, generic address */
struct acpi_gas {
	u8 space; /* 1: port */
	u8 bits;
	u8 offset;
	u8 access; /* 1: byte */
	u64 address;
} __attribute__((packed));
static_assert(sizeof(struct acpi_gas) == 12, "5.2.3.2");

struct acpi_rsdp {
	char signature[8];
	u8 checksum; /* of the first 20 bytes */
	char oem_id[6];
	u8 revision;
	u32 rsdt;
	u32 length;
	u64 xsdt;
	u8 checksum_all;
	u8 reserved[3];
} __attribute__((packed));
static_assert(sizeof(struct acpi_rsdp) == 36, "5.2.5.3");

struct acpi_xsdt {
	struct acpi_header h;
	u64 tables[2];
} __attribute__((packed));

struct acpi_fadt {
	struct acpi_header h;
	u32 facs, dsdt;
	u8 reserved, profile;
	u16 sci;
	u8 pm_1[61]; /* blocks of the full hardware model: 48 to 108 */
	u16 boot_arch;
	u8 reserved_2;
	u32 flags;
	struct acpi_gas reset;
	u8 reset_value;
	u16 arm_boot_arch;
	u8 minor;
	u64 x_facs, x_dsdt;
	struct acpi_gas pm_2[8];
	struct acpi_gas sleep_control, sleep_status;
	u64 hypervisor;
} __attribute__((packed));
static_assert(offsetof(struct acpi_fadt, boot_arch) == 109, "5.2.9");
static_assert(offsetof(struct acpi_fadt, x_dsdt) == 140, "5.2.9");
static_assert(sizeof(struct acpi_fadt) == 276, "5.2.9");

/* 5.2.9.3 */
#define BOOT_LEGACY_DEVICES 0x01 /* there is a serial port */
#define BOOT_8042	    0x02
#define BOOT_NO_VGA	    0x04
#define BOOT_NO_MSI	    0x08
#define BOOT_NO_RTC	    0x20

/* Table 5.10 */
#define FLAG_WBINVD	   (1u << 0)
#define FLAG_PROC_C1	   (1u << 2)
#define FLAG_NO_PWR_BUTTON (1u << 4) /* no fixed one */
#define FLAG_NO_SLP_BUTTON (1u << 5)
#define FLAG_RESET_REG	   (1u << 10)
#define FLAG_HW_REDUCED	   (1u << 20)

struct acpi_madt {
	struct acpi_header h;
	u32 lapic;
	u32 flags; /* bit 0, PCAT_COMPAT: there are two 8259; not here */
} __attribute__((packed));

struct madt_lapic {
	u8 type, length, uid, apic_id;
	u32 flags; /* bit 0: enabled */
} __attribute__((packed));
static_assert(sizeof(struct madt_lapic) == 8, "5.2.12.2");

struct madt_ioapic {
	u8 type, length, id, reserved;
	u32 addr, gsi_base;
} __attribute__((packed));
static_assert(sizeof(struct madt_ioapic) == 12, "5.2.12.3");

/* ---- DSDT: a row per device ---------------------------------------------------------------- */

#define WINDOW_LEN 0x1000
static_assert(WINDOW_LEN == LAYOUT_VIRTIO_STEP, "a page");
static_assert(WINDOW_LEN == LAYOUT_VMCLOCK_LEN, "a page");

struct node {
	const char *name;
	const char *hid; /* "PNP....": an EISA id, else a string */
	const char *cid[2];
	u32 uid;
	u16 port[2]; /* 0: none */
	u8 ports;    /* in a row from each of them */
	u32 window;  /* memory, a page; 0: none */
	u32 gsi;     /* 0: none */
	bool coherent;
	void (*more)(struct aml *aml);
};

/* VM generation id: where the 16 bytes are, as two halves of an address. */
static void emit_vmgenid_address(struct aml *aml)
{
	size_t package;

	aml_name(aml, "ADDR");
	package = aml_open(aml, AML_PACKAGE);
	aml_byte(aml, 2);
	aml_integer(aml, LAYOUT_VMGENID);
	aml_integer(aml, 0);
	aml_close(aml, package);
}

static void emit_notify(struct aml *aml, const char *device)
{
	enum { OP_NOTIFY = 0x86, CHANGED = 0x80 };

	aml_byte(aml, OP_NOTIFY);
	aml_segment(aml, device);
	aml_integer(aml, CHANGED);
}

/* 5.6.9.3: the device has one interrupt, so _EVT need not ask which. */
static void emit_event_method(struct aml *aml)
{
	enum { ONE_ARGUMENT = 1 };
	size_t method = aml_open(aml, AML_METHOD);

	aml_segment(aml, "_EVT");
	aml_byte(aml, ONE_ARGUMENT);
	emit_notify(aml, "VGEN");
	emit_notify(aml, "VCLK");
	aml_close(aml, method);
}

static const struct node platform[] = {
	{
		.name = "COM1",
		.hid = "PNP0501",
		.port = { LAYOUT_PORT_SERIAL },
		.ports = 8,
		.gsi = LAYOUT_GSI_SERIAL,
	},
	{
		.name = "PS2",
		.hid = "PNP0303",
		.port = { LAYOUT_PORT_I8042, LAYOUT_PORT_I8042_CMD },
		.ports = 1,
		.gsi = LAYOUT_GSI_KEYBOARD,
	},
	{
		.name = "VGEN",
		/* Linux knows either name; neither is valid as a _HID, so ours comes first. */
		.hid = "MFLY0001",
		.cid = { "VM_Gen_Counter", "VMGENCTR" },
		.more = emit_vmgenid_address,
	},
	{
		.name = "VCLK",
		.hid = "AMZNC10C",
		.cid = { "VMCLOCK" },
		.window = LAYOUT_VMCLOCK,
	},
	{
		.name = "GED",
		.hid = "ACPI0013",
		.gsi = LAYOUT_GSI_IDENTITY,
		.more = emit_event_method,
	},
};

/* 6.4.2.5: I/O port descriptor, 16-bit decode. */
static void emit_ports(struct aml *aml, u16 port, u8 n)
{
	u8 lo = (u8)port, hi = (u8)(port >> 8);

	aml_bytes(aml, (u8[]){ 0x47, 1, lo, hi, lo, hi, 1, n }, 8);
}

/* 6.4.3.4: 32-bit fixed memory, writable. */
static void emit_window(struct aml *aml, u32 base, u32 len)
{
	aml_bytes(aml, (u8[]){ 0x86, 9, 0, 1 }, 4);
	aml_bytes(aml, &base, sizeof base);
	aml_bytes(aml, &len, sizeof len);
}

/* 6.4.3.6: extended interrupt; flags: consumer, edge, active high, exclusive. */
static void emit_interrupt(struct aml *aml, u32 gsi)
{
	aml_bytes(aml, (u8[]){ 0x89, 6, 0, 0x03, 1 }, 5);
	aml_bytes(aml, &gsi, sizeof gsi);
}

static void emit_resources(struct aml *aml, const struct node *n)
{
	u8 list[64];
	struct aml in = { .to = list, .room = sizeof list };
	size_t buffer;

	for (size_t i = 0; i < ARRAY_SIZE(n->port); i++)
		if (n->port[i])
			emit_ports(&in, n->port[i], n->ports);
	if (n->window)
		emit_window(&in, n->window, WINDOW_LEN);
	if (n->gsi)
		emit_interrupt(&in, n->gsi);
	if (!in.len)
		return;
	aml_bytes(&in, (u8[]){ 0x79, 0 }, 2); /* 6.4.2.9: end, no checksum */
	assert(!in.full);

	aml_name(aml, "_CRS");
	buffer = aml_open(aml, AML_BUFFER);
	aml_integer(aml, in.len);
	aml_bytes(aml, list, in.len);
	aml_close(aml, buffer);
}

static void emit_compatible(struct aml *aml, const char *const ids[2])
{
	size_t package;

	if (!ids[1]) {
		aml_name_string(aml, "_CID", ids[0]);
		return;
	}
	aml_name(aml, "_CID");
	package = aml_open(aml, AML_PACKAGE);
	aml_byte(aml, 2);
	aml_string(aml, ids[0]);
	aml_string(aml, ids[1]);
	aml_close(aml, package);
}

static void emit_node(struct aml *aml, const struct node *n)
{
	size_t device = aml_open(aml, AML_DEVICE);

	aml_segment(aml, n->name);
	if (!strncmp(n->hid, "PNP", 3))
		aml_name_integer(aml, "_HID", aml_eisa_id(n->hid));
	else
		aml_name_string(aml, "_HID", n->hid);
	if (n->cid[0])
		emit_compatible(aml, n->cid);
	aml_name_integer(aml, "_UID", n->uid);
	if (n->coherent)
		aml_name_integer(aml, "_CCA", 1);
	emit_resources(aml, n);
	if (n->more)
		n->more(aml);
	aml_close(aml, device);
}

static void emit_virtio(struct aml *aml, unsigned i)
{
	char name[8];

	snprintf(name, sizeof name, "V%03u", i % 1000);
	emit_node(aml, &(struct node){
			       .name = name,
			       .hid = LAYOUT_VIRTIO_HID,
			       .uid = i,
			       .window = LAYOUT_VIRTIO + i * LAYOUT_VIRTIO_STEP,
			       .gsi = LAYOUT_GSI_VIRTIO + i,
			       .coherent = true,
		       });
}

/* 7.4.2: what to write into the sleep control register for the one sleep state there is. */
static void emit_s5(struct aml *aml)
{
	size_t package;

	aml_name(aml, "_S5");
	package = aml_open(aml, AML_PACKAGE);
	aml_byte(aml, 4);
	aml_integer(aml, LAYOUT_ACPI_S5_TYPE);
	for (unsigned i = 1; i < 4; i++)
		aml_integer(aml, 0);
	aml_close(aml, package);
}

static void emit_dsdt(struct aml *aml, const struct boot_machine *machine)
{
	size_t scope;

	emit_s5(aml);
	scope = aml_open(aml, AML_SCOPE);
	aml_segment(aml, "_SB");
	for (size_t i = 0; i < ARRAY_SIZE(platform); i++)
		emit_node(aml, &platform[i]);
	for (unsigned i = 0; i < machine->n_devices; i++)
		emit_virtio(aml, i);
	aml_close(aml, scope);
}

/* ---- tables -------------------------------------------------------------------------------- */

static u8 checksum(const void *from, size_t len)
{
	const u8 *bytes = from;
	u8 sum = 0;

	for (size_t i = 0; i < len; i++)
		sum = (u8)(sum + bytes[i]);
	return (u8)-sum;
}

static size_t begin(struct aml *out, size_t header_len)
{
	static const u8 zero[sizeof(struct acpi_fadt)];
	size_t at;

	aml_bytes(out, zero, -out->len & 15);
	at = out->len;
	aml_bytes(out, zero, header_len);
	return at;
}

/*
 * Finishes the table that begins at `at` with the fixed part `table`, whose header is filled here;
 * what follows the fixed part is there already. Returns its address in the guest.
 */
static u64 finish(struct aml *out, size_t at, struct acpi_header *table, size_t fixed,
		  const char *signature, u8 revision)
{
	if (out->full)
		return 0;
	memcpy(table->signature, signature, sizeof table->signature);
	memcpy(table->oem_id, OEM_ID, sizeof table->oem_id);
	memcpy(table->oem_table_id, "MFVM", 4);
	memcpy(table->oem_table_id + 4, signature, 4);
	memcpy(table->creator_id, CREATOR_ID, sizeof table->creator_id);
	table->length = (u32)(out->len - at);
	table->revision = revision;
	table->oem_revision = OEM_REVISION;
	table->creator_revision = OEM_REVISION;
	memcpy(out->to + at, table, fixed);
	table->checksum = checksum(out->to + at, table->length);
	memcpy(out->to + at, table, fixed);
	return LAYOUT_ACPI + at;
}

static u64 write_dsdt(struct aml *out, const struct boot_machine *machine)
{
	struct acpi_header h = { 0 };
	size_t at = begin(out, sizeof h);

	emit_dsdt(out, machine);
	return finish(out, at, &h, sizeof h, "DSDT", 2);
}

static struct acpi_gas port(u16 address)
{
	return (struct acpi_gas){ .space = 1, .bits = 8, .access = 1, .address = address };
}

static u64 write_fadt(struct aml *out, u64 dsdt)
{
	struct acpi_fadt t = {
		.dsdt = (u32)dsdt,
		.x_dsdt = dsdt,
		.boot_arch =
			BOOT_LEGACY_DEVICES | BOOT_8042 | BOOT_NO_VGA | BOOT_NO_MSI | BOOT_NO_RTC,
		.flags = FLAG_WBINVD | FLAG_PROC_C1 | FLAG_NO_PWR_BUTTON | FLAG_NO_SLP_BUTTON |
			 FLAG_RESET_REG | FLAG_HW_REDUCED,
		.reset = port(LAYOUT_PORT_ACPI_RESET),
		.reset_value = LAYOUT_ACPI_RESET_VALUE,
		.sleep_control = port(LAYOUT_PORT_ACPI_SLEEP),
		.sleep_status = port(LAYOUT_PORT_ACPI_WAKE),
		.minor = 4,
	};
	size_t at = begin(out, sizeof t);

	memcpy(&t.hypervisor, OEM_ID, sizeof OEM_ID);
	return finish(out, at, &t.h, sizeof t, "FACP", 6);
}

static u64 write_madt(struct aml *out, const struct boot_machine *machine)
{
	struct acpi_madt t = { .lapic = LAYOUT_LAPIC };
	struct madt_ioapic ioapic = {
		.type = 1,
		.length = sizeof ioapic,
		.id = (u8)machine->n_vcpus, /* local APICs have the ids below */
		.addr = LAYOUT_IOAPIC,
	};
	size_t at = begin(out, sizeof t);

	for (unsigned i = 0; i < machine->n_vcpus; i++) {
		struct madt_lapic lapic = { 0, sizeof lapic, (u8)i, (u8)i, 1 };

		aml_bytes(out, &lapic, sizeof lapic);
	}
	aml_bytes(out, &ioapic, sizeof ioapic);
	return finish(out, at, &t.h, sizeof t, "APIC", 5);
}

static u64 write_xsdt(struct aml *out, u64 fadt, u64 madt)
{
	struct acpi_xsdt t = { .tables = { fadt, madt } };
	size_t at = begin(out, sizeof t);

	return finish(out, at, &t.h, sizeof t, "XSDT", 1);
}

static void fill_rsdp(struct acpi_rsdp *rsdp, u64 xsdt)
{
	*rsdp = (struct acpi_rsdp){ .revision = 2, .length = sizeof *rsdp, .xsdt = xsdt };
	memcpy(rsdp->signature, "RSD PTR ", sizeof rsdp->signature);
	memcpy(rsdp->oem_id, OEM_ID, sizeof rsdp->oem_id);
	rsdp->checksum = checksum(rsdp, offsetof(struct acpi_rsdp, length));
	rsdp->checksum_all = checksum(rsdp, sizeof *rsdp);
}

int acpi_write(const struct mem *mem, const struct boot_machine *machine, struct err *err)
{
	const size_t room = LAYOUT_ACPI_END - LAYOUT_ACPI;
	struct aml out = { .to = mem_at(mem, LAYOUT_ACPI, room), .room = room };
	struct acpi_rsdp *rsdp = mem_at(mem, LAYOUT_RSDP, sizeof *rsdp);
	u64 dsdt, fadt, madt, xsdt;

	if (!out.to || !rsdp)
		return fail(err, -EINVAL, "no guest memory for ACPI tables");
	dsdt = write_dsdt(&out, machine);
	fadt = write_fadt(&out, dsdt);
	madt = write_madt(&out, machine);
	xsdt = write_xsdt(&out, fadt, madt);
	if (out.full)
		return fail(err, -ENOSPC, "ACPI tables of more than %zu bytes", room);
	fill_rsdp(rsdp, xsdt);
	return 0;
}
