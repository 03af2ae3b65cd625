/* acpi: tables that an operating system, and Intel's own compiler, read as they were meant. */
#include "test.h"

#include "kernel.h"
#include "src/boot/acpi.h"
#include "src/boot/aml.h"

#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#define RAM MIB(2)

static struct mem mem;
static struct err err;

static int fresh(void **state)
{
	(void)state;
	mem = kernel_mem(RAM);
	return 0;
}

static int gone(void **state)
{
	(void)state;
	mem_destroy(&mem);
	return 0;
}

static u64 field(const u8 *table, size_t at, unsigned size)
{
	u64 value = 0;

	memcpy(&value, table + at, size);
	return value;
}

static u8 sum(const u8 *bytes, size_t len)
{
	u8 total = 0;

	while (len--)
		total = (u8)(total + *bytes++);
	return total;
}

static const u8 *table_at(u64 gpa, const char *signature)
{
	const u8 *h = mem_at(&mem, gpa, 36), *table;
	u64 len;

	assert_non_null(h);
	assert_true(gpa >= LAYOUT_ACPI && gpa < LAYOUT_ACPI_END);
	len = field(h, 4, 4);
	table = mem_at(&mem, gpa, len);
	assert_non_null(table);
	assert_true(gpa + len <= LAYOUT_ACPI_END);
	assert_int_equal(sum(table, len), 0);
	assert_memory_equal(table, signature, 4);
	assert_memory_equal(table + 10, "MAYFLY", 6);
	return table;
}

/* RSDP -> XSDT -> the table; the DSDT is found through the FADT. */
static const u8 *find(const char *signature)
{
	const u8 *rsdp = mem_at(&mem, LAYOUT_RSDP, 36), *xsdt;

	assert_memory_equal(rsdp, "RSD PTR ", 8);
	assert_int_equal(sum(rsdp, 20), 0);
	assert_int_equal(sum(rsdp, 36), 0);
	assert_int_equal(rsdp[15], 2);
	xsdt = table_at(field(rsdp, 24, 8), "XSDT");
	for (u64 at = 36; at < field(xsdt, 4, 4); at += 8)
		if (!memcmp(mem_at(&mem, field(xsdt, at, 8), 4), signature, 4))
			return table_at(field(xsdt, at, 8), signature);
	return NULL;
}

static const u8 *dsdt(void)
{
	const u8 *fadt = find("FACP");

	assert_int_equal(field(fadt, 40, 4), field(fadt, 140, 8));
	return table_at(field(fadt, 140, 8), "DSDT");
}

static void write_tables(unsigned n_vcpus, unsigned n_devices)
{
	const struct boot_machine m = { .n_vcpus = n_vcpus,
					.ioapic_pins = LAYOUT_GSI_VIRTIO + n_devices,
					.n_devices = n_devices };

	assert_int_equal(acpi_write(&mem, &m, &err), 0);
}

static void the_fadt_describes_a_hardware_reduced_machine(void **state)
{
	const u8 *fadt;
	u64 flags;

	(void)state;
	write_tables(1, 1);
	fadt = find("FACP");
	assert_int_equal(fadt[8], 6);
	assert_int_equal(field(fadt, 4, 4), 276);
	flags = field(fadt, 112, 4);
	assert_true(flags & 1 << 20);		 /* hardware-reduced */
	assert_true(flags & 1 << 10);		 /* there is a reset register */
	assert_true(flags & 1 << 4);		 /* no fixed power button */
	assert_true(field(fadt, 109, 2) & 0x02); /* keyboard controller */
	assert_true(field(fadt, 109, 2) & 0x20); /* no RTC */
	assert_int_equal(field(fadt, 46, 2), 0); /* no SCI */
}

static void assert_byte_port(const u8 *gas, u64 port)
{
	assert_int_equal(gas[0], 1);
	assert_int_equal(gas[1], 8);
	assert_int_equal(gas[3], 1);
	assert_int_equal(field(gas, 4, 8), port);
}

static void it_is_reset_and_switched_off_through_ports(void **state)
{
	static const u8 s5[] = { 0x08, '_', 'S', '5', '_', 0x12, 7, 4, 0x0a, 5, 0, 0, 0 };
	const u8 *fadt;

	(void)state;
	write_tables(1, 0);
	fadt = find("FACP");
	assert_byte_port(fadt + 116, 0x602);
	assert_int_equal(fadt[128], 1);
	assert_byte_port(fadt + 244, 0x600);
	assert_byte_port(fadt + 256, 0x601);
	assert_memory_equal(dsdt() + 36, s5, sizeof s5);
}

static void the_madt_lists_processors_and_the_ioapic_but_no_pic(void **state)
{
	const u8 *madt, *e;

	(void)state;
	write_tables(32, 1);
	madt = find("APIC");
	assert_int_equal(field(madt, 36, 4), 0xfee00000);
	assert_int_equal(field(madt, 40, 4), 0);
	for (unsigned i = 0; i < 32; i++) {
		e = madt + 44 + 8 * i;
		assert_true(e[0] == 0 && e[1] == 8 && e[2] == i && e[3] == i && e[4] == 1);
	}
	e = madt + 44 + 8 * 32;
	assert_true(e[0] == 1 && e[1] == 12 && e[2] == 32);
	assert_int_equal(field(e, 4, 4), 0xfec00000);
	assert_int_equal(field(e, 8, 4), 0);
	assert_int_equal(field(madt, 4, 4), 44 + 8 * 32 + 12);
}

