/*
 * state: see state.h.
 *
 * Everything goes through one struct of plain bytes and one table of records over it, whichever way
 * it goes. Saving gathers the parts into the struct; loading fills it from the stream, then checks
 * and hands over part by part. Nothing of the struct is believed before its part was checked.
 */
#include "state.h"

#include "vm_parts.h"
#include "../virtio/device_state.h"
#include "vcpu_state.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>

#define CONFIG_TEXT_MAX KIB(256)
#define LEAF_KVM_FEATURES 0x40000001

struct machine_state {
	u64 mem_size;
	u32 n_vcpus, n_devices, n_pins;
	u8 boot_timer;
	u8 pad[3];
	u8 pair[STATE_PAIR_LEN];
};

struct ioapic_state {
	u64 redirection[LAYOUT_IOAPIC_PINS_MAX];
	u8 select, id;
	u8 pad[6];
};

struct serial_state {
	u8 ier, lcr, mcr, lsr, scr, fcr, divisor_lo, divisor_hi;
	u8 thr_empty_pending;
	u8 rx[SERIAL_FIFO];
	u8 pad[7];
	u32 rx_head, rx_len;
};

struct i8042_state {
	u8 control, command, output_port, keyboard_argument;
	u8 buffer[I8042_BUFFER];
	u32 head, len;
};

struct state {
	struct machine_state machine;
	struct cpuid cpuid;
	u32 cpuid_len;
	u32 config_len;
	char config[CONFIG_TEXT_MAX + 1];
	struct kvm_clock_data clock;
	struct ioapic_state ioapic;
	struct serial_state serial;
	struct i8042_state i8042;
	struct device_state device[LAYOUT_DEVICES_MAX];
	struct vcpu_full vcpu[VCPUS_MAX];
};

static_assert(sizeof(struct machine_state) == 40 && sizeof(struct serial_state) == 88 &&
		      sizeof(struct i8042_state) == 28,
	      "no padding in a file");

/* ---- the table ---------------------------------------------------------------------------------- */

#define RECORD(tag_, state_, member)                                                               \
	{                                                                                          \
		.tag = (tag_), .version = 1, .at = &(state_)->member,                              \
		.size = sizeof(state_)->member                                                     \
	}

/* How many records there are is told by the first one. */
enum { FIXED_RECORDS = 7 };
#define RECORDS_MAX (FIXED_RECORDS + LAYOUT_DEVICES_MAX + VCPUS_MAX * VCPU_RECORDS)

static unsigned fill_table(struct state *s, struct record *table, unsigned n_vcpus,
			   unsigned n_devices)
{
	const struct record fixed[] = {
		RECORD("machine", s, machine),
		{ .tag = "config", .version = 1, .at = s->config, .size = CONFIG_TEXT_MAX,
		  .length = &s->config_len },
		{ .tag = "cpuid", .version = 1, .at = s->cpuid.entry, .size = sizeof s->cpuid.entry,
		  .length = &s->cpuid_len },
		RECORD("clock", s, clock),
		RECORD("ioapic", s, ioapic),
		RECORD("serial", s, serial),
		RECORD("i8042", s, i8042),
	};
	unsigned n = ARRAY_SIZE(fixed);

	static_assert(ARRAY_SIZE(fixed) == FIXED_RECORDS, "room for each");
	memcpy(table, fixed, sizeof fixed);
	for (unsigned i = 0; i < n_devices; i++, n++) {
		table[n] = (struct record)RECORD("", s, device[i]);
		table[n].version = DEVICE_STATE_VERSION;
		snprintf(table[n].tag, sizeof table[n].tag, "device%u", i);
	}
	for (unsigned i = 0; i < n_vcpus; i++, n += VCPU_RECORDS)
		vcpu_records(&s->vcpu[i], i, &table[n]);
	return n;
}

/* ---- devices that are no virtio devices ---------------------------------------------------------- */

static void save_serial(const struct serial *from, struct serial_state *to)
{
	*to = (struct serial_state){
		.ier = from->ier, .lcr = from->lcr, .mcr = from->mcr, .lsr = from->lsr,
		.scr = from->scr, .fcr = from->fcr,
		.divisor_lo = from->divisor_lo, .divisor_hi = from->divisor_hi,
		.thr_empty_pending = from->thr_empty_pending,
		.rx_head = from->rx_head, .rx_len = from->rx_len,
	};
	memcpy(to->rx, from->rx, sizeof to->rx);
}

