/*
 * mem: see mem.h. The only file that does arithmetic on host bases of guest memory.
 *
 * Invariant: a region never wraps, in the guest's address space or in ours, and regions are sorted.
 */
#include "mem.h"

#include "io.h"
#include "pagemap.h"

#include <fcntl.h>
#include <linux/memfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
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

/* One file for all regions, laid out like a memory file: freezing it needs no copy (mem_freeze.c). */
static int create_memfd(struct mem *mem)
{
	unsigned flags = MFD_CLOEXEC | MFD_ALLOW_SEALING;

	if (mem->pages == MEM_PAGES_2M)
		flags |= MFD_HUGETLB | MFD_HUGE_2MB;
	mem->fd = memfd_create("guest-ram", flags);
	return mem->fd < 0 || ftruncate(mem->fd, (off_t)mem->size) < 0 ? -errno : 0;
}

static int advise_pages(const struct mem_region *r, enum mem_pages pages)
{
	if (pages == MEM_PAGES_TRANSPARENT && madvise(r->host, r->size, MADV_HUGEPAGE) < 0)
		return -errno;
	if (pages == MEM_PAGES_4K)
		madvise(r->host, r->size, MADV_NOHUGEPAGE);
	return 0;
}

static int region_map(struct mem_region *r, int fd, enum mem_pages pages)
{
	int flags = fd >= 0 ? MAP_SHARED : MAP_PRIVATE | MAP_ANONYMOUS;
	u64 align = pages == MEM_PAGES_4K ? PAGE : HUGE;
	u8 *area, *host;
	int err;

	if (fd < 0 && pages == MEM_PAGES_2M)
		flags |= MAP_HUGETLB | (21 << MAP_HUGE_SHIFT);

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
	if (mmap(host, r->size, PROT_READ | PROT_WRITE, flags | MAP_FIXED | MAP_NORESERVE, fd,
		 fd >= 0 ? (off_t)r->offset : 0) == MAP_FAILED)
		return -errno;
	err = advise_pages(r, pages);
	if (err < 0)
		return err;
	/* Guest RAM in a core file helps nobody and tells too much. */
	madvise(host, r->size, MADV_DONTDUMP);
	return 0;
}

/* The map of guest memory, nothing behind it. */
static void plan(struct mem *mem, u64 size, enum mem_pages pages)
{
	u64 low = MIN(size, MEM_HOLE_START);

	assert(size && size % PAGE == 0);
	*mem = (struct mem){ .size = size, .pages = pages, .fd = -1 };
	mem->region[mem->n_regions++] = (struct mem_region){ .gpa = 0, .size = low };
	if (size > low)
		mem->region[mem->n_regions++] = (struct mem_region){
			.gpa = MEM_HOLE_END, .size = size - low, .offset = low
		};
}

int mem_create(struct mem *mem, u64 size, enum mem_backing backing, enum mem_pages pages,
	       struct err *err)
{
	int r = exceeds_host(size) ? -ENOMEM : 0;

	plan(mem, size, pages);
	if (!r && backing == MEM_MEMFD)
		r = create_memfd(mem);
	for (unsigned i = 0; i < mem->n_regions && !r; i++)
		r = region_map(&mem->region[i], mem->fd, pages);
	if (!r)
		return 0;
	mem_destroy(mem);
	return fail(err, r, "Invalid Memory Configuration: Cannot create mmap region: " OS_ERR,
		    OS_ERR_ARGS(-r));
}

