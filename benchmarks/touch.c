/*
 * touch: what the first access to a page of guest RAM costs, by the kind of memory behind it.
 *
 *	touch [RUNS] [MIB]
 *
 * One sample is the mean over all 4 KiB pages of a fresh mapping, touched in order with one written
 * byte each: the fault, the zeroing, and for a memfd the page cache. A guest's own first access adds
 * the second-level page table entry, the same for all kinds but one (a huge page needs one for 512).
 */
#include "sample.h"

#include <linux/memfd.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define PAGE 4096u
#define HUGE (2u << 20)

enum kind { ANON, ANON_THP, MEMFD, MEMFD_POPULATE, ANON_POPULATE, HUGETLB, KINDS };

static const char *const names[KINDS] = {
	[ANON] = "anonymous",
	[ANON_THP] = "anonymous, transparent huge pages",
	[MEMFD] = "memfd, shared",
	[MEMFD_POPULATE] = "memfd, shared, populated at once",
	[ANON_POPULATE] = "anonymous, populated at once",
	[HUGETLB] = "hugetlbfs 2 MiB",
};

static int memfd_of(size_t size)
{
	int fd = memfd_create("touch", MFD_CLOEXEC);

	if (fd < 0 || ftruncate(fd, (off_t)size) < 0)
		die("memfd");
	return fd;
}

/* NULL where the host has no such pages to give. */
static char *map(enum kind kind, size_t size)
{
	int memfd = kind == MEMFD || kind == MEMFD_POPULATE;
	int flags = memfd ? MAP_SHARED : MAP_PRIVATE | MAP_ANONYMOUS;
	int fd = memfd ? memfd_of(size) : -1;
	/* Room to align: only whole, aligned huge pages can become one. */
	size_t room = memfd || kind == HUGETLB ? size : size + HUGE;
	char *p;

	if (kind == HUGETLB)
		flags |= MAP_HUGETLB | (21 << MAP_HUGE_SHIFT);
	p = mmap(NULL, room, PROT_READ | PROT_WRITE, flags, fd, 0);
	if (fd >= 0)
		close(fd);
	if (p == MAP_FAILED)
		return NULL;
	if (room > size)
		p = (char *)(((uintptr_t)p + HUGE - 1) & ~(uintptr_t)(HUGE - 1));
	if (!memfd && kind != HUGETLB &&
	    madvise(p, size, kind == ANON_THP ? MADV_HUGEPAGE : MADV_NOHUGEPAGE) < 0)
		return NULL;
	return p;
}

static void touch(enum kind kind, size_t size)
{
	char *p = map(kind, size);
	uint64_t begin = now_ns();

	if (!p)
		return;
	if (kind == MEMFD_POPULATE || kind == ANON_POPULATE)
		madvise(p, size, MADV_POPULATE_WRITE);
	for (size_t at = 0; at < size; at += PAGE)
		*(volatile char *)(p + at) = 1;
	printf("%s %.1f\n", names[kind], (double)(now_ns() - begin) / (double)(size / PAGE));
	/* The room for alignment stays; the pages do not. */
	munmap(p, size);
}

int main(int argc, char **argv)
{
	int runs = argc > 1 ? atoi(argv[1]) : 30;
	size_t size = (size_t)(argc > 2 ? atoi(argv[2]) : 64) << 20;

	/* Kinds take turns, so that a busy spell of the host hits all of them. */
	for (int i = 0; i < runs; i++)
		for (enum kind kind = 0; kind < KINDS; kind++)
			touch(kind, size);
	return 0;
}
