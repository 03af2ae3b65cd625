/*
 * kvm: see kvm.h.
 *
 * Why a split interrupt controller: the whole one registers itself on KVM's in-kernel buses, and a
 * memslot change or a close soon after such a registration waits for a grace period (6 and 14 ms
 * measured, docs/performance.md); its PIT is a kernel thread more. The price, an IOAPIC of our own, is
 * a file of about a hundred lines that also makes the number of pins ours to choose. Ioeventfds are
 * registered there too, so they come last.
 */
#include "kvm.h"

#include <fcntl.h>
#include <sys/ioctl.h>

#include "../boot/layout.h"

static const struct {
	int cap;
	const char *name;
} needed_caps[] = {
	{ KVM_CAP_USER_MEMORY, "KVM_CAP_USER_MEMORY" },
	{ KVM_CAP_SPLIT_IRQCHIP, "KVM_CAP_SPLIT_IRQCHIP" },
	{ KVM_CAP_IRQFD, "KVM_CAP_IRQFD" },
	{ KVM_CAP_IOEVENTFD, "KVM_CAP_IOEVENTFD" },
	{ KVM_CAP_IMMEDIATE_EXIT, "KVM_CAP_IMMEDIATE_EXIT" },
	{ KVM_CAP_EXT_CPUID, "KVM_CAP_EXT_CPUID" },
	{ KVM_CAP_TSC_DEADLINE_TIMER, "KVM_CAP_TSC_DEADLINE_TIMER" },
	{ KVM_CAP_MP_STATE, "KVM_CAP_MP_STATE" },
	{ KVM_CAP_SET_TSS_ADDR, "KVM_CAP_SET_TSS_ADDR" },
};

static int fail_open(struct err *err, int errnum)
{
	const char *cure = "";

	if (errnum == ENOENT || errnum == ENODEV || errnum == ENXIO)
		cure = "; the kvm module is not loaded or the processor's virtualisation is off"
		       " (modprobe kvm-intel or kvm-amd)";
	else if (errnum == EACCES || errnum == EPERM)
		cure = "; this user may not use it (join the group that owns it, usually kvm)";
	return fail(err, -errnum, "Internal error: /dev/kvm cannot be opened: " OS_ERR "%s",
		    OS_ERR_ARGS(errnum), cure);
}

static int check_dev(struct kvm *kvm, struct err *err)
{
	int version = ioctl(kvm->dev_fd, KVM_GET_API_VERSION, 0), size;

	if (version != KVM_API_VERSION)
		return fail(err, -ENOTSUP, "/dev/kvm is not the KVM that is needed: it says API version"
			    " %d, not %d", version, KVM_API_VERSION);
	for (unsigned i = 0; i < ARRAY_SIZE(needed_caps); i++)
		if (ioctl(kvm->dev_fd, KVM_CHECK_EXTENSION, needed_caps[i].cap) <= 0)
			return fail(err, -ENOTSUP, "this host's KVM lacks %s", needed_caps[i].name);
	size = ioctl(kvm->dev_fd, KVM_GET_VCPU_MMAP_SIZE, 0);
	if (size < (int)sizeof(struct kvm_run))
		return fail(err, -ENOTSUP, "KVM_GET_VCPU_MMAP_SIZE says %d", size);
	kvm->run_size = (size_t)size;
	return 0;
}

static int create_vm(struct kvm *kvm, struct err *err)
{
	/* A signal can interrupt it on a busy host; five tries as the contract says. */
	for (int tries = 0; tries < 5; tries++) {
		kvm->vm_fd = ioctl(kvm->dev_fd, KVM_CREATE_VM, 0);
		if (kvm->vm_fd >= 0 || errno != EINTR)
			break;
	}
	if (kvm->vm_fd < 0)
		return fail(err, -errno, "KVM_CREATE_VM: " OS_ERR, OS_ERR_ARGS(errno));
	return 0;
}

static int split_irqchip(const struct kvm *kvm, struct err *err)
{
	struct kvm_enable_cap cap = { .cap = KVM_CAP_SPLIT_IRQCHIP, .args = { LAYOUT_IOAPIC_PINS_MAX } };
	u64 ident = LAYOUT_KVM_IDENT;

	/* Where Intel without "unrestricted guest" keeps two pages of its own; nothing to do on AMD. */
	if (ioctl(kvm->vm_fd, KVM_SET_IDENTITY_MAP_ADDR, &ident) < 0)
		return fail(err, -errno, "KVM_SET_IDENTITY_MAP_ADDR: " OS_ERR, OS_ERR_ARGS(errno));
	if (ioctl(kvm->vm_fd, KVM_SET_TSS_ADDR, LAYOUT_KVM_TSS) < 0)
		return fail(err, -errno, "KVM_SET_TSS_ADDR: " OS_ERR, OS_ERR_ARGS(errno));
	if (ioctl(kvm->vm_fd, KVM_ENABLE_CAP, &cap) < 0)
		return fail(err, -errno, "KVM_CAP_SPLIT_IRQCHIP: " OS_ERR, OS_ERR_ARGS(errno));
	return 0;
}

static int create_vcpu(const struct kvm *kvm, unsigned id, struct err *err)
{
	int fd = ioctl(kvm->vm_fd, KVM_CREATE_VCPU, id);

	return fd < 0 ? fail(err, -errno, "KVM_CREATE_VCPU %u: " OS_ERR, id, OS_ERR_ARGS(errno)) : fd;
}

