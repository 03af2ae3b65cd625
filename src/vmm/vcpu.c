/*
 * vcpu: see vcpu.h.
 *
 * The life of a thread: wait for an order; KVM_RUN; dispatch the exit; KVM_RUN; ... KVM completes an
 * exit (the result of a read, the step past the instruction) only on the next KVM_RUN. So an order is
 * not looked at between an exit and that call: parking sets `immediate_exit`, which makes KVM_RUN
 * finish the exit and come back with EINTR, and only there does the thread look. A kick that arrives
 * before KVM_RUN is entered is not lost either: the flag is still set when it is.
 *
 * Invariant: order, n_parked and immediate_exit change under the machine lock only (KVM reads the
 * flag without it). A parked thread has no exit half done.
 */
#include "vcpu.h"
#include "cpuid.h"
#include "kvm.h"
#include "log.h"
#include "../jail/seccomp.h"

#include <signal.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>

#define MSR_IA32_MISC_ENABLE	0x1a0
#define MISC_ENABLE_FAST_STRING 1
#define MSR_MTRR_DEF_TYPE	0x2ff
#define MTRR_ENABLED_WRITE_BACK 0x806

/* The guest's depth of KVM_RUN handlers is small and known; the rest of 8 MiB would be waste. */
#define STACK_SIZE KIB(128)

/* Returns when the order is to run; false: to quit. With the machine lock held. */
static bool wait_for_order(struct vcpu *vcpu)
{
	struct vcpus *all = vcpu->all;

	all->n_parked++;
	pthread_cond_signal(&all->parked);
	while (all->order == VCPUS_PARK)
		loop_wait(all->loop, &all->ordered);
	all->n_parked--;
	vcpu->run->immediate_exit = 0;
	return all->order == VCPUS_RUN;
}

/* A processor that cannot go on: tells why, and waits for the end. */
static void stop(struct vcpu *vcpu, enum vcpu_stop why, const char *detail)
{
	struct vcpus *all = vcpu->all;

	loop_lock(all->loop);
	all->stopped(all->owner, vcpu->id, why, detail);
	all->n_parked++;
	pthread_cond_signal(&all->parked);
	while (all->order != VCPUS_QUIT)
		loop_wait(all->loop, &all->ordered);
	loop_unlock(all->loop);
}

static void dispatch(struct vcpu *vcpu, const struct bus *bus, u64 addr, void *data, unsigned len,
		     bool is_write)
{
	const struct bus_entry *e = bus_find(bus, addr, len);

	if (!is_write)
		memset(data, 0xff, len);
	if (!e)
		return;
	if (!e->lockless)
		loop_lock(vcpu->all->loop);
	if (is_write)
		e->write(e->owner, addr - e->base, data, len);
	else
		e->read(e->owner, addr - e->base, data, len);
	if (!e->lockless)
		loop_unlock(vcpu->all->loop);
}

static void do_port(struct vcpu *vcpu)
{
	struct kvm_run *run = vcpu->run;
	u8 *data = (u8 *)run + run->io.data_offset;

	for (u32 i = 0; i < run->io.count; i++, data += run->io.size)
		dispatch(vcpu, vcpu->all->port, run->io.port, data, run->io.size,
			 run->io.direction == KVM_EXIT_IO_OUT);
}

/* One exit; false if the processor cannot be entered again. */
static bool do_exit(struct vcpu *vcpu)
{
	struct kvm_run *run = vcpu->run;
	char detail[96] = "";

	switch (run->exit_reason) {
	case KVM_EXIT_IO:
		do_port(vcpu);
		return true;
	case KVM_EXIT_MMIO:
		dispatch(vcpu, vcpu->all->mmio, run->mmio.phys_addr, run->mmio.data, run->mmio.len,
			 run->mmio.is_write);
		return true;
	case KVM_EXIT_INTR:
	case KVM_EXIT_IRQ_WINDOW_OPEN:
	case KVM_EXIT_IOAPIC_EOI: /* edges need no end of interrupt */
		return true;
	case KVM_EXIT_SHUTDOWN:
		stop(vcpu, VCPU_SHUTDOWN, "");
		return false;
	case KVM_EXIT_FAIL_ENTRY:
		snprintf(detail, sizeof detail, "hardware reason 0x%llx",
			 run->fail_entry.hardware_entry_failure_reason);
		stop(vcpu, VCPU_FAIL_ENTRY, detail);
		return false;
	case KVM_EXIT_INTERNAL_ERROR:
		snprintf(detail, sizeof detail, "suberror %u", run->internal.suberror);
		stop(vcpu, VCPU_INTERNAL_ERROR, detail);
		return false;
	default:
		snprintf(detail, sizeof detail, "unexpected exit reason %u", run->exit_reason);
		stop(vcpu, VCPU_INTERNAL_ERROR, detail);
		return false;
	}
}

