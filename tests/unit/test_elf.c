/* elf: a vmlinux is loaded where it says, or refused with a line that says what is wrong. */
#include "test.h"

#include "kernel.h"
#include "src/boot/elf.h"

#define RAM MIB(8)

static struct elf_file file;
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
	r = elf_load(&f, mem, &image, &err);
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
	elf_file_init(&file);
	image = (struct image){ 0 };
	return 0;
}

static void segments_are_loaded_at_their_physical_addresses(void **state)
{
	struct mem mem = kernel_mem(RAM);
	const u8 *text, *data;

	(void)state;
	file.text.p_vaddr = 0xffffffff81000000;
	assert_int_equal(load_bytes(&file, sizeof file, &mem), 0);
	text = mem_at(&mem, ELF_TEXT_AT, ELF_TEXT_LEN + 1);
	data = mem_at(&mem, ELF_DATA_AT, ELF_DATA_MEM);
	assert_memory_equal(text, file.text_bytes, ELF_TEXT_LEN);
	assert_int_equal(text[ELF_TEXT_LEN], 0);
	assert_memory_equal(data, file.data_bytes, ELF_DATA_LEN);
	assert_int_equal(data[ELF_DATA_LEN], 0);
	assert_int_equal(data[ELF_DATA_MEM - 1], 0);
	assert_int_equal(image.n_ranges, 2);
	mem_destroy(&mem);
}

static void the_part_without_file_bytes_is_not_touched(void **state)
{
	struct mem mem = kernel_mem(RAM);
	unsigned char resident[3];

	(void)state;
	assert_int_equal(load_bytes(&file, sizeof file, &mem), 0);
	assert_int_equal(mincore(mem_at(&mem, ELF_DATA_AT, 1), ELF_DATA_MEM, resident), 0);
	assert_true(resident[0] & 1);
	assert_false(resident[1] & 1);
	assert_false(resident[2] & 1);
	mem_destroy(&mem);
}

static void the_pvh_note_is_preferred(void **state)
{
	(void)state;
	assert_int_equal(load_in(RAM), 0);
	assert_int_equal(image.how, BOOT_ENTRY_PVH);
	assert_int_equal(image.entry, ELF_PVH);
	assert_int_equal(image.initrd_end, RAM);
}

static void a_pvh_note_may_have_four_bytes(void **state)
{
	(void)state;
	file.pvh.n.n_descsz = 4;
	file.pvh.desc |= 0xdead00000000;
	assert_int_equal(load_in(RAM), 0);
	assert_int_equal(image.entry, ELF_PVH);
}

static void the_64_bit_entry_is_used_without_a_note(void **state)
{
	static const struct mutation without[] = {
		MUTATE(struct elf_file, e.e_phnum, 2, ""),
		MUTATE(struct elf_file, note.p_type, PT_NULL, ""),
		MUTATE(struct elf_file, note.p_filesz, 0, ""),
		MUTATE(struct elf_file, note.p_filesz, 11, ""),
		MUTATE(struct elf_file, pvh.n.n_type, 17, ""),
		MUTATE(struct elf_file, pvh.name, 0x006e6558 + 1, ""), /* "Yen" */
		MUTATE(struct elf_file, pvh.n.n_namesz, 3, ""),
		MUTATE(struct elf_file, pvh.n.n_namesz, 0, ""),
		MUTATE(struct elf_file, e.e_type, ET_DYN, NULL),
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(without); i++) {
		elf_file_init(&file);
		memcpy((u8 *)&file + without[i].at, &without[i].value, without[i].size);
		assert_int_equal(load_in(RAM), 0);
		assert_int_equal(image.how, without[i].says ? BOOT_ENTRY_64 : BOOT_ENTRY_PVH);
		assert_int_equal(image.entry, without[i].says ? ELF_ENTRY : ELF_PVH);
	}
}

/* A note before the one that counts, whose sizes need padding. */
static void notes_are_padded_to_four_bytes(void **state)
{
	struct {
		Elf64_Nhdr n;
		char name[8];
		u8 desc[4];
		struct elf_note pvh;
	} notes = { { 6, 1, 18 }, "Linux", { 1 }, file.pvh };

	(void)state;
	memcpy(file.data_bytes, &notes, sizeof notes);
	file.note.p_offset = offsetof(struct elf_file, data_bytes);
	file.note.p_filesz = sizeof notes;
	assert_int_equal(load_in(RAM), 0);
	assert_int_equal(image.how, BOOT_ENTRY_PVH);
	assert_int_equal(image.entry, ELF_PVH);
}

