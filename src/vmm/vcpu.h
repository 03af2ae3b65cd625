/*
 * vcpu: one virtual processor: a KVM fd, a thread, and whether it is running or parked.
 *
 * The thread does KVM_RUN and nothing else that matters: exits are dispatched to the buses under the
 * machine lock, anything longer is handed to the loop (loop_call). Its state is read and written by
 * the loop thread while it is parked.
 *
 * Parking is counted, never slept for: vcpu_park() returns when the thread has confirmed.
 */
#ifndef VCPU_H
#define VCPU_H

#include "base.h"
#include "err.h"

#include <linux/kvm.h>

/* The part of a processor's state that boot code writes and that is set before the first run. */
struct vcpu_state {
	struct kvm_regs regs;
	struct kvm_sregs sregs;
};

#endif