static bool run_once(struct vcpu *vcpu)
{
	char detail[96];
	bool go_on;

	if (ioctl(vcpu->fd, KVM_RUN, 0) == 0)
		return do_exit(vcpu);
	if (errno == EINTR || errno == EAGAIN) {
		if (!READ_ONCE(vcpu->run->immediate_exit))
			return true;
		loop_lock(vcpu->all->loop);
		go_on = wait_for_order(vcpu);
		loop_unlock(vcpu->all->loop);
		return go_on;
	}
	snprintf(detail, sizeof detail, "KVM_RUN: " OS_ERR, OS_ERR_ARGS(errno));
	stop(vcpu, VCPU_HOST_ERROR, detail);
	return false;
}

static void *thread_main(void *arg)
{
	struct vcpu *vcpu = arg;
	struct err err;
	pid_t tid = gettid(); /* its filter does not know the call */
	char name[16];
	bool filtered, go_on;

	snprintf(name, sizeof name, "fc_vcpu %u", vcpu->id);
	prctl(PR_SET_NAME, name);
	log_thread(name); /* asked of the kernel later, it would be a call that no filter allows */
	filtered = seccomp_install(FILTER_VCPU, &err) == 0;
	loop_lock(vcpu->all->loop);
	vcpu->tid = tid;
	go_on = wait_for_order(vcpu);
	loop_unlock(vcpu->all->loop);
	if (go_on && !filtered) { /* only now is there somebody to tell, if it was made ahead */
		stop(vcpu, VCPU_HOST_ERROR, "no system call filter");
		return NULL;
	}
	while (go_on)
		go_on = run_once(vcpu);
	return NULL;
}

static int start_thread(struct vcpu *vcpu, struct err *err)
{
	sigset_t all, old;
	pthread_attr_t attr;
	int r;

	/* Born with every signal but the kick blocked: the others are the loop's to handle. */
	sigfillset(&all);
	sigdelset(&all, VCPU_KICK_SIGNAL);
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, STACK_SIZE);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	r = pthread_create(&vcpu->thread, &attr, thread_main, vcpu);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	pthread_attr_destroy(&attr);
	if (r)
		return fail(err, -r, "cannot start the thread of vCPU %u: " OS_ERR, vcpu->id,
			    OS_ERR_ARGS(r));
	vcpu->started = true;
	return 0;
}

static int set_msrs(const struct vcpu *vcpu, struct err *err)
{
	struct {
		struct kvm_msrs head;
		struct kvm_msr_entry entry[2];
	} msrs = {
		.head.nmsrs = 2,
		.entry = { { .index = MSR_IA32_MISC_ENABLE, .data = MISC_ENABLE_FAST_STRING },
			   { .index = MSR_MTRR_DEF_TYPE, .data = MTRR_ENABLED_WRITE_BACK } },
	};

	if (ioctl(vcpu->fd, KVM_SET_MSRS, &msrs) != (int)ARRAY_SIZE(msrs.entry))
		return fail(err, -EIO, "KVM_SET_MSRS of vCPU %u: " OS_ERR, vcpu->id,
			    OS_ERR_ARGS(errno));
	return 0;
}

static int tell_cpuid(const struct vcpu *vcpu, struct cpuid *cpuid, struct err *err)
{
	cpuid_set_id(cpuid, vcpu->id);
	if (ioctl(vcpu->fd, KVM_SET_CPUID2, cpuid) < 0)
		return fail(err, -errno, "KVM_SET_CPUID2 of vCPU %u: " OS_ERR, vcpu->id,
			    OS_ERR_ARGS(errno));
	return 0;
}

static int create_one(struct vcpus *all, unsigned id, struct kvm *kvm, struct cpuid *cpuid,
		      struct err *err)
{
	int r;
	struct vcpu *vcpu = &all->vcpu[id];
	void *run;

	*vcpu = (struct vcpu){ .all = all, .id = id };
	vcpu->fd = kvm_take_vcpu(kvm, id, err);
	all->n = id + 1; /* destroy sees it from here on */
	if (vcpu->fd < 0)
		return vcpu->fd;
	run = mmap(NULL, kvm->run_size, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu->fd, 0);
	if (run == MAP_FAILED)
		return fail(err, -errno, "mapping vCPU %u: " OS_ERR, id, OS_ERR_ARGS(errno));
	vcpu->run = run;
	r = tell_cpuid(vcpu, cpuid, err);
	return r ? r : set_msrs(vcpu, err);
}

