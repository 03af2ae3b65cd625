/*
 * mem: guest RAM, and the one door to it.
 *
 * RAM is one or two regions (below and above the 3 GiB hole, layout.h). Each region is one host
 * mapping and one KVM memslot. Nothing but mem_at() and mem_span()
 * turns a guest physical address into a host pointer, and the length is part of the question, so a
 * pointer that was handed out is good for all of its `len` bytes, for the life of the struct.
 *
 * The set of regions is fixed by mem_create(); reading it needs no lock, from any thread. The bytes
 * behind the pointers belong to the guest and may change at any moment: copy once, check the copy,
 * use the copy (READ_ONCE).
 *
 * Layers (docs/architecture.md): a region is a base plus private pages, made by the kernel's own
 * copy-on-write. A fresh machine has no base: its pages are anonymous or live in a memfd.
 */
#ifndef MEM_H
#define MEM_H

#include "base.h"
#include "err.h"

enum mem_backing {
	MEM_ANON,      /* private anonymous pages: cheapest first touch, THP where the host allows it */
	MEM_MEMFD,     /* a shared memfd: can be frozen and handed to clones without a copy */
	MEM_BACKINGS,
};

enum mem_pages {
	MEM_PAGES_ANY,	       /* the monitor's choice: huge ones for what it loads itself */
	MEM_PAGES_4K,	       /* "None": ordinary pages only */
	MEM_PAGES_TRANSPARENT, /* "Transparent": an error where the host does not know them */
	MEM_PAGES_2M,	       /* "2M": hugetlbfs pages, reserved at creation */
};

#define MEM_REGIONS_MAX 2
#define MEM_HOLE_START GIB(3) /* RAM ends here ... */
#define MEM_HOLE_END   GIB(4) /* ... and goes on here: devices live between */

struct mem_region {
	u64 gpa;
	u64 size; /* bytes, a multiple of 4 KiB */
	u8 *host; /* page aligned */
	int fd;	  /* memfd, or -1 */
};

struct mem {
	struct mem_region region[MEM_REGIONS_MAX];
	unsigned n_regions;
	u64 size; /* bytes of RAM in all regions */
	enum mem_pages pages;
};

/*
 * Maps `size` bytes (a multiple of 4 KiB, not zero). Nothing is touched: pages come with the first
 * access. On error the struct is empty and needs no destroy. Error text is the contract's
 * ("Cannot create mmap region: ...").
 */
int mem_create(struct mem *mem, u64 size, enum mem_backing backing, enum mem_pages pages,
	       struct err *err) MUST_CHECK;

/* Unmaps all; accepts a zeroed or half-built struct. No pointer from mem_at() survives it. */
void mem_destroy(struct mem *mem);

/* Host address of [gpa, gpa + len), or NULL unless all of it is RAM of one region. len 0: NULL. */
void *mem_at(const struct mem *mem, u64 gpa, u64 len) MUST_CHECK;

/*
 * Like mem_at(), but the longest piece that is contiguous in the host: *len is cut to it. NULL (and
 * *len = 0) if gpa itself is not RAM. For buffers that may legally cross a region boundary.
 */
void *mem_span(const struct mem *mem, u64 gpa, u64 *len) MUST_CHECK;

/*
 * The range, which is RAM, is about to be written whole: makes its pages in one go, where a fault
 * for each would cost more than the copy. Only a hint: where the host cannot, the faults come.
 */
void mem_populate(const struct mem *mem, u64 gpa, u64 len);

/* The guest physical address after the last byte of RAM below the hole. */
u64 mem_low_end(const struct mem *mem);

#endif