static int load_serial(struct serial *to, const struct serial_state *from, struct err *err)
{
	if (from->rx_head >= SERIAL_FIFO || from->rx_len > SERIAL_FIFO ||
	    from->thr_empty_pending > 1)
		return fail(err, -EINVAL, "record serial: %u bytes at %u cannot be", from->rx_len,
			    from->rx_head);
	to->ier = from->ier & 0x0f;
	to->lcr = from->lcr;
	to->mcr = from->mcr;
	to->lsr = from->lsr;
	to->scr = from->scr;
	to->fcr = from->fcr;
	to->divisor_lo = from->divisor_lo;
	to->divisor_hi = from->divisor_hi;
	to->thr_empty_pending = from->thr_empty_pending;
	memcpy(to->rx, from->rx, sizeof to->rx);
	to->rx_head = from->rx_head;
	to->rx_len = from->rx_len;
	return 0;
}

static void save_i8042(const struct i8042 *from, struct i8042_state *to)
{
	*to = (struct i8042_state){
		.control = from->control,
		.command = from->command,
		.output_port = from->output_port,
		.keyboard_argument = from->keyboard_argument,
		.head = from->head,
		.len = from->len,
	};
	memcpy(to->buffer, from->buffer, sizeof to->buffer);
}

static int load_i8042(struct i8042 *to, const struct i8042_state *from, struct err *err)
{
	if (from->len > I8042_BUFFER || from->head >= I8042_BUFFER || from->keyboard_argument > 1)
		return fail(err, -EINVAL, "record i8042: %u bytes at %u cannot be", from->len,
			    from->head);
	to->control = from->control;
	to->command = from->command;
	to->output_port = from->output_port;
	to->keyboard_argument = from->keyboard_argument;
	memcpy(to->buffer, from->buffer, sizeof to->buffer);
	to->head = from->head;
	to->len = from->len;
	return 0;
}

/* ---- devices ------------------------------------------------------------------------------------- */

static void save_device(const struct vm *vm, unsigned i, struct device_state *to)
{
	const struct mmio *window = &vm->window[i];

	device_save(vm->device[i], to);
	to->selector[0] = window->device_features_sel;
	to->selector[1] = window->driver_features_sel;
	to->selector[2] = window->queue_sel;
}

static int load_device(struct vm *vm, unsigned i, const struct device_state *from, struct err *err)
{
	int r = device_load(vm->device[i], from, err);

	if (r < 0)
		return fail_prefix(err, r, "record device%u: ", i);
	vm->window[i].device_features_sel = from->selector[0];
	vm->window[i].driver_features_sel = from->selector[1];
	vm->window[i].queue_sel = from->selector[2];
	return 0;
}

/* ---- saving -------------------------------------------------------------------------------------- */

/* As it was when the first processor's TSC was read. */
static int save_clock(const struct vm *vm, struct state *s, struct err *err)
{
	u64 age = vcpu_age_ns(&vm->vcpus->vcpu[0], &s->vcpu[0]);

	if (ioctl(vm->shell->kvm.vm_fd, KVM_GET_CLOCK, &s->clock) < 0)
		return fail(err, -errno, "reading clock: " OS_ERR, OS_ERR_ARGS(errno));
	s->clock.clock -= age;
	s->clock.realtime -= s->clock.flags & KVM_CLOCK_REALTIME ? age : 0;
	return 0;
}

static int gather(struct vm *vm, struct state *s, struct err *err)
{
	int r = 0;

	s->machine.mem_size = vm->mem.size;
	s->machine.n_vcpus = vm->vcpus->n;
	s->machine.n_devices = vm->n_devices;
	s->machine.n_pins = vm->ioapic.n_pins;
	s->machine.boot_timer = vm->cfg->boot_timer;
	s->cpuid = vm->shell->cpuid;
	s->cpuid_len = (u32)(s->cpuid.nent * sizeof s->cpuid.entry[0]);
	memcpy(s->ioapic.redirection, vm->ioapic.redirection, sizeof s->ioapic.redirection);
	s->ioapic.select = vm->ioapic.select;
	s->ioapic.id = vm->ioapic.id;
	save_serial(&vm->serial, &s->serial);
	save_i8042(&vm->i8042, &s->i8042);
	for (unsigned i = 0; i < vm->n_devices; i++)
		save_device(vm, i, &s->device[i]);
	for (unsigned i = 0; i < vm->vcpus->n && !r; i++)
		r = vcpu_save(&vm->vcpus->vcpu[i], &s->vcpu[i], err);
	return r < 0 ? r : save_clock(vm, s, err);
}

static int save(struct vm *vm, struct state *s, struct stream *stream, struct err *err)
{
	struct record *table = calloc(RECORDS_MAX, sizeof *table);
	int r;

	if (!table)
		return fail(err, -ENOMEM, "no memory for a saved state");
	r = gather(vm, s, err);
	if (!r)
		record_save(stream, table, fill_table(s, table, vm->vcpus->n, vm->n_devices));
	free(table);
	if (!r && stream->bad)
		r = fail(err, -ENOMEM, "the state is larger than there is room for");
	return r;
}

