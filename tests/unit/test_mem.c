/* mem: a guest address becomes a host pointer only if every byte of the question is RAM. */
#include "test.h"

#include "src/vmm/mem.h"

#include <sys/mman.h>
#include <sys/sysinfo.h>

static struct mem small(u64 size, enum mem_backing backing)
{
	struct mem mem;
	struct err err;

	assert_int_equal(mem_create(&mem, size, backing, MEM_PAGES_4K, &err), 0);
	return mem;
}

static void small_ram_is_one_region(void **state)
{
	struct mem mem = small(MIB(1), MEM_ANON);

	(void)state;
	assert_int_equal(mem.n_regions, 1);
	assert_int_equal(mem_low_end(&mem), MIB(1));
	assert_ptr_equal(mem_at(&mem, 0, MIB(1)), mem.region[0].host);
	mem_destroy(&mem);
}

static void the_last_byte_is_reachable_and_the_next_is_not(void **state)
{
	struct mem mem = small(MIB(1), MEM_ANON);

	(void)state;
	assert_non_null(mem_at(&mem, MIB(1) - 1, 1));
	assert_null(mem_at(&mem, MIB(1) - 1, 2));
	assert_null(mem_at(&mem, MIB(1), 1));
	mem_destroy(&mem);
}

static void no_length_wraps_into_ram(void **state)
{
	struct mem mem = small(MIB(1), MEM_ANON);

	(void)state;
	assert_null(mem_at(&mem, 4096, UINT64_MAX));
	assert_null(mem_at(&mem, UINT64_MAX, 1));
	assert_null(mem_at(&mem, UINT64_MAX - 3, 8));
	assert_null(mem_at(&mem, 0, 0));
	mem_destroy(&mem);
}

static void large_ram_goes_on_above_the_hole(void **state)
{
	struct mem mem = small(GIB(3) + MIB(1), MEM_ANON);
	u64 len = MIB(2);
	u8 *above;

	(void)state;
	assert_int_equal(mem.n_regions, 2);
	above = mem_at(&mem, MEM_HOLE_END, MIB(1));
	assert_ptr_equal(above, mem.region[1].host);
	assert_null(mem_at(&mem, MEM_HOLE_START, 1));
	assert_null(mem_at(&mem, MEM_HOLE_END - 1, 2));
	assert_null(mem_at(&mem, MEM_HOLE_START - 1, 2));
	assert_ptr_equal(mem_span(&mem, MEM_HOLE_END + KIB(4), &len), above + KIB(4));
	assert_int_equal(len, MIB(1) - KIB(4));
	mem_destroy(&mem);
}

static void a_span_outside_is_empty(void **state)
{
	struct mem mem = small(MIB(1), MEM_ANON);
	u64 len = 16;

	(void)state;
	assert_null(mem_span(&mem, MIB(1), &len));
	assert_int_equal(len, 0);
	mem_destroy(&mem);
}

static void a_memfd_holds_what_the_guest_writes(void **state)
{
	struct mem mem = small(MIB(1), MEM_MEMFD);
	char byte = 0;

	(void)state;
	*(char *)mem_at(&mem, 4097, 1) = 'm';
	assert_int_equal(pread(mem.fd, &byte, 1, 4097), 1);
	assert_int_equal(byte, 'm');
	mem_destroy(&mem);
}

static char byte_at(const struct mem *mem, u64 gpa)
{
	return *(char *)mem_at(mem, gpa, 1);
}

static void set_byte(const struct mem *mem, u64 gpa, char c)
{
	*(char *)mem_at(mem, gpa, 1) = c;
}

static char frozen_byte(const struct mem *mem, u64 offset)
{
	char byte = 0;

	assert_int_equal(pread(mem->fd, &byte, 1, (off_t)offset), 1);
	return byte;
}

static struct mem frozen(struct mem *mem, bool alone)
{
	struct mem next;
	struct err err;

	assert_int_equal(mem_freeze(mem, &next, alone, &err), 0);
	mem_destroy(mem);
	return next;
}

static void frozen_memory_keeps_what_was_there(void **state)
{
	(void)state;
	for (int i = 0; i < MEM_BACKINGS * 2; i++) {
		struct mem mem = small(MIB(1), i / 2);
		bool alone = i % 2;

		set_byte(&mem, 4097, 'a');
		set_byte(&mem, KIB(64), 'b');
		mem = frozen(&mem, alone);
		set_byte(&mem, 4097, 'c');
		assert_int_equal(byte_at(&mem, KIB(64)), 'b');
		assert_int_equal(frozen_byte(&mem, 4097), 'a');
		assert_int_equal(write(mem.fd, "x", 1), alone ? 1 : -1);
		mem_destroy(&mem);
	}
}

/* With zeros over what was not zero, and a page that was never touched before. */
static void frozen_again_it_is_what_it_has_become(void **state)
{
	(void)state;
	for (int i = 0; i < 4; i++) {
		struct mem mem = small(MIB(1), MEM_MEMFD);

		set_byte(&mem, 0, 'a');
		set_byte(&mem, KIB(64), 'b');
		mem = frozen(&mem, i & 1);
		memset(mem_at(&mem, 0, KIB(4)), 0, KIB(4));
		set_byte(&mem, KIB(128), 'c');
		mem = frozen(&mem, i & 2);
		set_byte(&mem, KIB(128), 'd');
		assert_int_equal(byte_at(&mem, 0), 0);
		assert_int_equal(frozen_byte(&mem, 0), 0);
		assert_int_equal(frozen_byte(&mem, KIB(64)), 'b');
		assert_int_equal(frozen_byte(&mem, KIB(128)), 'c');
		mem_destroy(&mem);
	}
}

