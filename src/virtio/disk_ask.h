/*
 * disk_ask: a request to a disk as a sequence of asks, each one operation of the kernel.
 *
 * disk.c's own. disk_ask_next() says what to ask for; an engine carries it out and gets one number
 * back; disk_ask_answer() says what that number means. Pure: no system call, no engine, no guest.
 */
#ifndef DISK_ASK_H
#define DISK_ASK_H

#include "disk.h"

enum disk_ask_kind { ASK_READ, ASK_WRITE, ASK_SYNC, ASK_FALLOCATE, ASK_NOTHING };

struct disk_ask {
	enum disk_ask_kind kind;
	int flags;		 /* RWF_* or FALLOC_FL_* */
	const struct iovec *iov; /* transfers: n_iov segments, or NULL: the one below */
	int n_iov;
	void *base; /* the first segment and its length */
	u32 len;
	u64 pos, span; /* bytes; span for ASK_FALLOCATE */
};

/* What to ask the kernel for next. Not for a request without length, except a flush. */
struct disk_ask disk_ask_next(const struct disk_io *io);

/*
 * The kernel answered `res`: bytes, 0 or a negative errno. True: the request is finished and
 * io->result is set. False: ask again. *flush_error is the disk's memory of a failed flush.
 */
bool disk_ask_answer(struct disk_io *io, int res, int *flush_error) MUST_CHECK;

#endif