static const struct mutation wrong[] = {
	MUTATE(struct elf_file, e.e_ident[EI_CLASS], ELFCLASS32, "class (32 or 64 bit) is 1"),
	MUTATE(struct elf_file, e.e_ident[EI_DATA], ELFDATA2MSB, "byte order"),
	MUTATE(struct elf_file, e.e_ident[EI_VERSION], 0, "identification version is 0"),
	MUTATE(struct elf_file, e.e_version, 0, "version is 0"),
	MUTATE(struct elf_file, e.e_machine, EM_AARCH64, "machine is 183, not 62"),
	MUTATE(struct elf_file, e.e_type, ET_REL, "ELF type 1"),
	MUTATE(struct elf_file, e.e_type, ET_CORE, "ELF type 4"),
	MUTATE(struct elf_file, e.e_ehsize, 63, "header size is 63"),
	MUTATE(struct elf_file, e.e_phentsize, 0, "program header size is 0"),
	MUTATE(struct elf_file, e.e_phentsize, 1, "program header size is 1"),
	MUTATE(struct elf_file, e.e_phentsize, 65535, "program header size is 65535"),
	MUTATE(struct elf_file, e.e_phnum, 0, "0 program headers"),
	MUTATE(struct elf_file, e.e_phnum, 65, "65 program headers"),
	MUTATE(struct elf_file, e.e_phnum, PN_XNUM, "65535 program headers"),
	MUTATE(struct elf_file, e.e_phoff, 0, "in the ELF header"),
	MUTATE(struct elf_file, e.e_phoff, 63, "in the ELF header"),
	MUTATE(struct elf_file, e.e_phoff, sizeof(struct elf_file), "program headers: "),
	MUTATE(struct elf_file, e.e_phoff, UINT64_MAX, "program headers: "),
	MUTATE(struct elf_file, text.p_type, PT_INTERP, "interpreter"),
	MUTATE(struct elf_file, text.p_offset, UINT64_MAX, "segment 0: "),
	MUTATE(struct elf_file, text.p_offset, UINT64_MAX - ELF_TEXT_LEN + 1, "segment 0: "),
	MUTATE(struct elf_file, text.p_offset, sizeof(struct elf_file), "end of the file"),
	MUTATE(struct elf_file, data.p_filesz, ELF_DATA_LEN + 1, "end of the file"),
	MUTATE(struct elf_file, data.p_filesz, ELF_DATA_MEM + 1, "more bytes in the file"),
	MUTATE(struct elf_file, data.p_filesz, UINT64_MAX, "more bytes in the file"),
	MUTATE(struct elf_file, data.p_memsz, 0, "more bytes in the file"),
	MUTATE(struct elf_file, data.p_memsz, 1ull << 63, "segment 1 at 0x400000 ends at"),
	MUTATE(struct elf_file, data.p_memsz, UINT64_MAX, "segment 1 at 0x400000 of"),
	MUTATE(struct elf_file, data.p_align, 3, "alignment 0x3"),
	MUTATE(struct elf_file, data.p_align, 1ull << 63, "alignment 0x8000000000000000"),
	MUTATE(struct elf_file, data.p_paddr, 0, "below 0x100000"),
	MUTATE(struct elf_file, data.p_paddr, LAYOUT_GDT, "below 0x100000"),
	MUTATE(struct elf_file, data.p_paddr, LAYOUT_ZERO_PAGE, "below 0x100000"),
	MUTATE(struct elf_file, data.p_paddr, LAYOUT_PML4, "below 0x100000"),
	MUTATE(struct elf_file, data.p_paddr, LAYOUT_CMDLINE, "below 0x100000"),
	MUTATE(struct elf_file, data.p_paddr, LAYOUT_ACPI, "below 0x100000"),
	MUTATE(struct elf_file, data.p_paddr, LAYOUT_KERNEL - 1, "below 0x100000"),
	MUTATE(struct elf_file, data.p_paddr, LAYOUT_VIRTIO, "beyond the guest's 8 MiB"),
	MUTATE(struct elf_file, data.p_paddr, RAM, "beyond the guest's 8 MiB"),
	MUTATE(struct elf_file, data.p_paddr, UINT64_MAX - 1, "wraps around"),
	MUTATE(struct elf_file, data.p_paddr, ELF_TEXT_AT,
	       "segment 1 at 0x200000..0x203000 overlaps "
	       "segment 0 at 0x200000..0x201003"),
	MUTATE(struct elf_file, data.p_paddr, ELF_TEXT_AT + ELF_TEXT_LEN - 1, "overlaps"),
	MUTATE(struct elf_file, data.p_paddr, ELF_TEXT_AT - ELF_DATA_MEM + 1, "overlaps"),
	MUTATE(struct elf_file, note.p_filesz, UINT64_MAX, "bytes of notes"),
	MUTATE(struct elf_file, note.p_filesz, 16385, "bytes of notes"),
	MUTATE(struct elf_file, note.p_filesz, sizeof(struct elf_note) - 1, "beyond its segment"),
	MUTATE(struct elf_file, note.p_offset, sizeof(struct elf_file) - 1, "segment 2: "),
	MUTATE(struct elf_file, note.p_offset, UINT64_MAX, "segment 2: "),
	MUTATE(struct elf_file, pvh.n.n_namesz, UINT32_MAX, "beyond its segment"),
	MUTATE(struct elf_file, pvh.n.n_descsz, UINT32_MAX, "beyond its segment"),
	MUTATE(struct elf_file, pvh.n.n_descsz, 9, "beyond its segment"),
	MUTATE(struct elf_file, pvh.n.n_descsz, 0, "PVH note has 0 bytes"),
	MUTATE(struct elf_file, pvh.n.n_descsz, 7, "PVH note has 7 bytes"),
	MUTATE(struct elf_file, pvh.desc, 1ull << 32, "not a 32-bit address"),
	MUTATE(struct elf_file, pvh.desc, 0, "PVH entry 0x0 is not in a loaded segment"),
	MUTATE(struct elf_file, pvh.desc, ELF_TEXT_AT - 1, "not in a loaded segment"),
	MUTATE(struct elf_file, pvh.desc, ELF_TEXT_AT + ELF_TEXT_LEN, "not in a loaded segment"),
	MUTATE(struct elf_file, pvh.desc, ELF_DATA_AT + ELF_DATA_LEN, "not in a loaded segment"),
};

