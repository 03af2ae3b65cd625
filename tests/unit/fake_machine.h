/*
 * fake_machine: a machine in parts, for tests of its state: memory, one device of each kind, and
 * processors and a clock whose KVM is a stand-in for its ioctls: that gives `gives` and remembers
 * what it is given in `taken`. Nothing of it ever runs.
 */
#ifndef TEST_FAKE_MACHINE_H
#define TEST_FAKE_MACHINE_H

#include "src/vmm/vcpu_state.h"
#include "src/vmm/vm_parts.h"
#include "tests/unit/test.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#define FAKE_VM	   1000000
#define FAKE_VCPU  1000001 /* and the next */
#define PROCESSORS 2
#define DEVICES	   5
#define MEM_SIZE   MIB(2)

/* ---- KVM -------------------------------------------------------------------------- */

static struct vcpu_full gives[PROCESSORS], taken[PROCESSORS]; /* by and from KVM */
static struct kvm_clock_data clock_given, clock_taken;
static int khz_here[PROCESSORS]; /* how fast their TSC runs */
static u64 tsc[PROCESSORS];	 /* goes on by as much whenever it is looked at */
#define TSC_STEP 4000000

static const struct {
	unsigned long get, set;
	size_t at, size;
} parts[] = {
#define PART(NAME, member)                                                                         \
	{                                                                                          \
		KVM_GET_##NAME, KVM_SET_##NAME, offsetof(struct vcpu_full, member),                \
			sizeof(((struct vcpu_full *)0)->member)                                    \
	}
	PART(MP_STATE, mp_state),
	PART(REGS, regs),
	PART(SREGS, sregs),
	PART(XCRS, xcrs),
	PART(DEBUGREGS, debugregs),
	PART(LAPIC, lapic),
	PART(VCPU_EVENTS, events),
	{ KVM_GET_XSAVE, KVM_SET_XSAVE, offsetof(struct vcpu_full, xsave),
	  sizeof(struct kvm_xsave) },
};

/* KVM_GET_MSRS fills in the data of the MSRs that it knows, up to the first that it does not. */
static int get_msrs(unsigned id, struct kvm_msrs *list)
{
	const struct vcpu_full *from = &gives[id];
	unsigned known = from->msrs_len / sizeof from->msr[0];

	for (u32 n = 0; n < list->nmsrs; n++) {
		unsigned i = 0;

		while (i < known && from->msr[i].index != list->entries[n].index)
			i++;
		if (i == known)
			return (int)n;
		list->entries[n].data = from->msr[i].data;
		if (from->msr[i].index == 0x10) {
			list->entries[n].data = tsc[id];
			tsc[id] += TSC_STEP;
		}
	}
	return (int)list->nmsrs;
}

static int vcpu_call(unsigned id, unsigned long request, u8 *arg)
{
	struct vcpu_full *to = &taken[id];
	struct kvm_msrs *list = (struct kvm_msrs *)(void *)arg;

	for (unsigned i = 0; i < ARRAY_SIZE(parts); i++) {
		if (request == parts[i].get)
			memcpy(arg, (u8 *)&gives[id] + parts[i].at, parts[i].size);
		else if (request == parts[i].set)
			memcpy((u8 *)to + parts[i].at, arg, parts[i].size);
	}
	if (request == KVM_GET_MSRS)
		return get_msrs(id, list);
	if (request == KVM_SET_MSRS) {
		to->msrs_len = (u32)(list->nmsrs * sizeof to->msr[0]);
		memcpy(to->msr, list->entries, to->msrs_len);
		tsc[id] = list->entries[0].data + TSC_STEP; /* the TSC is the first */
		return (int)list->nmsrs;
	}
	if (request == KVM_SET_TSC_KHZ)
		to->tsc_khz = (u32)(khz_here[id] = (int)(uintptr_t)arg);
	return request == KVM_GET_TSC_KHZ ? khz_here[id] : 0;
}

/* Stands before libc's. */
int ioctl(int fd, unsigned long request, ...)
{
	va_list args;
	u8 *arg;

	va_start(args, request);
	arg = va_arg(args, u8 *);
	va_end(args);
	if (fd >= FAKE_VCPU && fd < FAKE_VCPU + PROCESSORS)
		return vcpu_call((unsigned)(fd - FAKE_VCPU), request, arg);
	if (fd != FAKE_VM)
		return (int)syscall(SYS_ioctl, fd, request, arg);
	if (request == KVM_GET_CLOCK)
		memcpy(arg, &clock_given, sizeof clock_given);
	else if (request == KVM_SET_CLOCK)
		memcpy(&clock_taken, arg, sizeof clock_taken);
	return 0;
}

/* ---- a machine with one device of each kind --------------------------------------- */

