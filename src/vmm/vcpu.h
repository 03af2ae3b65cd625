/*
 * vcpu: the virtual processors: each a KVM fd and a thread that is running or parked.
 *
 * A thread does KVM_RUN and nothing else that matters: exits are dispatched to the buses under the
 * machine lock, anything longer is handed to the loop. A processor's state is read and written by
 * the loop thread while it is parked; so a vCPU thread needs ioctl(KVM_RUN), futex, and write to an
 * eventfd.
 *
 * Parking is counted, never slept for: vcpus_park() returns when every thread has confirmed, each
 * with its last exit completed, so that its state is whole.
 *
 * All functions: loop thread, holding the machine lock (a loop callback does) unless said otherwise.
 */
#ifndef VCPU_H
#define VCPU_H

#include "base.h"
#include "bus.h"
#include "err.h"
#include "loop.h"

#include <linux/kvm.h>
#include <pthread.h>

#define VCPUS_MAX 32

/* A running vCPU is called back to its monitor by this signal; main installs an empty handler. */
#define VCPU_KICK_SIGNAL 35

/* The part of a processor's state that boot code writes and that is set before the first run. */
struct vcpu_state {
	struct kvm_regs regs;
	struct kvm_sregs sregs;
};

/* How a processor came to a stop that it cannot leave by itself. */
enum vcpu_stop { VCPU_SHUTDOWN, VCPU_INTERNAL_ERROR, VCPU_FAIL_ENTRY, VCPU_HOST_ERROR };

struct vcpus;

struct vcpu {
	struct vcpus *all;
	unsigned id;
	int fd;
	struct kvm_run *run;
	pthread_t thread;
	pid_t tid; /* 0: has not come to its first order yet */
	bool started;
};

struct vcpus {
	struct loop *loop;
	pid_t pid; /* of the monitor */
	const struct bus *mmio, *port;
	size_t run_size;
	u32 xsave_size; /* bytes of KVM_GET_XSAVE2 */
	/* On the vCPU's thread, under the machine lock, once per stopped processor; it parks then. */
	void (*stopped)(void *owner, unsigned id, enum vcpu_stop why, const char *detail);
	void *owner;

	const struct cpuid *told; /* what the first was told when it was made ahead */
	unsigned n, n_parked;
	enum { VCPUS_PARK, VCPUS_RUN, VCPUS_QUIT } order;
	pthread_cond_t ordered, parked; /* both with the machine lock */
	struct vcpu vcpu[VCPUS_MAX];
};

struct kvm;
struct cpuid;

/*
 * Makes the first processor ahead, of any machine, its thread parked. `cpuid` is kept: a machine that
 * tells it the same need not tell it again. On error, as ever, vcpus_destroy().
 */
int vcpus_prepare(struct vcpus *vcpus, struct loop *loop, struct kvm *kvm, struct cpuid *cpuid,
		  struct err *err) MUST_CHECK;

/*
 * Makes `n` processors with their CPUID and MSRs and starts their threads, parked; the first may
 * have been made ahead. The caller has set buses and the stopped callback. On error call
 * vcpus_destroy().
 */
int vcpus_create(struct vcpus *vcpus, struct loop *loop, unsigned n, struct kvm *kvm,
		 struct cpuid *cpuid, struct err *err) MUST_CHECK;

/* Ends the threads; accepts the half-built. Not from a vCPU thread. */
void vcpus_destroy(struct vcpus *vcpus);

/* State of one parked processor. */
int vcpu_get(const struct vcpu *vcpu, struct vcpu_state *state, struct err *err) MUST_CHECK;
int vcpu_set(const struct vcpu *vcpu, const struct vcpu_state *state, struct err *err) MUST_CHECK;

void vcpus_run(struct vcpus *vcpus);

/*
 * Any thread with the machine lock: from here on no processor enters the guest again, the one whose
 * exit is being handled first of all. Those that are inside are called back by vcpus_park().
 */
void vcpus_hold(struct vcpus *vcpus);

/* Releases the machine lock while it waits. */
void vcpus_park(struct vcpus *vcpus);

#endif
