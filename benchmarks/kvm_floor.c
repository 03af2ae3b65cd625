/*
 * kvm_floor: what the bare KVM calls cost that no monitor can do without, in several orders.
 *
 *	kvm_floor [RUNS] [MIB]
 *
 * Each run is a fresh process that makes a one-processor machine, runs a guest of one instruction
 * (a port write), and closes everything. The orders differ in nothing but what their names say; they
 * take turns. This is the evidence for the order in src/vmm/kvm.c and vm.c.
 */
#include "sample.h"

#include <fcntl.h>
#include <linux/kvm.h>
#include <stdbool.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

enum irqchip { SPLIT, WHOLE, WHOLE_AND_PIT };

/* The machine gets its memory before the interrupt controller, after it, after the eventfds. */
enum when { MEM_FIRST, MEM_AFTER_IRQCHIP, MEM_LAST };

static const struct order {
	const char *name;
	enum irqchip irqchip;
	enum when mem;
	bool ioeventfds;     /* the machine has some: in-kernel devices on the MMIO bus */
	unsigned age_ms;     /* how long the machine lives before it is closed */
} orders[] = {
	{ "split; memory first", SPLIT, MEM_FIRST, true, 0 },
	{ "split; memory first; no ioeventfds", SPLIT, MEM_FIRST, false, 0 },
	{ "split; memory first; 50 ms old", SPLIT, MEM_FIRST, true, 50 },
	{ "split; memory second", SPLIT, MEM_AFTER_IRQCHIP, true, 0 },
	{ "split; memory last", SPLIT, MEM_LAST, true, 0 },
	{ "whole; memory first", WHOLE, MEM_FIRST, true, 0 },
	{ "whole; memory first; no ioeventfds", WHOLE, MEM_FIRST, false, 0 },
	{ "whole; memory first; 50 ms old", WHOLE, MEM_FIRST, true, 50 },
	{ "whole; memory second", WHOLE, MEM_AFTER_IRQCHIP, true, 0 },
	{ "whole and pit; memory first", WHOLE_AND_PIT, MEM_FIRST, true, 0 },
	{ "whole and pit; memory second", WHOLE_AND_PIT, MEM_AFTER_IRQCHIP, true, 0 },
};

#define N_ORDERS (sizeof orders / sizeof orders[0])
#define N_EVENTS 6 /* irqfds, and as many ioeventfds: a machine with a few devices */
#define CODE 0x1000

struct machine {
	const struct order *order;
	int dev, vm, vcpu;
	size_t size;
	char *mem;
	struct kvm_run *run;
	uint64_t last;
};

static struct {
	int n;
	struct kvm_cpuid_entry2 entry[256];
} cpuid;

static void lap(struct machine *m, const char *step)
{
	uint64_t now = now_ns();

	printf("%s: %s %llu\n", m->order->name, step, (unsigned long long)(now - m->last));
	m->last = now_ns();
}

static int must(int r, const char *what)
{
	if (r < 0)
		die(what);
	return r;
}

