/*
 * vm: the machine. Owns memory, buses, vCPUs, devices and their lifecycle.
 *
 * Made from a configuration in one call, after which it is complete and paused; vm_resume() starts
 * it. There is no "start" distinct from "resume". Loop thread only, without the machine lock held by
 * the caller other than by being in a loop callback.
 *
 * How a guest ends is reported once, through the `ended` callback, on the loop thread.
 */
#ifndef VM_H
#define VM_H

#include "base.h"
#include "config.h"
#include "err.h"
#include "loop.h"

struct balloon;
struct mem;
struct vm;

/*
 * What a machine needs and no configuration changes: an empty VM in the kernel, and what its
 * processors can be. Made ahead, it takes more than half of the kernel's time off the start.
 */
struct vm_shell;

int vm_shell_create(struct vm_shell **shell, struct err *err) MUST_CHECK;

/*
 * Once: the first processor and its thread as well, for who waits in a pool; as a machine of one
 * processor has it, or else it is told again. On error the shell is of no use.
 */
int vm_shell_prepare(struct vm_shell *shell, struct loop *loop, struct err *err) MUST_CHECK;
void vm_shell_destroy(struct vm_shell *shell); /* accepts NULL */

/* Why the machine is over; vm_end_name() gives the line that is logged. */
enum vm_end {
	VM_END_NONE,
	VM_END_POWEROFF,       /* ACPI S5 */
	VM_END_ACPI_RESET,     /* ACPI reset register */
	VM_END_I8042_RESET,    /* 0xfe to port 0x64 */
	VM_END_TRIPLE_FAULT,   /* KVM_EXIT_SHUTDOWN */
	VM_END_INTERNAL_ERROR, /* KVM could not go on with the guest */
	VM_END_FAIL_ENTRY,     /* the processor refused the guest state */
	VM_END_HOST_ERROR,     /* KVM_RUN failed on our side */
	VM_END_PAGES_LOST,     /* the page fault handler is gone */
	VM_END_CUT_SHORT,      /* the memory file no longer has all of RAM */
	VM_ENDS,
};

struct vm_callbacks {
	/* Called once, when the guest has ended itself; every vCPU is parked by then. */
	void (*ended)(void *owner, enum vm_end end, const char *detail);
	void *owner;
};

/* The process exit code that stands for `end` (docs/api.md), and its one-line text. */
int vm_end_exit_code(enum vm_end end);
const char *vm_end_name(enum vm_end end);

/*
 * Builds the machine from `cfg`, which must outlive it, in `shell`, which it takes in any case (NULL:
 * it makes one). On error everything is undone, the line says what is wrong, and the call can be
 * repeated with a mended configuration.
 */
int vm_create(struct vm **vm, const struct config *cfg, struct vm_shell *shell, struct loop *loop,
	      const struct vm_callbacks *callbacks, struct err *err) MUST_CHECK;

/* Ends the vCPU threads, drains the devices, gives everything back; accepts the half-built. */
void vm_destroy(struct vm *vm);

/* Idempotent both ways. */
int vm_resume(struct vm *vm, struct err *err) MUST_CHECK;
int vm_pause(struct vm *vm, struct err *err) MUST_CHECK;
bool vm_is_paused(const struct vm *vm);

/* Types ctrl-alt-del on the guest's keyboard. */
int vm_ctrl_alt_del(struct vm *vm, struct err *err) MUST_CHECK;

/*
 * A running machine's drive changes its backing file. `fd` is open already (disk_open) and stays
 * with the caller. -ENOENT: no such drive. On error nothing changed.
 */
int vm_swap_drive(struct vm *vm, const char *drive_id, int fd, struct err *err) MUST_CHECK;

/* The buckets that are given apply at once. */
void vm_limit_drive(struct vm *vm, const char *drive_id, const struct limit_config *limit);

void vm_limit_net(struct vm *vm, const char *iface_id, const struct limit_config *rx,
		  const struct limit_config *tx);

const struct mem *vm_mem(const struct vm *vm);

/*
 * The machine is paused. Its RAM as of now is in vm_mem()->fd afterwards, and what the guest writes from
 * here on goes elsewhere; the machine can be resumed at once. `alone`: the file stays in this process,
 * and holds until the next freeze; else it is sealed, for ever. Any number of times.
 */
int vm_freeze(struct vm *vm, bool alone, struct err *err) MUST_CHECK;

/* What RAM was frozen to has become a file of the client's: diffs are to that one from here on. */
void vm_base_is_saved(struct vm *vm);

/* NULL if there is none. */
struct balloon *vm_balloon(struct vm *vm);

#endif
