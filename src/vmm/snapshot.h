/*
 * snapshot: a machine as two files, its state (state.h) and its memory (raw regions, one after the
 * other, sparse).
 *
 * Writing is atomic: both are written beside their names and synced before either name changes, the
 * state's last. A crash between the two changes is told from the pair of bytes that both carry, and
 * the memory that belongs to the state is then found under its name with SNAPSHOT_PREVIOUS. What a
 * running machine maps is never written to. Loop thread.
 */
#ifndef SNAPSHOT_H
#define SNAPSHOT_H

#include "draft.h"
#include "state.h"

#define SNAPSHOT_PATH_MAX 4096
#define SNAPSHOT_PREVIOUS ".previous"

enum snapshot_kind {
	SNAPSHOT_FULL,
	SNAPSHOT_DIFF, /* what differs from the base; merged with the memory file that is there */
};

/* The machine is paused. On error the files are as they were. */
int snapshot_create(struct vm *vm, const char *config, enum snapshot_kind kind,
		    const char *state_path, const char *mem_path, struct err *err) MUST_CHECK;

/* A descriptor of the memory that belongs to `state`, or a negative errno. */
int snapshot_open_memory(const struct state *state, const char *mem_path, struct err *err) MUST_CHECK;

/* The version of the format of a state file. */
int snapshot_describe(const char *path, u32 *format, struct err *err) MUST_CHECK;

/*
 * For live.c: what an earlier snapshot of these names left when it was interrupted is put in order; the
 * state of a paused machine goes into its draft; where in the memory file the pair of bytes stands.
 */
int snapshot_mend(const char *state_path, const char *mem_path, struct err *err) MUST_CHECK;
int snapshot_write_state(const struct draft *draft, struct vm *vm, const char *config, const u8 *pair,
			 struct err *err) MUST_CHECK;
u64 snapshot_pair_at(void);

#endif
