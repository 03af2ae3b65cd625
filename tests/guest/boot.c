/*
 * boot: what a kernel finds when it starts. Built twice: entered at the 64-bit entry with a zero
 * page (boot.elf), and at the 32-bit entry of a PVH note with a start info (boot-pvh.elf).
 *
 *	do=state	the processor's state at the 64-bit entry
 *	do=memory mem_mib=N	the memory map adds up, is sane, and is really there
 *	do=initrd size=N sum=S	the initial RAM disk, byte for byte
 *	do=args		prints the command line between brackets
 *	do=acpi cpus=N devices=N	the tables, by their checksums and contents
 *	do=mp cpus=N	the MP table
 *	do=cpuid cpus=N	what the processor says of itself
 *	do=tables	acpi and mp
 */
#include "guest.h"

static u16 get16(u64 at)
{
	return (u16)mmio_read(at, 2);
}

static u32 get32(u64 at)
{
	return (u32)mmio_read(at, 4);
}

static u64 get64(u64 at)
{
	return mmio_read(at, 8);
}

static u8 byte_sum(u64 at, u32 len)
{
	u8 sum = 0;

	for (const u8 *p = (const u8 *)at; len; len--)
		sum = (u8)(sum + *p++);
	return sum;
}

static void state(void)
{
	CHECK((entry_cr0 & 0x80000001) == 0x80000001, "cr0 %lx", entry_cr0);
	CHECK(entry_cr4 & 0x20, "cr4 %lx", entry_cr4);
	CHECK((entry_efer & 0x500) == 0x500, "efer %lx", entry_efer);
	CHECK(!(entry_rflags & 0x200), "interrupts are off: %lx", entry_rflags);
	CHECK(boot_info == LAYOUT_ZERO_PAGE, "zero page at %lx", boot_info);
	CHECK(get16(boot_info + 0x1fe) == 0xaa55, "boot flag");
	CHECK(get32(boot_info + 0x202) == 0x53726448, "header magic HdrS");
	CHECK(mmio_read(boot_info + 0x210, 1) == 0xff, "loader type is `unknown'");
}

/* ---- memory map ---------------------------------------------------------------------------------- */

struct range {
	u64 addr, size;
	u32 type;
};

static unsigned memory_map(struct range *map, unsigned max)
{
	unsigned n = boot_pvh ? get32(boot_info + 48) : (unsigned)mmio_read(boot_info + 0x1e8, 1);
	u64 at = boot_pvh ? get64(boot_info + 40) : boot_info + 0x2d0;

	CHECK(n > 0 && n <= max, "%u entries in the memory map", n);
	for (unsigned i = 0; i < n && i < max; i++) {
		map[i] = (struct range){ get64(at), get64(at + 8), get32(at + 16) };
		at += boot_pvh ? 24 : 20;
	}
	return n < max ? n : max;
}

/* Writes to the ends of a piece of RAM; other RAM must not change with it. */
static void touch(const struct range *r)
{
	u64 first = r->addr < 0x1000 ? 0x1000 : r->addr, last = r->addr + r->size - 8;
	u64 old = get64(last);

	mmio_write(last, ~old, 8);
	CHECK(get64(last) == ~old, "RAM at %lx", last);
	mmio_write(last, old, 8);
	get64(first);
}

static void memory(void)
{
	u64 total = 0, want = option("mem_mib", 128) << 20;
	struct range map[32];
	unsigned n = memory_map(map, ARRAY_SIZE(map));

	for (unsigned i = 0; i < n; i++) {
		CHECK(map[i].size > 0, "entry %u is empty", i);
		for (unsigned k = 0; k < i; k++)
			CHECK(map[k].addr + map[k].size <= map[i].addr, "entry %u after %u", i, k);
		if (map[i].type != 1)
			continue;
		total += map[i].size;
		CHECK(map[i].addr + map[i].size <= 0xc0000000 || map[i].addr >= 0x100000000,
		      "RAM is not where devices are: %lx %lx", map[i].addr, map[i].size);
		CHECK(map[i].addr + map[i].size <= LAYOUT_SYSTEM || map[i].addr >= LAYOUT_SYSTEM_END,
		      "RAM is not where tables are: %lx", map[i].addr);
		touch(&map[i]);
	}
	/* All of it but the system area, which no kernel may use. */
	CHECK(total == want - (LAYOUT_SYSTEM_END - LAYOUT_SYSTEM), "%lu KiB of %lu MiB", total >> 10,
	      want >> 20);
}