static void each_wrong_field_is_refused_by_name(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
		elf_file_init(&file);
		memcpy((u8 *)&file + wrong[i].at, &wrong[i].value, wrong[i].size);
		assert_refused(wrong[i].says);
	}
}

static void a_64_bit_entry_must_be_loaded_and_mapped(void **state)
{
	static const u64 entries[] = { 0, ELF_TEXT_AT - 1, ELF_TEXT_AT + ELF_TEXT_LEN,
				       LAYOUT_MAPPED, UINT64_MAX };

	(void)state;
	file.e.e_phnum = 2;
	for (size_t i = 0; i < ARRAY_SIZE(entries); i++) {
		file.e.e_entry = entries[i];
		assert_refused("entry 0x");
	}
	file.e.e_entry = ELF_TEXT_AT + ELF_TEXT_LEN - 1;
	assert_int_equal(load_in(RAM), 0);
}

static void every_truncation_is_refused(void **state)
{
	struct mem mem = kernel_mem(RAM);

	(void)state;
	for (size_t len = 0; len < sizeof file; len += len < 64 ? 1 : 64)
		assert_int_equal(load_bytes(&file, len, &mem), -ENOEXEC);
	assert_int_equal(load_bytes(&file, sizeof file - 1, &mem), -ENOEXEC);
	assert_int_equal(load_bytes(&file, sizeof file, &mem), 0);
	mem_destroy(&mem);
}

static void a_segment_may_end_where_memory_ends(void **state)
{
	(void)state;
	file.data.p_memsz = RAM - ELF_DATA_AT;
	assert_int_equal(load_in(RAM), 0);
	file.data.p_memsz++;
	assert_refused("segment 1 at 0x400000 ends at 0x800001, beyond the guest's 8 MiB");
}

static void segments_may_touch_and_come_in_any_order(void **state)
{
	(void)state;
	file.data.p_paddr = ELF_TEXT_AT - ELF_DATA_MEM;
	assert_int_equal(load_in(RAM), 0);
	file.data.p_paddr = ELF_TEXT_AT + ELF_TEXT_LEN;
	assert_int_equal(load_in(RAM), 0);
	file.data.p_paddr = LAYOUT_KERNEL;
	assert_int_equal(load_in(RAM), 0);
}