/* Position of `bytes` in the DSDT at or after `from`; 0: not there. */
static size_t dsdt_find(size_t from, const void *bytes, size_t len)
{
	const u8 *table = dsdt(), *at;

	at = memmem(table + from, field(table, 4, 4) - from, bytes, len);
	return at ? (size_t)(at - table) : 0;
}

static void each_device_has_its_window_and_line_in_order(void **state)
{
	size_t at = 36;

	(void)state;
	write_tables(1, LAYOUT_DEVICES_MAX);
	for (u32 i = 0; i < LAYOUT_DEVICES_MAX; i++) {
		u32 base = 0xc0001000 + i * 0x1000, gsi = 6 + i;
		u8 window[12] = { 0x86, 9, 0, 1 }, line[9] = { 0x89, 6, 0, 3, 1 };
		char name[8];

		snprintf(name, sizeof name, "V%03u", i);
		at = dsdt_find(at, name, 4);
		assert_int_not_equal(at, 0);
		at = dsdt_find(at, "LNRO0005", 9);
		assert_int_not_equal(at, 0);
		memcpy(window + 4, &base, 4);
		memcpy(window + 8, &(u32){ 0x1000 }, 4);
		at = dsdt_find(at, window, sizeof window);
		assert_int_not_equal(at, 0);
		memcpy(line + 5, &gsi, 4);
		assert_int_equal(dsdt_find(at, line, sizeof line), at + sizeof window);
	}
	assert_int_equal(dsdt_find(at, "LNRO0005", 8), 0);
}

static void the_generation_id_can_be_found_and_its_change_noticed(void **state)
{
	static const u8 addr[] = { 0x08, 'A',  'D',  'D',  'R',	 0x12, 8,
				   2,	 0x0c, 0x00, 0xf0, 0x0d, 0x00, 0x00 };
	static const u8 event[] = { 0x14, 20,  '_', 'E', 'V',  'T',  1,	   0x86, 'V',  'G', 'E',
				    'N',  0x0a, 0x80, 0x86, 'V', 'C', 'L', 'K', 0x0a, 0x80 };
	static const u8 clock[] = { 0x86, 9, 0, 1, 0x00, 0xe0, 0x0d, 0x00, 0x00, 0x10, 0x00, 0x00 };

	(void)state;
	write_tables(1, 0);
	assert_int_not_equal(dsdt_find(36, "VM_Gen_Counter", 15), 0);
	assert_int_not_equal(dsdt_find(36, "VMGENCTR", 9), 0);
	assert_int_not_equal(dsdt_find(36, addr, sizeof addr), 0);
	assert_int_not_equal(dsdt_find(36, event, sizeof event), 0);
	assert_int_not_equal(dsdt_find(36, "VMCLOCK", 8), 0);
	assert_int_not_equal(dsdt_find(36, clock, sizeof clock), 0);
}

static void a_machine_without_that_memory_is_an_error(void **state)
{
	const struct boot_machine m = { .n_vcpus = 1, .ioapic_pins = 24 };
	struct mem tiny = kernel_mem(0x80000);

	(void)state;
	assert_int_equal(acpi_write(&tiny, &m, &err), -EINVAL);
	mem_destroy(&tiny);
}

/* ---- AML ----------------------------------------------------------------------------------- */

static void lengths_take_one_two_or_three_bytes(void **state)
{
	static const struct {
		size_t body;
		u8 bytes[3];
		size_t n;
	} cases[] = {
		{ 0, { 0x01 }, 1 },
		{ 62, { 0x3f }, 1 },
		{ 63, { 0x41, 0x04 }, 2 },	   /* 65 */
		{ 4093, { 0x4f, 0xff }, 2 },	   /* 4095 */
		{ 4094, { 0x81, 0x00, 0x01 }, 3 }, /* 4097 */
	};
	static u8 buf[8192], body[8192];

	(void)state;
	memset(body, 0xbb, sizeof body);
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct aml aml = { .to = buf, .room = sizeof buf };
		size_t at = aml_open(&aml, AML_PACKAGE);

		aml_bytes(&aml, body, cases[i].body);
		aml_close(&aml, at);
		assert_int_equal(aml.len, 1 + cases[i].n + cases[i].body);
		assert_memory_equal(buf + 1, cases[i].bytes, cases[i].n);
		assert_memory_equal(buf + 1 + cases[i].n, body, cases[i].body);
	}
}