void mem_destroy(struct mem *mem)
{
	for (unsigned i = 0; i < mem->n_regions; i++) {
		struct mem_region *r = &mem->region[i];

		if (r->host)
			munmap(r->host, r->size);
	}
	if (mem->n_regions && mem->fd >= 0)
		close(mem->fd);
	*mem = (struct mem){ .fd = -1 };
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

int mem_discard(const struct mem *mem, void *host, u64 len)
{
	u64 page = mem->pages == MEM_PAGES_2M ? HUGE : PAGE;
	uintptr_t start = ALIGN_UP((uintptr_t)host, page);
	uintptr_t end = ALIGN_DOWN((uintptr_t)host + len, page);
	/* A memfd's page is the file's: dropping the mapping alone would keep it. */
	int advice = mem_is_shared(mem) ? MADV_REMOVE : MADV_DONTNEED;

	if (end <= start)
		return 0;
	return madvise((u8 *)host + (start - (uintptr_t)host), end - start, advice) < 0 ? -errno
											: 0;
}

u64 mem_low_end(const struct mem *mem)
{
	return mem->region[0].gpa + mem->region[0].size;
}

/* ---- over a file ------------------------------------------------------------------------------- */

static int map_over(struct mem_region *r, int fd)
{
	void *host = mmap(NULL, r->size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_NORESERVE, fd,
			  (off_t)r->offset);

	if (host == MAP_FAILED)
		return -errno;
	r->host = host;
	madvise(host, r->size, MADV_DONTDUMP);
	return 0;
}

int mem_open(struct mem *mem, u64 size, int fd, struct err *err)
{
	struct stat st;
	int r;

	plan(mem, size, MEM_PAGES_4K);
	if (fstat(fd, &st) < 0 || (u64)st.st_size != size) {
		mem_destroy(mem);
		return fail(err, -EINVAL, "the memory file has %lld bytes, the machine %llu",
			    (long long)st.st_size, (unsigned long long)size);
	}
	mem->based = true;
	mem->fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	if (mem->fd < 0) {
		r = -errno;
		mem_destroy(mem);
		return fail(err, r, "the memory file cannot be kept open: " OS_ERR, OS_ERR_ARGS(-r));
	}
	for (unsigned i = 0; i < mem->n_regions; i++) {
		r = map_over(&mem->region[i], fd);
		if (r < 0) {
			mem_destroy(mem);
			return fail(err, r, "the memory file cannot be mapped: " OS_ERR,
				    OS_ERR_ARGS(-r));
		}
	}
	return 0;
}

bool mem_is_cut_short(const struct mem *mem)
{
	struct stat st;

	return mem->based && fstat(mem->fd, &st) == 0 && (u64)st.st_size < mem->size;
}

/* ---- which pages are whose ---------------------------------------------------------------------- */

#define PAGEMAP_PRESENT (1ull << 63)
#define PAGEMAP_SWAPPED (1ull << 62)
#define PAGEMAP_FILE	(1ull << 61)
#define PAGEMAP_BATCH	512
#define SCAN_RUNS	256

static bool is_private(u64 entry)
{
	return (entry & PAGEMAP_SWAPPED) || (entry & (PAGEMAP_PRESENT | PAGEMAP_FILE)) == PAGEMAP_PRESENT;
}

static bool is_touched(u64 entry)
{
	return entry & (PAGEMAP_SWAPPED | PAGEMAP_PRESENT);
}

struct visit {
	bool (*wanted)(u64 entry);
	u64 unwanted; /* categories of PAGEMAP_SCAN: the same, said to the kernel */
	mem_visit_fn *fn;
	void *owner;
};

/*
 * The kernel looks for the runs, and passes over what is not mapped, so that the time it takes follows
 * what was touched and not the size of RAM. -ENOTTY: this kernel (before 6.7) does not.
 */
static int visit_scanned(const struct mem_region *r, int pagemap, const struct visit *v)
{
	struct page_region run[SCAN_RUNS];
	struct pm_scan_arg arg = {
		.size = sizeof arg,
		.start = (uintptr_t)r->host,
		.end = (uintptr_t)r->host + r->size,
		.vec = (uintptr_t)run,
		.vec_len = SCAN_RUNS,
		.category_inverted = v->unwanted,
		.category_mask = v->unwanted,
		.category_anyof_mask = PAGE_IS_PRESENT | PAGE_IS_SWAPPED,
		.return_mask = PAGE_IS_PRESENT | PAGE_IS_SWAPPED,
	};

	for (; arg.start < arg.end; arg.start = arg.walk_end) {
		int n = ioctl(pagemap, PAGEMAP_SCAN, &arg);

		if (n < 0)
			return -errno;
		for (int i = 0; i < n; i++) {
			u64 at = run[i].start - (uintptr_t)r->host;
			int ret = v->fn(v->owner, r->offset + at, r->host + at, run[i].end - run[i].start);

			if (ret)
				return ret;
		}
	}
	return 0;
}

/* The runs among `n` pages from `host` on. */
static int visit_runs(const struct mem_region *r, const u8 *host, const u64 *entry, u64 n,
		      const struct visit *v)
{
	u64 offset = r->offset + (u64)(host - r->host);

	for (u64 i = 0, end; i < n; i = end + 1) {
		int ret;

		for (end = i; end < n && v->wanted(entry[end]); end++)
			;
		if (end == i)
			continue;
		ret = v->fn(v->owner, offset + i * PAGE, host + i * PAGE, (end - i) * PAGE);
		if (ret)
			return ret;
	}
	return 0;
}

static int visit_told(const struct mem_region *r, int pagemap, const struct visit *v)
{
	u64 entry[PAGEMAP_BATCH];
	int scanned = visit_scanned(r, pagemap, v);

	if (scanned != -ENOTTY)
		return scanned;
	for (u64 at = 0; at < r->size; at += (u64)PAGEMAP_BATCH * PAGE) {
		u64 n = MIN((r->size - at) / PAGE, PAGEMAP_BATCH);
		u64 where = ((uintptr_t)r->host + at) / PAGE * sizeof entry[0];
		ssize_t len = (ssize_t)(n * sizeof entry[0]);
		int ret;

		if (io_pread(pagemap, entry, (size_t)len, where) != len)
			memset(entry, 0xc0, sizeof entry); /* not told: all of them */
		ret = visit_runs(r, r->host + at, entry, n, v);
		if (ret)
			return ret;
	}
	return 0;
}

/* The same without being told: pages that read other than the base's. */
static int visit_different(const struct mem_region *r, int base_fd, mem_visit_fn *visit, void *owner)
{
	u8 *base = mmap(NULL, r->size, PROT_READ, MAP_PRIVATE | MAP_NORESERVE, base_fd,
			(off_t)r->offset);
	int ret = base == MAP_FAILED ? -errno : 0;

	for (u64 at = 0, end; at < r->size && !ret; at = end + PAGE) {
		for (end = at; end < r->size && memcmp(r->host + end, base + end, PAGE) != 0; end += PAGE)
			;
		if (end > at)
			ret = visit(owner, r->offset + at, r->host + at, end - at);
	}
	if (base != MAP_FAILED)
		munmap(base, r->size);
	return ret;
}

int mem_each(const struct mem *mem, mem_visit_fn *visit, void *owner)
{
	int ret = 0;

	for (unsigned i = 0; i < mem->n_regions && !ret; i++)
		ret = visit(owner, mem->region[i].offset, mem->region[i].host, mem->region[i].size);
	return ret;
}

int mem_each_private(const struct mem *mem, mem_visit_fn *visit, void *owner)
{
	const struct visit v = { is_private, PAGE_IS_FILE, visit, owner };
	CLEANUP_FD int pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	int ret = 0;

	if (mem->fd < 0 ? pagemap < 0 : !mem->based)
		return mem_each(mem, visit, owner);
	for (unsigned i = 0; i < mem->n_regions && !ret; i++) {
		const struct mem_region *r = &mem->region[i];

		ret = pagemap < 0 ? visit_different(r, mem->fd, visit, owner)
				  : visit_told(r, pagemap, &v);
	}
	return ret;
}

int mem_each_touched(const struct mem *mem, mem_visit_fn *visit, void *owner)
{
	const struct visit v = { is_touched, 0, visit, owner };
	CLEANUP_FD int pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	int ret = pagemap < 0 ? -errno : 0;

	for (unsigned i = 0; i < mem->n_regions && !ret; i++)
		ret = visit_told(&mem->region[i], pagemap, &v);
	return ret;
}