int vm_send(struct vm *vm, const char *config, const u8 pair[STATE_PAIR_LEN], struct stream *stream,
	    struct err *err)
{
	struct state *s;
	int r;

	assert(vm_is_paused(vm));
	if (vm->end != VM_END_NONE)
		return fail(err, -ESHUTDOWN, "%s", vm_end_name(vm->end));
	if (strlen(config) > CONFIG_TEXT_MAX)
		return fail(err, -E2BIG, "the configuration is too long for a snapshot");
	s = calloc(1, sizeof *s);
	if (!s)
		return fail(err, -ENOMEM, "no memory for a saved state");
	s->config_len = (u32)strlen(config);
	memcpy(s->config, config, s->config_len);
	memcpy(s->machine.pair, pair, STATE_PAIR_LEN);
	r = save(vm, s, stream, err);
	free(s);
	return r;
}

/* ---- loading ------------------------------------------------------------------------------------- */

static int check_machine(const struct machine_state *m, struct err *err)
{
	if (!m->n_vcpus || m->n_vcpus > VCPUS_MAX)
		return fail(err, -EINVAL, "record machine: %u vCPUs", m->n_vcpus);
	if (m->n_devices > LAYOUT_DEVICES_MAX || m->n_pins != LAYOUT_GSI_VIRTIO + m->n_devices)
		return fail(err, -EINVAL, "record machine: %u devices on %u lines", m->n_devices,
			    m->n_pins);
	if (!m->mem_size || m->mem_size % MIB(1))
		return fail(err, -EINVAL, "record machine: %llu bytes of memory",
			    (unsigned long long)m->mem_size);
	if (m->boot_timer > 1)
		return fail(err, -EINVAL, "record machine: boot_timer is %u", m->boot_timer);
	return 0;
}

static int load_records(struct state *s, struct stream *stream, struct record *table,
			struct err *err)
{
	int r;

	fill_table(s, table, 0, 0);
	r = record_load(stream, table, 1, false, err);
	if (!r)
		r = check_machine(&s->machine, err);
	if (r < 0)
		return r;
	return record_load(stream, table,
			   fill_table(s, table, s->machine.n_vcpus, s->machine.n_devices), true,
			   err);
}

static int open_all(struct state *s, struct stream *stream, struct err *err)
{
	struct record *table = calloc(RECORDS_MAX, sizeof *table);
	u32 format;
	int r;

	if (!table)
		return fail(err, -ENOMEM, "no memory for a saved state");
	r = record_open(stream, &format, err);
	if (!r)
		r = load_records(s, stream, table, err);
	free(table);
	if (r < 0)
		return r;
	if (s->cpuid_len % sizeof s->cpuid.entry[0])
		return fail(err, -EINVAL, "record cpuid: %u bytes are no whole number of leaves",
			    s->cpuid_len);
	s->cpuid.nent = s->cpuid_len / (u32)sizeof s->cpuid.entry[0];
	if (memchr(s->config, '\0', s->config_len))
		return fail(err, -EINVAL, "record config: there is a NUL in it");
	s->config[s->config_len] = '\0';
	return 0;
}

int state_open(struct state **out, struct stream *stream, struct err *err)
{
	struct state *s = calloc(1, sizeof *s);
	int r;

	*out = NULL;
	if (!s)
		return fail(err, -ENOMEM, "no memory for a saved state");
	r = open_all(s, stream, err);
	if (r < 0) {
		free(s);
		return r;
	}
	*out = s;
	return 0;
}

void state_destroy(struct state *s)
{
	free(s);
}

const char *state_config(const struct state *s)
{
	return s->config;
}

const u8 *state_pair(const struct state *s)
{
	return s->machine.pair;
}

u64 state_mem_size(const struct state *s)
{
	return s->machine.mem_size;
}

bool state_boot_timer(const struct state *s)
{
	return s->machine.boot_timer;
}

/* ---- another processor ---------------------------------------------------------------------------- */

/* Its place; c->nent: there is none. */
static unsigned leaf_place(const struct cpuid *c, u32 function, u32 index)
{
	unsigned i = 0;

	while (i < c->nent && (c->entry[i].function != function || c->entry[i].index != index))
		i++;
	return i;
}

static const struct kvm_cpuid_entry2 *find_leaf(const struct cpuid *c, u32 function, u32 index)
{
	unsigned i = leaf_place(c, function, index);

	return i < c->nent ? &c->entry[i] : NULL;
}

