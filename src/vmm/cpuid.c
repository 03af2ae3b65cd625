/*
 * cpuid: see cpuid.h. Leaves as in Intel SDM vol. 2A "CPUID" and AMD APM vol. 3 appendix E.
 *
 * KVM's own list is already filtered by what it can virtualise; here it only gets this machine's
 * topology, and loses what would show the host's (power management, performance counters).
 */
#include "cpuid.h"

#include <asm/kvm_para.h>
#include <sys/ioctl.h>

/* Room for 32 processors in the APIC id below the package: every machine has the same shape. */
#define CORE_SHIFT 5

#define LEAF_TIMING 0x40000010 /* TSC and APIC bus frequency in kHz, for guests without kvmclock */
#define APIC_BUS_KHZ 1000000   /* KVM's local APIC timer counts nanoseconds */

#define LEAF1_ECX_PDCM		(1u << 15)
#define LEAF1_ECX_TSC_DEADLINE	(1u << 24)
#define LEAF1_ECX_HYPERVISOR	(1u << 31)
#define LEAF1_EDX_HTT		(1u << 28)
#define LEAF6_EAX_TURBO		(1u << 1)
#define LEAF6_ECX_EPB		(1u << 3)
#define LEAF7_ECX_WAITPKG	(1u << 5)
#define TOPOLOGY_THREADS	1
#define TOPOLOGY_CORES		2

struct topology {
	unsigned n_vcpus;
	unsigned threads; /* per core */
};

static u32 next_pow2(u32 n)
{
	u32 p = 1;

	while (p < n)
		p <<= 1;
	return p;
}

static u32 ilog2(u32 n)
{
	return 31u - (u32)__builtin_clz(n);
}

/* Bits 31..26: cores in the package less one; bits 25..14: ids that share this cache less one. */
static void patch_leaf4(struct kvm_cpuid_entry2 *e, const struct topology *t)
{
	u32 level = e->eax >> 5 & 7, sharing = level >= 3 ? t->n_vcpus : t->threads;

	if (!(e->eax & 0x1f))
		return;
	e->eax &= 0x3fff;
	e->eax |= (next_pow2(sharing) - 1) << 14 | (next_pow2(t->n_vcpus / t->threads) - 1) << 26;
}

static void patch_amd_cache(struct kvm_cpuid_entry2 *e, const struct topology *t)
{
	u32 level = e->eax >> 5 & 7, sharing = level >= 3 ? t->n_vcpus : t->threads;

	if (e->eax & 0x1f)
		e->eax = (e->eax & ~(0xfffu << 14)) | (sharing - 1) << 14;
}

static void patch(struct kvm_cpuid_entry2 *e, const struct topology *t)
{
	switch (e->function) {
	case 0x1:
		e->ebx = (e->ebx & 0xff) | 8u << 8 | next_pow2(t->n_vcpus) << 16;
		e->ecx = (e->ecx & ~LEAF1_ECX_PDCM) | LEAF1_ECX_TSC_DEADLINE | LEAF1_ECX_HYPERVISOR;
		e->edx = (e->edx & ~LEAF1_EDX_HTT) | (t->n_vcpus > 1 ? LEAF1_EDX_HTT : 0);
		break;
	case 0x4:
		patch_leaf4(e, t);
		break;
	case 0x6:
		e->eax &= ~LEAF6_EAX_TURBO;
		e->ecx &= ~LEAF6_ECX_EPB;
		break;
	case 0x7:
		if (e->index == 0)
			e->ecx &= ~LEAF7_ECX_WAITPKG;
		break;
	case 0xa:
		e->eax = e->ebx = e->ecx = e->edx = 0;
		break;
	case 0x80000008:
		e->ecx = (e->ecx & ~0xf0ffu) | CORE_SHIFT << 12 | (t->n_vcpus - 1);
		break;
	case 0x8000001d:
		patch_amd_cache(e, t);
		break;
	case 0x8000001e:
		e->ebx = (e->ebx & ~0xffffu) | (t->threads - 1) << 8;
		e->ecx = 0;
		break;
	}
}

static bool is_topology(u32 leaf)
{
	return leaf == 0xb || leaf == 0x1f;
}

static void remove_at(struct cpuid *cpuid, unsigned i)
{
	memmove(&cpuid->entry[i], &cpuid->entry[i + 1],
		(--cpuid->nent - i) * sizeof cpuid->entry[0]);
}

