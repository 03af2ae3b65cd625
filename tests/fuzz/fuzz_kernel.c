/*
 * Kernel files: whatever the bytes, boot_load() either refuses them with a line that says why, or
 * leaves a machine whose entry, stack and structures lie in its memory.
 *
 * The last two bytes choose the machine: memory size; initrd and arguments. The rest is the file.
 */
#include "src/boot/boot.h"
#include "src/boot/cmdline.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#define REQUIRE(what)                                                                              \
	do {                                                                                       \
		if (!(what)) {                                                                     \
			fprintf(stderr, "not so: %s\n", #what);                                    \
			abort();                                                                   \
		}                                                                                  \
	} while (0)

int LLVMFuzzerTestOneInput(const u8 *data, size_t size);

static const char *const args[] = { "", "acpi=off -- x", "pci=off", "console=ttyS0" };

/* One file for all runs: making one costs more than a run. */
static int file_of(int *fd, const void *data, size_t size)
{
	if (*fd < 0)
		*fd = memfd_create("fuzz", MFD_CLOEXEC);
	REQUIRE(*fd >= 0 && !ftruncate(*fd, (off_t)size));
	REQUIRE(!size || pwrite(*fd, data, size, 0) == (ssize_t)size);
	return *fd;
}

static void check_machine(const struct mem *mem, const struct vcpu_state *s, enum boot_entry entry)
{
	const char *line = mem_at(mem, LAYOUT_CMDLINE, LAYOUT_CMDLINE_MAX);

	REQUIRE(line && strnlen(line, LAYOUT_CMDLINE_MAX) < LAYOUT_CMDLINE_MAX);
	REQUIRE(cmdline_has(line, "pci=off"));
	REQUIRE(s->regs.rip >= LAYOUT_KERNEL && mem_at(mem, s->regs.rip, 1));
	if (entry == BOOT_ENTRY_PVH) {
		REQUIRE(s->regs.rbx == LAYOUT_PVH_START_INFO && !s->sregs.efer);
	} else {
		REQUIRE(s->regs.rsi == LAYOUT_ZERO_PAGE && s->regs.rip < LAYOUT_MAPPED);
		REQUIRE(mem_at(mem, s->sregs.cr3, 4096));
	}
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t size)
{
	static int kernel = -1, initrd = -1;
	static struct boot_config cfg;
	struct boot_machine machine = { .n_vcpus = 2, .ioapic_pins = 24, .n_devices = 3 };
	struct vcpu_state state = { 0 };
	enum boot_entry entry;
	struct err err = { "" };
	struct mem mem;
	u8 how;
	int r;

	if (size < 2)
		return 0;
	how = data[size - 1];
	cfg.kernel_fd = file_of(&kernel, data, size - 2);
	cfg.initrd_fd = how & 1 ? file_of(&initrd, data, MIN(how >> 2u, size)) : -1;
	cfg.args_given = how & 2;
	strcpy(cfg.args, args[how >> 2 & 3]);
	machine.root_drive = how >> 4 & 1;
	REQUIRE(!mem_create(&mem, MIB(1 + data[size - 2] % 64), MEM_ANON, MEM_PAGES_4K, &err));

	r = boot_load(&cfg, &machine, &mem, &state, &entry, &err);
	REQUIRE((r < 0) == (err.msg[0] != '\0'));
	if (r >= 0)
		check_machine(&mem, &state, entry);
	mem_destroy(&mem);
	return 0;
}
