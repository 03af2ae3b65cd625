/* mem_copy: RAM into a file of all regions (mem.h). The machine is paused. */
#include "mem.h"

#include "draft.h"

#define PAGE 4096u

static bool is_zero(const u8 *page)
{
	return page[0] == 0 && memcmp(page, page + 1, PAGE - 1) == 0;
}

/* Into a file of holes: pages of zeros stay holes. */
static int write_sparse(void *owner, u64 offset, const u8 *host, u64 len)
{
	const int *fd = owner;
	int r = 0;

	for (u64 at = 0, end; at < len && !r; at = end + PAGE) {
		for (end = at; end < len && !is_zero(host + end); end += PAGE)
			;
		if (end > at)
			r = draft_write(*fd, host + at, end - at, offset + at);
	}
	return r;
}

/* Over another page: zeros count. */
static int write_all(void *owner, u64 offset, const u8 *host, u64 len)
{
	const int *fd = owner;

	return draft_write(*fd, host, len, offset);
}

int mem_copy_private(const struct mem *mem, int fd)
{
	return mem_each_private(mem, write_all, &fd);
}

int mem_copy(const struct mem *mem, int fd)
{
	int r;

	if (mem->paged)
		return mem_each(mem, write_sparse, &fd);
	if (!mem->based)
		return mem_each_private(mem, write_sparse, &fd);
	/* By the file's own account of holes: to look at them would fill them. */
	r = draft_copy(mem->fd, fd, mem->size);
	return r ? r : mem_copy_private(mem, fd);
}
