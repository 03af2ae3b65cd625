/*
 * cpuid: what the guest's processors say they are.
 *
 * What this host's KVM supports, with the topology of this machine: one socket, vcpus/threads cores.
 * Asked for once per machine (it takes KVM a third of a millisecond where CPUID itself is an exit),
 * then patched per vCPU. Loop thread, before the vCPUs run.
 */
#ifndef CPUID_H
#define CPUID_H

#include "base.h"
#include "err.h"
#include "kvm.h"

#define CPUID_ENTRIES_MAX 256

struct cpuid {
	u32 nent, padding; /* with entry[]: the layout of struct kvm_cpuid2 */
	struct kvm_cpuid_entry2 entry[CPUID_ENTRIES_MAX];
};

/* What this host can give any guest. */
int cpuid_init(struct cpuid *cpuid, const struct kvm *kvm, struct err *err) MUST_CHECK;

/* Makes it that of a machine with `n_vcpus` processors, two threads a core if `smt`. Once. */
int cpuid_fit(struct cpuid *cpuid, unsigned n_vcpus, bool smt, u32 tsc_khz,
	      struct err *err) MUST_CHECK;

/* Puts the one thing in that differs between processors: the APIC id, which is their number. */
void cpuid_set_id(struct cpuid *cpuid, unsigned id);

#endif
