/*
 * cpuid: what the guest's processors say they are.
 *
 * What this host's KVM supports, with the topology of this machine: one socket, vcpus/threads cores.
 * Built once per machine, then patched per vCPU (asking KVM costs, and CPUID itself traps when
 * nested). Loop thread, before the vCPUs run.
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

/* Fills `cpuid` for `n_vcpus` processors, two threads a core if `smt`. */
int cpuid_init(struct cpuid *cpuid, const struct kvm *kvm, unsigned n_vcpus, bool smt, u32 tsc_khz,
	       struct err *err) MUST_CHECK;

/* Puts the one thing in that differs between processors: the APIC id, which is their number. */
void cpuid_set_id(struct cpuid *cpuid, unsigned id);

#endif
