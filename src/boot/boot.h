/*
 * boot: makes a blank machine into one whose vCPU 0 stands at the entry of a Linux kernel.
 *
 * Kernel formats: ELF vmlinux (by its PVH note if it has one, else by the 64-bit entry) and bzImage
 * (64-bit entry). Writes the kernel, the initrd, the command line, zero page or PVH start info,
 * page tables, ACPI and MP tables into guest memory, and edits the processor's state struct.
 * Touches no KVM, opens no path: the files were opened when they were configured. Hostile kernels
 * are expected: every failure is one line that names the file and the reason.
 *
 * One call, loop thread, before any vCPU runs.
 */
#ifndef BOOT_H
#define BOOT_H

#include "../vmm/base.h"
#include "../vmm/err.h"
#include "../vmm/mem.h"
#include "../vmm/vcpu.h"
#include "layout.h"

#define BOOT_PATH_MAX 4096
#define BOOT_ARGS_DEFAULT                                                                          \
	"reboot=k panic=1 nomodule 8250.nr_uarts=0 i8042.noaux i8042.nomux i8042.dumbkbd "         \
	"swiotlb=noforce"

/* What the user asked to boot; plain data, filled by the API. */
struct boot_config {
	char kernel_path[BOOT_PATH_MAX];
	char initrd_path[BOOT_PATH_MAX];
	char args[LAYOUT_CMDLINE_MAX];
	bool args_given; /* else BOOT_ARGS_DEFAULT */
	int kernel_fd; /* opened when configured, owned by the configuration; -1: not configured */
	int initrd_fd; /* -1: none */
};

/* What the tables and the command line must describe. */
struct boot_machine {
	unsigned n_vcpus;
	unsigned ioapic_pins; /* at most LAYOUT_IOAPIC_PINS_MAX */
	bool root_drive;      /* one of the drives is the root device: */
	bool root_read_only;
	const char *root_partuuid; /* NULL or empty: /dev/vda */
	unsigned n_devices; /* virtio-mmio windows, from LAYOUT_VIRTIO and LAYOUT_GSI_VIRTIO on */
};

/* How the kernel is entered; for the log and the tests. */
enum boot_entry { BOOT_ENTRY_PVH, BOOT_ENTRY_64, BOOT_ENTRY_BZIMAGE };

/*
 * `state` holds a processor as KVM made it; regs and the segment/control parts of sregs are
 * overwritten. On error guest memory may be half written; nothing else happened.
 */
int boot_load(const struct boot_config *cfg, const struct boot_machine *machine,
	      const struct mem *mem, struct vcpu_state *state, enum boot_entry *entry,
	      struct err *err) MUST_CHECK;

enum boot_file { BOOT_KERNEL, BOOT_INITRD };

/* A readable regular file, never waited for; fd or -errno, with the contract's text. */
int boot_open(enum boot_file what, const char *path, struct err *err) MUST_CHECK;

#endif
