/*
 * live: a snapshot of a machine that goes on. It stands still only while its state is taken and its RAM
 * frozen (vm_freeze); a thread writes the frozen RAM, and both files take their names when it is done.
 *
 * Loop thread; the machine lives longer, and is not frozen again meanwhile. One at a time: it is over when live_done() says so, and live_destroy() waits for it.
 */
#ifndef LIVE_H
#define LIVE_H

#include "loop.h"
#include "snapshot.h"
#include "snapshot_request.h"

struct live;

/* The machine is paused and frozen afterwards; resuming it is the caller's. */
int live_begin(struct live **live, struct vm *vm, const char *config, const char *state_path,
	       const char *mem_path, struct loop *loop, struct err *err) MUST_CHECK;

void live_set_pause(struct live *live, u64 pause_us);
void live_progress(const struct live *live, struct live_progress *progress);

/* Gives up what is not finished; accepts NULL. */
void live_destroy(struct live *live);

#endif