static void init(struct vcpus *all, struct loop *loop, const struct kvm *kvm)
{
	int size = ioctl(kvm->vm_fd, KVM_CHECK_EXTENSION, KVM_CAP_XSAVE2);

	all->loop = loop;
	all->pid = getpid();
	all->order = VCPUS_PARK;
	all->run_size = kvm->run_size;
	all->xsave_size = (u32)MAX(size, (int)sizeof(struct kvm_xsave));
	pthread_cond_init(&all->ordered, NULL);
	pthread_cond_init(&all->parked, NULL);
}

int vcpus_prepare(struct vcpus *all, struct loop *loop, struct kvm *kvm, struct cpuid *cpuid,
		  struct err *err)
{
	int r;

	init(all, loop, kvm);
	all->told = cpuid;
	r = create_one(all, 0, kvm, cpuid, err);
	return r ? r : start_thread(&all->vcpu[0], err);
}

static bool same(const struct cpuid *a, const struct cpuid *b)
{
	return a->nent == b->nent && memcmp(a->entry, b->entry, a->nent * sizeof a->entry[0]) == 0;
}

int vcpus_create(struct vcpus *all, struct loop *loop, unsigned n, struct kvm *kvm,
		 struct cpuid *cpuid, struct err *err)
{
	unsigned made = all->n;
	int r = 0;

	assert(n && n <= VCPUS_MAX);
	if (!made)
		init(all, loop, kvm);
	cpuid_set_id(cpuid, 0);
	if (made && !same(all->told, cpuid))
		r = tell_cpuid(&all->vcpu[0], cpuid, err);
	for (unsigned id = made; id < n && !r; id++)
		r = create_one(all, id, kvm, cpuid, err);
	for (unsigned id = made; id < n && !r; id++)
		r = start_thread(&all->vcpu[id], err);
	return r;
}

static unsigned count_started(const struct vcpus *all)
{
	unsigned n = 0;

	for (unsigned i = 0; i < all->n; i++)
		n += all->vcpu[i].started;
	return n;
}

void vcpus_hold(struct vcpus *all)
{
	all->order = VCPUS_PARK;
	for (unsigned i = 0; i < all->n; i++)
		if (all->vcpu[i].started)
			WRITE_ONCE(all->vcpu[i].run->immediate_exit, 1);
}

void vcpus_run(struct vcpus *all)
{
	all->order = VCPUS_RUN;
	pthread_cond_broadcast(&all->ordered);
}

/*
 * Every kick is sent before the first answer is waited for. By number and not by pthread_kill(),
 * which asks the kernel for the process each time.
 */
void vcpus_park(struct vcpus *all)
{
	unsigned started = count_started(all);

	vcpus_hold(all);
	for (unsigned i = 0; i < all->n; i++)
		if (all->vcpu[i].tid)
			tgkill(all->pid, all->vcpu[i].tid, VCPU_KICK_SIGNAL);
	while (all->n_parked < started)
		loop_wait(all->loop, &all->parked);
}

void vcpus_destroy(struct vcpus *all)
{
	bool any = count_started(all) > 0;

	if (any) {
		vcpus_park(all);
		all->order = VCPUS_QUIT;
		pthread_cond_broadcast(&all->ordered);
		loop_unlock(all->loop); /* the threads need it to leave */
	}
	for (unsigned i = 0; i < all->n; i++)
		if (all->vcpu[i].started)
			pthread_join(all->vcpu[i].thread, NULL);
	if (any)
		loop_lock(all->loop);
	for (unsigned i = 0; i < all->n; i++) {
		struct vcpu *vcpu = &all->vcpu[i];

		if (vcpu->run)
			munmap(vcpu->run, all->run_size);
		if (vcpu->fd >= 0)
			close(vcpu->fd);
	}
	all->n = 0;
}

int vcpu_get(const struct vcpu *vcpu, struct vcpu_state *state, struct err *err)
{
	if (ioctl(vcpu->fd, KVM_GET_REGS, &state->regs) < 0 ||
	    ioctl(vcpu->fd, KVM_GET_SREGS, &state->sregs) < 0)
		return fail(err, -errno, "reading the state of vCPU %u: " OS_ERR, vcpu->id,
			    OS_ERR_ARGS(errno));
	return 0;
}

int vcpu_set(const struct vcpu *vcpu, const struct vcpu_state *state, struct err *err)
{
	if (ioctl(vcpu->fd, KVM_SET_SREGS, &state->sregs) < 0 ||
	    ioctl(vcpu->fd, KVM_SET_REGS, &state->regs) < 0)
		return fail(err, -errno, "setting the state of vCPU %u: " OS_ERR, vcpu->id,
			    OS_ERR_ARGS(errno));
	return 0;
}
