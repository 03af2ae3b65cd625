/*
 * vm: see vm.h.
 *
 * The order in vm_create() is the start-up time: memory before interrupt controller, interrupt
 * controller before processors, eventfds last (docs/performance.md). Each step records what it made,
 * so that vm_destroy() can undo any prefix of the list.
 */
#include "vm_parts.h"

#include "identity.h"
#include "log.h"
#include "state.h"
#include "vcpu_state.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <time.h>

static const u32 line_gsi[] = { LAYOUT_GSI_KEYBOARD, LAYOUT_GSI_SERIAL, LAYOUT_GSI_IDENTITY };
static_assert(ARRAY_SIZE(line_gsi) == LINES, "every line has a number");

/* ---- how a guest ends --------------------------------------------------------------------------- */

static const struct {
	int exit_code;
	const char *text;
} ends[] = {
	[VM_END_NONE] = { 0, "the guest runs" },
	[VM_END_POWEROFF] = { 0, "the guest powered off (ACPI S5)" },
	[VM_END_ACPI_RESET] = { 0, "the guest reset itself (ACPI reset register)" },
	[VM_END_I8042_RESET] = { 0, "the guest reset itself (keyboard controller)" },
	[VM_END_TRIPLE_FAULT] = { 1, "the guest triple-faulted" },
	[VM_END_INTERNAL_ERROR] = { 1, "KVM could not go on with the guest" },
	[VM_END_FAIL_ENTRY] = { 1, "the processor refused the guest's state" },
	[VM_END_HOST_ERROR] = { 1, "the host failed to run the guest" },
	[VM_END_PAGES_LOST] = { 1, "the page fault handler that has the guest's memory is gone" },
	/* The code of SIGBUS, which is what comes if the monitor touches the memory first. */
	[VM_END_CUT_SHORT] = { 149, "the memory file was cut short under the guest" },
};
static_assert(ARRAY_SIZE(ends) == VM_ENDS, "every end has a text and a code");

int vm_end_exit_code(enum vm_end end)
{
	return ends[end].exit_code;
}

const char *vm_end_name(enum vm_end end)
{
	return ends[end].text;
}

/* Any thread, under the machine lock. The first reason is the reason. */
static void end(struct vm *vm, enum vm_end why, const char *detail)
{
	if (vm->end != VM_END_NONE)
		return;
	vm->end = why;
	snprintf(vm->end_detail, sizeof vm->end_detail, "%s", detail);
	vcpus_hold(vm->vcpus);
	loop_call(vm->loop, &vm->end_work);
}

static void report_end(void *owner)
{
	struct vm *vm = owner;

	/* A vCPU that waits for a page is let go; told to stop, it does not enter the guest again. */
	if (vm->end == VM_END_PAGES_LOST)
		uffd_destroy(&vm->uffd);
	vcpus_park(vm->vcpus);
	vm->paused = true;
	if (ends[vm->end].exit_code && mem_is_cut_short(&vm->mem))
		vm->end = VM_END_CUT_SHORT;
	vm->callbacks.ended(vm->callbacks.owner, vm->end, vm->end_detail);
}

static void on_pages_lost(void *owner)
{
	end(owner, VM_END_PAGES_LOST, "");
}

static void on_power_off(void *owner)
{
	end(owner, VM_END_POWEROFF, "");
}

static void on_acpi_reset(void *owner)
{
	end(owner, VM_END_ACPI_RESET, "");
}

static void on_i8042_reset(void *owner)
{
	end(owner, VM_END_I8042_RESET, "");
}

static void on_stopped(void *owner, unsigned id, enum vcpu_stop why, const char *detail)
{
	static const enum vm_end end_of[] = {
		[VCPU_SHUTDOWN] = VM_END_TRIPLE_FAULT,
		[VCPU_INTERNAL_ERROR] = VM_END_INTERNAL_ERROR,
		[VCPU_FAIL_ENTRY] = VM_END_FAIL_ENTRY,
		[VCPU_HOST_ERROR] = VM_END_HOST_ERROR,
	};
	char text[128];

	snprintf(text, sizeof text, "vCPU %u%s%s", id, detail[0] ? ": " : "", detail);
	end(owner, end_of[why], text);
}

/* ---- the boot timer ------------------------------------------------------------------------------ */

static void on_booted(void *owner)
{
	struct vm *vm = owner;

	loop_call(vm->loop, &vm->booted_work);
}

static void report_booted(void *owner)
{
	struct vm *vm = owner;
	u64 wall_us = (loop_now_ns() - vm->started_ns) / 1000, cpu_us;
	struct timespec ts;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);
	cpu_us = (u64)ts.tv_sec * 1000000 + (u64)ts.tv_nsec / 1000;
	log_info("Guest-boot-time = %6llu us %llu ms, %6llu CPU us %llu CPU ms",
		 (unsigned long long)wall_us, (unsigned long long)wall_us / 1000,
		 (unsigned long long)cpu_us, (unsigned long long)cpu_us / 1000);
}