static void memory(struct machine *m)
{
	struct kvm_userspace_memory_region slot = { .memory_size = m->size };

	m->mem = mmap(NULL, m->size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (m->mem == MAP_FAILED)
		die("memory");
	slot.userspace_addr = (uintptr_t)m->mem;
	must(ioctl(m->vm, KVM_SET_USER_MEMORY_REGION, &slot), "KVM_SET_USER_MEMORY_REGION");
	lap(m, "memslot");
}

static void irqchip(struct machine *m)
{
	struct kvm_enable_cap split = { .cap = KVM_CAP_SPLIT_IRQCHIP, .args = { 24 } };
	struct kvm_pit_config pit = { 0 };

	must(ioctl(m->vm, KVM_SET_TSS_ADDR, 0xfffbd000), "KVM_SET_TSS_ADDR");
	if (m->order->irqchip == SPLIT)
		must(ioctl(m->vm, KVM_ENABLE_CAP, &split), "KVM_CAP_SPLIT_IRQCHIP");
	else
		must(ioctl(m->vm, KVM_CREATE_IRQCHIP, 0), "KVM_CREATE_IRQCHIP");
	if (m->order->irqchip == WHOLE_AND_PIT)
		must(ioctl(m->vm, KVM_CREATE_PIT2, &pit), "KVM_CREATE_PIT2");
	lap(m, "irqchip");
}

static void eventfds(struct machine *m)
{
	for (unsigned i = 0; i < N_EVENTS; i++) {
		struct kvm_irqfd irq = { .fd = (uint32_t)eventfd(0, EFD_NONBLOCK), .gsi = 5 + i };
		struct kvm_ioeventfd io = { .addr = 0xc0001050 + 0x1000 * i, .len = 4,
					    .fd = eventfd(0, EFD_NONBLOCK),
					    .flags = KVM_IOEVENTFD_FLAG_DATAMATCH };

		must(ioctl(m->vm, KVM_IRQFD, &irq), "KVM_IRQFD");
		if (m->order->ioeventfds)
			must(ioctl(m->vm, KVM_IOEVENTFD, &io), "KVM_IOEVENTFD");
	}
	lap(m, "eventfds");
}

static void processor(struct machine *m)
{
	int run_size = must(ioctl(m->dev, KVM_GET_VCPU_MMAP_SIZE, 0), "KVM_GET_VCPU_MMAP_SIZE");
	struct kvm_regs regs = { .rip = CODE, .rflags = 2 };
	struct kvm_sregs sregs;

	m->vcpu = must(ioctl(m->vm, KVM_CREATE_VCPU, 0), "KVM_CREATE_VCPU");
	lap(m, "vcpu");
	m->run = mmap(NULL, (size_t)run_size, PROT_READ | PROT_WRITE, MAP_SHARED, m->vcpu, 0);
	if (m->run == MAP_FAILED)
		die("mapping the vCPU");
	must(ioctl(m->vcpu, KVM_SET_CPUID2, &cpuid), "KVM_SET_CPUID2");
	must(ioctl(m->vcpu, KVM_GET_SREGS, &sregs), "KVM_GET_SREGS");
	sregs.cs.base = sregs.cs.selector = 0;
	must(ioctl(m->vcpu, KVM_SET_SREGS, &sregs), "KVM_SET_SREGS");
	must(ioctl(m->vcpu, KVM_SET_REGS, &regs), "KVM_SET_REGS");
	lap(m, "cpuid and registers");
}

static void run(struct machine *m)
{
	static const uint8_t out_80[] = { 0xe6, 0x80 }; /* out %al, $0x80 */

	memcpy(m->mem + CODE, out_80, sizeof out_80);
	m->last = now_ns();
	must(ioctl(m->vcpu, KVM_RUN, 0), "KVM_RUN");
	lap(m, "first run");
	if (m->run->exit_reason != KVM_EXIT_IO) {
		fprintf(stderr, "kvm_floor: exit %u\n", m->run->exit_reason);
		exit(1);
	}
}

static void one(const struct order *order, size_t size)
{
	struct machine m = { .order = order, .size = size };
	uint64_t begin;

	m.dev = must(open("/dev/kvm", O_RDWR | O_CLOEXEC), "/dev/kvm");
	cpuid.n = 256;
	m.last = begin = now_ns();
	must(ioctl(m.dev, KVM_GET_SUPPORTED_CPUID, &cpuid), "KVM_GET_SUPPORTED_CPUID");
	lap(&m, "supported cpuid");
	m.vm = must(ioctl(m.dev, KVM_CREATE_VM, 0), "KVM_CREATE_VM");
	lap(&m, "vm");
	if (order->mem == MEM_FIRST)
		memory(&m);
	irqchip(&m);
	if (order->mem == MEM_AFTER_IRQCHIP)
		memory(&m);
	processor(&m);
	eventfds(&m);
	if (order->mem == MEM_LAST)
		memory(&m);
	run(&m);
	printf("%s: total to first exit %llu\n", order->name,
	       (unsigned long long)(now_ns() - begin));
	munmap(m.run, (size_t)ioctl(m.dev, KVM_GET_VCPU_MMAP_SIZE, 0));
	usleep(order->age_ms * 1000);
	m.last = now_ns();
	close(m.vcpu);
	close(m.vm);
	lap(&m, "close");
}

int main(int argc, char **argv)
{
	int runs = argc > 1 ? atoi(argv[1]) : 30;
	size_t size = (size_t)(argc > 2 ? atoi(argv[2]) : 128) << 20;
	int status;

	for (int i = 0; i < runs; i++)
		for (size_t o = 0; o < N_ORDERS; o++) {
			pid_t child;

			fflush(stdout);
			child = must(fork(), "fork");
			if (!child) {
				one(&orders[o], size);
				exit(0);
			}
			waitpid(child, &status, 0);
			if (status)
				return 1;
		}
	return 0;
}