int kvm_take_vcpu(struct kvm *kvm, unsigned id, struct err *err)
{
	return id == 0 && kvm->vcpu_fd >= 0 ? steal_fd(&kvm->vcpu_fd) : create_vcpu(kvm, id, err);
}

int kvm_open(struct kvm *kvm, struct err *err)
{
	int r;

	*kvm = (struct kvm){ .vm_fd = -1, .vcpu_fd = -1 };
	kvm->dev_fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	if (kvm->dev_fd < 0)
		return fail_open(err, errno);
	r = check_dev(kvm, err);
	if (!r)
		r = create_vm(kvm, err);
	if (!r)
		r = split_irqchip(kvm, err);
	if (!r)
		r = kvm->vcpu_fd = create_vcpu(kvm, 0, err);
	if (r < 0) {
		kvm_close(kvm);
		return r;
	}
	return 0;
}

void kvm_close(struct kvm *kvm)
{
	if (kvm->vcpu_fd >= 0)
		close(kvm->vcpu_fd);
	if (kvm->vm_fd >= 0)
		close(kvm->vm_fd);
	if (kvm->dev_fd >= 0)
		close(kvm->dev_fd);
	kvm->vcpu_fd = kvm->vm_fd = kvm->dev_fd = -1;
}

/* `host` NULL: the slot goes. */
static int set_slot(const struct kvm *kvm, unsigned i, const struct mem_region *r, const u8 *host)
{
	struct kvm_userspace_memory_region slot = {
		.slot = i,
		.guest_phys_addr = r->gpa,
		.memory_size = host ? r->size : 0,
		.userspace_addr = (uintptr_t)host,
	};

	return ioctl(kvm->vm_fd, KVM_SET_USER_MEMORY_REGION, &slot) < 0 ? -errno : 0;
}

static int fail_slot(struct err *err, int r, const struct mem_region *region)
{
	return fail(err, r, "KVM_SET_USER_MEMORY_REGION of %llu MiB at 0x%llx: " OS_ERR,
		    (unsigned long long)(region->size >> 20), (unsigned long long)region->gpa,
		    OS_ERR_ARGS(-r));
}

int kvm_add_memory(struct kvm *kvm, const struct mem *mem, struct err *err)
{
	for (unsigned i = 0; i < mem->n_regions; i++) {
		const struct mem_region *region = &mem->region[i];
		int r = set_slot(kvm, i, region, region->host);

		if (r < 0)
			return fail_slot(err, r, region);
	}
	return 0;
}

/* KVM does not let a slot's address change: it has to go first. */
int kvm_move_memory(const struct kvm *kvm, const struct mem *from, const struct mem *to,
		    struct err *err)
{
	for (unsigned i = 0; i < from->n_regions; i++) {
		const struct mem_region *region = &from->region[i];
		int r = set_slot(kvm, i, region, NULL);

		if (!r)
			r = set_slot(kvm, i, region, to->region[i].host);
		if (!r)
			continue;
		for (unsigned back = 0; back <= i; back++) {
			(void)set_slot(kvm, back, &from->region[back], NULL);
			if (set_slot(kvm, back, &from->region[back], from->region[back].host) < 0)
				return fail(err, r, "the guest's memory is lost: " OS_ERR,
					    OS_ERR_ARGS(-r));
		}
		return fail_slot(err, r, region);
	}
	return 0;
}

int kvm_set_routes(const struct kvm *kvm, const struct kvm_route *routes, unsigned n)
{
	struct {
		struct kvm_irq_routing head;
		struct kvm_irq_routing_entry entry[LAYOUT_IOAPIC_PINS_MAX];
	} table = { .head.nr = n };

	assert(n <= ARRAY_SIZE(table.entry));
	for (unsigned i = 0; i < n; i++)
		table.entry[i] = (struct kvm_irq_routing_entry){
			.gsi = routes[i].gsi,
			.type = KVM_IRQ_ROUTING_MSI,
			.u.msi = { .address_lo = routes[i].address_lo, .data = routes[i].data },
		};
	return ioctl(kvm->vm_fd, KVM_SET_GSI_ROUTING, &table) < 0 ? -errno : 0;
}

int kvm_add_irqfd(const struct kvm *kvm, int fd, u32 gsi, struct err *err)
{
	struct kvm_irqfd irqfd = { .fd = (u32)fd, .gsi = gsi };

	if (ioctl(kvm->vm_fd, KVM_IRQFD, &irqfd) < 0)
		return fail(err, -errno, "KVM_IRQFD for line %u: " OS_ERR, gsi, OS_ERR_ARGS(errno));
	return 0;
}

int kvm_add_ioeventfd(const struct kvm *kvm, int fd, u64 gpa, u32 value, struct err *err)
{
	struct kvm_ioeventfd io = {
		.datamatch = value,
		.addr = gpa,
		.len = 4,
		.fd = fd,
		.flags = KVM_IOEVENTFD_FLAG_DATAMATCH,
	};

	if (ioctl(kvm->vm_fd, KVM_IOEVENTFD, &io) < 0)
		return fail(err, -errno, "KVM_IOEVENTFD at 0x%llx: " OS_ERR,
			    (unsigned long long)gpa, OS_ERR_ARGS(errno));
	return 0;
}