/* ---- the shell ----------------------------------------------------------------------------------- */

int vm_shell_create(struct vm_shell **out, struct err *err)
{
	struct vm_shell *shell = calloc(1, sizeof *shell);
	int r;

	*out = NULL;
	if (!shell)
		return fail(err, -ENOMEM, "no memory for another machine");
	r = kvm_open(&shell->kvm, err);
	if (!r)
		r = cpuid_init(&shell->cpuid, &shell->kvm, err);
	if (r < 0) {
		vm_shell_destroy(shell);
		return r;
	}
	*out = shell;
	return 0;
}

static int fit_cpuid(const struct vm_shell *shell, struct cpuid *cpuid, unsigned n, bool smt,
		     struct err *err)
{
	int khz = ioctl(shell->kvm.vm_fd, KVM_GET_TSC_KHZ, 0);

	return cpuid_fit(cpuid, n, smt, khz > 0 ? (u32)khz : 0, err);
}

int vm_shell_prepare(struct vm_shell *shell, struct loop *loop, struct err *err)
{
	int r;

	shell->first = shell->cpuid;
	r = fit_cpuid(shell, &shell->first, 1, false, err);
	return r ? r : vcpus_prepare(&shell->vcpus, loop, &shell->kvm, &shell->first, err);
}

void vm_shell_destroy(struct vm_shell *shell)
{
	if (!shell)
		return;
	vcpus_destroy(&shell->vcpus);
	kvm_close(&shell->kvm);
	free(shell);
}

/* ---- interrupt lines ----------------------------------------------------------------------------- */

static void on_routed(void *owner, const struct kvm_route *routes, unsigned n)
{
	struct vm *vm = owner;
	int r = kvm_set_routes(&vm->shell->kvm, routes, n);

	if (r < 0)
		end(vm, VM_END_HOST_ERROR, "KVM_SET_GSI_ROUTING failed");
}

static void ring(int fd)
{
	const u64 one = 1;

	if (write(fd, &one, sizeof one) < 0)
		assert(errno == EAGAIN);
}

/* An edge on a masked line was dropped. One too many does no harm, one too few hangs a driver. */
static void on_unmasked(void *owner, unsigned pin)
{
	struct vm *vm = owner;

	for (unsigned i = 0; i < LINES; i++)
		if (line_gsi[i] == pin && i != LINE_IDENTITY)
			ring(vm->line_fd[i]);
	if (pin >= LAYOUT_GSI_VIRTIO && pin - LAYOUT_GSI_VIRTIO < vm->n_devices) {
		struct device *dev = vm->device[pin - LAYOUT_GSI_VIRTIO];

		if (atomic_load(&dev->isr))
			ring(dev->irq_fd);
	}
}

static int create_lines(struct vm *vm, struct err *err)
{
	for (unsigned i = 0; i < LINES; i++) {
		vm->line_fd[i] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
		if (vm->line_fd[i] < 0)
			return fail(err, -errno, "cannot make an eventfd: " OS_ERR,
				    OS_ERR_ARGS(errno));
	}
	return 0;
}

/* ---- building ------------------------------------------------------------------------------------ */

static int create_platform(struct vm *vm, struct err *err)
{
	const struct config *cfg = vm->cfg;
	int r;

	vm->ioapic.routed = on_routed;
	vm->ioapic.unmasked = on_unmasked;
	vm->i8042.reset = on_i8042_reset;
	vm->platform = (struct platform){ .power_off = on_power_off,
					  .reset = on_acpi_reset,
					  .booted = on_booted,
					  .owner = vm };
	vm->ioapic.owner = vm->i8042.owner = vm;

	r = create_lines(vm, err);
	if (!r)
		r = console_open(&vm->console, cfg->serial.out_path, err);
	if (!r)
		r = serial_init(&vm->serial, vm->loop, &vm->port, vm->line_fd[LINE_SERIAL],
				vm->console.in_fd, vm->console.out_fd, err);
	if (!r)
		serial_limit(&vm->serial, &cfg->serial.limit);
	if (!r)
		r = i8042_init(&vm->i8042, &vm->port, vm->line_fd[LINE_KEYBOARD], err);
	if (!r)
		r = platform_init(&vm->platform, &vm->port, &vm->mmio, cfg->boot_timer, err);
	return r;
}

