/*
 * draft: a file that is being written beside its name, and takes it when it is whole.
 *
 * Whatever becomes of it, nothing is left under the temporary name. Any thread, one at a time.
 */
#ifndef DRAFT_H
#define DRAFT_H

#include "base.h"
#include "err.h"

#define DRAFT_PATH_MAX 4096

struct draft {
	const char *path; /* the caller's, longer-lived */
	char temporary[DRAFT_PATH_MAX + 8];
	int fd;
};

/* `path` is, or will be, a regular file. */
int draft_create(struct draft *draft, const char *path, struct err *err) MUST_CHECK;
void draft_destroy(struct draft *draft); /* accepts one with fd -1 and no temporary name */

/* What was written is on stable storage. */
int draft_sync(const struct draft *draft, struct err *err) MUST_CHECK;

/* It takes its name. */
int draft_publish(struct draft *draft, struct err *err) MUST_CHECK;

/*
 * Both take their names, the memory first; the old memory keeps one (SNAPSHOT_PREVIOUS) until the new
 * state has its own, so that at every moment some memory belongs to the state that is there.
 */
int draft_publish_pair(struct draft *mem, struct draft *state, struct err *err) MUST_CHECK;

/* 0 or a negative errno. The copy is of the first `size` bytes, holes as holes. */
int draft_write(int fd, const u8 *from, u64 len, u64 offset) MUST_CHECK;
int draft_copy(int from, int to, u64 size) MUST_CHECK;

#endif