/* ---- initial RAM disk ---------------------------------------------------------------------------- */

static void initrd(void)
{
	u64 size = option("size", 0), sum = option("sum", 0), at, len;
	u32 real = 0;

	if (boot_pvh) {
		u64 list = get64(boot_info + 16);

		CHECK(get32(boot_info + 12) == 1, "one module: %u", get32(boot_info + 12));
		at = get64(list);
		len = get64(list + 8);
	} else {
		at = get32(boot_info + 0x218) | (u64)get32(boot_info + 0xc0) << 32;
		len = get32(boot_info + 0x21c) | (u64)get32(boot_info + 0xc4) << 32;
	}
	CHECK(len == size, "initrd has %lu bytes, not %lu", len, size);
	CHECK(!(at & 0xfff), "initrd at a page: %lx", at);
	CHECK(at >= 0x100000, "initrd above 1 MiB: %lx", at);
	for (u64 i = 0; i < len && len == size; i += 64)
		real = real * 31 + *(const u8 *)(at + i);
	CHECK(real == (u32)sum, "initrd sum %x, not %lx", real, sum);
}

/* ---- ACPI ------------------------------------------------------------------------------------------ */

static u64 find_rsdp(void)
{
	u64 told = boot_pvh ? get64(boot_info + 32) : get64(boot_info + 0x70);

	for (u64 at = 0xe0000; at < 0x100000; at += 16) {
		if (memcmp((void *)at, "RSD PTR ", 8))
			continue;
		CHECK(!told || told == at, "RSDP told at %lx, found at %lx", told, at);
		return at;
	}
	return 0;
}

static bool is_table(u64 at, const char *signature)
{
	return !memcmp((void *)at, signature, 4);
}

static void check_madt(u64 at, u32 cpus)
{
	u32 enabled = 0, ioapics = 0;

	for (u64 e = at + 44; e < at + get32(at + 4); e += mmio_read(e + 1, 1)) {
		u8 type = (u8)mmio_read(e, 1), len = (u8)mmio_read(e + 1, 1);

		CHECK(len >= 2, "MADT entry of length %u", (u32)len);
		if (len < 2)
			return;
		if ((type == 0 && get32(e + 4) & 1) || (type == 9 && get32(e + 8) & 1))
			enabled++;
		if (type == 1) {
			ioapics++;
			CHECK(get32(e + 4) == LAYOUT_IOAPIC, "IOAPIC at %x", get32(e + 4));
		}
	}
	CHECK(get32(at + 36) == LAYOUT_LAPIC, "local APICs at %x", get32(at + 36));
	CHECK(enabled == cpus, "MADT has %u of %u processors", enabled, cpus);
	CHECK(ioapics == 1, "MADT has %u IOAPICs", ioapics);
}

static u32 count_in(u64 at, u32 len, const char *word, u32 n)
{
	u32 found = 0;

	for (u32 i = 0; i + n <= len; i++)
		found += !memcmp((void *)(at + i), word, n);
	return found;
}

static void check_fadt(u64 at, u32 devices)
{
	u64 dsdt = get64(at + 140) ? get64(at + 140) : get32(at + 40);

	CHECK(get32(at + 112) & 1u << 20, "FADT: hardware reduced");
	CHECK(mmio_read(at + 116, 1) == 1 && get64(at + 120) == LAYOUT_PORT_ACPI_RESET,
	      "FADT: reset register at %lx", get64(at + 120));
	CHECK(get32(at + 112) & 1u << 10, "FADT: the reset register is announced");
	CHECK(mmio_read(at + 128, 1) == LAYOUT_ACPI_RESET_VALUE, "FADT: reset value");
	CHECK(get64(at + 244 + 4) == LAYOUT_PORT_ACPI_SLEEP, "FADT: sleep control at %lx",
	      get64(at + 244 + 4));
	CHECK(is_table(dsdt, "DSDT"), "DSDT at %lx", dsdt);
	CHECK(!byte_sum(dsdt, get32(dsdt + 4)), "DSDT sum");
	CHECK(count_in(dsdt, get32(dsdt + 4), "LNRO0005", 8) == devices, "DSDT: virtio devices: %u",
	      count_in(dsdt, get32(dsdt + 4), "LNRO0005", 8));
}

