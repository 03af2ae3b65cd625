/* boot: files are opened or refused, and a blank machine stands at the entry of its kernel. */
#include "test.h"

#include "kernel.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#define RAM MIB(32)

static struct elf_file elf;
static struct bz_file bz;
static struct boot_config cfg;
static struct boot_machine machine;
static struct mem mem;
static struct vcpu_state vcpu;
static enum boot_entry entry;
static struct err err;

/* PVH start info, spelled by offset as Xen documents it, not by our struct. */
#define PVH_MAGIC   0
#define PVH_VERSION 4
#define PVH_MODULES 12
#define PVH_MODLIST 16
#define PVH_CMDLINE 24
#define PVH_RSDP    32
#define PVH_MEMMAP  40
#define PVH_ENTRIES 48

static u64 read_guest(u64 gpa, unsigned size)
{
	u64 value = 0;
	const void *at = mem_at(&mem, gpa, size);

	assert_non_null(at);
	memcpy(&value, at, size);
	return value;
}

static const char *command_line(void)
{
	return mem_at(&mem, LAYOUT_CMDLINE, LAYOUT_CMDLINE_MAX);
}

static const struct boot_params *zero_page(void)
{
	return mem_at(&mem, LAYOUT_ZERO_PAGE, sizeof(struct boot_params));
}

static int fresh(void **state)
{
	(void)state;
	elf_file_init(&elf);
	bz_file_init(&bz);
	cfg = (struct boot_config){ .kernel_path = "/k/vmlinux",
				    .initrd_path = "/k/initrd",
				    .kernel_fd = -1,
				    .initrd_fd = -1 };
	machine = (struct boot_machine){ .n_vcpus = 1, .ioapic_pins = 24, .n_devices = 1 };
	mem = kernel_mem(RAM);
	/* What KVM may have left there, and boot code has to overwrite or keep. */
	memset(&vcpu, 0xee, sizeof vcpu);
	vcpu.sregs.apic_base = 0xfee00900;
	return 0;
}

static int gone(void **state)
{
	(void)state;
	if (cfg.kernel_fd >= 0)
		close(cfg.kernel_fd);
	if (cfg.initrd_fd >= 0)
		close(cfg.initrd_fd);
	mem_destroy(&mem);
	return 0;
}

static void use_kernel(const void *bytes, size_t len)
{
	if (cfg.kernel_fd >= 0)
		close(cfg.kernel_fd);
	cfg.kernel_fd = kernel_fd(bytes, len);
}

static void use_initrd(u64 size)
{
	if (cfg.initrd_fd >= 0)
		close(cfg.initrd_fd);
	cfg.initrd_fd = kernel_fd("", 0);
	assert_int_equal(ftruncate(cfg.initrd_fd, (off_t)size), 0);
	if (size) {
		assert_int_equal(pwrite(cfg.initrd_fd, "A", 1, 0), 1);
		assert_int_equal(pwrite(cfg.initrd_fd, "Z", 1, (off_t)size - 1), 1);
	}
}

static int load(void)
{
	err.msg[0] = '\0';
	return boot_load(&cfg, &machine, &mem, &vcpu, &entry, &err);
}

/* ---- opening ------------------------------------------------------------------------------- */

static void what_cannot_be_opened_is_told_in_the_contracts_words(void **state)
{
	(void)state;
	assert_int_equal(boot_open(BOOT_KERNEL, "/nowhere/vmlinux", &err), -ENOENT);
	assert_string_equal(err.msg, "The kernel file cannot be opened: "
				     "No such file or directory (os error 2)");
	assert_int_equal(boot_open(BOOT_INITRD, "/nowhere/initrd", &err), -ENOENT);
	assert_string_equal(err.msg, "The initrd file cannot be opened due to invalid path or "
				     "invalid permissions. No such file or directory (os error 2)");
}