static int append(struct cpuid *cpuid, const struct kvm_cpuid_entry2 *e, struct err *err)
{
	if (cpuid->nent == CPUID_ENTRIES_MAX)
		return fail(err, -ENOSPC, "this host has more than %u CPUID leaves",
			    CPUID_ENTRIES_MAX);
	cpuid->entry[cpuid->nent++] = *e;
	return 0;
}

/* Leaves 0xb and 0x1f: threads, cores, end. Rewritten whole, since KVM passes the host's through. */
static int set_topology(struct cpuid *cpuid, u32 leaf, const struct topology *t, struct err *err)
{
	const struct {
		u32 shift, count, type;
	} level[] = {
		{ ilog2(next_pow2(t->threads)), t->threads, TOPOLOGY_THREADS },
		{ CORE_SHIFT, t->n_vcpus, TOPOLOGY_CORES },
		{ 0, 0, 0 },
	};
	bool present = false;
	int r = 0;

	for (unsigned i = 0; i < cpuid->nent;)
		if (cpuid->entry[i].function == leaf) {
			present = true;
			remove_at(cpuid, i);
		} else {
			i++;
		}
	for (u32 i = 0; present && !r && i < ARRAY_SIZE(level); i++) {
		struct kvm_cpuid_entry2 e = {
			.function = leaf,
			.index = i,
			.flags = KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
			.eax = level[i].shift,
			.ebx = level[i].count,
			.ecx = i | level[i].type << 8,
		};

		r = append(cpuid, &e, err);
	}
	return r;
}

static int add_timing(struct cpuid *cpuid, u32 tsc_khz, struct err *err)
{
	struct kvm_cpuid_entry2 e = { .function = LEAF_TIMING, .eax = tsc_khz, .ebx = APIC_BUS_KHZ };

	for (unsigned i = 0; i < cpuid->nent; i++) {
		if (cpuid->entry[i].function == LEAF_TIMING)
			return 0;
		if (cpuid->entry[i].function == KVM_CPUID_SIGNATURE)
			cpuid->entry[i].eax = MAX(cpuid->entry[i].eax, (u32)LEAF_TIMING);
	}
	return append(cpuid, &e, err);
}

int cpuid_init(struct cpuid *cpuid, const struct kvm *kvm, struct err *err)
{
	static_assert(offsetof(struct cpuid, entry) == offsetof(struct kvm_cpuid2, entries),
		      "struct cpuid is a kvm_cpuid2 with its entries");
	cpuid->nent = CPUID_ENTRIES_MAX;
	if (ioctl(kvm->dev_fd, KVM_GET_SUPPORTED_CPUID, cpuid) < 0)
		return fail(err, -errno, "KVM_GET_SUPPORTED_CPUID: " OS_ERR, OS_ERR_ARGS(errno));
	return 0;
}

int cpuid_fit(struct cpuid *cpuid, unsigned n_vcpus, bool smt, u32 tsc_khz, struct err *err)
{
	struct topology t = { .n_vcpus = n_vcpus, .threads = smt && n_vcpus > 1 ? 2 : 1 };
	int r;

	for (unsigned i = 0; i < cpuid->nent; i++)
		patch(&cpuid->entry[i], &t);
	r = set_topology(cpuid, 0xb, &t, err);
	if (!r)
		r = set_topology(cpuid, 0x1f, &t, err);
	if (!r)
		r = add_timing(cpuid, tsc_khz, err);
	return r;
}

void cpuid_set_id(struct cpuid *cpuid, unsigned id)
{
	u32 threads = 1;

	for (unsigned i = 0; i < cpuid->nent; i++)
		if (cpuid->entry[i].function == 0x8000001e)
			threads = (cpuid->entry[i].ebx >> 8 & 0xff) + 1;
	for (unsigned i = 0; i < cpuid->nent; i++) {
		struct kvm_cpuid_entry2 *e = &cpuid->entry[i];

		if (e->function == 1)
			e->ebx = (e->ebx & 0x00ffffffu) | id << 24;
		else if (is_topology(e->function))
			e->edx = id;
		else if (e->function == 0x8000001e) {
			e->eax = id;
			e->ebx = (e->ebx & ~0xffu) | id / threads;
		}
	}
}