static struct vm vm;
static struct config config;
static struct vm_shell shell;
static struct loop *loop;
static struct vsock_config vsock_cfg = { .guest_cid = 3, .max_connections = 8 };
static int disk_fd, line_fd, null_fd, wire[2];
static unsigned n_routes;

static void on_routed(void *owner, const struct kvm_route *routes, unsigned n)
{
	(void)owner;
	(void)routes;
	n_routes = n;
}

static void on_unmasked(void *owner, unsigned pin)
{
	(void)owner;
	(void)pin;
}

static void make_devices(struct err *err)
{
	struct balloon_config balloon = {
		.amount_mib = 1, .stats_interval_s = 3, .hinting = true, .reporting = true
	};
	struct blk_config blk = {
		.id = "disk", .cache = BLK_WRITEBACK, .no_uring = true, .fd = disk_fd
	};
	struct net_config net = { .id = "eth0",
				  .queue_pairs = 1,
				  .mtu = 1500,
				  .mac_given = true,
				  .mac = { 6, 0, 0, 0, 0, 1 },
				  .fd = { wire[0] } };
	struct limit_config limit = { .ops = { 10, 5, 1000000, .given = true } };

	assert_int_equal(rng_create(&vm.rng, &vm.mem, loop, err), 0);
	assert_int_equal(balloon_create(&vm.balloon, &balloon, &vm.mem, loop, err), 0);
	assert_int_equal(blk_create(&vm.blk[0], &blk, &vm.mem, loop, err), 0);
	blk_limit(vm.blk[0], &limit);
	assert_int_equal(net_create(&vm.net[0], &net, &vm.mem, loop, err), 0);
	assert_int_equal(vsock_create(&vm.vsock, &vsock_cfg, &vm.mem, loop, err), 0);
	vm.device[0] = rng_device(vm.rng);
	vm.device[1] = balloon_device(vm.balloon);
	vm.device[2] = blk_device(vm.blk[0]);
	vm.device[3] = net_device(vm.net[0]);
	vm.device[4] = vsock_device(vm.vsock);
	vm.n_devices = DEVICES;
}

static inline void make_machine(void)
{
	struct err err;

	memset(&vm, 0, sizeof vm);
	memset(&shell, 0, sizeof shell);
	shell.kvm.vm_fd = FAKE_VM;
	vm.cfg = &config;
	vm.shell = &shell;
	vm.vcpus = &shell.vcpus;
	vm.paused = true;
	assert_int_equal(mem_create(&vm.mem, MEM_SIZE, MEM_ANON, MEM_PAGES_4K, &err), 0);
	shell.vcpus.n = PROCESSORS;
	shell.vcpus.xsave_size = sizeof(struct kvm_xsave);
	for (unsigned i = 0; i < PROCESSORS; i++)
		shell.vcpus.vcpu[i] =
			(struct vcpu){ .all = &shell.vcpus, .id = i, .fd = FAKE_VCPU + (int)i };
	vm.ioapic.routed = on_routed;
	vm.ioapic.unmasked = on_unmasked;
	assert_int_equal(ioapic_init(&vm.ioapic, LAYOUT_GSI_VIRTIO + DEVICES, &vm.mmio, &err), 0);
	assert_int_equal(serial_init(&vm.serial, loop, &vm.port, line_fd, -1, null_fd, &err), 0);
	assert_int_equal(i8042_init(&vm.i8042, &vm.port, line_fd, &err), 0);
	make_devices(&err);
}

static inline void destroy_machine(void)
{
	rng_destroy(vm.rng);
	balloon_destroy(vm.balloon);
	blk_destroy(vm.blk[0]);
	net_destroy(vm.net[0]);
	vsock_destroy(vm.vsock);
	serial_destroy(&vm.serial);
	mem_destroy(&vm.mem);
}

static inline int set_up(void **state)
{
	struct err err;

	(void)state;
	snprintf(vsock_cfg.uds_path, sizeof vsock_cfg.uds_path, "/tmp/mf-state-%d", (int)getpid());
	if (loop_create(&loop, &err) < 0 || vsock_listen(&vsock_cfg, &err) < 0)
		return -1;
	line_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	null_fd = open("/dev/null", O_WRONLY | O_CLOEXEC);
	disk_fd = memfd_create("disk", MFD_CLOEXEC);
	return ftruncate(disk_fd, KIB(64)) ||
	       socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, wire);
}

static inline int tear_down(void **state)
{
	(void)state;
	vsock_unlisten(&vsock_cfg);
	loop_destroy(loop);
	close(line_fd);
	close(null_fd);
	close(disk_fd);
	close(wire[0]);
	close(wire[1]);
	return 0;
}

#endif
