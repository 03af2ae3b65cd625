/*
 * live: see live.h.
 *
 * The thread knows two descriptors and a size, and writes to `error` before it calls the loop; names
 * are changed by the loop, which is the only one to look at anything else here.
 */
#include "live.h"

#include "mem.h"
#include "log.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>

struct live {
	struct loop *loop;
	struct vm *vm;
	struct loop_work done_work;
	char state_path[SNAPSHOT_PATH_MAX], mem_path[SNAPSHOT_PATH_MAX];
	struct draft state, mem;
	u8 pair[STATE_PAIR_LEN];
	u64 size;
	int frozen; /* RAM as it was */
	pthread_t thread;
	bool running;
	struct err error;
	int result;
	struct live_progress progress;
};

static int write_out(struct live *live, struct err *err)
{
	int r = ftruncate(live->mem.fd, (off_t)live->size) < 0 ? -errno : 0;

	if (!r)
		r = draft_copy(live->frozen, live->mem.fd, live->size);
	if (!r)
		r = draft_write(live->mem.fd, live->pair, sizeof live->pair, snapshot_pair_at());
	if (r < 0)
		return fail(err, r, "%.128s: cannot be written: " OS_ERR, live->mem_path,
			    OS_ERR_ARGS(-r));
	r = draft_sync(&live->mem, err);
	return r < 0 ? r : draft_sync(&live->state, err);
}

static void *writer(void *arg)
{
	struct live *live = arg;

	live->result = write_out(live, &live->error);
	loop_call(live->loop, &live->done_work);
	return NULL;
}

static void release(struct live *live)
{
	draft_destroy(&live->mem);
	draft_destroy(&live->state);
	live->mem.fd = live->state.fd = -1;
	live->mem.temporary[0] = live->state.temporary[0] = '\0';
	cleanup_fd_fn(&live->frozen);
	live->frozen = -1;
}

static void done(void *owner)
{
	struct live *live = owner;
	int r = live->result;

	pthread_join(live->thread, NULL);
	live->running = false;
	if (!r)
		r = draft_publish_pair(&live->mem, &live->state, &live->error);
	release(live);
	live->progress.writing = false;
	live->progress.failed = r < 0;
	if (r < 0) {
		snprintf(live->progress.fault, sizeof live->progress.fault, "%.255s",
			 live->error.msg);
		log_error("The live snapshot failed: %s", live->error.msg);
	} else {
		vm_base_is_saved(live->vm);
		log_info("The live snapshot is complete.");
	}
}

static int prepare(struct live *live, struct vm *vm, const char *config, struct err *err)
{
	int r;

	if (getrandom(live->pair, sizeof live->pair, 0) != sizeof live->pair)
		return fail(err, -EIO, "the host has no randomness to give");
	r = snapshot_mend(live->state_path, live->mem_path, err);
	if (!r)
		r = draft_create(&live->state, live->state_path, err);
	if (!r)
		r = draft_create(&live->mem, live->mem_path, err);
	if (!r)
		r = snapshot_write_state(&live->state, vm, config, live->pair, err);
	if (!r)
		r = vm_freeze(vm, true, err);
	if (r < 0)
		return r;
	live->size = vm_mem(vm)->size;
	live->frozen = fcntl(vm_mem(vm)->fd, F_DUPFD_CLOEXEC, 0);
	if (live->frozen < 0)
		return fail(err, -errno, "the frozen memory: " OS_ERR, OS_ERR_ARGS(errno));
	r = pthread_create(&live->thread, NULL, writer, live);
	if (r)
		return fail(err, -r, "cannot start a thread: " OS_ERR, OS_ERR_ARGS(r));
	live->running = true;
	return 0;
}

int live_begin(struct live **out, struct vm *vm, const char *config, const char *state_path,
	       const char *mem_path, struct loop *loop, struct err *err)
{
	struct live *live;
	int r;

	*out = NULL;
	if (strcmp(state_path, mem_path) == 0)
		return fail(err, -EINVAL, "state and memory cannot be one file");
	live = calloc(1, sizeof *live);
	if (!live)
		return fail(err, -ENOMEM, "no memory for a live snapshot");
	live->loop = loop;
	live->vm = vm;
	live->frozen = live->state.fd = live->mem.fd = -1;
	live->done_work = (struct loop_work){ .run = done, .owner = live };
	live->progress.writing = true;
	snprintf(live->state_path, sizeof live->state_path, "%s", state_path);
	snprintf(live->mem_path, sizeof live->mem_path, "%s", mem_path);
	r = prepare(live, vm, config, err);
	if (r < 0) {
		live_destroy(live);
		return r;
	}
	live->progress.bytes = live->size;
	*out = live;
	return 0;
}

void live_set_pause(struct live *live, u64 pause_us)
{
	live->progress.pause_us = pause_us;
}

void live_progress(const struct live *live, struct live_progress *progress)
{
	*progress = live->progress;
}

void live_destroy(struct live *live)
{
	if (!live)
		return;
	if (live->running)
		pthread_join(live->thread, NULL);
	loop_uncall(live->loop, &live->done_work);
	release(live);
	free(live);
}