static void only_regular_files_are_opened_and_nothing_blocks(void **state)
{
	char dir[] = "/tmp/test_boot.XXXXXX", fifo[64], file[64], link[64];
	int fd;

	(void)state;
	assert_non_null(mkdtemp(dir));
	snprintf(fifo, sizeof fifo, "%s/fifo", dir);
	snprintf(file, sizeof file, "%s/file", dir);
	snprintf(link, sizeof link, "%s/link", dir);
	assert_int_equal(mkfifo(fifo, 0600), 0);
	assert_int_equal(close(open(file, O_CREAT | O_WRONLY, 0600)), 0);
	assert_int_equal(symlink("file", link), 0);
	alarm(10);
	assert_int_equal(boot_open(BOOT_KERNEL, dir, &err), -EINVAL);
	assert_non_null(strstr(err.msg, "is a directory, not a regular file"));
	assert_int_equal(boot_open(BOOT_KERNEL, fifo, &err), -EINVAL);
	assert_non_null(strstr(err.msg, "is a FIFO"));
	assert_int_equal(boot_open(BOOT_INITRD, "/dev/zero", &err), -EINVAL);
	assert_non_null(strstr(err.msg, "/dev/zero is a device"));
	alarm(0);
	fd = boot_open(BOOT_KERNEL, link, &err);
	assert_true(fd >= 0);
	assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
	close(fd);
	unlink(fifo);
	unlink(file);
	unlink(link);
	rmdir(dir);
}

/* ---- the two ways in ----------------------------------------------------------------------- */

static void a_pvh_kernel_is_entered_in_flat_protected_mode(void **state)
{
	const struct kvm_sregs *s = &vcpu.sregs;

	(void)state;
	use_kernel(&elf, sizeof elf);
	assert_int_equal(load(), 0);
	assert_int_equal(entry, BOOT_ENTRY_PVH);
	assert_int_equal(vcpu.regs.rip, ELF_PVH);
	assert_int_equal(vcpu.regs.rbx, LAYOUT_PVH_START_INFO);
	assert_int_equal(vcpu.regs.rflags, 2);
	assert_int_equal(s->cr0, 0x11);
	assert_int_equal(s->cr3, 0);
	assert_int_equal(s->cr4, 0);
	assert_int_equal(s->efer, 0);
	assert_int_equal(s->cs.limit, UINT32_MAX);
	assert_int_equal(s->cs.type & 0xa, 0xa);
	assert_true(s->cs.db && !s->cs.l && s->cs.g && s->cs.s && s->cs.present);
	assert_memory_equal(&s->ss, &s->ds, sizeof s->ss);
	assert_int_equal(s->ds.type & 0xa, 2);
	assert_true(s->ds.db && s->ds.present && s->ds.limit == UINT32_MAX);
	assert_true(s->tr.type == 0xb && s->tr.limit == 0x67 && s->tr.present && !s->tr.unusable);
	assert_int_equal(s->apic_base, 0xfee00900);
}

static void a_pvh_kernel_is_told_its_start_info(void **state)
{
	const u64 info = LAYOUT_PVH_START_INFO;

	(void)state;
	use_kernel(&elf, sizeof elf);
	assert_int_equal(load(), 0);
	assert_int_equal(read_guest(info + PVH_MAGIC, 4), 0x336ec578);
	assert_int_equal(read_guest(info + PVH_VERSION, 4), 1);
	assert_int_equal(read_guest(info + PVH_MODULES, 4), 0);
	assert_int_equal(read_guest(info + PVH_MODLIST, 8), 0);
	assert_int_equal(read_guest(info + PVH_CMDLINE, 8), LAYOUT_CMDLINE);
	assert_int_equal(read_guest(info + PVH_RSDP, 8), LAYOUT_RSDP);
	assert_int_equal(read_guest(info + PVH_MEMMAP, 8), LAYOUT_PVH_MEMMAP);
	assert_int_equal(read_guest(info + PVH_ENTRIES, 4), 3);
	assert_int_equal(read_guest(LAYOUT_PVH_MEMMAP + 2 * 24, 8), MIB(1));
	assert_int_equal(read_guest(LAYOUT_PVH_MEMMAP + 2 * 24 + 8, 8), RAM - MIB(1));
	assert_int_equal(read_guest(LAYOUT_PVH_MEMMAP + 2 * 24 + 16, 8), 1);

	use_initrd(5000);
	assert_int_equal(load(), 0);
	assert_int_equal(read_guest(info + PVH_MODULES, 4), 1);
	assert_int_equal(read_guest(info + PVH_MODLIST, 8), LAYOUT_PVH_MODULES);
	assert_int_equal(read_guest(LAYOUT_PVH_MODULES, 8), RAM - 8192);
	assert_int_equal(read_guest(LAYOUT_PVH_MODULES + 8, 8), 5000);
}

/* A linear address through the tables that cr3 names, as the processor walks them. */
static u64 walk(u64 addr)
{
	u64 table = vcpu.sregs.cr3, e = 0;

	for (int shift = 39; shift >= 21; shift -= 9) {
		e = read_guest(table + (addr >> shift & 511) * 8, 8);
		assert_int_equal(e & 3, 3);
		table = e & 0xffffffffff000;
		if (e & 0x80)
			return table + (addr & ((1ull << shift) - 1));
	}
	return 0;
}

