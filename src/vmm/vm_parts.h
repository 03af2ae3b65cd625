/*
 * vm_parts: what the files of the machine share (vm.c, vm_devices.c), and nobody else sees.
 */
#ifndef VM_PARTS_H
#define VM_PARTS_H

#include "console.h"
#include "cpuid.h"
#include "i8042.h"
#include "ioapic.h"
#include "kvm.h"
#include "platform.h"
#include "serial.h"
#include "vcpu.h"
#include "vm.h"
#include "../virtio/balloon.h"
#include "../virtio/mmio.h"
#include "../virtio/net.h"
#include "../virtio/rng.h"
#include "../virtio/vsock.h"
#include "uffd.h"

/* Lines that belong to no virtio device. */
enum { LINE_KEYBOARD, LINE_SERIAL, LINE_IDENTITY, LINES };

struct vm_shell {
	struct kvm kvm;
	struct cpuid cpuid;
	struct cpuid first; /* of the only processor of a plain machine, if that was made ahead */
	struct vcpus vcpus;
};

struct vm {
	const struct config *cfg;
	struct loop *loop;
	struct vm_callbacks callbacks;
	u64 started_ns;

	struct vm_shell *shell;
	struct mem mem;
	struct uffd uffd;   /* who has its pages */
	struct mem retired; /* what a freeze left: being unmapped */
	struct loop_work retire_work;
	struct bus mmio, port;
	struct vcpus *vcpus; /* the shell's */
	bool paused;

	struct ioapic ioapic;
	struct console console;
	struct serial serial;
	struct i8042 i8042;
	struct platform platform;
	int line_fd[LINES];

	struct blk *blk[CONFIG_DRIVES_MAX];
	struct net *net[CONFIG_NETS_MAX];
	struct vsock *vsock;
	struct balloon *balloon;
	struct rng *rng;
	struct device *device[LAYOUT_DEVICES_MAX]; /* in the order of their windows and lines */
	struct mmio window[LAYOUT_DEVICES_MAX];
	unsigned n_devices;

	enum vm_end end;
	char end_detail[128];
	struct loop_work end_work, booted_work;
};

/*
 * vm_devices.c: the virtio devices that the configuration names, each in the next window and on the
 * next line: drives first, so that their names in the guest follow their order. On error
 * vm_destroy_devices() undoes what there is.
 */
int vm_create_devices(struct vm *vm, struct err *err) MUST_CHECK;
void vm_destroy_devices(struct vm *vm);

/* vm_freeze.c: before anything is made; after everybody who looks at memory is gone. */
void vm_freeze_init(struct vm *vm);
void vm_freeze_destroy(struct vm *vm);

#endif
