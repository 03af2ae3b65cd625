/*
 * kvm: the kernel's side of the machine: the VM file descriptor and what is attached to it.
 *
 * The order of the calls is the speed of the start (docs/performance.md): kvm_open, kvm_add_memory
 * for every region, the vCPUs, and irqfds and ioeventfds last. Loop thread; only kvm_set_routes is also
 * called from a vCPU thread, under the machine lock.
 */
#ifndef KVM_H
#define KVM_H

#include "base.h"
#include "err.h"
#include "mem.h"

#include <linux/kvm.h>

struct kvm {
	int dev_fd; /* /dev/kvm */
	int vm_fd;
	int vcpu_fd; /* the first processor, which every machine has; -1: taken */
	size_t run_size; /* bytes of the mapping shared with each vCPU fd */
};

/* One interrupt line of the user-space IOAPIC, as the message it stands for. */
struct kvm_route {
	u32 gsi;
	u32 address_lo;
	u32 data;
};

/*
 * Opens /dev/kvm, checks what the monitor relies on, makes a VM with all that no configuration changes:
 * local APICs in the kernel, IOAPIC in ioapic.c (as many lines as there can be), no PIC, no PIT, and one
 * processor. Errors say what is missing and what to do about it (module, permission, version).
 */
int kvm_open(struct kvm *kvm, struct err *err) MUST_CHECK;
void kvm_close(struct kvm *kvm); /* accepts the half-built */

/* Makes every region of `mem` guest RAM. */
int kvm_add_memory(struct kvm *kvm, const struct mem *mem, struct err *err) MUST_CHECK;

/* A processor without registers set; its descriptor is the caller's. */
int kvm_take_vcpu(struct kvm *kvm, unsigned id, struct err *err) MUST_CHECK;

/*
 * The same guest memory at other host addresses: every slot is taken away and given back. All
 * processors are parked. On error the old addresses hold again, or the line says that they do not.
 */
int kvm_move_memory(const struct kvm *kvm, const struct mem *from, const struct mem *to,
		    struct err *err) MUST_CHECK;

/* Replaces the whole routing table. Lines that are not in it drop their edges. */
int kvm_set_routes(const struct kvm *kvm, const struct kvm_route *routes, unsigned n) MUST_CHECK;

/* A write to eventfd `fd` becomes an edge on line `gsi`. */
int kvm_add_irqfd(const struct kvm *kvm, int fd, u32 gsi, struct err *err) MUST_CHECK;

/* A 4-byte write of `value` to `gpa` becomes a write to eventfd `fd`, without an exit. */
int kvm_add_ioeventfd(const struct kvm *kvm, int fd, u64 gpa, u32 value,
		      struct err *err) MUST_CHECK;

#endif