static void acpi(void)
{
	u32 cpus = (u32)option("cpus", 1), devices = (u32)option("devices", 0);
	u64 rsdp = find_rsdp(), xsdt, fadt = 0, madt = 0;

	CHECK(rsdp != 0, "RSDP");
	if (!rsdp)
		return;
	CHECK(!byte_sum(rsdp, 20) && !byte_sum(rsdp, 36), "RSDP sums");
	xsdt = get64(rsdp + 24);
	CHECK(is_table(xsdt, "XSDT") && !byte_sum(xsdt, get32(xsdt + 4)), "XSDT at %lx", xsdt);
	for (u64 e = xsdt + 36; e < xsdt + get32(xsdt + 4); e += 8) {
		u64 table = get64(e);

		CHECK(!byte_sum(table, get32(table + 4)), "sum of the table at %lx", table);
		CHECK(table >= LAYOUT_SYSTEM && table + get32(table + 4) <= LAYOUT_SYSTEM_END,
		      "table at %lx is in the system area", table);
		if (is_table(table, "FACP"))
			fadt = table;
		if (is_table(table, "APIC"))
			madt = table;
	}
	CHECK(fadt && madt, "FADT and MADT are there");
	if (fadt)
		check_fadt(fadt, devices);
	if (madt)
		check_madt(madt, cpus);
}

/* ---- MP table -------------------------------------------------------------------------------------- */

static void mp(void)
{
	u32 cpus = (u32)option("cpus", 1), found = 0, ioapics = 0, boot = 0;
	u64 floating = 0, table, e;

	for (u64 at = 0x9fc00; at < 0xa0000 && !floating; at += 16)
		floating = memcmp((void *)at, "_MP_", 4) ? 0 : at;
	CHECK(floating != 0, "MP floating pointer in the last KiB below 640 KiB");
	if (!floating)
		return;
	CHECK(!byte_sum(floating, mmio_read(floating + 8, 1) * 16u), "MP pointer sum");
	table = get32(floating + 4);
	CHECK(!memcmp((void *)table, "PCMP", 4) && !byte_sum(table, get16(table + 4)), "MP table");
	CHECK(get32(table + 36) == LAYOUT_LAPIC, "MP: local APICs");
	e = table + 44;
	for (u32 i = get16(table + 34); i; i--) {
		u8 type = (u8)mmio_read(e, 1);

		if (type == 0) {
			found += mmio_read(e + 3, 1) & 1;
			boot += mmio_read(e + 3, 1) >> 1 & 1;
		} else if (type == 2) {
			ioapics++;
			CHECK(get32(e + 4) == LAYOUT_IOAPIC, "MP: IOAPIC at %x", get32(e + 4));
		}
		e += type ? 8 : 20;
	}
	CHECK(e == table + get16(table + 4), "MP table's length fits its entries");
	CHECK(found == cpus && boot == 1, "MP: %u of %u processors, %u to boot", found, cpus, boot);
	CHECK(ioapics == 1, "MP: %u IOAPICs", ioapics);
}

/* ---- CPUID ----------------------------------------------------------------------------------------- */

static void cpuid_leaves(void)
{
	u32 cpus = (u32)option("cpus", 1), r[4];

	cpuid(1, 0, r);
	CHECK(r[2] >> 31, "the hypervisor bit");
	CHECK(r[2] >> 24 & 1, "TSC deadline timer");
	CHECK(r[1] >> 24 == apic_id(), "APIC id %u", r[1] >> 24);
	CHECK(r[3] >> 28 & 1 || cpus == 1, "HTT if there are more processors");
	CHECK((r[1] >> 16 & 0xff) >= cpus || cpus == 1, "%u logical ids", r[1] >> 16 & 0xff);
	cpuid(0x40000000, 0, r);
	CHECK(r[1] == 0x4b4d564b && r[2] == 0x564b4d56 && r[3] == 0x4d, "KVM's signature");
	cpuid(0xb, 0, r);
	CHECK(!r[1] || r[3] == apic_id(), "x2APIC id %u", r[3]);
}

void guest(void)
{
	if (option_is("do", "args"))
		put("[%s]\n", command_line);
	else if (option_is("do", "state"))
		state();
	else if (option_is("do", "memory"))
		memory();
	else if (option_is("do", "initrd"))
		initrd();
	else if (option_is("do", "acpi"))
		acpi();
	else if (option_is("do", "mp"))
		mp();
	else if (option_is("do", "cpuid"))
		cpuid_leaves();
	if (option_is("do", "tables")) {
		acpi();
		mp();
	}
	CHECK(boot_pvh ? get32(boot_info) == 0x336ec578 : boot_info != 0, "boot information");
}
