/* touched: see touched.h. The file: a head, then runs of pages in order. */
#include "touched.h"

#include "draft.h"
#include "io.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#define MAGIC 0x3148435554594d00ull /* "\0MYTUCH1" */
#define PAGE  4096u
#define BATCH 512

struct head {
	u64 magic;
	u8 pair[STATE_PAIR_LEN];
};

struct run {
	u32 page, n; /* in a file of all regions */
};

static void path_of(const char *mem_path, char *path, size_t size)
{
	snprintf(path, size, "%s" TOUCHED_SUFFIX, mem_path);
}

/* ---- the list of an earlier machine ------------------------------------------------------------------ */

/* A run that is not wholly in a region comes from no machine like this one. */
static void populate(const struct mem *mem, const struct run *run)
{
	u64 offset = (u64)run->page * PAGE, len = (u64)run->n * PAGE;

	for (unsigned i = 0; i < mem->n_regions; i++) {
		const struct mem_region *r = &mem->region[i];

		if (offset >= r->offset && range_ok(offset - r->offset, len, r->size))
			madvise(r->host + (offset - r->offset), len, MADV_POPULATE_READ);
	}
}

int touched_populate(const struct mem *mem, const char *mem_path, const u8 pair[STATE_PAIR_LEN])
{
	char path[DRAFT_PATH_MAX + sizeof TOUCHED_SUFFIX];
	struct head head;
	struct run run[BATCH];
	u64 left = mem->size / PAGE; /* no list has more runs than there are pages */
	u64 at = sizeof head;
	ssize_t got;

	path_of(mem_path, path, sizeof path);
	CLEANUP_FD int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);

	if (fd < 0)
		return -ENOENT;
	if (io_pread(fd, &head, sizeof head, 0) != sizeof head || head.magic != MAGIC ||
	    memcmp(head.pair, pair, sizeof head.pair) != 0)
		return -ESTALE;
	while (left && (got = io_pread(fd, run, sizeof run, at)) >= (ssize_t)sizeof run[0]) {
		u64 n = MIN((u64)got / sizeof run[0], left);

		for (u64 i = 0; i < n; i++)
			populate(mem, &run[i]);
		left -= n;
		at += n * sizeof run[0];
	}
	return 0;
}

/* ---- the list of this one ---------------------------------------------------------------------------- */

struct list {
	int fd;
	u64 at; /* bytes of the file that are written */
	struct run run[BATCH];
	unsigned n;
};

static int flush(struct list *list)
{
	u64 len = list->n * sizeof list->run[0];
	int r = draft_write(list->fd, (const u8 *)list->run, len, list->at);

	list->at += len;
	list->n = 0;
	return r;
}

static int add(void *owner, u64 offset, const u8 *host, u64 len)
{
	struct list *list = owner;

	(void)host;
	list->run[list->n++] = (struct run){ (u32)(offset / PAGE), (u32)(len / PAGE) };
	return list->n == BATCH ? flush(list) : 0;
}

static int write_list(struct list *list, const struct mem *mem, const u8 pair[STATE_PAIR_LEN])
{
	struct head head = { .magic = MAGIC };
	int r;

	memcpy(head.pair, pair, sizeof head.pair);
	r = draft_write(list->fd, (const u8 *)&head, sizeof head, 0);
	list->at = sizeof head;
	if (!r)
		r = mem_each_touched(mem, add, list);
	return r ? r : flush(list);
}

int touched_record(const struct mem *mem, const char *mem_path, const u8 pair[STATE_PAIR_LEN],
		   struct err *err)
{
	char path[DRAFT_PATH_MAX + sizeof TOUCHED_SUFFIX];
	struct draft draft;
	struct list list;
	int r;

	path_of(mem_path, path, sizeof path);
	r = draft_create(&draft, path, err);
	if (r < 0)
		return r;
	list = (struct list){ .fd = draft.fd };
	r = write_list(&list, mem, pair);
	if (r < 0)
		fail(err, r, "%.512s: cannot be written: " OS_ERR, path, OS_ERR_ARGS(-r));
	else
		r = draft_publish(&draft, err);
	draft_destroy(&draft);
	return r;
}
