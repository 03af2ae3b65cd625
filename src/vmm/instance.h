/*
 * instance: the process's one microVM, before and after it exists: its id, its configuration, and
 * the machine made from it.
 *
 * The verbs here are what both the API and the command line can ask for; each checks the phase,
 * does it, and leaves everything as it was when it fails. Error lines carry the subsystem's prefix
 * ("Start microvm error: ...") and reach clients unchanged. Loop thread only, and main() before the
 * loop runs.
 */
#ifndef INSTANCE_H
#define INSTANCE_H

#include "base.h"
#include "config.h"
#include "err.h"
#include "loop.h"
#include "snapshot_request.h"
#include "state.h"
#include "vm.h"

enum instance_state { INSTANCE_NOT_STARTED, INSTANCE_RUNNING, INSTANCE_PAUSED, INSTANCE_STATES };

/* Read by anybody on the loop thread; changed only by instance.c and config_put_*(). */
struct instance {
	char id[CONFIG_ID_MAX + 1];
	struct config config;
	struct vm *vm; /* NULL until started */
	struct vm_shell *shell; /* made ahead; NULL: not yet, or used */
	struct live *live;   /* the last live snapshot; NULL: there was none */
	struct share *share; /* what this machine is a source of; NULL: of nothing */
	char *touched; /* the memory file that a list of touched pages is due for; NULL: for none */
	u8 touched_pair[STATE_PAIR_LEN];
	struct loop_work prepare;
	struct loop *loop;
	struct vm_callbacks callbacks;
};

/* `id` is valid (instance_id_check). `callbacks` are handed to the machine when it is made. */
int instance_create(struct instance **inst, const char *id, struct loop *loop,
		    const struct vm_callbacks *callbacks, struct err *err) MUST_CHECK;

/* Ends the machine, closes the configuration's files; accepts NULL. */
void instance_destroy(struct instance *inst);

/* 1 to 64 characters, ASCII letters, digits, `-`; the error line is the contract's. */
int instance_id_check(const char *id, struct err *err) MUST_CHECK;

enum instance_state instance_state(const struct instance *inst);
const char *instance_state_name(enum instance_state state); /* "Not started", "Running", "Paused" */

/*
 * Applies a configuration file (contract 1.6; also its `logger` section). The line names the file,
 * the field and the reason. On error the configuration may be half applied: give up.
 */
int instance_load_config_file(struct instance *inst, const char *path, struct err *err) MUST_CHECK;

/*
 * Somebody talks to us, so a machine will be started: makes what can be made before the start,
 * as soon as the request at hand has been answered. Any number of times.
 */
void instance_expect_start(struct instance *inst);

/* The same now, and the first processor with its thread: for who waits in a pool. Once. */
void instance_stand_by(struct instance *inst);

/* Makes the machine and lets it run. On error the process lives on and it can be tried again. */
int instance_start(struct instance *inst, struct err *err) MUST_CHECK;

/* 0, or -EPERM with the contract's line. */
int instance_need_vm(const struct instance *inst, struct err *err) MUST_CHECK;

/* Need a started machine (-EPERM otherwise); pause and resume are idempotent. */
int instance_pause(struct instance *inst, struct err *err) MUST_CHECK;
int instance_resume(struct instance *inst, struct err *err) MUST_CHECK;
int instance_ctrl_alt_del(struct instance *inst, struct err *err) MUST_CHECK;

/*
 * The balloon of a running machine: another target size, other statistics, free page hinting. The
 * device itself is handed out for reading; -ENOENT without one.
 */
int instance_balloon(struct instance *inst, struct balloon **balloon, struct err *err) MUST_CHECK;
int instance_resize_balloon(struct instance *inst, u32 amount_mib, struct err *err) MUST_CHECK;
int instance_balloon_interval(struct instance *inst, u16 seconds, struct err *err) MUST_CHECK;
int instance_hint_start(struct instance *inst, bool acknowledge, struct err *err) MUST_CHECK;
int instance_hint_stop(struct instance *inst, struct err *err) MUST_CHECK;

/* PATCH /network-interfaces/{id}: other limits. */
int instance_patch_net(struct instance *inst, const struct net_patch *patch,
		       struct err *err) MUST_CHECK;

/* PATCH /drives/{id}: another backing file and/or another limit. */
int instance_patch_drive(struct instance *inst, const struct drive_patch *patch,
			 struct err *err) MUST_CHECK;

/*
 * Snapshots (snapshot.h). Creating needs a machine that is paused. Loading needs a process in which
 * nothing boot-specific was configured; refused, it leaves the process as it was.
 */
int instance_create_snapshot(struct instance *inst, const struct snapshot_create_request *req,
			     struct err *err) MUST_CHECK;

/* instance_snapshot.c: writes the list that is due, if one is; pauses the machine for it. */
void instance_record_touched(struct instance *inst);

/* instance_fork.c: the last live snapshot; false if there was none. */
bool instance_live_progress(const struct instance *inst, struct live_progress *progress);

/*
 * The machine becomes a source for others, as it is now. One that runs goes on; one that is paused
 * stays so, and is a template. How long it stood still is told.
 */
int instance_share(struct instance *inst, const char *socket_path, u64 *pause_us,
		   struct err *err) MUST_CHECK;
int instance_create_live(struct instance *inst, const struct snapshot_create_request *req,
			 u64 *pause_us, struct err *err) MUST_CHECK;

int instance_load_snapshot(struct instance *inst, const struct snapshot_load_request *req,
			   struct err *err) MUST_CHECK;

/* instance_restore.c: the configuration of a saved machine, with what the request puts in its place. */
int instance_restore_config(struct instance *inst, const char *text,
			    const struct snapshot_load_request *req, struct err *err) MUST_CHECK;

#endif
