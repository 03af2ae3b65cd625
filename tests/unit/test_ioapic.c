/* ioapic: the guest programs lines, KVM gets messages; only what KVM can see is published. */
#include "test.h"

#include "src/vmm/ioapic.h"

static struct ioapic ioapic;
static struct bus mmio;
static struct kvm_route routes[LAYOUT_IOAPIC_PINS_MAX];
static unsigned n_routes, published, unmasked_pin;

static void routed(void *owner, const struct kvm_route *r, unsigned n)
{
	(void)owner;
	memcpy(routes, r, n * sizeof r[0]);
	n_routes = n;
	published++;
}

static void unmasked(void *owner, unsigned pin)
{
	(void)owner;
	unmasked_pin = pin;
}

static int setup(void **state)
{
	struct err err;

	(void)state;
	ioapic = (struct ioapic){ .routed = routed, .unmasked = unmasked };
	mmio = (struct bus){ 0 };
	n_routes = published = 0;
	unmasked_pin = ~0u;
	if (ioapic_init(&ioapic, 8, &mmio, &err) < 0)
		return -1;
	bus_seal(&mmio);
	return 0;
}

static u32 get(u8 reg)
{
	const struct bus_entry *e = bus_find(&mmio, LAYOUT_IOAPIC, 4);
	u32 index = reg, value = 0;

	e->write(e->owner, 0, &index, 4);
	e->read(e->owner, 0x10, &value, 4);
	return value;
}

static void set(u8 reg, u32 value)
{
	const struct bus_entry *e = bus_find(&mmio, LAYOUT_IOAPIC, 4);
	u32 index = reg;

	e->write(e->owner, 0, &index, 4);
	e->write(e->owner, 0x10, &value, 4);
}

static void the_version_tells_the_number_of_pins(void **state)
{
	(void)state;
	assert_int_equal(get(1), 0x11 | 7 << 16);
}

static void all_lines_start_masked(void **state)
{
	(void)state;
	for (u8 pin = 0; pin < 8; pin++)
		assert_int_equal(get((u8)(0x10 + 2 * pin)), 0x10000);
}

static void an_unmasked_line_becomes_its_message(void **state)
{
	(void)state;
	set(0x10 + 2 * 5 + 1, 3u << 24);
	set(0x10 + 2 * 5, 0x41);
	assert_int_equal(n_routes, 1);
	assert_int_equal(routes[0].gsi, 5);
	assert_int_equal(routes[0].address_lo, 0xfee03000);
	assert_int_equal(routes[0].data, 0x41);
	assert_int_equal(unmasked_pin, 5);
}

static void logical_and_lowest_priority_are_carried_over(void **state)
{
	(void)state;
	set(0x11, 0xffu << 24);
	set(0x10, 0x30 | 1 << 8 | 1 << 11);
	assert_int_equal(routes[0].address_lo, 0xfeeff004);
	assert_int_equal(routes[0].data, 0x130);
}

static void masked_changes_cost_nothing(void **state)
{
	(void)state;
	for (u8 pin = 0; pin < 8; pin++) {
		set((u8)(0x10 + 2 * pin), 0x10000 | 0x20);
		set((u8)(0x11 + 2 * pin), 1u << 24);
	}
	assert_int_equal(published, 0);
}

static void writing_the_same_again_costs_nothing(void **state)
{
	(void)state;
	set(0x10, 0x41);
	set(0x10, 0x41);
	assert_int_equal(published, 1);
}

static void masking_takes_the_line_away(void **state)
{
	(void)state;
	set(0x10, 0x41);
	set(0x10, 0x10041);
	assert_int_equal(published, 2);
	assert_int_equal(n_routes, 0);
}

static void read_only_bits_stay_clear(void **state)
{
	(void)state;
	set(0x10, 0x41 | 1 << 12 | 1 << 14);
	assert_int_equal(get(0x10), 0x41);
}

static void registers_past_the_last_pin_hold_nothing(void **state)
{
	(void)state;
	set(0x10 + 2 * 8, 0x41);
	set(0xff, 0x41);
	set(0x05, 0x41);
	assert_int_equal(published, 0);
	assert_int_equal(get(0x10 + 2 * 8), 0);
	assert_int_equal(get(0xff), 0);
}

static void odd_sizes_and_offsets_do_no_harm(void **state)
{
	const struct bus_entry *e = bus_find(&mmio, LAYOUT_IOAPIC, 4);
	u64 value = ~0ull;

	(void)state;
	for (u64 off = 0; off + 8 <= e->len; off++) {
		e->write(e->owner, off, &value, 8);
		e->read(e->owner, off, &value, 8);
		e->write(e->owner, off, &value, 1);
		e->read(e->owner, off, &value, 1);
	}
	assert_int_equal(published, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(the_version_tells_the_number_of_pins, setup),
		cmocka_unit_test_setup(all_lines_start_masked, setup),
		cmocka_unit_test_setup(an_unmasked_line_becomes_its_message, setup),
		cmocka_unit_test_setup(logical_and_lowest_priority_are_carried_over, setup),
		cmocka_unit_test_setup(masked_changes_cost_nothing, setup),
		cmocka_unit_test_setup(writing_the_same_again_costs_nothing, setup),
		cmocka_unit_test_setup(masking_takes_the_line_away, setup),
		cmocka_unit_test_setup(read_only_bits_stay_clear, setup),
		cmocka_unit_test_setup(registers_past_the_last_pin_hold_nothing, setup),
		cmocka_unit_test_setup(odd_sizes_and_offsets_do_no_harm, setup),
	};

	return cmocka_run_group_tests_name("ioapic", tests, NULL, NULL);
}