/* Seen by another process that has mapped the file, as a clone does. */
static void what_clones_have_never_changes(void **state)
{
	struct mem mem = small(MIB(1), MEM_MEMFD), clone;
	struct err err;

	(void)state;
	set_byte(&mem, 0, 'a');
	mem = frozen(&mem, false);
	assert_int_equal(mem_open(&clone, MIB(1), mem.fd, &err), 0);
	set_byte(&mem, 0, 'b');
	mem = frozen(&mem, true);
	assert_int_equal(byte_at(&clone, 0), 'a');
	set_byte(&clone, 0, 'c');
	assert_int_equal(byte_at(&mem, 0), 'b');
	mem_destroy(&clone);
	mem_destroy(&mem);
}

static int count_pages(void *owner, u64 offset, const u8 *host, u64 len)
{
	u64 *pages = owner;

	(void)offset;
	(void)host;
	*pages += len / KIB(4);
	return 0;
}

static void private_pages_are_those_that_differ(void **state)
{
	struct mem mem = small(MIB(1), MEM_MEMFD);
	u64 pages = 0;

	(void)state;
	set_byte(&mem, 0, 'a');
	mem = frozen(&mem, false);
	assert_int_equal(byte_at(&mem, 0), 'a');
	set_byte(&mem, KIB(8), 'b');
	set_byte(&mem, KIB(64), 'c');
	assert_int_equal(mem_each_private(&mem, count_pages, &pages), 0);
	assert_int_equal(pages, 2);
	mem_destroy(&mem);
}

static void transparent_huge_pages_are_aligned(void **state)
{
	struct mem mem;
	struct err err;

	(void)state;
	assert_int_equal(mem_create(&mem, MIB(4), MEM_ANON, MEM_PAGES_TRANSPARENT, &err), 0);
	assert_int_equal((uintptr_t)mem.region[0].host % MIB(2), 0);
	mem_destroy(&mem);
}

static unsigned resident(const struct mem *mem, u64 gpa, u64 len)
{
	unsigned char map[1024] = { 0 };
	unsigned n = 0;

	assert_true(len / 4096 <= sizeof map);
	assert_int_equal(mincore(mem_at(mem, gpa, len), len, map), 0);
	for (u64 i = 0; i < len / 4096; i++)
		n += map[i] & 1;
	return n;
}

static void what_will_be_written_is_there_and_nothing_else(void **state)
{
	struct mem mem = small(MIB(4), MEM_ANON);

	(void)state;
	mem_populate(&mem, KIB(64) + 17, KIB(16));
	assert_int_equal(resident(&mem, KIB(64), KIB(20)), 5);
	assert_int_equal(resident(&mem, 0, KIB(64)) + resident(&mem, KIB(84), MIB(2)), 0);
	mem_populate(&mem, MIB(4) - 1, 2); /* not RAM: nothing happens */
	mem_destroy(&mem);
}

static void populating_part_of_a_huge_page_takes_no_more_than_the_part(void **state)
{
	struct mem mem;
	struct err err;

	(void)state;
	assert_int_equal(mem_create(&mem, MIB(8), MEM_ANON, MEM_PAGES_ANY, &err), 0);
	mem_populate(&mem, MIB(1), MIB(2) + KIB(512)); /* no whole huge page in it */
	assert_int_equal(resident(&mem, 0, MIB(4)), (MIB(2) + KIB(512)) / 4096);
	mem_destroy(&mem);
}

static void more_than_the_host_has_is_refused_by_name(void **state)
{
	struct sysinfo host;
	struct mem mem;
	struct err err;
	u64 all;

	(void)state;
	sysinfo(&host);
	all = ((u64)host.totalram + host.totalswap) * host.mem_unit;
	assert_int_equal(mem_create(&mem, ALIGN_UP(all, 4096) + MIB(1), MEM_ANON, MEM_PAGES_4K, &err),
			 -ENOMEM);
	assert_string_equal(err.msg, "Invalid Memory Configuration: Cannot create mmap region: "
				     "Out of memory (os error 12)");
	mem_destroy(&mem);
}

static void destroy_accepts_nothing(void **state)
{
	struct mem mem = { 0 };

	(void)state;
	mem_destroy(&mem);
	mem_destroy(&mem);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(small_ram_is_one_region),
		cmocka_unit_test(the_last_byte_is_reachable_and_the_next_is_not),
		cmocka_unit_test(no_length_wraps_into_ram),
		cmocka_unit_test(large_ram_goes_on_above_the_hole),
		cmocka_unit_test(a_span_outside_is_empty),
		cmocka_unit_test(a_memfd_holds_what_the_guest_writes),
		cmocka_unit_test(frozen_memory_keeps_what_was_there),
		cmocka_unit_test(frozen_again_it_is_what_it_has_become),
		cmocka_unit_test(what_clones_have_never_changes),
		cmocka_unit_test(private_pages_are_those_that_differ),
		cmocka_unit_test(transparent_huge_pages_are_aligned),
		cmocka_unit_test(what_will_be_written_is_there_and_nothing_else),
		cmocka_unit_test(populating_part_of_a_huge_page_takes_no_more_than_the_part),
		cmocka_unit_test(more_than_the_host_has_is_refused_by_name),
		cmocka_unit_test(destroy_accepts_nothing),
	};

	return cmocka_run_group_tests_name("mem", tests, NULL, NULL);
}
