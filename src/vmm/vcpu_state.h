/*
 * vcpu_state: everything that a virtual processor is, as bytes, by KVM's own pairs of calls.
 *
 * The processor is parked. Loop thread. What is set comes from a snapshot and is hostile: KVM checks
 * its own structures; here it is made sure that nothing reaches KVM which a guest of ours could not
 * have (foreign MSRs, nested state, system management mode).
 */
#ifndef VCPU_STATE_H
#define VCPU_STATE_H

#include "record.h"
#include "vcpu.h"

#define VCPU_XSAVE_MAX KIB(16)
#define VCPU_MSRS_MAX  64
#define VCPU_RECORDS   10 /* of one processor */

struct vcpu_full {
	u8 xsave[VCPU_XSAVE_MAX] __attribute__((aligned(64)));
	struct kvm_regs regs;
	struct kvm_sregs sregs;
	struct kvm_xcrs xcrs;
	struct kvm_debugregs debugregs;
	struct kvm_lapic_state lapic;
	struct kvm_msr_entry msr[VCPU_MSRS_MAX];
	struct kvm_vcpu_events events;
	struct kvm_mp_state mp_state;
	u32 xsave_len, msrs_len; /* bytes */
	u32 tsc_khz;		 /* 0: this host does not say */
};

/* The records of processor `id`, VCPU_RECORDS of them. */
void vcpu_records(struct vcpu_full *full, unsigned id, struct record *record);

int vcpu_save(const struct vcpu *vcpu, struct vcpu_full *full, struct err *err) MUST_CHECK;

/* The line names the part. */
int vcpu_load(const struct vcpu *vcpu, struct vcpu_full *full, struct err *err) MUST_CHECK;

/*
 * How long ago, by its own TSC, the processor was what `full` has of it, right after it was saved or
 * loaded; 0 if that cannot be told. By so much another clock that is read or set now is to be moved to
 * go with that TSC: a guest that compares the two takes a difference for a broken one.
 */
u64 vcpu_age_ns(const struct vcpu *vcpu, const struct vcpu_full *full);

/*
 * Before a parked processor goes on: the guest was stopped for a while, and its watchdogs are not to
 * take that for a lock-up. Also right for one that never ran.
 */
void vcpu_was_stopped(const struct vcpu *vcpu);

#endif
