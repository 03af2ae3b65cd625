/*
 * filter: the table; see filter.h.
 *
 * Requests of ioctl(2) are compared in 32 bits, which is what the kernel looks at: high bits can
 * neither let something through nor make a good request die.
 *
 * Of several calls that do the same a running machine has one: see ../vmm/io.h. It cannot abort()
 * either (raise() asks for numbers): a failed assertion has said why, and ends as a forbidden call.
 */
#include "filter.h"
#include "../vmm/pagemap.h"

#include <asm/unistd.h>
#include <linux/fs.h>
#include <linux/if_tun.h>
#include <linux/kvm.h>
#include <linux/userfaultfd.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>

/* Linux 6.1 */
#ifndef USERFAULTFD_IOC_NEW
#define USERFAULTFD_IOC_NEW _IO(0xAA, 0x00)
#endif

#define LOW32 0xffffffffull

#define CR  (FILTER_C | FILTER_R)
#define ALL (FILTER_C | FILTER_R | FILTER_V)

#define CALL(name, profiles_, reason_)                                                             \
	{                                                                                          \
		.nr = __NR_##name, .profiles = (profiles_), .reason = (reason_)                    \
	}
#define WHERE(name, profiles_, index_, mask_, value_, reason_)                                     \
	{                                                                                          \
		.nr = __NR_##name, .profiles = (profiles_),                                        \
		.arg = { { (index_), (mask_), (u64)(value_) } }, .reason = (reason_)               \
	}
#define IOCTL(request, profiles_, reason_) WHERE(ioctl, profiles_, 1, LOW32, request, reason_)

/* As glibc makes a thread: no other namespaces, no other process. */
#define THREAD_FLAGS                                                                               \
	(CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM |        \
	 CLONE_SETTLS | CLONE_PARENT_SETTID | CLONE_CHILD_CLEARTID)

