/*
 * state: the whole machine but its memory, as one stream of records (record.h, docs/snapshots.md).
 *
 * Saving: vm_send(). Loading is in two steps, because the machine must be made before it can take its
 * state over: state_open() reads what the machine is made from; vm_recv() makes it and loads the rest.
 * Afterwards it is complete and paused, like one that was booted. Loop thread.
 */
#ifndef STATE_H
#define STATE_H

#include "record.h"
#include "vm.h"

#define STATE_PAIR_LEN 16 /* bytes that tell which memory belongs to which state */

struct state;

/* The machine is paused. `config` is its configuration as JSON, `pair` any bytes. */
int vm_send(struct vm *vm, const char *config, const u8 pair[STATE_PAIR_LEN], struct stream *stream,
	    struct err *err) MUST_CHECK;

/* Everything in the stream is of the right kind and size afterwards; its meaning is not checked yet. */
int state_open(struct state **state, struct stream *stream, struct err *err) MUST_CHECK;
void state_destroy(struct state *state); /* accepts NULL */

/* NUL-terminated JSON, as it came. */
const char *state_config(const struct state *state);
const u8 *state_pair(const struct state *state);
u64 state_mem_size(const struct state *state); /* bytes */
bool state_boot_timer(const struct state *state);

struct vm_source {
	struct state *state;
	int mem_fd;    /* mapped private; the caller's, may be closed afterwards; or -1 and ... */
	const char *handler; /* ... the socket of the process that has the pages */
	bool no_file;  /* no file of the client's is behind it */
	bool realtime; /* the guest's clock goes on by the time that has passed */
};

/* As vm_create(), from a saved machine. `cfg` was made from state_config(). */
int vm_recv(struct vm **vm, const struct config *cfg, struct vm_shell *shell, struct loop *loop,
	    const struct vm_callbacks *callbacks, const struct vm_source *source,
	    struct err *err) MUST_CHECK;

/* For vm.c: between the CPUID of this host and the processors; with everything made. */
int state_fit_cpuid(const struct state *state, struct cpuid *cpuid, struct err *err) MUST_CHECK;
int state_apply(struct vm *vm, const struct vm_source *source, struct err *err) MUST_CHECK;

#endif