static void a_64_bit_kernel_is_entered_in_long_mode(void **state)
{
	const struct kvm_sregs *s = &vcpu.sregs;
	static const u64 mapped[] = { 0, 0x7000, ELF_ENTRY, 0x20000000, LAYOUT_MAPPED - 1 };

	(void)state;
	elf.e.e_phnum = 2;
	use_kernel(&elf, sizeof elf);
	assert_int_equal(load(), 0);
	assert_int_equal(entry, BOOT_ENTRY_64);
	assert_int_equal(vcpu.regs.rip, ELF_ENTRY);
	assert_int_equal(vcpu.regs.rsi, LAYOUT_ZERO_PAGE);
	assert_int_equal(vcpu.regs.rsp, LAYOUT_BOOT_STACK);
	assert_int_equal(vcpu.regs.rflags, 2);
	assert_int_equal(s->cr0, 0x80000011);
	assert_int_equal(s->cr4, 0x20);
	assert_int_equal(s->efer, 0x500);
	assert_true(s->cs.l && !s->cs.db && s->cs.selector == 0x10);
	assert_true(s->ds.selector == 0x18 && s->ss.selector == 0x18);
	assert_int_equal(s->apic_base, 0xfee00900);
	for (size_t i = 0; i < ARRAY_SIZE(mapped); i++)
		assert_int_equal(walk(mapped[i]), mapped[i]);
	/* A selector that is loaded again means the same. */
	assert_int_equal(s->gdt.base, LAYOUT_GDT);
	assert_true(s->gdt.limit >= s->ds.selector + 7);
	assert_int_equal(read_guest(s->gdt.base + s->cs.selector, 8), 0x00af9b000000ffff);
	assert_int_equal(read_guest(s->gdt.base + s->ds.selector, 8), 0x00cf93000000ffff);
}

static void a_64_bit_kernel_is_told_its_zero_page(void **state)
{
	const struct boot_params *zp;

	(void)state;
	elf.e.e_phnum = 2;
	use_kernel(&elf, sizeof elf);
	assert_int_equal(load(), 0);
	zp = zero_page();
	assert_int_equal(zp->hdr.header, 0x53726448);
	assert_int_equal(zp->hdr.type_of_loader, 0xff);
	assert_int_equal(zp->hdr.cmd_line_ptr, LAYOUT_CMDLINE);
	assert_int_equal(zp->hdr.ramdisk_size, 0);
	assert_int_equal(zp->acpi_rsdp_addr, LAYOUT_RSDP);
	assert_int_equal(zp->sentinel, 0);
	assert_int_equal(zp->e820_entries, 3);
}

static void a_bzimage_is_told_its_own_header(void **state)
{
	const struct boot_params *zp;

	(void)state;
	bz.hdr.setup_data = 0xdeadbeef;
	bz.hdr.hardware_subarch_data = 0x1122334455667788;
	use_kernel(&bz, sizeof bz);
	use_initrd(1);
	assert_int_equal(load(), 0);
	assert_int_equal(entry, BOOT_ENTRY_BZIMAGE);
	assert_int_equal(vcpu.regs.rip, BZ_AT + 0x200);
	assert_int_equal(vcpu.sregs.efer, 0x500);
	zp = zero_page();
	assert_int_equal(zp->hdr.version, 0x20f);
	assert_int_equal(zp->hdr.init_size, BZ_INIT_SIZE);
	assert_int_equal(zp->hdr.hardware_subarch_data, 0x1122334455667788);
	assert_int_equal(zp->hdr.setup_data, 0);
	assert_int_equal(zp->hdr.type_of_loader, 0xff);
	assert_int_equal(zp->hdr.ramdisk_image, RAM - 4096);
	assert_int_equal(zp->hdr.ramdisk_size, 1);
}

/* ---- memory map and initrd ----------------------------------------------------------------- */

static void assert_e820(unsigned i, u64 addr, u64 end, u32 type)
{
	struct boot_e820_entry e = zero_page()->e820_table[i];

	assert_int_equal(e.addr, addr);
	assert_int_equal(e.addr + e.size, end);
	assert_int_equal(e.type, type);
}