const struct filter_row filter_rows[] = {
	/* ---- every thread ---- */
	CALL(futex, ALL, "locks and conditions"),
	CALL(rt_sigreturn, ALL, "the end of a signal handler: a vCPU's kick"),
	CALL(write, ALL, "eventfds; console, log; the last words of a fault"),
	CALL(io_uring_enter, ALL, "disks; a vCPU waits for one that it resets"),
	CALL(exit, ALL, "the end of a thread"),
	CALL(exit_group, ALL, "the end of the process, also from a fault"),
	WHERE(madvise, ALL, 2, LOW32, MADV_DONTNEED, "a thread's stack at its end; balloon"),
	CALL(rt_sigprocmask, ALL, "threads begin and end with signals blocked"),

	/* ---- vCPUs ---- */
	IOCTL(KVM_RUN, FILTER_C | FILTER_V, "what a vCPU does"),

	/* ---- the loop ---- */
	CALL(epoll_wait, CR, "the loop"),
	CALL(epoll_ctl, CR, "what the loop watches"),
	CALL(read, CR, "eventfds, timers, signals, console, files being loaded"),
	CALL(preadv2, CR, "disks without io_uring, cached pages; frames from a tap; page maps"),
	CALL(pwritev2, CR, "disks without io_uring; frames to a tap; snapshots being written"),
	CALL(fsync, CR, "a disk's flush without io_uring; snapshots, their directory"),
	CALL(fallocate, CR, "discards without io_uring; memory given back"),
	CALL(lseek, CR, "the size of a disk; holes of a memory file"),
	CALL(close, CR, "whatever was opened"),
	CALL(openat, CR, "drives that are exchanged, snapshots"),
	CALL(newfstatat, CR, "what was opened"),
	WHERE(fcntl, CR, 1, LOW32, 4 /* F_SETFL */, "drives are not left non-blocking"),
	WHERE(fcntl, CR, 1, LOW32, 1030 /* F_DUPFD_CLOEXEC */, "a descriptor in reserve"),
	WHERE(fcntl, CR, 1, LOW32, 3 /* F_GETFL */, "whether the console blocks"),
	WHERE(fcntl, CR, 1, LOW32, 1033 /* F_ADD_SEALS */, "frozen memory never changes again"),
	WHERE(fcntl, CR, 1, LOW32, 1034 /* F_GET_SEALS */, "nor does a template's"),
	WHERE(mmap, CR, 2, PROT_EXEC, 0, "memory; never executable"),
	CALL(munmap, CR, "the same, back"),
	WHERE(mprotect, CR, 2, PROT_EXEC, 0, "guard pages of stacks; never executable"),
	CALL(mremap, FILTER_C, "growing allocations"),
	CALL(brk, CR, "allocations"),
	CALL(madvise, CR, "kinds of pages; memory given back"),
	CALL(accept4, CR, "clients of the API, connections to the vsock device"),
	CALL(recvmsg, CR, "requests; vsock; templates"),
	CALL(sendmsg, CR, "answers; vsock; templates; log lines"),
	CALL(shutdown, CR, "half-closed vsock streams"),
	WHERE(socket, CR, 0, LOW32, AF_UNIX, "vsock connections to the host's sockets"),
	CALL(connect, CR, "the same; only of AF_UNIX sockets, there being no others"),
	CALL(timerfd_settime, CR, "timers"),
	CALL(getrandom, CR, "entropy, generation ids"),
	CALL(clock_gettime, CR, "clocks that the vDSO does not have: processor time"),
	CALL(tgkill, CR, "kicks of vCPUs; the signal that ends us"),
	CALL(unlink, CR, "sockets of ours at the end, unfinished snapshots"),
	CALL(rename, CR, "a snapshot appears when it is whole"),
	CALL(link, CR, "and the one before keeps a name until then"),
	CALL(memfd_create, CR, "memory that clones share"),
	CALL(ftruncate, CR, "the same; memory files"),

	IOCTL(KVM_SET_GSI_ROUTING, ALL, "the guest programs its interrupt lines"),
	IOCTL(KVM_SET_USER_MEMORY_REGION, CR, "memory, and its move when it is frozen"),
	IOCTL(TUNSETOFFLOAD, CR, "what a network driver took"),
	IOCTL(TUNSETQUEUE, CR, "queues that it uses"),
	IOCTL(BLKDISCARD, CR, "whether a device that is exchanged can discard (it is not asked to)"),
	IOCTL(TCGETS, CR, "the terminal that stdin may be"),
	IOCTL(TIOCGPGRP, FILTER_C, "whether it is ours"),
	CALL(getpgrp, FILTER_C, "the same"),
	IOCTL(TCSETS, CR, "the same, given back"),
	IOCTL(TCSETSW, CR, "the same"),
	IOCTL(TCSETSF, CR, "the same"),
	IOCTL(KVM_CHECK_EXTENSION, CR, "making a machine; how large a snapshot's processors are"),
	IOCTL(KVM_GET_MP_STATE, CR, "a snapshot's processors"),
	IOCTL(KVM_GET_REGS, CR, "the same"),
	IOCTL(KVM_GET_SREGS, CR, "the same"),
	IOCTL(KVM_GET_XSAVE, CR, "the same"),
	IOCTL(0x9000aecf /* KVM_GET_XSAVE2 */, CR, "the same"),
	IOCTL(KVM_GET_XCRS, CR, "the same"),
	IOCTL(KVM_GET_DEBUGREGS, CR, "the same"),
	IOCTL(KVM_GET_LAPIC, CR, "the same"),
	IOCTL(KVM_GET_MSRS, CR, "the same"),
	IOCTL(KVM_GET_VCPU_EVENTS, CR, "the same"),
	IOCTL(KVM_GET_TSC_KHZ, CR, "the same"),
	IOCTL(KVM_GET_CLOCK, CR, "a snapshot's clock"),
	IOCTL(KVM_KVMCLOCK_CTRL, CR, "guests that were paused do not complain of it"),

	/* ---- only until the start ---- */
	CALL(seccomp, FILTER_C, "the next filter"),
	WHERE(prctl, FILTER_C, 0, LOW32, PR_SET_NAME, "names of threads"),
	WHERE(prctl, FILTER_C, 0, LOW32, PR_SET_NO_NEW_PRIVS, "asked for by every filter"),
	WHERE(clone, CR, 0, ~0ull, THREAD_FLAGS, "vCPU threads; who writes a live snapshot"),
	CALL(set_robust_list, CR, "threads"),
	CALL(rseq, CR, "threads"),
	CALL(sched_getaffinity, FILTER_C, "threads"),
	CALL(rt_sigaction, FILTER_C, "the first thread, in the library"),
	CALL(getpid, FILTER_C, "who is to get our signals"),
	CALL(gettid, FILTER_C, "which thread is a vCPU's"),
	CALL(pread64, FILTER_C, "kernels being loaded"),
	CALL(poll, FILTER_C, "an answer from another process: a template, a page fault handler"),
	CALL(eventfd2, FILTER_C, "kicks and interrupts"),
	CALL(timerfd_create, FILTER_C, "timers"),
	CALL(epoll_create1, FILTER_C, "a ring's or loop's own"),
	CALL(io_uring_setup, FILTER_C, "disks"),
	CALL(io_uring_register, FILTER_C, "disks"),
	CALL(bind, CR, "the vsock device's sockets; a template's"),
	CALL(listen, CR, "the same"),
	CALL(userfaultfd, FILTER_C, "memory whose pages another process has"),
	CALL(pidfd_open, FILTER_C, "whether that process has ended"),
	CALL(getsockopt, FILTER_C, "which one it is"),
	IOCTL(USERFAULTFD_IOC_NEW, FILTER_C, "the same memory, from the device"),
	IOCTL(UFFDIO_API, FILTER_C, "the same"),
	IOCTL(UFFDIO_REGISTER, FILTER_C, "the same"),
	CALL(sysinfo, FILTER_C, "whether a machine fits the host"),
	CALL(prlimit64, FILTER_C, "stacks of threads"),
	CALL(restart_syscall, FILTER_C, "a wait that was interrupted by a stop"),
	IOCTL(TUNSETIFF, FILTER_C, "taps"),
	IOCTL(TUNSETVNETHDRSZ, FILTER_C, "taps"),
	IOCTL(KVM_GET_API_VERSION, FILTER_C, "making a machine"),
	IOCTL(KVM_GET_VCPU_MMAP_SIZE, FILTER_C, "the same"),
	IOCTL(KVM_GET_SUPPORTED_CPUID, FILTER_C, "the same"),
	IOCTL(KVM_GET_MSR_INDEX_LIST, FILTER_C, "the same"),
	IOCTL(KVM_CREATE_VM, FILTER_C, "the same"),
	IOCTL(KVM_CREATE_VCPU, FILTER_C, "the same"),
	IOCTL(KVM_ENABLE_CAP, FILTER_C, "the same"),
	IOCTL(KVM_SET_TSS_ADDR, FILTER_C, "the same"),
	IOCTL(KVM_SET_IDENTITY_MAP_ADDR, FILTER_C, "the same"),
	IOCTL(KVM_IRQFD, FILTER_C, "the same"),
	IOCTL(KVM_IOEVENTFD, FILTER_C, "the same"),
	IOCTL(KVM_SET_CPUID2, FILTER_C, "the same"),
	IOCTL(KVM_SET_MSRS, FILTER_C, "the same"),
	IOCTL(KVM_SET_REGS, FILTER_C, "the same"),
	IOCTL(KVM_SET_SREGS, FILTER_C, "the same"),
	IOCTL(PAGEMAP_SCAN, CR, "which pages a machine has written, for a diff or a live snapshot"),
	IOCTL(KVM_SET_MP_STATE, FILTER_C, "a machine out of a snapshot"),
	IOCTL(KVM_SET_XSAVE, FILTER_C, "the same"),
	IOCTL(KVM_SET_XCRS, FILTER_C, "the same"),
	IOCTL(KVM_SET_DEBUGREGS, FILTER_C, "the same"),
	IOCTL(KVM_SET_LAPIC, FILTER_C, "the same"),
	IOCTL(KVM_SET_VCPU_EVENTS, FILTER_C, "the same"),
	IOCTL(KVM_SET_TSC_KHZ, FILTER_C, "the same"),
	IOCTL(KVM_SET_CLOCK, FILTER_C, "the same"),
	{ .nr = -1 },
};

const char *filter_name(enum filter_profile profile)
{
	static const char *const name[] = { "configure", "run", "vcpu" };

	static_assert(ARRAY_SIZE(name) == FILTER_PROFILES, "a name for each");
	return name[profile];
}

static bool holds(const struct filter_row *row, const u64 args[6])
{
	for (unsigned i = 0; i < FILTER_ARGS_MAX; i++)
		if (row->arg[i].mask &&
		    (args[row->arg[i].index] & row->arg[i].mask) != row->arg[i].value)
			return false;
	return true;
}

bool filter_allows(enum filter_profile profile, int nr, const u64 args[6])
{
	for (const struct filter_row *row = filter_rows; row->nr >= 0; row++)
		if (row->nr == nr && row->profiles >> profile & 1 && holds(row, args))
			return true;
	return false;
}
