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
	u64 offset; /* of the region in a file of all regions */
};

struct mem {
	struct mem_region region[MEM_REGIONS_MAX];
	unsigned n_regions;
	u64 size; /* bytes of RAM in all regions */
	enum mem_pages pages;
	int fd;	    /* what all regions are mapped from; -1: nothing, anonymous pages */
	bool based; /* mapped private over a file: pages that the guest has not written are its */
	bool alone; /* that file is a memfd that no other process has */
	bool paged; /* a page fault handler has what was not touched yet (uffd.h) */
	bool saved; /* that file is in the client's hands, so that a diff to it is of use */
};

/*
 * Maps `size` bytes (a multiple of 4 KiB, not zero). Nothing is touched: pages come with the first
 * access. On error the struct is empty and needs no destroy. Error text is the contract's
 * ("Cannot create mmap region: ...").
 */
int mem_create(struct mem *mem, u64 size, enum mem_backing backing, enum mem_pages pages,
	       struct err *err) MUST_CHECK;

/*
 * RAM as it is in a file of all regions, one after the other: mapped private, so that pages are read
 * at their first touch and written to copies. The file must have exactly `size` bytes (checked), and
 * must not change while it is in use. `fd` stays with the caller; the struct keeps one of its own.
 */
int mem_open(struct mem *mem, u64 size, int fd, struct err *err) MUST_CHECK;

/*
 * Pages that are private to this process: of a machine with a base, those that differ from it; of
 * one without, those that were ever touched. Calls `visit` for runs of them, in order; `offset` is
 * that in a file of all regions. Where the kernel does not tell (no /proc, as in a jail) RAM is
 * compared with its base, which takes longer and names no more; without a base all of it is named.
 * Returns what `visit` returned, if that was not 0. The machine is paused.
 */
typedef int mem_visit_fn(void *owner, u64 offset, const u8 *host, u64 len);
int mem_each_private(const struct mem *mem, mem_visit_fn *visit, void *owner);

/* Pages that are mapped, whose ever they are; an error where the kernel does not tell. */
int mem_each_touched(const struct mem *mem, mem_visit_fn *visit, void *owner);

/* All of RAM; of a machine whose pages come from a handler, it is asked for all of them. */
int mem_each(const struct mem *mem, mem_visit_fn *visit, void *owner);

/*
 * mem_copy.c: RAM as it is into an empty file of its size, holes for zeros where that is known; or only
 * its private pages, over what the file has. 0 or a negative errno.
 */
int mem_copy(const struct mem *mem, int fd) MUST_CHECK;
int mem_copy_private(const struct mem *mem, int fd) MUST_CHECK;

/* Whether the file that RAM is mapped from has less than all of it: whoever touches the rest dies. */
bool mem_is_cut_short(const struct mem *mem);

/* Whether RAM is a memfd that the guest writes to directly. */
static inline bool mem_is_shared(const struct mem *mem)
{
	return mem->fd >= 0 && !mem->based;
}

/*
 * mem_freeze.c: the same RAM mapped anew, private, over a memfd (next->fd) that holds what it is now
 * and does not change before RAM is frozen again. `alone`: no other process will have the file; else
 * it is sealed and never changes. Only what the machine has written since it was frozen alone, or
 * nothing if RAM is a shared memfd, is copied; in all other cases all that it has, which takes about
 * as long as a paused snapshot. The machine is paused. `mem` stays as it is: the caller moves
 * everybody over, and destroys it.
 */
int mem_freeze(const struct mem *mem, struct mem *next, bool alone, struct err *err) MUST_CHECK;

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

/*
 * The guest has no more use for these bytes, which lie in one region at a pointer that mem_at() or
 * mem_span() gave: the whole pages among them leave the process, and read as zeros from now on
 * (or, of a machine with a base, as the base has them).
 * What is no whole page of the backing (2 MiB with huge pages reserved) stays. 0, or a negative
 * errno if the kernel would not.
 */
int mem_discard(const struct mem *mem, void *host, u64 len);

/* The guest physical address after the last byte of RAM below the hole. */
u64 mem_low_end(const struct mem *mem);

#endif
