/*
 * boot: see boot.h. The order of things: find out what the kernel is and load it, place the initrd
 * above it, decide how the guest is to find its devices, say so in the tables and on the command
 * line, and set the registers.
 *
 * Must not know how a kernel file is laid out (elf.c, bzimage.c) or what a table looks like.
 */
#include "boot.h"
#include "acpi.h"
#include "bzimage.h"
#include "cmdline.h"
#include "elf.h"
#include "image.h"
#include "mptable.h"
#include "params.h"

#include <fcntl.h>
#include <inttypes.h>
#include <sys/stat.h>

#define PAGE 4096u

/* The contract's words; clients match on them. */
static const char *const open_failed[] = {
	[BOOT_KERNEL] = "The kernel file cannot be opened: ",
	[BOOT_INITRD] =
		"The initrd file cannot be opened due to invalid path or invalid permissions. ",
};

static const char *kind_of_file(mode_t mode)
{
	switch (mode & S_IFMT) {
	case S_IFDIR:
		return "directory";
	case S_IFIFO:
		return "FIFO";
	case S_IFCHR:
	case S_IFBLK:
		return "device";
	default:
		return "special file";
	}
}

/* O_NONBLOCK: a FIFO without a writer must not stop us; regular files ignore it. */
int boot_open(enum boot_file what, const char *path, struct err *err)
{
	CLEANUP_FD int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	struct stat st;

	if (fd < 0 || fstat(fd, &st) < 0)
		return fail(err, -errno, "%s" OS_ERR, open_failed[what], OS_ERR_ARGS(errno));
	if (!S_ISREG(st.st_mode))
		return fail(err, -EINVAL, "%s%s is a %s, not a regular file", open_failed[what],
			    path, kind_of_file(st.st_mode));
	return steal_fd(&fd);
}

static int load_any_kernel(int fd, const struct mem *mem, struct image *image, struct err *err)
{
	struct image_file file;
	u8 head[1024];
	size_t len;
	int r;

	r = image_file_init(&file, fd, err);
	if (r < 0)
		return r;
	len = MIN(file.size, sizeof head);
	r = image_read(&file, head, len, 0, err);
	if (r < 0)
		return r;
	if (elf_is(head, len))
		return elf_load(&file, mem, image, err);
	if (bzimage_is(head, len))
		return bzimage_load(&file, mem, image, err);
	return fail(err, -ENOEXEC, "not an ELF vmlinux or bzImage");
}

static int load_kernel(const struct boot_config *cfg, const struct mem *mem, struct image *image,
		       struct err *err)
{
	int r = load_any_kernel(cfg->kernel_fd, mem, image, err);

	if (r < 0)
		return fail_prefix(err, r, "kernel %s: ", cfg->kernel_path);
	return 0;
}

/*
 * As high as it may be: a kernel unpacks itself upwards from where it was put, and may need more
 * room there than it says.
 */
static int load_any_initrd(int fd, const struct mem *mem, struct image *image, u64 *at, u64 *size,
			   struct err *err)
{
	struct image_file file;
	int r;

	r = image_file_init(&file, fd, err);
	if (r < 0)
		return r;
	if (!file.size)
		return fail(err, -ENOEXEC, "the file is empty");
	if (file.size > image->initrd_end - MIN(image->initrd_end, LAYOUT_KERNEL))
		return fail(err, -ENOEXEC,
			    "%" PRIu64 " bytes do not fit below 0x%" PRIx64
			    " in the guest's %" PRIu64 " MiB of memory",
			    file.size, image->initrd_end, mem->size >> 20);
	*size = file.size;
	*at = ALIGN_DOWN(image->initrd_end - file.size, PAGE);
	r = image_claim(image, mem, "initrd", *at, *size, err);
	if (r < 0)
		return r;
	return image_load(&file, mem, *at, *size, 0, err);
}

static int load_initrd(const struct boot_config *cfg, const struct mem *mem, struct image *image,
		       struct params *params, struct err *err)
{
	int r;

	if (cfg->initrd_fd < 0)
		return 0;
	r = load_any_initrd(cfg->initrd_fd, mem, image, &params->initrd, &params->initrd_size, err);
	if (r < 0)
		return fail_prefix(err, r, "initrd %s: ", cfg->initrd_path);
	return 0;
}

/*
 * Devices are in the DSDT and, for kernels that do not read it, on the command line. A kernel that
 * reads both tries each device twice, fails with -EBUSY the second time and prints two lines about
 * it. So they are on the command line only if this kernel is told to ignore ACPI or is not
 * known to read it: too many names are noise, too few are a guest without disks (docs/boot.md).
 */
static int write_tables(const struct boot_config *cfg, const struct boot_machine *machine,
			const struct mem *mem, struct params *params, struct err *err)
{
	const char *args = cmdline_args(cfg);
	bool acpi = !cmdline_acpi_off(args), list = !acpi || !params->image->reads_dsdt;
	char *line = mem_at(mem, LAYOUT_CMDLINE, LAYOUT_CMDLINE_MAX);
	size_t len;
	int r;

	if (!line)
		return fail(err, -EINVAL, "no guest memory for the command line");
	r = cmdline_build(line, &len, args, machine, list, err);
	if (r < 0)
		return r;
	if (len >= params->image->cmdline_max)
		return fail(err, -E2BIG,
			    "kernel command line: %zu bytes with what the machine adds, but this "
			    "kernel takes at most %u",
			    len, params->image->cmdline_max - 1);
	if (acpi) {
		params->rsdp = LAYOUT_RSDP;
		r = acpi_write(mem, machine, err);
		if (r < 0)
			return r;
	}
	return mptable_write(mem, machine, err);
}

int boot_load(const struct boot_config *cfg, const struct boot_machine *machine,
	      const struct mem *mem, struct vcpu_state *state, enum boot_entry *entry,
	      struct err *err)
{
	struct image image = { 0 };
	struct params params = { .image = &image };
	int r;

	assert(machine->ioapic_pins <= LAYOUT_IOAPIC_PINS_MAX);
	assert(machine->n_devices <= LAYOUT_DEVICES_MAX);
	r = load_kernel(cfg, mem, &image, err);
	if (r < 0)
		return r;
	r = load_initrd(cfg, mem, &image, &params, err);
	if (r < 0)
		return r;
	r = write_tables(cfg, machine, mem, &params, err);
	if (r < 0)
		return r;
	r = params_write(&params, mem, state, err);
	if (r < 0)
		return r;
	*entry = image.how;
	return 0;
}
