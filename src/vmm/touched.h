/*
 * touched: the pages that a machine out of a memory file has looked at, its working set. It is kept
 * beside the memory file, and makes the next machine out of it fault less: those pages are mapped
 * ahead, in one go, where single faults (and single reads, if the file is not in memory) would cost
 * more. Only a hint: whatever is wrong with the list, the machine runs as without it.
 *
 * Loop thread.
 */
#ifndef TOUCHED_H
#define TOUCHED_H

#include "mem.h"
#include "state.h"

#define TOUCHED_SUFFIX ".touched"

/*
 * Maps the pages of the list beside `mem_path`. -ENOENT: there is none; -ESTALE: it is of another
 * snapshot, or no list. RAM is that of mem_open(), nothing runs yet.
 */
int touched_populate(const struct mem *mem, const char *mem_path, const u8 pair[STATE_PAIR_LEN]);

/* Writes the list. The machine is paused. On error there is a line, and the list is as it was. */
int touched_record(const struct mem *mem, const char *mem_path, const u8 pair[STATE_PAIR_LEN],
		   struct err *err) MUST_CHECK;

#endif