static void integers_take_the_smallest_form(void **state)
{
	static const struct {
		u64 value;
		u8 bytes[9];
		size_t n;
	} cases[] = {
		{ 0, { 0 }, 1 },
		{ 1, { 1 }, 1 },
		{ 2, { 0x0a, 2 }, 2 },
		{ 0xff, { 0x0a, 0xff }, 2 },
		{ 0x100, { 0x0b, 0, 1 }, 3 },
		{ 0xffffffff, { 0x0c, 0xff, 0xff, 0xff, 0xff }, 5 },
		{ 0x100000000, { 0x0e, 0, 0, 0, 0, 1, 0, 0, 0 }, 9 },
	};
	u8 buf[16];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct aml aml = { .to = buf, .room = sizeof buf };

		aml_integer(&aml, cases[i].value);
		assert_int_equal(aml.len, cases[i].n);
		assert_memory_equal(buf, cases[i].bytes, cases[i].n);
	}
}

static void names_are_padded_and_ids_are_packed(void **state)
{
	u8 buf[8];
	struct aml aml = { .to = buf, .room = sizeof buf };

	(void)state;
	aml_segment(&aml, "_S5");
	aml_segment(&aml, "V");
	assert_memory_equal(buf, "_S5_V___", 8);
	assert_int_equal(aml_eisa_id("PNP0501"), 0x0105d041);
	assert_int_equal(aml_eisa_id("PNP0A08"), 0x080ad041);
}

static void a_full_buffer_is_noticed_and_not_overrun(void **state)
{
	u8 buf[8] = { [5] = 0x5a };
	struct aml aml = { .to = buf, .room = 5 };
	size_t at = aml_open(&aml, AML_SCOPE);

	(void)state;
	aml_segment(&aml, "_SB");
	assert_false(aml.full);
	aml_close(&aml, at);
	assert_true(aml.full);
	aml_byte(&aml, 1);
	assert_true(aml.full && aml.len == 5);
	assert_int_equal(buf[5], 0x5a);
}

/* ---- Intel's compiler ---------------------------------------------------------------------- */

static void save(const char *path, const void *bytes, size_t len)
{
	FILE *f = fopen(path, "wb");

	assert_non_null(f);
	assert_int_equal(fwrite(bytes, 1, len, f), len);
	assert_int_equal(fclose(f), 0);
}

static size_t load(const char *path, u8 *to, size_t room)
{
	FILE *f = fopen(path, "rb");
	size_t len;

	assert_non_null(f);
	len = fread(to, 1, room, f);
	fclose(f);
	return len;
}

/* Disassembled and compiled again, the DSDT is byte for byte what we wrote (after the header). */
static void check_with_iasl(void)
{
	static u8 again[65536];
	const u8 *table = dsdt();
	size_t len = field(table, 4, 4);

	save("dsdt.dat", table, len);
	assert_int_equal(system("iasl -d dsdt.dat >iasl.log 2>&1"), 0);
	assert_int_equal(system("iasl -we -p again dsdt.dsl >iasl.log 2>&1"), 0);
	assert_int_equal(load("again.aml", again, sizeof again), len);
	assert_memory_equal(again + 36, table + 36, len - 36);
	save("facp.dat", find("FACP"), 276);
	save("apic.dat", find("APIC"), field(find("APIC"), 4, 4));
	assert_int_equal(system("iasl -d facp.dat apic.dat >iasl.log 2>&1"), 0);
	/* Data tables are checked by compiling what they were disassembled to. */
	assert_int_equal(system("iasl -we -p facp2 facp.dsl >iasl.log 2>&1"), 0);
	assert_int_equal(system("iasl -we -p apic2 apic.dsl >iasl.log 2>&1"), 0);
	assert_int_equal(system("! grep -iE 'error|warning|invalid|unknown' facp.dsl apic.dsl"), 0);
}

static void iasl_compiles_what_it_disassembles_to_the_same_bytes(void **state)
{
	char dir[] = "/tmp/test_acpi.XXXXXX", remove[64];
	char *back = getcwd(NULL, 0);

	(void)state;
	if (system("command -v iasl >/dev/null")) {
		print_message("iasl (acpica-tools) is not installed\n");
		free(back);
		skip();
	}
	assert_non_null(mkdtemp(dir));
	assert_int_equal(chdir(dir), 0);
	for (unsigned n = 0; n <= LAYOUT_DEVICES_MAX; n += 16) {
		write_tables(1 + n / 2, n);
		check_with_iasl();
	}
	assert_int_equal(chdir(back), 0);
	free(back);
	snprintf(remove, sizeof remove, "rm -r %s", dir);
	assert_int_equal(system(remove), 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, fresh, gone)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(the_fadt_describes_a_hardware_reduced_machine),
		TEST(it_is_reset_and_switched_off_through_ports),
		TEST(the_madt_lists_processors_and_the_ioapic_but_no_pic),
		TEST(each_device_has_its_window_and_line_in_order),
		TEST(the_generation_id_can_be_found_and_its_change_noticed),
		TEST(a_machine_without_that_memory_is_an_error),
		cmocka_unit_test(lengths_take_one_two_or_three_bytes),
		cmocka_unit_test(integers_take_the_smallest_form),
		cmocka_unit_test(names_are_padded_and_ids_are_packed),
		cmocka_unit_test(a_full_buffer_is_noticed_and_not_overrun),
		TEST(iasl_compiles_what_it_disassembles_to_the_same_bytes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
