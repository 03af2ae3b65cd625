/* bus: every address belongs to one entry or to a hole; an access belongs to an entry whole. */
#include "test.h"

#include "src/vmm/bus.h"

static int add(struct bus *bus, u64 base, u64 len)
{
	struct bus_entry e = { .base = base, .len = len };
	struct err err;

	return bus_add(bus, &e, &err);
}

static void entries_are_found_in_any_order_of_adding(void **state)
{
	struct bus bus = { 0 };

	(void)state;
	assert_int_equal(add(&bus, 0x300, 0x10), 0);
	assert_int_equal(add(&bus, 0x100, 0x10), 0);
	assert_int_equal(add(&bus, 0x200, 0x10), 0);
	bus_seal(&bus);
	assert_int_equal(bus_find(&bus, 0x100, 4)->base, 0x100);
	assert_int_equal(bus_find(&bus, 0x20c, 4)->base, 0x200);
	assert_int_equal(bus_find(&bus, 0x30f, 1)->base, 0x300);
}

static void between_and_around_are_holes(void **state)
{
	struct bus bus = { 0 };

	(void)state;
	assert_null(bus_find(&bus, 0, 1));
	add(&bus, 0x100, 0x10);
	add(&bus, 0x200, 0x10);
	bus_seal(&bus);
	assert_null(bus_find(&bus, 0xff, 1));
	assert_null(bus_find(&bus, 0x110, 1));
	assert_null(bus_find(&bus, 0x210, 1));
	assert_null(bus_find(&bus, UINT64_MAX, 8));
}

static void an_access_that_leaves_its_entry_is_a_hole(void **state)
{
	struct bus bus = { 0 };

	(void)state;
	add(&bus, 0x100, 0x10);
	add(&bus, 0x110, 0x10);
	bus_seal(&bus);
	assert_null(bus_find(&bus, 0x10e, 4));
	assert_null(bus_find(&bus, 0xfe, 4));
	assert_non_null(bus_find(&bus, 0x10c, 4));
}

static void overlaps_are_refused_by_address(void **state)
{
	struct bus bus = { 0 };
	struct bus_entry e = { .base = 0x10f, .len = 2 };
	struct err err;

	(void)state;
	add(&bus, 0x100, 0x10);
	assert_int_equal(bus_add(&bus, &e, &err), -EEXIST);
	assert_non_null(strstr(err.msg, "0x10f"));
	assert_int_equal(bus.n, 1);
}

static void a_full_table_says_so(void **state)
{
	struct bus bus = { 0 };

	(void)state;
	for (u64 i = 0; i < BUS_ENTRIES_MAX; i++)
		assert_int_equal(add(&bus, i * 16, 16), 0);
	assert_int_equal(add(&bus, 0x100000, 16), -ENOSPC);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(entries_are_found_in_any_order_of_adding),
		cmocka_unit_test(between_and_around_are_holes),
		cmocka_unit_test(an_access_that_leaves_its_entry_is_a_hole),
		cmocka_unit_test(overlaps_are_refused_by_address),
		cmocka_unit_test(a_full_table_says_so),
	};

	return cmocka_run_group_tests_name("bus", tests, NULL, NULL);
}