static int create_vcpus(struct vm *vm, const struct vm_source *source, struct err *err)
{
	const struct machine_config *m = &vm->cfg->machine;
	struct vm_shell *shell = vm->shell;
	int r = fit_cpuid(shell, &shell->cpuid, m->vcpu_count, m->smt, err);

	if (!r && source)
		r = state_fit_cpuid(source->state, &shell->cpuid, err);
	if (r)
		return r;
	vm->vcpus->mmio = &vm->mmio;
	vm->vcpus->port = &vm->port;
	vm->vcpus->stopped = on_stopped;
	vm->vcpus->owner = vm;
	return vcpus_create(vm->vcpus, vm->loop, m->vcpu_count, &shell->kvm, &shell->cpuid, err);
}

static int load_guest(struct vm *vm, struct err *err)
{
	static const char *const entry_name[] = {
		[BOOT_ENTRY_PVH] = "PVH",
		[BOOT_ENTRY_64] = "64-bit entry",
		[BOOT_ENTRY_BZIMAGE] = "bzImage",
	};
	const struct config *cfg = vm->cfg;
	const struct blk_config *root = cfg->n_drives ? &cfg->drives[0].blk : NULL;
	const struct boot_machine machine = {
		.n_vcpus = cfg->machine.vcpu_count,
		.ioapic_pins = vm->ioapic.n_pins,
		.root_drive = root && root->is_root,
		.root_read_only = root && root->read_only,
		.root_partuuid = root ? root->partuuid : NULL,
		.n_devices = vm->n_devices,
	};
	struct vcpu_state state;
	enum boot_entry entry;
	int r = vcpu_get(&vm->vcpus->vcpu[0], &state, err);

	if (!r)
		r = boot_load(&cfg->boot, &machine, &vm->mem, &state, &entry, err);
	if (!r)
		r = vcpu_set(&vm->vcpus->vcpu[0], &state, err);
	if (!r)
		r = identity_create(&vm->mem, err);
	if (r)
		return r;
	log_info("kernel %s entered by %s (%s)", cfg->boot.kernel_path,
		 entry == BOOT_ENTRY_BZIMAGE ? "64-bit entry" : entry_name[entry],
		 entry == BOOT_ENTRY_BZIMAGE ? "bzImage" : "vmlinux");
	return 0;
}

/* The guest is to find out that it is another one now, and nothing it waited for may be lost. */
static int take_over(struct vm *vm, const struct vm_source *source, struct err *err)
{
	int r = state_apply(vm, source, err);

	return r < 0 ? r : identity_renew(&vm->mem, err);
}

/* Last of all: any change of memory after this would wait for RCU. */
static int connect_eventfds(struct vm *vm, struct err *err)
{
	const struct kvm *kvm = &vm->shell->kvm;
	int r = 0;

	for (unsigned i = 0; i < LINES && !r; i++)
		r = kvm_add_irqfd(kvm, vm->line_fd[i], line_gsi[i], err);
	for (unsigned i = 0; i < vm->n_devices && !r; i++) {
		struct device *dev = vm->device[i];
		u64 notify = LAYOUT_VIRTIO + i * LAYOUT_VIRTIO_STEP + MMIO_QUEUE_NOTIFY;

		r = kvm_add_irqfd(kvm, dev->irq_fd, LAYOUT_GSI_VIRTIO + i, err);
		for (unsigned q = 0; q < dev->n_queues && !r; q++)
			r = kvm_add_ioeventfd(kvm, dev->kick[q].fd, notify, q, err);
	}
	return r;
}

static int create_memory(struct vm *vm, const struct vm_source *source, struct err *err)
{
	const struct machine_config *m = &vm->cfg->machine;

	enum mem_pages pages = m->pages_chosen ? m->huge_pages : MEM_PAGES_ANY;
	int r;

	if (source && source->handler) {
		/* Transparent huge pages would take more at a fault than the handler gives. */
		r = mem_create(&vm->mem, MIB(m->mem_mib), MEM_ANON,
			       pages == MEM_PAGES_2M ? pages : MEM_PAGES_4K, err);
		if (r < 0)
			return r;
		vm->mem.paged = true;
		r = uffd_serve(&vm->uffd, &vm->mem, source->handler, vm->loop, on_pages_lost, vm, err);
		return r < 0 ? fail_prefix(err, r,
					   "Failed to load guest memory: Error creating guest memory "
					   "from uffd: ") : 0;
	}
	if (source) {
		r = mem_open(&vm->mem, MIB(m->mem_mib), source->mem_fd, err);

		vm->mem.saved = !source->no_file;
		return r;
	}
	return mem_create(&vm->mem, MIB(m->mem_mib), m->shareable ? MEM_MEMFD : MEM_ANON, pages, err);
}