/* Where each bit is something that a guest may rely on once it has seen it. */
static const struct feature_word {
	u32 function, index;
	u8 reg; /* of eax, ebx, ecx, edx */
	u32 ignored; /* bits that tell a state, not a feature: OSXSAVE, APIC enabled, OSPKE */
} feature_words[] = {
	{ 0x1, 0, 2, 1u << 27 },
	{ 0x1, 0, 3, 1u << 9 },
	{ 0x7, 0, 1, 0 },
	{ 0x7, 0, 2, 1u << 4 },
	{ 0x7, 0, 3, 0 },
	{ 0x7, 1, 0, 0 },
	{ 0x80000001, 0, 2, 0 },
	{ 0x80000001, 0, 3, 1u << 9 },
	{ LEAF_KVM_FEATURES, 0, 0, 0 },
};

static u32 *reg_of(struct kvm_cpuid_entry2 *e, unsigned reg)
{
	u32 *const all[] = { &e->eax, &e->ebx, &e->ecx, &e->edx };

	return all[reg];
}

/* What the guest saw must be there; what it did not see is taken away. */
static int fit_word(const struct cpuid *saved, struct cpuid *here, const struct feature_word *w,
		    struct err *err)
{
	static const char name[][4] = { "eax", "ebx", "ecx", "edx" };
	const struct kvm_cpuid_entry2 *was = find_leaf(saved, w->function, w->index);
	unsigned place = leaf_place(here, w->function, w->index);
	struct kvm_cpuid_entry2 *is = place < here->nent ? &here->entry[place] : NULL;
	struct kvm_cpuid_entry2 copy = was ? *was : (struct kvm_cpuid_entry2){ 0 };
	u32 before = *reg_of(&copy, w->reg) & ~w->ignored;
	u32 now = is ? *reg_of(is, w->reg) : 0;

	if (before & ~now)
		return fail(err, -ENOTSUP,
			    "record cpuid: this processor lacks features that the guest has seen "
			    "(leaf 0x%x.%u %s: 0x%x)",
			    w->function, w->index, name[w->reg], before & ~now);
	if (is)
		*reg_of(is, w->reg) &= before | w->ignored;
	return 0;
}

int state_fit_cpuid(const struct state *s, struct cpuid *here, struct err *err)
{
	const struct kvm_cpuid_entry2 *was = find_leaf(&s->cpuid, 0, 0), *is = find_leaf(here, 0, 0);
	int r = 0;

	if (!was || !is || was->ebx != is->ebx || was->ecx != is->ecx || was->edx != is->edx)
		return fail(err, -ENOTSUP,
			    "record cpuid: the snapshot is from another vendor's processor");
	for (unsigned i = 0; i < ARRAY_SIZE(feature_words) && !r; i++)
		r = fit_word(&s->cpuid, here, &feature_words[i], err);
	return r;
}

/* ---- the hand-over -------------------------------------------------------------------------------- */

/* It has gone on with the first processor's TSC since that was set. */
static int load_clock(const struct vm *vm, const struct state *s, bool realtime, struct err *err)
{
	const struct kvm_clock_data *from = &s->clock;
	u64 age = vcpu_age_ns(&vm->vcpus->vcpu[0], &s->vcpu[0]);
	struct kvm_clock_data clock = { .clock = from->clock + age };

	if (realtime && !(from->flags & KVM_CLOCK_REALTIME))
		return fail(err, -ENOTSUP, "clock_realtime: the snapshot does not tell its time");
	if (realtime) {
		clock.flags = KVM_CLOCK_REALTIME;
		clock.realtime = from->realtime + age;
	}
	if (ioctl(vm->shell->kvm.vm_fd, KVM_SET_CLOCK, &clock) < 0)
		return fail(err, -errno, "setting clock: " OS_ERR, OS_ERR_ARGS(errno));
	return 0;
}

int state_apply(struct vm *vm, const struct vm_source *source, struct err *err)
{
	struct state *s = source->state;
	int r = 0;

	if (s->machine.n_devices != vm->n_devices || s->machine.n_vcpus != vm->vcpus->n ||
	    s->machine.mem_size != vm->mem.size)
		return fail(err, -EINVAL, "records machine and config contradict each other");
	for (unsigned i = 0; i < vm->n_devices && !r; i++)
		r = load_device(vm, i, &s->device[i], err);
	if (!r)
		r = load_serial(&vm->serial, &s->serial, err);
	if (!r)
		r = load_i8042(&vm->i8042, &s->i8042, err);
	for (unsigned i = 0; i < vm->vcpus->n && !r; i++)
		r = vcpu_load(&vm->vcpus->vcpu[i], &s->vcpu[i], err);
	if (!r)
		r = load_clock(vm, s, source->realtime, err);
	if (r < 0)
		return r;
	vm->ioapic.select = s->ioapic.select;
	vm->ioapic.id = s->ioapic.id & 0xf;
	ioapic_load(&vm->ioapic, s->ioapic.redirection);
	if (vm->end != VM_END_NONE)
		return fail(err, -EINVAL, "record ioapic: %s", vm->end_detail);
	if (vm->vsock)
		vsock_restored(vm->vsock);
	return 0;
}
