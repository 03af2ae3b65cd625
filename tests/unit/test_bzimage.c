/* bzimage: the protected-mode part is loaded where it wants to be, or the header is refused. */
#include "test.h"

#include "kernel.h"
#include "src/boot/bzimage.h"

#define RAM MIB(32)

static struct bz_file file;
static struct image image;
static struct err err;

static int load_bytes(const void *bytes, size_t len, const struct mem *mem)
{
	struct image_file f;
	CLEANUP_FD int fd = kernel_fd(bytes, len);
	int r;

	image = (struct image){ 0 };
	err.msg[0] = '\0';
	assert_int_equal(image_file_init(&f, fd, &err), 0);
	r = bzimage_load(&f, mem, &image, &err);
	assert_true((r < 0) == (err.msg[0] != '\0'));
	return r;
}

static int load_in(u64 ram)
{
	struct mem mem = kernel_mem(ram);
	int r = load_bytes(&file, sizeof file, &mem);

	mem_destroy(&mem);
	return r;
}

static void assert_refused(const char *says)
{
	assert_int_equal(load_in(RAM), -ENOEXEC);
	if (!strstr(err.msg, says))
		print_error("expected \"%s\" in \"%s\"\n", says, err.msg);
	assert_non_null(strstr(err.msg, says));
}

static int fresh(void **state)
{
	(void)state;
	bz_file_init(&file);
	return 0;
}

static void the_kernel_is_loaded_at_its_preferred_address(void **state)
{
	struct mem mem = kernel_mem(RAM);
	const u8 *loaded;

	(void)state;
	file.kernel[0] = 1;
	file.kernel[BZ_LEN - 1] = 2;
	assert_int_equal(load_bytes(&file, sizeof file, &mem), 0);
	loaded = mem_at(&mem, BZ_AT, BZ_LEN + 1);
	assert_memory_equal(loaded, file.kernel, BZ_LEN);
	assert_int_equal(loaded[BZ_LEN], 0);
	assert_int_equal(image.how, BOOT_ENTRY_BZIMAGE);
	assert_int_equal(image.entry, BZ_AT + 0x200);
	assert_int_equal(image.range[0].gpa, BZ_AT);
	assert_int_equal(image.range[0].len, BZ_INIT_SIZE);
	mem_destroy(&mem);
}

static void bytes_after_the_kernel_are_not_loaded(void **state)
{
	struct mem mem = kernel_mem(RAM);

	(void)state;
	file.hdr.syssize--;
	assert_int_equal(load_bytes(&file, sizeof file, &mem), 0);
	assert_int_equal(*(u8 *)mem_at(&mem, BZ_AT + BZ_LEN - 17, 1), 0x90);
	assert_int_equal(*(u8 *)mem_at(&mem, BZ_AT + BZ_LEN - 16, 1), 0);
	mem_destroy(&mem);
}

static void the_header_is_handed_on_as_long_as_it_is(void **state)
{
	(void)state;
	assert_int_equal(load_in(RAM), 0);
	assert_int_equal(image.setup_header_len, sizeof file.hdr);
	assert_memory_equal(image.setup_header, &file.hdr, sizeof file.hdr);
	/* Longer than we know: the known part. */
	file.hdr.jump = 0xeb | 0xff << 8;
	assert_int_equal(load_in(RAM), 0);
	assert_int_equal(image.setup_header_len, sizeof file.hdr);
	/* Shorter: what follows is not header, and the fields are missing. */
	file.hdr.jump = 0xeb | 0x20 << 8;
	assert_refused("no 64-bit entry (xloadflags 0x0");
	assert_int_equal(image.setup_header_len, 0x202 + 0x20 - 0x1f1);
}

static const struct mutation wrong[] = {
	MUTATE(struct bz_file, hdr.version, 0x20b, "boot protocol 2.11 is older than 2.12"),
	MUTATE(struct bz_file, hdr.version, 0, "boot protocol 0.00"),
	MUTATE(struct bz_file, hdr.xloadflags, 0x7e, "no 64-bit entry"),
	MUTATE(struct bz_file, hdr.loadflags, 0, "no 64-bit entry"),
	MUTATE(struct bz_file, hdr.setup_sects, 0, "setup_sects is 0"),
	MUTATE(struct bz_file, hdr.setup_sects, 65, "setup_sects is 65"),
	MUTATE(struct bz_file, hdr.setup_sects, 255, "setup_sects is 255"),
	MUTATE(struct bz_file, hdr.setup_sects, 64, "beyond the end of the file"),
	MUTATE(struct bz_file, hdr.setup_sects, 2, "beyond the end of the file"),
	MUTATE(struct bz_file, hdr.kernel_alignment, 0, "kernel_alignment 0x0"),
	MUTATE(struct bz_file, hdr.kernel_alignment, 0x300000, "kernel_alignment 0x300000"),
	MUTATE(struct bz_file, hdr.pref_address, BZ_AT + 4096, "is not aligned"),
	MUTATE(struct bz_file, hdr.pref_address, 0, "below 0x100000"),
	MUTATE(struct bz_file, hdr.pref_address, RAM, "beyond the guest's 32 MiB"),
	MUTATE(struct bz_file, hdr.pref_address, MEM_HOLE_START, "not in the first GiB"),
	MUTATE(struct bz_file, hdr.pref_address, 0xffffffffffe00000, "not in the first GiB"),
	MUTATE(struct bz_file, hdr.init_size, RAM - BZ_AT + 1, "beyond the guest's 32 MiB"),
	MUTATE(struct bz_file, hdr.init_size, UINT32_MAX, "not in the first GiB"),
	MUTATE(struct bz_file, hdr.syssize, 0, "syssize 0x0"),
	MUTATE(struct bz_file, hdr.syssize, 0x20, "syssize 0x20"),
	MUTATE(struct bz_file, hdr.syssize, BZ_LEN / 16 + 1, "beyond the end of the file"),
	MUTATE(struct bz_file, hdr.syssize, UINT32_MAX, "beyond the end of the file"),
};

