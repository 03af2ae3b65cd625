/*
 * image: see image.h. The only file of boot/ that reads from a descriptor.
 *
 * Invariant: ranges in a struct image lie in RAM from LAYOUT_KERNEL on and are disjoint.
 *
 * Why pread and not a mapping of the file: measured with vmlinux files of 16 MB (13 MB loaded) and
 * 53 MB (44 MB loaded) in the page cache, fresh anonymous 4 KiB guest pages: pread 7.2 and 25 ms,
 * memcpy from a mapping 7.9 and 27 ms; most of it is page faults, hence the populate below (5.4 and
 * 20 ms). Mapping the file over guest memory costs nothing at all, but then whoever truncates or
 * rewrites the file does it to a running guest.
 */
#include "image.h"

#include <inttypes.h>
#include <stdio.h>
#include <sys/stat.h>

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23 /* Linux 5.14 */
#endif


int image_file_init(struct image_file *file, int fd, struct err *err)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return fail(err, -errno, OS_ERR, OS_ERR_ARGS(errno));
	if (!S_ISREG(st.st_mode))
		return fail(err, -EINVAL, "not a regular file");
	*file = (struct image_file){ .fd = fd, .size = (u64)st.st_size };
	return 0;
}

int image_read(const struct image_file *file, void *buf, u64 len, u64 off, struct err *err)
{
	u8 *to = buf;

	if (!range_ok(off, len, file->size))
		return fail(err, -ENOEXEC,
			    "0x%" PRIx64 " bytes at offset 0x%" PRIx64
			    " reach beyond the end of the file (0x%" PRIx64 ")",
			    len, off, file->size);
	while (len) {
		ssize_t n = pread(file->fd, to, len, (off_t)off);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return fail(err, -errno, "reading: " OS_ERR, OS_ERR_ARGS(errno));
		if (n == 0)
			return fail(err, -ENOEXEC, "the file became shorter while it was read");
		to += n;
		off += (u64)n;
		len -= (u64)n;
	}
	return 0;
}

static int claim_in_ram(const struct mem *mem, const char *name, u64 gpa, u64 len, struct err *err)
{
	if (gpa + len < gpa)
		return fail(err, -ENOEXEC,
			    "%s at 0x%" PRIx64 " of 0x%" PRIx64 " bytes wraps around", name, gpa,
			    len);
	if (gpa < LAYOUT_KERNEL)
		return fail(err, -ENOEXEC,
			    "%s at 0x%" PRIx64 " is below 0x%x, where the boot structures are",
			    name, gpa, LAYOUT_KERNEL);
	if (!mem_at(mem, gpa, len))
		return fail(err, -ENOEXEC,
			    "%s at 0x%" PRIx64 " ends at 0x%" PRIx64 ", beyond the guest's %" PRIu64
			    " MiB of memory%s",
			    name, gpa, gpa + len, mem->size >> 20,
			    mem->n_regions > 1 ? " or in its hole" : "");
	return 0;
}

int image_claim(struct image *image, const struct mem *mem, const char *name, u64 gpa, u64 len,
		struct err *err)
{
	struct image_range *taken;
	int r;

	if (!len)
		return fail(err, -ENOEXEC, "%s is empty", name);
	r = claim_in_ram(mem, name, gpa, len, err);
	if (r < 0)
		return r;
	for (unsigned i = 0; i < image->n_ranges; i++) {
		taken = &image->range[i];
		if (ranges_overlap(gpa, len, taken->gpa, taken->len))
			return fail(err, -ENOEXEC,
				    "%s at 0x%" PRIx64 "..0x%" PRIx64 " overlaps %s at 0x%" PRIx64
				    "..0x%" PRIx64,
				    name, gpa, gpa + len, taken->name, taken->gpa,
				    taken->gpa + taken->len);
	}
	if (image->n_ranges == IMAGE_RANGES_MAX)
		return fail(err, -ENOEXEC, "more than %u parts to load", IMAGE_RANGES_MAX);
	taken = &image->range[image->n_ranges++];
	snprintf(taken->name, sizeof taken->name, "%s", name);
	taken->gpa = gpa;
	taken->len = len;
	return 0;
}

int image_load(const struct image_file *file, const struct mem *mem, u64 gpa, u64 len, u64 off,
	       struct err *err)
{
	u8 *host = mem_at(mem, gpa, len);

	if (!len)
		return 0;
	if (!host)
		return fail(err, -ENOEXEC, "0x%" PRIx64 " is not guest memory", gpa);
	/* A range beyond the file fails in image_read(); it must not cost memory first. */
	if (range_ok(off, len, file->size))
		mem_populate(mem, gpa, len);
	return image_read(file, host, len, off, err);
}
