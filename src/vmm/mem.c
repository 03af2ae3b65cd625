/*
 * mem: see mem.h. The only file that does arithmetic on host bases of guest memory.
 *
 * Invariant: a region never wraps, in the guest's address space or in ours, and regions are sorted.
 */
#include "mem.h"

#include <linux/memfd.h>
#include <sys/mman.h>
#include <sys/sysinfo.h>

#define PAGE 4096u
#define HUGE MIB(2)

/* A machine larger than the host could only fail later, in the middle of the guest's work. */
static bool exceeds_host(u64 size)
{
	struct sysinfo host;

	if (sysinfo(&host) < 0)
		return false;
	return size > ((u64)host.totalram + host.totalswap) * host.mem_unit;
}

static int region_memfd(struct mem_region *r, enum mem_pages pages)
{
	unsigned flags = MFD_CLOEXEC | MFD_ALLOW_SEALING;

	if (pages == MEM_PAGES_2M)
		flags |= MFD_HUGETLB | MFD_HUGE_2MB;
	r->fd = memfd_create("guest-ram", flags);
	if (r->fd < 0)
		return -errno;
	if (ftruncate(r->fd, (off_t)r->size) < 0)
		return -errno;
	return 0;
}

static int advise_pages(const struct mem_region *r, enum mem_pages pages)
{
	if (pages == MEM_PAGES_TRANSPARENT && madvise(r->host, r->size, MADV_HUGEPAGE) < 0)
		return -errno;
	if (pages == MEM_PAGES_4K)
		madvise(r->host, r->size, MADV_NOHUGEPAGE);
	return 0;
}

static int region_map(struct mem_region *r, enum mem_backing backing, enum mem_pages pages)
{
	int flags = backing == MEM_MEMFD ? MAP_SHARED : MAP_PRIVATE | MAP_ANONYMOUS;
	u64 align = pages == MEM_PAGES_4K ? PAGE : HUGE;
	u8 *area, *host;
	int err;

	if (backing == MEM_MEMFD) {
		err = region_memfd(r, pages);
		if (err < 0)
			return err;
	} else if (pages == MEM_PAGES_2M) {
		flags |= MAP_HUGETLB | (21 << MAP_HUGE_SHIFT);
	}

	/* Reserve with room to align to a huge page, so that guest and host pages coincide. */
	area = mmap(NULL, r->size + align, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
		    -1, 0);
	if (area == MAP_FAILED)
		return -errno;
	host = area + (ALIGN_UP((uintptr_t)area, align) - (uintptr_t)area);
	if (host > area)
		munmap(area, (size_t)(host - area));
	munmap(host + r->size, (size_t)(align - (u64)(host - area)));
	r->host = host;
	if (mmap(host, r->size, PROT_READ | PROT_WRITE, flags | MAP_FIXED | MAP_NORESERVE, r->fd,
		 0) == MAP_FAILED)
		return -errno;
	err = advise_pages(r, pages);
	if (err < 0)
		return err;
	/* Guest RAM in a core file helps nobody and tells too much. */
	madvise(host, r->size, MADV_DONTDUMP);
	return 0;
}

int mem_create(struct mem *mem, u64 size, enum mem_backing backing, enum mem_pages pages,
	       struct err *err)
{
	u64 low = MIN(size, MEM_HOLE_START);
	int r;

	assert(size && size % PAGE == 0);
	*mem = (struct mem){ .size = size, .pages = pages };
	if (exceeds_host(size))
		return fail(err, -ENOMEM,
			    "Invalid Memory Configuration: Cannot create mmap region: " OS_ERR,
			    OS_ERR_ARGS(ENOMEM));
	mem->region[mem->n_regions++] = (struct mem_region){ .gpa = 0, .size = low, .fd = -1 };
	if (size > low)
		mem->region[mem->n_regions++] =
			(struct mem_region){ .gpa = MEM_HOLE_END, .size = size - low, .fd = -1 };

	for (unsigned i = 0; i < mem->n_regions; i++) {
		r = region_map(&mem->region[i], backing, pages);
		if (r < 0) {
			mem_destroy(mem);
			return fail(err, r,
				    "Invalid Memory Configuration: Cannot create mmap region: " OS_ERR,
				    OS_ERR_ARGS(-r));
		}
	}
	return 0;
}

void mem_destroy(struct mem *mem)
{
	for (unsigned i = 0; i < mem->n_regions; i++) {
		struct mem_region *r = &mem->region[i];

		if (r->host)
			munmap(r->host, r->size);
		if (r->fd >= 0)
			close(r->fd);
	}
	*mem = (struct mem){ 0 };
}

void *mem_span(const struct mem *mem, u64 gpa, u64 *len)
{
	for (unsigned i = 0; i < mem->n_regions; i++) {
		const struct mem_region *r = &mem->region[i];

		if (gpa < r->gpa || gpa - r->gpa >= r->size)
			continue;
		*len = MIN(*len, r->size - (gpa - r->gpa));
		return r->host + (gpa - r->gpa);
	}
	*len = 0;
	return NULL;
}

void *mem_at(const struct mem *mem, u64 gpa, u64 len)
{
	u64 got = len;
	void *p = mem_span(mem, gpa, &got);

	return len && got == len ? p : NULL;
}

/*
 * A kernel image is written whole and used whole, so huge pages for it cost no memory, and save both
 * the faults of loading it and the guest's own. The rest of RAM is the guest's to fill: a huge page
 * for every first touch would boot it faster still, for a third more memory (docs/performance.md).
 */
void mem_populate(const struct mem *mem, u64 gpa, u64 len)
{
	u8 *host = mem_at(mem, gpa, len);
	u64 before, to_huge;

	if (!host)
		return;
	before = (uintptr_t)host % PAGE;
	to_huge = ALIGN_UP((uintptr_t)host, HUGE) - (uintptr_t)host;
	if (mem->pages == MEM_PAGES_ANY && range_ok(to_huge, HUGE, len))
		madvise(host + to_huge, ALIGN_DOWN(len - to_huge, HUGE), MADV_HUGEPAGE);
	madvise(host - before, ALIGN_UP(before + len, PAGE), MADV_POPULATE_WRITE);
}

u64 mem_low_end(const struct mem *mem)
{
	return mem->region[0].gpa + mem->region[0].size;
}