static void each_wrong_field_is_refused_by_name(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
		bz_file_init(&file);
		memcpy((u8 *)&file + wrong[i].at, &wrong[i].value, wrong[i].size);
		assert_refused(wrong[i].says);
	}
}

static void what_it_unpacks_may_end_where_memory_ends(void **state)
{
	(void)state;
	file.hdr.init_size = RAM - BZ_AT;
	assert_int_equal(load_in(RAM), 0);
	assert_int_equal(load_in(RAM - 4096), -ENOEXEC);
	assert_non_null(strstr(err.msg, "the kernel at 0x1000000 ends at 0x2000000"));
}

static void an_init_size_smaller_than_the_file_does_not_hide_it(void **state)
{
	(void)state;
	file.hdr.init_size = 0;
	assert_int_equal(load_in(RAM), 0);
	assert_int_equal(image.range[0].len, BZ_LEN);
}

static void every_truncation_is_refused(void **state)
{
	struct mem mem = kernel_mem(RAM);

	(void)state;
	for (size_t len = 0; len < sizeof file; len += 64)
		assert_int_equal(load_bytes(&file, len, &mem), -ENOEXEC);
	assert_int_equal(load_bytes(&file, sizeof file - 1, &mem), -ENOEXEC);
	assert_int_equal(load_bytes(&file, sizeof file, &mem), 0);
	mem_destroy(&mem);
}

static void its_limits_for_initrd_and_command_line_are_kept(void **state)
{
	(void)state;
	assert_int_equal(load_in(RAM), 0);
	assert_int_equal(image.initrd_end, RAM);
	assert_int_equal(image.cmdline_max, 2048);
	file.hdr.initrd_addr_max = 0x17fffff;
	file.hdr.cmdline_size = 255;
	assert_int_equal(load_in(RAM), 0);
	assert_int_equal(image.initrd_end, 0x1800000);
	assert_int_equal(image.cmdline_max, 256);
	file.hdr.initrd_addr_max = UINT32_MAX;
	file.hdr.cmdline_size = UINT32_MAX;
	assert_int_equal(load_in(RAM), 0);
	assert_int_equal(image.initrd_end, RAM);
	assert_int_equal(image.cmdline_max, 2048);
}

static bool finds(u32 at, u32 payload_len)
{
	bz_file_init(&file);
	file.hdr.payload_length = payload_len;
	memcpy(file.kernel + at, "RSD PTR ", 8);
	assert_int_equal(load_in(RAM), 0);
	return image.reads_dsdt;
}

static void a_decompressor_with_acpi_is_recognised(void **state)
{
	(void)state;
	assert_int_equal(load_in(RAM), 0);
	assert_false(image.reads_dsdt);
	assert_true(finds(BZ_TAIL, BZ_PAYLOAD_LEN));
	assert_true(finds(BZ_TAIL + 3, BZ_PAYLOAD_LEN));
	assert_true(finds(BZ_LEN - 8, BZ_PAYLOAD_LEN));
	/* In the compressed payload it is chance. */
	assert_false(finds(BZ_TAIL - 1, BZ_PAYLOAD_LEN));
	assert_false(finds(BZ_PAYLOAD, BZ_PAYLOAD_LEN));
	/* Where the payload ends is not known. */
	assert_false(finds(BZ_TAIL, 0));
	assert_false(finds(BZ_TAIL, BZ_LEN));
	assert_false(finds(BZ_TAIL, UINT32_MAX));
}

static void only_flag_and_magic_make_a_bzimage(void **state)
{
	(void)state;
	assert_true(bzimage_is(&file, sizeof file));
	assert_true(bzimage_is(&file, 0x206));
	assert_false(bzimage_is(&file, 0x205));
	file.hdr.boot_flag = 0;
	assert_false(bzimage_is(&file, sizeof file));
	bz_file_init(&file);
	file.hdr.header++;
	assert_false(bzimage_is(&file, sizeof file));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(the_kernel_is_loaded_at_its_preferred_address, fresh),
		cmocka_unit_test_setup(bytes_after_the_kernel_are_not_loaded, fresh),
		cmocka_unit_test_setup(the_header_is_handed_on_as_long_as_it_is, fresh),
		cmocka_unit_test_setup(each_wrong_field_is_refused_by_name, fresh),
		cmocka_unit_test_setup(what_it_unpacks_may_end_where_memory_ends, fresh),
		cmocka_unit_test_setup(an_init_size_smaller_than_the_file_does_not_hide_it, fresh),
		cmocka_unit_test_setup(every_truncation_is_refused, fresh),
		cmocka_unit_test_setup(its_limits_for_initrd_and_command_line_are_kept, fresh),
		cmocka_unit_test_setup(a_decompressor_with_acpi_is_recognised, fresh),
		cmocka_unit_test_setup(only_flag_and_magic_make_a_bzimage, fresh),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
