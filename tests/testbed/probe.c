/*
 * probe: does /dev/kvm run guest code at the speed of the processor?
 *
 * A /dev/kvm can exist, answer every ioctl and still interpret the guest's instructions one by
 * one. No name, flag or version tells, so measure: count down in a long-mode guest, for at most
 * about a second, and divide.
 *
 * Prints the rate in million instructions per second. Exit status: 0 native speed, 1 slow,
 * 2 no usable /dev/kvm.
 */
#include <fcntl.h>
#include <linux/kvm.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define NATIVE_MIPS 50.0
#define LOOPS 20000000u /* two instructions each */
#define TIME_LIMIT_US 800000

/* Guest physical map: one page each, then the 2 MiB page that the page tables map all of it by. */
#define PML4 0x1000
#define PDPT 0x2000
#define PD 0x3000
#define CODE 0x4000
#define MEM_SIZE 0x200000

static struct kvm_run *run;

static void on_alarm(int sig)
{
	(void)sig;
	run->immediate_exit = 1; /* also when the signal lands just before KVM_RUN */
}

static int unusable(const char *what)
{
	perror(what);
	return 2;
}

static void write_guest(uint8_t *mem)
{
	static const uint8_t count_down[] = {
		0xff, 0xc9, /* 1: dec ecx */
		0x75, 0xfc, /*    jnz 1b */
		0xf4,	    /*    hlt */
	};

	memcpy(mem + CODE, count_down, sizeof(count_down));
	*(uint64_t *)(mem + PML4) = PDPT | 3; /* present, writable */
	*(uint64_t *)(mem + PDPT) = PD | 3;
	*(uint64_t *)(mem + PD) = 0 | 0x83; /* ... and a large page */
}

static int set_registers(int vcpu)
{
	struct kvm_regs regs = { .rip = CODE, .rcx = LOOPS, .rflags = 2 };
	struct kvm_sregs sregs;

	if (ioctl(vcpu, KVM_GET_SREGS, &sregs) < 0)
		return -1;
	sregs.cr3 = PML4;
	sregs.cr4 = 0x20;	/* PAE */
	sregs.cr0 = 0x80000011; /* PG, ET, PE */
	sregs.efer = 0x500;	/* LMA, LME */
	sregs.cs = (struct kvm_segment){ .limit = 0xffffffff, .selector = 8, .type = 11,
					 .present = 1, .s = 1, .l = 1, .g = 1 };
	sregs.ss = (struct kvm_segment){ .limit = 0xffffffff, .selector = 16, .type = 3,
					 .present = 1, .s = 1, .db = 1, .g = 1 };
	sregs.ds = sregs.es = sregs.fs = sregs.gs = sregs.ss;
	if (ioctl(vcpu, KVM_SET_SREGS, &sregs) < 0)
		return -1;
	return ioctl(vcpu, KVM_SET_REGS, &regs);
}

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

int main(void)
{
	struct itimerval limit = { .it_value.tv_usec = TIME_LIMIT_US };
	struct kvm_regs regs;
	int kvm, vm, vcpu, run_size;
	double begin, mips;
	uint8_t *mem;

	kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	if (kvm < 0)
		return unusable("probe: /dev/kvm");
	vm = ioctl(kvm, KVM_CREATE_VM, 0);
	if (vm < 0)
		return unusable("probe: KVM_CREATE_VM");
	mem = mmap(NULL, MEM_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (mem == MAP_FAILED)
		return unusable("probe: memory");
	write_guest(mem);

	struct kvm_userspace_memory_region slot = {
		.memory_size = MEM_SIZE,
		.userspace_addr = (uintptr_t)mem,
	};
	if (ioctl(vm, KVM_SET_USER_MEMORY_REGION, &slot) < 0)
		return unusable("probe: KVM_SET_USER_MEMORY_REGION");
	vcpu = ioctl(vm, KVM_CREATE_VCPU, 0);
	if (vcpu < 0)
		return unusable("probe: KVM_CREATE_VCPU");
	run_size = ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
	if (run_size < 0)
		return unusable("probe: KVM_GET_VCPU_MMAP_SIZE");
	run = mmap(NULL, (size_t)run_size, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu, 0);
	if (run == MAP_FAILED)
		return unusable("probe: vCPU mapping");
	if (set_registers(vcpu) < 0)
		return unusable("probe: registers");

	signal(SIGALRM, on_alarm);
	setitimer(ITIMER_REAL, &limit, NULL);
	begin = now();
	if (ioctl(vcpu, KVM_RUN, 0) == 0 && run->exit_reason != KVM_EXIT_HLT) {
		fprintf(stderr, "probe: unexpected exit %u\n", run->exit_reason);
		return 2;
	}
	if (ioctl(vcpu, KVM_GET_REGS, &regs) < 0)
		return unusable("probe: KVM_GET_REGS");
	mips = 2.0 * (LOOPS - (uint32_t)regs.rcx) / (now() - begin) / 1e6;
	printf("%.1f\n", mips);
	return mips >= NATIVE_MIPS ? 0 : 1;
}