static int build(struct vm *vm, const struct vm_source *source, struct err *err)
{
	int r = create_memory(vm, source, err);

	if (!r && !vm->shell)
		r = vm_shell_create(&vm->shell, err);
	if (!r)
		vm->vcpus = &vm->shell->vcpus;
	if (!r)
		r = kvm_add_memory(&vm->shell->kvm, &vm->mem, err);
	if (!r)
		r = create_platform(vm, err);
	if (!r)
		r = vm_create_devices(vm, err);
	if (!r)
		r = ioapic_init(&vm->ioapic, LAYOUT_GSI_VIRTIO + vm->n_devices, &vm->mmio, err);
	if (r)
		return r;
	bus_seal(&vm->mmio);
	bus_seal(&vm->port);
	r = create_vcpus(vm, source, err);
	if (!r)
		r = source ? take_over(vm, source, err) : load_guest(vm, err);
	if (!r)
		r = connect_eventfds(vm, err);
	/* Edges that were on their way when the state was taken; one too many does no harm. */
	for (unsigned i = 0; i < LINES && !r && source; i++)
		ring(vm->line_fd[i]);
	return r;
}

static int create(struct vm **out, const struct config *cfg, struct vm_shell *shell,
		  struct loop *loop, const struct vm_callbacks *callbacks,
		  const struct vm_source *source, struct err *err)
{
	struct vm *vm = calloc(1, sizeof *vm);
	int r;

	*out = NULL;
	if (!vm) {
		vm_shell_destroy(shell);
		return fail(err, -ENOMEM, "no memory for another machine");
	}
	vm->cfg = cfg;
	vm->shell = shell;
	vm->loop = loop;
	vm->callbacks = *callbacks;
	vm->started_ns = loop_now_ns();
	vm->paused = true;
	vm->console = (struct console){ .in_fd = -1, .out_fd = -1 };
	vm->end_work = (struct loop_work){ .run = report_end, .owner = vm };
	vm_freeze_init(vm);
	uffd_init(&vm->uffd);
	vm->booted_work = (struct loop_work){ .run = report_booted, .owner = vm };
	for (unsigned i = 0; i < LINES; i++)
		vm->line_fd[i] = -1;

	r = build(vm, source, err);
	if (r < 0) {
		vm_destroy(vm);
		return r;
	}
	*out = vm;
	return 0;
}

int vm_create(struct vm **out, const struct config *cfg, struct vm_shell *shell, struct loop *loop,
	      const struct vm_callbacks *callbacks, struct err *err)
{
	return create(out, cfg, shell, loop, callbacks, NULL, err);
}

int vm_recv(struct vm **out, const struct config *cfg, struct vm_shell *shell, struct loop *loop,
	    const struct vm_callbacks *callbacks, const struct vm_source *source, struct err *err)
{
	return create(out, cfg, shell, loop, callbacks, source, err);
}

const struct mem *vm_mem(const struct vm *vm)
{
	return &vm->mem;
}

void vm_destroy(struct vm *vm)
{
	if (!vm)
		return;
	uffd_destroy(&vm->uffd); /* first: a vCPU may wait for a page */
	if (vm->vcpus)
		vcpus_destroy(vm->vcpus);
	loop_uncall(vm->loop, &vm->end_work);
	loop_uncall(vm->loop, &vm->booted_work);
	vm_destroy_devices(vm);
	serial_destroy(&vm->serial);
	console_close(&vm->console);
	vm_shell_destroy(vm->shell);
	for (unsigned i = 0; i < LINES; i++)
		if (vm->line_fd[i] >= 0)
			close(vm->line_fd[i]);
	vm_freeze_destroy(vm);
	mem_destroy(&vm->mem);
	free(vm);
}

/* ---- running ------------------------------------------------------------------------------------- */

bool vm_is_paused(const struct vm *vm)
{
	return vm->paused;
}

int vm_resume(struct vm *vm, struct err *err)
{
	if (vm->end != VM_END_NONE)
		return fail(err, -ESHUTDOWN, "%s", vm_end_name(vm->end));
	if (!vm->paused)
		return 0;
	for (unsigned i = 0; i < vm->n_devices; i++)
		device_resume(vm->device[i]);
	for (unsigned i = 0; i < vm->vcpus->n; i++)
		vcpu_was_stopped(&vm->vcpus->vcpu[i]);
	serial_resume(&vm->serial);
	vm->paused = false;
	vcpus_run(vm->vcpus);
	return 0;
}

int vm_pause(struct vm *vm, struct err *err)
{
	(void)err;
	if (vm->paused)
		return 0;
	vcpus_park(vm->vcpus);
	for (unsigned i = 0; i < vm->n_devices; i++)
		device_pause(vm->device[i]);
	serial_pause(&vm->serial);
	vm->paused = true;
	return 0;
}

int vm_ctrl_alt_del(struct vm *vm, struct err *err)
{
	if (i8042_ctrl_alt_del(&vm->i8042) < 0)
		return fail(err, -ENOSPC, "the guest does not read its keyboard");
	return 0;
}