static void memory_beyond_3_gib_goes_on_above_the_hole(void **state)
{
	(void)state;
	mem_destroy(&mem);
	mem = kernel_mem(GIB(3) + MIB(512));
	elf.e.e_phnum = 2;
	use_kernel(&elf, sizeof elf);
	use_initrd(4096);
	assert_int_equal(load(), 0);
	assert_int_equal(zero_page()->e820_entries, 4);
	assert_e820(0, 0, LAYOUT_SYSTEM, 1);
	assert_e820(1, LAYOUT_SYSTEM, MIB(1), 2);
	assert_e820(2, MIB(1), GIB(3), 1);
	assert_e820(3, GIB(4), GIB(4) + MIB(512), 1);
	/* The initrd stays below the hole. */
	assert_int_equal(zero_page()->hdr.ramdisk_image, GIB(3) - 4096);
}

static void the_initrd_is_at_the_top_page_aligned_and_whole(void **state)
{
	(void)state;
	use_kernel(&bz, sizeof bz);
	use_initrd(MIB(1) + 1);
	assert_int_equal(load(), 0);
	assert_int_equal(zero_page()->hdr.ramdisk_image, RAM - MIB(1) - 4096);
	assert_int_equal(read_guest(RAM - MIB(1) - 4096, 1), 'A');
	assert_int_equal(read_guest(RAM - 4096, 1), 'Z');
	assert_int_equal(read_guest(RAM - 4095, 1), 0);
}

static void the_initrd_stays_where_the_kernel_wants_it(void **state)
{
	(void)state;
	bz.hdr.initrd_addr_max = 0x13fffff;
	use_kernel(&bz, sizeof bz);
	use_initrd(4096);
	assert_int_equal(load(), 0);
	assert_int_equal(zero_page()->hdr.ramdisk_image, 0x1400000 - 4096);
	/* Below LAYOUT_KERNEL there is no room for it at all. */
	bz.hdr.initrd_addr_max = 0xfffff;
	use_kernel(&bz, sizeof bz);
	assert_int_equal(load(), -ENOEXEC);
	assert_non_null(strstr(err.msg, "do not fit below 0x100000"));
}

static void an_initrd_may_fill_what_the_kernel_leaves(void **state)
{
	(void)state;
	use_kernel(&bz, sizeof bz);
	use_initrd(RAM - BZ_AT - BZ_INIT_SIZE);
	assert_int_equal(load(), 0);
	assert_int_equal(zero_page()->hdr.ramdisk_image, BZ_AT + BZ_INIT_SIZE);
	use_initrd(RAM - BZ_AT - BZ_INIT_SIZE + 1);
	assert_int_equal(load(), -ENOEXEC);
	assert_string_equal(err.msg, "initrd /k/initrd: initrd at 0x117f000..0x1fff001 overlaps "
				     "the kernel at 0x1000000..0x1180000");
}

static void an_initrd_that_is_empty_or_too_large_is_refused(void **state)
{
	(void)state;
	use_kernel(&elf, sizeof elf);
	use_initrd(0);
	assert_int_equal(load(), -ENOEXEC);
	assert_string_equal(err.msg, "initrd /k/initrd: the file is empty");
	use_initrd(GIB(1024));
	assert_int_equal(load(), -ENOEXEC);
	assert_string_equal(err.msg, "initrd /k/initrd: 1099511627776 bytes do not fit below "
				     "0x2000000 in the guest's 32 MiB of memory");
}

/* ---- devices ------------------------------------------------------------------------------- */

static void a_kernel_that_reads_the_dsdt_gets_its_devices_there(void **state)
{
	(void)state;
	memcpy(elf.text_bytes + 0x40, "LNRO0005", 8);
	use_kernel(&elf, sizeof elf);
	assert_int_equal(load(), 0);
	assert_null(strstr(command_line(), "virtio_mmio"));
	assert_int_equal(read_guest(LAYOUT_PVH_START_INFO + PVH_RSDP, 8), LAYOUT_RSDP);
	assert_int_equal(read_guest(LAYOUT_RSDP, 8), 0x2052545020445352); /* "RSD PTR " */
}

static void a_kernel_told_to_ignore_acpi_gets_them_on_its_command_line(void **state)
{
	(void)state;
	memcpy(elf.text_bytes + 0x40, "LNRO0005", 8);
	use_kernel(&elf, sizeof elf);
	cfg.args_given = true;
	strcpy(cfg.args, "acpi=off");
	assert_int_equal(load(), 0);
	assert_string_equal(command_line(), "acpi=off pci=off virtio_mmio.device=4K@0xc0001000:6");
	assert_int_equal(read_guest(LAYOUT_PVH_START_INFO + PVH_RSDP, 8), 0);
	assert_int_equal(read_guest(LAYOUT_RSDP, 8), 0);
	assert_int_equal(read_guest(LAYOUT_MPTABLE, 4), 0x5f504d5f); /* "_MP_" */
}