static void an_empty_segment_takes_no_room(void **state)
{
	(void)state;
	file.data.p_filesz = file.data.p_memsz = 0;
	file.data.p_paddr = 0;
	assert_int_equal(load_in(RAM), 0);
	assert_int_equal(image.n_ranges, 1);
}

static void memory_above_the_hole_is_memory(void **state)
{
	struct mem mem = kernel_mem(MEM_HOLE_START + MIB(4));

	(void)state;
	file.data.p_paddr = MEM_HOLE_END + MIB(4) - ELF_DATA_MEM;
	assert_int_equal(load_bytes(&file, sizeof file, &mem), 0);
	assert_int_equal(image.initrd_end, MEM_HOLE_START);
	file.data.p_paddr++;
	assert_int_equal(load_bytes(&file, sizeof file, &mem), -ENOEXEC);
	file.data.p_paddr = MEM_HOLE_START - ELF_DATA_MEM + 1;
	assert_int_equal(load_bytes(&file, sizeof file, &mem), -ENOEXEC);
	assert_non_null(strstr(err.msg, "or in its hole"));
	mem_destroy(&mem);
}

static void a_file_that_shrinks_is_an_error(void **state)
{
	struct mem mem = kernel_mem(RAM);
	CLEANUP_FD int fd = kernel_fd(&file, sizeof file);
	struct image_file f;

	(void)state;
	assert_int_equal(image_file_init(&f, fd, &err), 0);
	assert_int_equal(ftruncate(fd, sizeof file - 1), 0);
	assert_int_equal(elf_load(&f, &mem, &image, &err), -ENOEXEC);
	assert_non_null(strstr(err.msg, "became shorter"));
	mem_destroy(&mem);
}

static void a_hostile_size_costs_no_memory(void **state)
{
	struct mem mem = kernel_mem(MIB(64));
	unsigned char resident[16] = { 0 };

	(void)state;
	file.data.p_filesz = file.data.p_memsz = MIB(32);
	assert_int_equal(load_bytes(&file, sizeof file, &mem), -ENOEXEC);
	assert_int_equal(mincore(mem_at(&mem, ELF_DATA_AT, 1), sizeof resident * 4096, resident),
			 0);
	for (size_t i = 0; i < sizeof resident; i++)
		assert_false(resident[i] & 1);
	mem_destroy(&mem);
}

static bool reads_dsdt(size_t id_at, u8 *segment)
{
	elf_file_init(&file);
	memcpy(segment + id_at, "LNRO0005", 8);
	assert_int_equal(load_in(RAM), 0);
	return image.reads_dsdt;
}

static void a_kernel_that_reads_the_dsdt_is_recognised(void **state)
{
	(void)state;
	assert_int_equal(load_in(RAM), 0);
	assert_false(image.reads_dsdt);
	assert_true(reads_dsdt(0, file.text_bytes));
	assert_true(reads_dsdt(0x40, file.text_bytes));
	assert_true(reads_dsdt(0xff8, file.text_bytes));
	/* Not where such a table can be. */
	assert_false(reads_dsdt(0x41, file.text_bytes));
	assert_false(reads_dsdt(0x40, file.data_bytes));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(segments_are_loaded_at_their_physical_addresses, fresh),
		cmocka_unit_test_setup(the_part_without_file_bytes_is_not_touched, fresh),
		cmocka_unit_test_setup(the_pvh_note_is_preferred, fresh),
		cmocka_unit_test_setup(a_pvh_note_may_have_four_bytes, fresh),
		cmocka_unit_test_setup(the_64_bit_entry_is_used_without_a_note, fresh),
		cmocka_unit_test_setup(notes_are_padded_to_four_bytes, fresh),
		cmocka_unit_test_setup(each_wrong_field_is_refused_by_name, fresh),
		cmocka_unit_test_setup(a_64_bit_entry_must_be_loaded_and_mapped, fresh),
		cmocka_unit_test_setup(every_truncation_is_refused, fresh),
		cmocka_unit_test_setup(a_segment_may_end_where_memory_ends, fresh),
		cmocka_unit_test_setup(segments_may_touch_and_come_in_any_order, fresh),
		cmocka_unit_test_setup(an_empty_segment_takes_no_room, fresh),
		cmocka_unit_test_setup(memory_above_the_hole_is_memory, fresh),
		cmocka_unit_test_setup(a_file_that_shrinks_is_an_error, fresh),
		cmocka_unit_test_setup(a_hostile_size_costs_no_memory, fresh),
		cmocka_unit_test_setup(a_kernel_that_reads_the_dsdt_is_recognised, fresh),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
