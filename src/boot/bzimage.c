/*
 * bzimage: see bzimage.h. Documentation/arch/x86/boot.rst of Linux, "the boot protocol".
 *
 * The file is: boot sector and setup code ((setup_sects + 1) * 512 bytes), which is not run; then
 * the protected-mode part, which is a decompressor with the compressed kernel in it. That part goes
 * to pref_address, entry at +0x200 in long mode. Elsewhere would do no good: the decompressor works
 * at pref_address or above wherever it was loaded, and needs init_size bytes from there on.
 */
#include "bzimage.h"

#include <asm/bootparam.h>
#include <inttypes.h>

#define HEADER_AT	0x1f1
#define BOOT_FLAG_AT	0x1fe
#define MAGIC_AT	0x202
#define BOOT_FLAG	0xaa55
#define MAGIC		0x53726448 /* "HdrS" */
#define SECTOR		512u
#define SETUP_SECTS_MAX 64 /* Linux asserts that boot sector and setup fit in 32 KiB */
#define ENTRY_64	0x200
#define XLF_64		1 /* XLF_KERNEL_64 */
#define HIGH		1 /* LOADED_HIGH */

static_assert(offsetof(struct boot_params, hdr) == HEADER_AT, "header position in the zero page");

struct bzimage {
	struct setup_header hdr;
	u64 start; /* offset of the protected-mode part in the file */
	u64 len;
	u64 need; /* bytes of memory from pref_address on */
};

bool bzimage_is(const void *head, size_t len)
{
	const u8 *bytes = head;
	u16 flag;
	u32 magic;

	if (len < MAGIC_AT + sizeof magic)
		return false;
	memcpy(&flag, bytes + BOOT_FLAG_AT, sizeof flag);
	memcpy(&magic, bytes + MAGIC_AT, sizeof magic);
	return flag == BOOT_FLAG && magic == MAGIC;
}

/*
 * The header's length is the jump over it: 0x202 + the jump's second byte. Newer kernels may have a
 * longer one than we know, older ones a shorter one, whose missing fields stay zero.
 */
static int read_header(const struct image_file *file, struct bzimage *bz, struct image *image,
		       struct err *err)
{
	u8 jump;
	u64 len;
	int r;

	r = image_read(file, &jump, 1, 0x201, err);
	if (r < 0)
		return fail_prefix(err, r, "setup header: ");
	len = MAGIC_AT + jump - HEADER_AT;
	len = MIN(len, sizeof bz->hdr);
	static_assert(sizeof bz->hdr <= sizeof image->setup_header, "room for the header");
	r = image_read(file, &bz->hdr, len, HEADER_AT, err);
	if (r < 0)
		return fail_prefix(err, r, "setup header: ");
	memcpy(image->setup_header, &bz->hdr, len);
	image->setup_header_len = (u32)len;
	return 0;
}

static int check_protocol(const struct setup_header *h, struct err *err)
{
	if (h->version < 0x20c)
		return fail(err, -ENOEXEC, "boot protocol %u.%02u is older than 2.12",
			    h->version >> 8, h->version & 0xff);
	if (!(h->xloadflags & XLF_64) || !(h->loadflags & HIGH))
		return fail(err, -ENOEXEC, "no 64-bit entry (xloadflags 0x%x, loadflags 0x%x)",
			    h->xloadflags, h->loadflags);
	if (h->setup_sects == 0 || h->setup_sects > SETUP_SECTS_MAX)
		return fail(err, -ENOEXEC, "setup_sects is %u, not 1 to %u", h->setup_sects,
			    SETUP_SECTS_MAX);
	if (!h->kernel_alignment || h->kernel_alignment & (h->kernel_alignment - 1))
		return fail(err, -ENOEXEC, "kernel_alignment 0x%x is not a power of two",
			    h->kernel_alignment);
	if (h->pref_address & (h->kernel_alignment - 1))
		return fail(err, -ENOEXEC, "pref_address 0x%" PRIx64 " is not aligned to 0x%x",
			    (u64)h->pref_address, h->kernel_alignment);
	return 0;
}

static int check_sizes(const struct image_file *file, struct bzimage *bz, struct err *err)
{
	const struct setup_header *h = &bz->hdr;

	bz->start = (h->setup_sects + 1) * (u64)SECTOR;
	bz->len = (u64)h->syssize * 16;
	if (bz->len <= ENTRY_64)
		return fail(err, -ENOEXEC, "syssize 0x%x leaves no room for a kernel", h->syssize);
	/* Signed kernels have bytes after that; they are not loaded. */
	if (!range_ok(bz->start, bz->len, file->size))
		return fail(err, -ENOEXEC,
			    "0x%" PRIx64 " bytes at 0x%" PRIx64
			    " (syssize) reach beyond the end of the file (0x%" PRIx64 ")",
			    bz->len, bz->start, file->size);
	bz->need = MAX(bz->len, (u64)h->init_size);
	if (!range_ok(h->pref_address, bz->need, LAYOUT_MAPPED))
		return fail(err, -ENOEXEC,
			    "pref_address 0x%" PRIx64 " with init_size 0x%" PRIx64
			    " is not in the first GiB",
			    (u64)h->pref_address, bz->need);
	return 0;
}

/*
 * The kernel proper is compressed, but the decompressor is not: if the kernel has ACPI, it looks
 * for the RSDP itself (arch/x86/boot/compressed/acpi.c, Linux 5.1), so the signature is among its
 * strings, after the payload. A Linux with ACPI has ACPI in its virtio-mmio driver too.
 */
static bool reads_dsdt(const struct bzimage *bz, const u8 *loaded)
{
	u64 end = (u64)bz->hdr.payload_offset + bz->hdr.payload_length;

	if (!bz->hdr.payload_length || end >= bz->len)
		return false;
	return memmem(loaded + end, bz->len - end, "RSD PTR ", 8);
}

int bzimage_load(const struct image_file *file, const struct mem *mem, struct image *image,
		 struct err *err)
{
	struct bzimage bz = { 0 };
	const u8 *loaded;
	u64 at;
	int r;

	r = read_header(file, &bz, image, err);
	if (r < 0)
		return r;
	r = check_protocol(&bz.hdr, err);
	if (r < 0)
		return r;
	r = check_sizes(file, &bz, err);
	if (r < 0)
		return r;
	at = bz.hdr.pref_address;
	r = image_claim(image, mem, "the kernel", at, bz.need, err);
	if (r < 0)
		return r;
	r = image_load(file, mem, at, bz.len, bz.start, err);
	if (r < 0)
		return r;
	loaded = mem_at(mem, at, bz.len);
	assert(loaded);
	image->how = BOOT_ENTRY_BZIMAGE;
	image->entry = at + ENTRY_64;
	image->initrd_end = MIN(mem_low_end(mem), (u64)bz.hdr.initrd_addr_max + 1);
	image->cmdline_max = MIN(LAYOUT_CMDLINE_MAX, (u64)bz.hdr.cmdline_size + 1);
	image->reads_dsdt = reads_dsdt(&bz, loaded);
	return 0;
}
