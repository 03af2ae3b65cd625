/*
 * pagemap: PAGEMAP_SCAN of Linux 6.7 (Documentation/admin-guide/mm/pagemap.rst), where the headers are
 * older than that.
 */
#ifndef PAGEMAP_H
#define PAGEMAP_H

#include "base.h"

#include <linux/fs.h>

#ifndef PAGEMAP_SCAN
struct page_region {
	u64 start, end, categories;
};
struct pm_scan_arg {
	u64 size, flags, start, end, walk_end, vec, vec_len, max_pages;
	u64 category_inverted, category_mask, category_anyof_mask, return_mask;
};
#define PAGEMAP_SCAN	_IOWR('f', 16, struct pm_scan_arg)
#define PAGE_IS_FILE	(1 << 2)
#define PAGE_IS_PRESENT (1 << 3)
#define PAGE_IS_SWAPPED (1 << 4)
#endif

#endif
