/* snapshot: see snapshot.h. Knows files; what is in the state is state.c's. */
#include "snapshot.h"

#include "draft.h"
#include "io.h"
#include "log.h"
#include "mem.h"
#include "../boot/layout.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>
#include <sys/stat.h>

#define PAGE 4096u
/*
 * In the page of the generation id, behind it: nothing of the guest's is there. The first region
 * begins at 0, in the guest and in the file.
 */
#define PAIR_AT (LAYOUT_VMGENID + 0x800)

/* ---- memory -------------------------------------------------------------------------------------- */

/* A diff goes on top of a file of the right size, if there is one. */
static int start_diff(const struct draft *d, u64 size)
{
	CLEANUP_FD int old = open(d->path, O_RDONLY | O_CLOEXEC);
	struct stat st;

	if (old < 0 || fstat(old, &st) < 0 || (u64)st.st_size != size)
		return 0;
	return draft_copy(old, d->fd, size);
}

static int write_memory(const struct draft *d, const struct mem *mem, enum snapshot_kind kind,
			const u8 *pair)
{
	int fd = d->fd, r;

	if (ftruncate(fd, (off_t)mem->size) < 0)
		return -errno;
	/* A diff to a base that no file holds would be of no use: it becomes a full one. */
	if (kind == SNAPSHOT_DIFF && (mem->saved || !mem->based)) {
		r = start_diff(d, mem->size);
		if (!r)
			r = mem_copy_private(mem, fd);
	} else {
		r = mem_copy(mem, fd);
	}
	return r < 0 ? r : draft_write(fd, pair, STATE_PAIR_LEN, PAIR_AT);
}

/* ---- both ---------------------------------------------------------------------------------------- */

int snapshot_write_state(const struct draft *d, struct vm *vm, const char *config, const u8 *pair,
		       struct err *err)
{
	struct stream stream;
	int r = stream_create(&stream, err);

	if (!r)
		r = vm_send(vm, config, pair, &stream, err);
	if (!r) {
		r = stream_store(&stream, d->fd);
		if (r < 0)
			fail(err, r, "%.512s: cannot be written: " OS_ERR, d->path, OS_ERR_ARGS(-r));
	}
	stream_destroy(&stream);
	return r;
}

static int write_both(struct draft *mem, struct draft *state, struct vm *vm, const char *config,
		      enum snapshot_kind kind, struct err *err)
{
	u8 pair[STATE_PAIR_LEN];
	int r;

	if (getrandom(pair, sizeof pair, 0) != sizeof pair)
		return fail(err, -EIO, "the host has no randomness to give");
	r = snapshot_write_state(state, vm, config, pair, err);
	if (r < 0)
		return r;
	r = write_memory(mem, vm_mem(vm), kind, pair);
	if (r < 0)
		return fail(err, r, "%.512s: cannot be written: " OS_ERR, mem->path,
			    OS_ERR_ARGS(-r));
	r = draft_sync(mem, err);
	if (!r)
		r = draft_sync(state, err);
	return r < 0 ? r : draft_publish_pair(mem, state, err);
}

/* ---- what an interruption left --------------------------------------------------------------------- */

/* 1: it is the state's; 0: it is not. */
static int belongs(int fd, const struct state *state)
{
	u8 pair[STATE_PAIR_LEN];

	return io_pread(fd, pair, sizeof pair, PAIR_AT) == sizeof pair &&
	       memcmp(pair, state_pair(state), sizeof pair) == 0;
}

static int open_quietly(const char *path)
{
	return open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
}

/*
 * Between the two changes of names the memory of the state that is there has the other name only: it
 * takes its own again, for publishing needs the other one.
 */
int snapshot_mend(const char *state_path, const char *mem_path, struct err *err)
{
	char previous[SNAPSHOT_PATH_MAX + sizeof SNAPSHOT_PREVIOUS];
	CLEANUP_FD int old = -1, fd = -1;
	struct state *state = NULL;
	struct stream stream;
	struct err nothing;
	int r = 0;

	snprintf(previous, sizeof previous, "%s" SNAPSHOT_PREVIOUS, mem_path);
	old = open_quietly(previous);
	if (old < 0 || stream_load(&stream, state_path, &nothing) < 0)
		return 0;
	if (state_open(&state, &stream, &nothing) == 0) {
		fd = open_quietly(mem_path);
		if ((fd < 0 || !belongs(fd, state)) && belongs(old, state) &&
		    rename(previous, mem_path) < 0)
			r = fail(err, -errno, "%.512s: cannot take the name of %.512s again: " OS_ERR,
				 previous, mem_path, OS_ERR_ARGS(errno));
	}
	state_destroy(state);
	stream_destroy(&stream);
	return r;
}

int snapshot_create(struct vm *vm, const char *config, enum snapshot_kind kind,
		    const char *state_path, const char *mem_path, struct err *err)
{
	struct draft state = { .fd = -1 }, mem = { .fd = -1 };
	int r;

	if (strcmp(state_path, mem_path) == 0)
		return fail(err, -EINVAL, "state and memory cannot be one file");
	r = snapshot_mend(state_path, mem_path, err);
	if (!r)
		r = draft_create(&state, state_path, err);
	if (!r)
		r = draft_create(&mem, mem_path, err);
	if (!r)
		r = write_both(&mem, &state, vm, config, kind, err);
	draft_destroy(&mem);
	draft_destroy(&state);
	return r;
}

/* ---- reading ------------------------------------------------------------------------------------- */

static int open_regular(const char *path, struct err *err)
{
	CLEANUP_FD int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	struct stat st;

	if (fd < 0 || fstat(fd, &st) < 0)
		return fail(err, -errno, "Failed to load guest memory: " OS_ERR, OS_ERR_ARGS(errno));
	if (!S_ISREG(st.st_mode))
		return fail(err, -EINVAL, "the memory file is not a regular file");
	return steal_fd(&fd);
}

int snapshot_open_memory(const struct state *state, const char *path, struct err *err)
{
	char previous[SNAPSHOT_PATH_MAX + sizeof SNAPSHOT_PREVIOUS];
	CLEANUP_FD int fd = open_regular(path, err);
	CLEANUP_FD int old = -1;
	struct stat st;

	if (fd < 0)
		return fd;
	if (fstat(fd, &st) < 0 || (u64)st.st_size != state_mem_size(state))
		return fail(err, -EINVAL, "the memory file has %lld bytes, the machine %llu",
			    (long long)st.st_size, (unsigned long long)state_mem_size(state));
	if (belongs(fd, state))
		return steal_fd(&fd);
	snprintf(previous, sizeof previous, "%s" SNAPSHOT_PREVIOUS, path);
	old = open_quietly(previous);
	if (old < 0 || !belongs(old, state))
		return fail(err, -EINVAL, "the state file and the memory file are of different snapshots");
	log_warn("A snapshot was interrupted: the previous memory is used, %.512s.", previous);
	return steal_fd(&old);
}

u64 snapshot_pair_at(void)
{
	return PAIR_AT;
}

int snapshot_describe(const char *path, u32 *format, struct err *err)
{
	struct stream stream;
	int r = stream_load(&stream, path, err);

	if (!r)
		r = record_open(&stream, format, err);
	stream_destroy(&stream);
	return r;
}
