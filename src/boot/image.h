/*
 * image: what a kernel loader reads from and what it reports.
 *
 * A file is read by pread, straight to where its bytes belong, each byte once. An image collects
 * the ranges of guest memory that are taken, so that no two things are loaded over one another, and
 * what the rest of boot/ has to know about the kernel. Everything in the file is hostile.
 *
 * Error lines here begin with the part ("segment 2 ..."); boot.c puts the file's name in front.
 */
#ifndef IMAGE_H
#define IMAGE_H

#include "../vmm/base.h"
#include "../vmm/err.h"
#include "../vmm/mem.h"
#include "boot.h"

#define IMAGE_RANGES_MAX 64

/* A regular file that somebody else opened and will close. */
struct image_file {
	int fd;
	u64 size; /* when it was looked at; a file that shrinks later is an error, not a surprise */
};

struct image_range {
	char name[24]; /* "segment 2", "initrd" */
	u64 gpa, len;
};

struct image {
	enum boot_entry how;
	u64 entry;	 /* guest physical address of the first instruction */
	u64 initrd_end;	 /* the initrd must end here or below */
	u32 cmdline_max; /* bytes, with the terminator */
	bool reads_dsdt; /* known to find virtio-mmio devices by ACPI (docs/boot.md) */
	u8 setup_header[256]; /* bzImage: the file's own bytes from 0x1f1 on ... */
	u32 setup_header_len; /* ... and how many; 0: none */
	struct image_range range[IMAGE_RANGES_MAX];
	unsigned n_ranges;
};

int image_file_init(struct image_file *file, int fd, struct err *err) MUST_CHECK;

/* Exactly `len` bytes from `off`, or an error; the range need not be checked before. */
int image_read(const struct image_file *file, void *buf, u64 len, u64 off,
	       struct err *err) MUST_CHECK;

/*
 * Takes [gpa, gpa + len) for `name`: inside RAM, not below LAYOUT_KERNEL (so never over the
 * structures that boot/ itself writes), over nothing that was taken before. len 0 is an error.
 */
int image_claim(struct image *image, const struct mem *mem, const char *name, u64 gpa, u64 len,
		struct err *err) MUST_CHECK;

/* Reads the file into guest memory that was claimed. */
int image_load(const struct image_file *file, const struct mem *mem, u64 gpa, u64 len, u64 off,
	       struct err *err) MUST_CHECK;

#endif