static void an_unknown_kernel_gets_them_in_both_places(void **state)
{
	(void)state;
	use_kernel(&elf, sizeof elf);
	assert_int_equal(load(), 0);
	assert_non_null(strstr(command_line(), " virtio_mmio.device=4K@0xc0001000:6"));
	assert_int_equal(read_guest(LAYOUT_PVH_START_INFO + PVH_RSDP, 8), LAYOUT_RSDP);
}

/* ---- errors -------------------------------------------------------------------------------- */

static void what_is_neither_format_is_named(void **state)
{
	static const char *const others[] = { "", "\x1f\x8b", "\x28\xb5\x2f\xfd", "MZ",
					      "\x7f"
					      "EL" };
	u8 bytes[4096];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(others); i++) {
		memset(bytes, 0xa5, sizeof bytes);
		memcpy(bytes, others[i], strlen(others[i]));
		use_kernel(bytes, i ? sizeof bytes : 0);
		assert_int_equal(load(), -ENOEXEC);
		assert_string_equal(err.msg, "kernel /k/vmlinux: not an ELF vmlinux or bzImage");
	}
	assert_int_equal(ftruncate(cfg.kernel_fd, (off_t)GIB(1024)), 0);
	assert_int_equal(load(), -ENOEXEC);
}

static void errors_name_the_file_and_the_reason(void **state)
{
	(void)state;
	elf.data.p_paddr = RAM;
	use_kernel(&elf, sizeof elf);
	assert_int_equal(load(), -ENOEXEC);
	assert_string_equal(err.msg, "kernel /k/vmlinux: segment 1 at 0x2000000 ends at 0x2003000, "
				     "beyond the guest's 32 MiB of memory");
}

static void a_kernel_that_takes_a_shorter_command_line_is_not_cut(void **state)
{
	(void)state;
	bz.hdr.cmdline_size = (u32)strlen("acpi=off pci=off virtio_mmio.device=4K@0xc0001000:6");
	use_kernel(&bz, sizeof bz);
	cfg.args_given = true;
	strcpy(cfg.args, "acpi=off");
	assert_int_equal(load(), 0);
	bz.hdr.cmdline_size--;
	use_kernel(&bz, sizeof bz);
	assert_int_equal(load(), -E2BIG);
	assert_non_null(strstr(err.msg, "takes at most 50"));
}

static void what_happens_to_the_file_afterwards_does_not_matter(void **state)
{
	(void)state;
	use_kernel(&elf, sizeof elf);
	assert_int_equal(load(), 0);
	assert_int_equal(pwrite(cfg.kernel_fd, "x", 1, offsetof(struct elf_file, text_bytes)), 1);
	assert_int_equal(ftruncate(cfg.kernel_fd, 0), 0);
	assert_int_equal(read_guest(ELF_TEXT_AT, 1), 0x90);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, fresh, gone)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_cannot_be_opened_is_told_in_the_contracts_words),
		cmocka_unit_test(only_regular_files_are_opened_and_nothing_blocks),
		TEST(a_pvh_kernel_is_entered_in_flat_protected_mode),
		TEST(a_pvh_kernel_is_told_its_start_info),
		TEST(a_64_bit_kernel_is_entered_in_long_mode),
		TEST(a_64_bit_kernel_is_told_its_zero_page),
		TEST(a_bzimage_is_told_its_own_header),
		TEST(memory_beyond_3_gib_goes_on_above_the_hole),
		TEST(the_initrd_is_at_the_top_page_aligned_and_whole),
		TEST(the_initrd_stays_where_the_kernel_wants_it),
		TEST(an_initrd_may_fill_what_the_kernel_leaves),
		TEST(an_initrd_that_is_empty_or_too_large_is_refused),
		TEST(a_kernel_that_reads_the_dsdt_gets_its_devices_there),
		TEST(a_kernel_told_to_ignore_acpi_gets_them_on_its_command_line),
		TEST(an_unknown_kernel_gets_them_in_both_places),
		TEST(what_is_neither_format_is_named),
		TEST(errors_name_the_file_and_the_reason),
		TEST(a_kernel_that_takes_a_shorter_command_line_is_not_cut),
		TEST(what_happens_to_the_file_afterwards_does_not_matter),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
