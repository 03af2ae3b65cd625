/* identity: what a guest finds, and what changes when it wakes up as another machine. */
#include "test.h"

#include "../../src/boot/layout.h"
#include "../../src/vmm/identity.h"

static struct mem mem;
static struct err err;

static int set_up(void **state)
{
	(void)state;
	return mem_create(&mem, MIB(2), MEM_ANON, MEM_PAGES_4K, &err);
}

static int tear_down(void **state)
{
	(void)state;
	mem_destroy(&mem);
	return 0;
}

static u64 clock_u64(u64 off)
{
	u64 value;

	memcpy(&value, mem_at(&mem, LAYOUT_VMCLOCK + off, sizeof value), sizeof value);
	return value;
}

static u32 clock_u32(u64 off)
{
	return (u32)clock_u64(off);
}

static void a_fresh_machine_has_a_clock_page_and_an_id(void **state)
{
	static const u8 none[16];

	(void)state;
	assert_int_equal(identity_create(&mem, &err), 0);
	assert_memory_equal(mem_at(&mem, LAYOUT_VMCLOCK, 4), "VCLK", 4);
	assert_int_equal(clock_u32(4), 4096);	    /* size */
	assert_int_equal(clock_u32(8) & 0xffff, 1); /* version */
	assert_int_equal(clock_u32(8) >> 16 & 0xff, 0xff);
	assert_int_equal(clock_u32(12) % 2, 0);
	assert_int_equal(clock_u64(16), 0);
	assert_int_equal(clock_u64(24), 0x300);
	assert_int_equal(clock_u64(104), 0);
	assert_memory_not_equal(mem_at(&mem, LAYOUT_VMGENID, 16), none, sizeof none);
}

static void each_renewal_is_seen_in_both(void **state)
{
	u8 before[16];
	u32 sequence;

	(void)state;
	assert_int_equal(identity_create(&mem, &err), 0);
	for (u64 n = 1; n < 4; n++) {
		memcpy(before, mem_at(&mem, LAYOUT_VMGENID, sizeof before), sizeof before);
		sequence = clock_u32(12);
		assert_int_equal(identity_renew(&mem, &err), 0);
		assert_int_equal(clock_u32(12), sequence + 2);
		assert_int_equal(clock_u64(16), n);
		assert_int_equal(clock_u64(104), n);
		assert_memory_not_equal(mem_at(&mem, LAYOUT_VMGENID, 16), before, sizeof before);
	}
}

static void a_page_that_the_guest_spoiled_is_whole_again(void **state)
{
	(void)state;
	memset(mem_at(&mem, LAYOUT_VMCLOCK, 4096), 0xff, 4096);
	assert_int_equal(identity_renew(&mem, &err), 0);
	assert_memory_equal(mem_at(&mem, LAYOUT_VMCLOCK, 4), "VCLK", 4);
	assert_int_equal(clock_u32(12) % 2, 0);
	assert_int_equal(clock_u64(16), 0); /* wraps, like any counter */
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(a_fresh_machine_has_a_clock_page_and_an_id, set_up,
						tear_down),
		cmocka_unit_test_setup_teardown(each_renewal_is_seen_in_both, set_up, tear_down),
		cmocka_unit_test_setup_teardown(a_page_that_the_guest_spoiled_is_whole_again,
						set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
