/*
 * vcpu_state: see vcpu_state.h.
 *
 * The order of the parts matters to KVM: the local APIC needs the APIC base (sregs) and gives MSRs
 * a meaning (the TSC deadline), XCR0 needs CPUID, pending events go last since setting other parts
 * changes them. The TSC comes before its deadline. Saving uses the same order.
 */
#include "vcpu_state.h"

#include <stdio.h>
#include <sys/ioctl.h>

#define TSC_TOLERANCE_PPM 250
#define MSR_TSC		  0x10
#define AGE_MS_MAX	  10000 /* of what is being saved or loaded: more cannot be */

struct part {
	const char *name;
	unsigned long get, set;
	size_t at;
	u32 size;
};

#define PART(name_, NAME, type, member)                                                            \
	{                                                                                          \
		name_, KVM_GET_##NAME, KVM_SET_##NAME, offsetof(struct vcpu_full, member),         \
			sizeof(type)                                                               \
	}
#define SAME_SIZE(NAME, type)                                                                      \
	static_assert(_IOC_SIZE(KVM_GET_##NAME) == sizeof(type) &&                                 \
			      _IOC_SIZE(KVM_SET_##NAME) == sizeof(type),                           \
		      "what KVM reads and writes is what there is room for")

SAME_SIZE(MP_STATE, struct kvm_mp_state);
SAME_SIZE(REGS, struct kvm_regs);
SAME_SIZE(SREGS, struct kvm_sregs);
SAME_SIZE(XCRS, struct kvm_xcrs);
SAME_SIZE(DEBUGREGS, struct kvm_debugregs);
SAME_SIZE(LAPIC, struct kvm_lapic_state);
SAME_SIZE(VCPU_EVENTS, struct kvm_vcpu_events);

enum { MP_STATE, REGS, SREGS, XSAVE, XCRS, DEBUGREGS, LAPIC, MSRS, EVENTS, PARTS };

/* XSAVE's size is the host's, MSRs are a list: get and set 0, done by hand. */
static const struct part parts[] = {
	[MP_STATE] = PART("mp_state", MP_STATE, struct kvm_mp_state, mp_state),
	[REGS] = PART("regs", REGS, struct kvm_regs, regs),
	[SREGS] = PART("sregs", SREGS, struct kvm_sregs, sregs),
	[XSAVE] = { "xsave", 0, 0, offsetof(struct vcpu_full, xsave), VCPU_XSAVE_MAX },
	[XCRS] = PART("xcrs", XCRS, struct kvm_xcrs, xcrs),
	[DEBUGREGS] = PART("debugregs", DEBUGREGS, struct kvm_debugregs, debugregs),
	[LAPIC] = PART("lapic", LAPIC, struct kvm_lapic_state, lapic),
	[MSRS] = { "msrs", 0, 0, offsetof(struct vcpu_full, msr),
		   sizeof(struct kvm_msr_entry[VCPU_MSRS_MAX]) },
	[EVENTS] = PART("events", VCPU_EVENTS, struct kvm_vcpu_events, events),
};
static_assert(ARRAY_SIZE(parts) == PARTS && PARTS + 1 <= VCPU_RECORDS, "a row for each, and the TSC");

/*
 * What a guest can have changed, in the order in which it is set. Others are not saved and not
 * accepted. Which of them there are depends on the host.
 */
static const u32 msr_index[] = {
	MSR_TSC,    /* before what counts by it */
	0x3b,	    /* TSC_ADJUST */
	0x174,	    0x175,	0x176, /* SYSENTER */
	0x1a0,	    /* MISC_ENABLE */
	0x1d9,	    /* DEBUGCTL */
	0x277,	    /* PAT */
	0x2ff,	    /* MTRR: default, fixed, the first variable ones */
	0x250,	    0x258,	0x259,	    0x268,	0x269,	0x26a, 0x26b, 0x26c,
	0x26d,	    0x26e,	0x26f,
	0x48,	    /* SPEC_CTRL */
	0x140,	    /* MISC_FEATURES_ENABLES */
	0xda0,	    /* XSS */
	0x122,	    /* TSX_CTRL */
	0x1c4,	    0x1c5, /* XFD, XFD_ERR */
	0xc0000081, 0xc0000082, 0xc0000083, 0xc0000084, 0xc0000102, 0xc0000103,
	0x4b564d00, 0x4b564d01, 0x11,	    0x12, /* kvm clock */
	0x4b564d03, 0x4b564d04, 0x4b564d05, /* steal time, PV EOI, poll control */
	0x4b564d06, 0x4b564d02, /* async page faults: the vector before the switch */
	0x6e0,	    /* TSC_DEADLINE; last */
};
static_assert(ARRAY_SIZE(msr_index) <= VCPU_MSRS_MAX, "room for each");

void vcpu_records(struct vcpu_full *full, unsigned id, struct record *record)
{
	memset(record, 0, sizeof *record * VCPU_RECORDS);
	for (unsigned i = 0; i < PARTS; i++) {
		record[i] = (struct record){ .version = 1,
					     .at = (u8 *)full + parts[i].at,
					     .size = parts[i].size };
		snprintf(record[i].tag, sizeof record[i].tag, "vcpu%u.%s", id, parts[i].name);
	}
	record[XSAVE].length = &full->xsave_len;
	record[MSRS].length = &full->msrs_len;
	record[PARTS] = (struct record){ .version = 1,
					 .at = &full->tsc_khz,
					 .size = sizeof full->tsc_khz };
	snprintf(record[PARTS].tag, sizeof record[PARTS].tag, "vcpu%u.tsc_khz", id);
}

static int failed(struct err *err, const struct vcpu *vcpu, const char *what, unsigned part)
{
	return fail(err, -errno, "%s vcpu%u.%s: " OS_ERR, what, vcpu->id, parts[part].name,
		    OS_ERR_ARGS(errno));
}

/* ---- saving ------------------------------------------------------------------------------------- */

static int save_xsave(const struct vcpu *vcpu, struct vcpu_full *full, struct err *err)
{
	u32 size = vcpu->all->xsave_size;
	bool big = size > sizeof(struct kvm_xsave);

	if (size > VCPU_XSAVE_MAX)
		return fail(err, -E2BIG, "vcpu%u.xsave: this host has %u bytes of it", vcpu->id,
			    size);
	full->xsave_len = size;
	if (ioctl(vcpu->fd, big ? KVM_GET_XSAVE2 : KVM_GET_XSAVE, full->xsave) < 0)
		return failed(err, vcpu, "reading", XSAVE);
	return 0;
}

struct msr_list {
	struct kvm_msrs head;
	struct kvm_msr_entry entry[ARRAY_SIZE(msr_index)];
};

/* KVM stops at the first that this host has not: it is left out, and the rest asked for again. */
static void save_msrs(const struct vcpu *vcpu, struct vcpu_full *full)
{
	unsigned n = 0;

	for (unsigned at = 0; at < ARRAY_SIZE(msr_index); at++) {
		struct msr_list list = { .head.nmsrs = (u32)(ARRAY_SIZE(msr_index) - at) };
		int got;

		for (unsigned i = 0; i < list.head.nmsrs; i++)
			list.entry[i].index = msr_index[at + i];
		got = ioctl(vcpu->fd, KVM_GET_MSRS, &list);
		if (got <= 0)
			continue;
		memcpy(&full->msr[n], list.entry, (size_t)got * sizeof list.entry[0]);
		n += (unsigned)got;
		at += (unsigned)got;
	}
	full->msrs_len = (u32)(n * sizeof full->msr[0]);
}

int vcpu_save(const struct vcpu *vcpu, struct vcpu_full *full, struct err *err)
{
	int khz;

	for (unsigned i = 0; i < PARTS; i++)
		if (parts[i].get &&
		    ioctl(vcpu->fd, parts[i].get, (u8 *)full + parts[i].at) < 0)
			return failed(err, vcpu, "reading", i);
	save_msrs(vcpu, full);
	khz = ioctl(vcpu->fd, KVM_GET_TSC_KHZ, 0);
	full->tsc_khz = khz > 0 ? (u32)khz : 0;
	return save_xsave(vcpu, full, err);
}

/* ---- loading ------------------------------------------------------------------------------------ */

/* A clock that runs at another speed is scaled by the processor, where it can. */
static int load_tsc_khz(const struct vcpu *vcpu, u32 khz, struct err *err)
{
	int here = ioctl(vcpu->fd, KVM_GET_TSC_KHZ, 0);
	u64 off;

	if (!khz || here <= 0)
		return 0;
	if (khz > INT32_MAX)
		return fail(err, -EINVAL, "vcpu%u.tsc_khz: %u kHz cannot be", vcpu->id, khz);
	off = khz > (u32)here ? khz - (u32)here : (u32)here - khz;
	if (off * 1000000 / (u32)here <= TSC_TOLERANCE_PPM)
		return 0;
	if (ioctl(vcpu->fd, KVM_SET_TSC_KHZ, (unsigned long)khz) < 0)
		return fail(err, -errno,
			    "vcpu%u.tsc_khz: the snapshot's clock runs at %u kHz, this host's at %d, "
			    "and it cannot scale: " OS_ERR,
			    vcpu->id, khz, here, OS_ERR_ARGS(errno));
	return 0;
}

static bool msr_known(u32 index)
{
	for (unsigned i = 0; i < ARRAY_SIZE(msr_index); i++)
		if (msr_index[i] == index)
			return true;
	return false;
}

static int check_msrs(const struct vcpu *vcpu, const struct vcpu_full *full, struct err *err)
{
	unsigned n = full->msrs_len / sizeof full->msr[0];

	if (full->msrs_len % sizeof full->msr[0])
		return fail(err, -EINVAL, "vcpu%u.msrs: %u bytes are not a whole number of them",
			    vcpu->id, full->msrs_len);
	for (unsigned i = 0; i < n; i++) {
		if (!msr_known(full->msr[i].index))
			return fail(err, -EINVAL, "vcpu%u.msrs: 0x%x is none of a guest's",
				    vcpu->id, full->msr[i].index);
		for (unsigned k = 0; k < i; k++)
			if (full->msr[k].index == full->msr[i].index)
				return fail(err, -EINVAL, "vcpu%u.msrs: 0x%x is there twice",
					    vcpu->id, full->msr[i].index);
	}
	return 0;
}

static const struct kvm_msr_entry *find_msr(const struct vcpu_full *full, u32 index)
{
	for (unsigned i = 0; i < full->msrs_len / sizeof full->msr[0]; i++)
		if (full->msr[i].index == index)
			return &full->msr[i];
	return NULL;
}

/* In our order, whatever the snapshot's. What this host does not have must not have been in use. */
static int load_msrs(const struct vcpu *vcpu, const struct vcpu_full *full, struct err *err)
{
	struct kvm_msr_entry wanted[ARRAY_SIZE(msr_index)];
	unsigned n = 0;

	for (unsigned i = 0; i < ARRAY_SIZE(msr_index); i++) {
		const struct kvm_msr_entry *e = find_msr(full, msr_index[i]);

		if (e)
			wanted[n++] = *e;
	}
	for (unsigned at = 0; at < n; at++) {
		struct msr_list list = { .head.nmsrs = n - at };
		int set;

		memcpy(list.entry, &wanted[at], (n - at) * sizeof wanted[0]);
		set = ioctl(vcpu->fd, KVM_SET_MSRS, &list);
		at += set > 0 ? (unsigned)set : 0;
		if (at < n && wanted[at].data)
			return fail(err, -EINVAL, "vcpu%u.msrs: 0x%x cannot be set to 0x%llx here",
				    vcpu->id, wanted[at].index, wanted[at].data);
	}
	return 0;
}

/* Modes that no guest of ours can be in, and fields that KVM takes as they are. */
static int check_parts(const struct vcpu *vcpu, struct vcpu_full *full, struct err *err)
{
	const struct kvm_vcpu_events *e = &full->events;

	if (e->smi.smm || e->smi.pending || e->smi.smm_inside_nmi || e->smi.latched_init)
		return fail(err, -EINVAL, "vcpu%u.events: system management mode", vcpu->id);
	if (e->exception.nr > 31)
		return fail(err, -EINVAL, "vcpu%u.events: exception %u", vcpu->id, e->exception.nr);
	if (full->xsave_len != vcpu->all->xsave_size)
		return fail(err, -EINVAL, "vcpu%u.xsave has %u bytes, not this host's %u", vcpu->id,
			    full->xsave_len, vcpu->all->xsave_size);
	if (full->xcrs.nr_xcrs > KVM_MAX_XCRS)
		return fail(err, -EINVAL, "vcpu%u.xcrs: there are %u", vcpu->id, full->xcrs.nr_xcrs);
	return check_msrs(vcpu, full, err);
}

static int load_part(const struct vcpu *vcpu, struct vcpu_full *full, unsigned i, struct err *err)
{
	unsigned long set = i == XSAVE ? KVM_SET_XSAVE : parts[i].set;

	if (i == MSRS)
		return load_msrs(vcpu, full, err);

	if (ioctl(vcpu->fd, set, (u8 *)full + parts[i].at) < 0)
		return failed(err, vcpu, "setting", i);
	return 0;
}

int vcpu_load(const struct vcpu *vcpu, struct vcpu_full *full, struct err *err)
{
	int r = check_parts(vcpu, full, err);

	if (!r)
		r = load_tsc_khz(vcpu, full->tsc_khz, err);
	for (unsigned i = 0; i < PARTS && !r; i++)
		r = load_part(vcpu, full, i, err);
	return r;
}

u64 vcpu_age_ns(const struct vcpu *vcpu, const struct vcpu_full *full)
{
	const struct kvm_msr_entry *was = find_msr(full, MSR_TSC);
	struct msr_list now = { .head.nmsrs = 1, .entry[0].index = MSR_TSC };
	int khz = ioctl(vcpu->fd, KVM_GET_TSC_KHZ, 0);
	u64 ticks;

	if (!was || khz <= 0 || ioctl(vcpu->fd, KVM_GET_MSRS, &now) != 1)
		return 0;
	ticks = now.entry[0].data - was->data;
	return ticks / (u64)khz <= AGE_MS_MAX ? ticks * 1000000 / (u64)khz : 0;
}

void vcpu_was_stopped(const struct vcpu *vcpu)
{
	/* Refused to a guest that does not use the clock; there is nothing to tell it then. */
	(void)!ioctl(vcpu->fd, KVM_KVMCLOCK_CTRL, 0);
}
