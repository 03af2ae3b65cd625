/* mptable: what a kernel without ACPI reads, walked here as the specification says it is walked. */
#include "test.h"

#include "kernel.h"
#include "src/boot/mptable.h"

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

static u8 sum(const u8 *bytes, size_t len)
{
	u8 total = 0;

	while (len--)
		total = (u8)(total + *bytes++);
	return total;
}

static u32 u32_at(const u8 *bytes)
{
	u32 value;

	memcpy(&value, bytes, sizeof value);
	return value;
}

static u16 u16_at(const u8 *bytes)
{
	u16 value;

	memcpy(&value, bytes, sizeof value);
	return value;
}

/* Section 4.1: the structure is in the last KiB of base memory, on 16 bytes. */
static const u8 *find_config(void)
{
	const u8 *base = mem_at(&mem, 0x9fc00, 1024);

	for (unsigned at = 0; at < 1024; at += 16)
		if (!memcmp(base + at, "_MP_", 4) && !sum(base + at, base[at + 8] * 16u)) {
			assert_int_equal(base[at + 9], 4);
			assert_int_equal(base[at + 11], 0);
			return mem_at(&mem, u32_at(base + at + 4), 44);
		}
	return NULL;
}

struct counts {
	unsigned of[5];
};

/* Checks the header and calls it a day for each entry by its type's length. */
static struct counts walk(const u8 *config, void (*entry)(const u8 *entry, unsigned nth))
{
	struct counts n = { { 0 } };
	unsigned len = u16_at(config + 4), entries = u16_at(config + 34), at = 44;

	assert_memory_equal(config, "PCMP", 4);
	assert_int_equal(config[6], 4);
	assert_int_equal(sum(config, len), 0);
	assert_int_equal(u32_at(config + 36), 0xfee00000);
	for (unsigned i = 0; i < entries; i++) {
		const u8 *e = config + at;

		assert_true(e[0] < 5);
		if (entry)
			entry(e, n.of[e[0]]);
		n.of[e[0]]++;
		at += e[0] == 0 ? 20 : 8;
	}
	assert_int_equal(at, len);
	return n;
}

static void check_entry(const u8 *e, unsigned nth)
{
	switch (e[0]) {
	case 0: /* processor */
		assert_int_equal(e[1], nth);
		assert_int_equal(e[3], nth ? 1 : 3);
		break;
	case 1: /* bus */
		assert_memory_equal(e + 2, "ISA   ", 6);
		break;
	case 2: /* IOAPIC, whose id no processor has */
		assert_int_equal(e[1], 3);
		assert_int_equal(e[3], 1);
		assert_int_equal(u32_at(e + 4), 0xfec00000);
		break;
	case 3: /* interrupt: line n is pin n, an edge, active high */
		assert_int_equal(e[1], 0);
		assert_int_equal(u16_at(e + 2), 5);
		assert_int_equal(e[5], nth);
		assert_int_equal(e[6], 3);
		assert_int_equal(e[7], nth);
		break;
	case 4: /* LINT0 ExtINT, LINT1 NMI, of all processors */
		assert_int_equal(e[1], nth ? 1 : 3);
		assert_int_equal(e[6], 0xff);
		assert_int_equal(e[7], nth);
		break;
	}
}

static void processors_lines_and_pins_are_listed(void **state)
{
	const struct boot_machine m = { .n_vcpus = 3, .ioapic_pins = 24 };
	struct counts n;
	const u8 *config;

	(void)state;
	assert_int_equal(mptable_write(&mem, &m, &err), 0);
	config = find_config();
	assert_non_null(config);
	n = walk(config, check_entry);
	assert_int_equal(n.of[0], 3);
	assert_int_equal(n.of[1], 1);
	assert_int_equal(n.of[2], 1);
	assert_int_equal(n.of[3], 24);
	assert_int_equal(n.of[4], 2);
}

static void the_largest_machine_fits_and_touches_nothing_else(void **state)
{
	const struct boot_machine m = { .n_vcpus = 32, .ioapic_pins = LAYOUT_IOAPIC_PINS_MAX };
	struct counts n;
	u8 *page = mem_at(&mem, LAYOUT_RSDP, 0x2000);

	(void)state;
	memset(page, 0x5a, LAYOUT_MPCONFIG - LAYOUT_RSDP);
	memset(page + 0x1000, 0x5a, 0x1000);
	assert_int_equal(mptable_write(&mem, &m, &err), 0);
	n = walk(find_config(), NULL);
	assert_int_equal(n.of[0], 32);
	assert_int_equal(n.of[3], LAYOUT_IOAPIC_PINS_MAX);
	for (unsigned i = 0; i < 0x2000; i++)
		if (i < LAYOUT_MPCONFIG - LAYOUT_RSDP || i >= 0x1000)
			assert_int_equal(page[i], 0x5a);
}

static void a_machine_without_that_memory_is_an_error(void **state)
{
	const struct boot_machine m = { .n_vcpus = 1, .ioapic_pins = 24 };
	struct mem tiny = kernel_mem(0x80000);

	(void)state;
	assert_int_equal(mptable_write(&tiny, &m, &err), -EINVAL);
	mem_destroy(&tiny);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, fresh, gone)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(processors_lines_and_pins_are_listed),
		TEST(the_largest_machine_fits_and_touches_nothing_else),
		TEST(a_machine_without_that_memory_is_an_error),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
