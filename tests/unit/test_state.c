/*
 * Saved states: what is written now is, byte for byte, the file that is kept of this version of the
 * format; and each kept file is read, by the code that loads machines, and every value of it is
 * found where it belongs. See docs/snapshots.md, "Compatibility".
 *
 * With MAYFLY_KEEP=FILE in the environment what is written now goes there as well.
 */
#include "src/vmm/instance.h"
#include "src/vmm/snapshot.h"
#include "tests/unit/fake_machine.h"

#define RINGS	  0x3000 /* of one queue: a page each */
#define VERSION_1 (1ull << 32)
#define EVENT_IDX (1ull << 29)

/* What went wrong is seen in the report. */
static void ok(int r, const struct err *err)
{
	assert_string_equal(r < 0 ? err->msg : "", "");
}

/* ---- files that are kept ---------------------------------------------------------- */

/* Rows of 32 bytes; those that are not there are zero. */
struct row {
	u32 at;
	const char *hex;
};

static const struct row format_1[] = {
#include "tests/unit/kept/state-1.inc"
};

static const struct kept {
	u32 format;
	const struct row *row;
	unsigned n;
} kept[] = {
	{ 1, format_1, ARRAY_SIZE(format_1) },
};
#define KEPT_NOW (ARRAY_SIZE(kept) - 1)

static unsigned digit(char c)
{
	return (unsigned)(c <= '9' ? c - '0' : c - 'a' + 10);
}

/* The last row says where the file ends. */
static size_t kept_bytes(const struct kept *k, u8 *to, size_t room)
{
	size_t len = 0;

	memset(to, 0, room);
	for (unsigned i = 0; i < k->n; i++) {
		const char *hex = k->row[i].hex;

		len = k->row[i].at;
		for (; *hex; hex += 2, len++) {
			assert_true(len < room);
			to[len] = (u8)(digit(hex[0]) << 4 | digit(hex[1]));
		}
	}
	return len;
}

static void keep(const struct stream *s, const char *path)
{
	static const u8 zero[32];
	FILE *f = fopen(path, "w");

	assert_non_null(f);
	for (size_t at = 0; at < s->len; at += 32) {
		size_t len = MIN((size_t)32, s->len - at);

		if (at + len < s->len && memcmp(s->data + at, zero, len) == 0)
			continue;
		fprintf(f, "{ 0x%zx, \"", at);
		for (size_t i = 0; i < len; i++)
			fprintf(f, "%02x", s->data[at + i]);
		fprintf(f, "\" },\n");
	}
	assert_int_equal(fclose(f), 0);
}

/* ---- what is in them -------------------------------------------------------------- */

static const u8 pair[STATE_PAIR_LEN] = "which memory it";
static const char config_text[] =
	"{\"machine-config\":{\"vcpu_count\":2,\"mem_size_mib\":2,\"smt\":false},"
	"\"boot-source\":{\"kernel_image_path\":\"/kernel\",\"boot_args\":\"quiet\"},"
	"\"drives\":[],\"network-interfaces\":[],\"vsock\":null,"
	"\"balloon\":{\"amount_mib\":1,\"deflate_on_oom\":true,\"stats_polling_interval_s\":3},"
	"\"entropy\":{}}";

static const u32 leaf[] = { 0, 1, 7, 0x40000001, 0x80000001 };
#define LEAF_EAX 0x10
#define LEAF_EBX 0x756e6547
#define LEAF_ECX 0x6c65746e
#define LEAF_EDX 0x49656e69

static const struct kvm_clock_data clock_then = { .clock = 123456789012345,
						  .flags = KVM_CLOCK_REALTIME,
						  .realtime = 1700000000000000000,
						  .host_tsc = 99 };
static const u32 msr[] = { 0x10, 0x3b, 0x174, 0x277, 0xc0000081, 0xc0000102, 0x4b564d01, 0x6e0 };
#define TSC_KHZ 2345678
#define STEP_NS (TSC_STEP * 1000000ull / TSC_KHZ)

static void known_vcpu(struct vcpu_full *v, unsigned id)
{
	memset(v, 0, sizeof *v);
	v->mp_state.mp_state = id ? KVM_MP_STATE_HALTED : KVM_MP_STATE_RUNNABLE;
	v->regs.rax = 0x1111222233334444 + id;
	v->regs.r15 = 0x5555;
	v->regs.rip = 0xffffffff81000000 + id;
	v->regs.rflags = 0x246;
	v->sregs.cs.selector = 0x10;
	v->sregs.cs.base = 0xabcdef;
	v->sregs.gdt.base = 0xfffffe0000001000;
	v->sregs.idt.limit = 0xfff;
	v->sregs.cr3 = 0x1000000 * (id + 1ull);
	v->sregs.efer = 0xd01;
	v->sregs.interrupt_bitmap[3] = 1;
	v->xsave[0] = 0x7f;
	v->xsave[512] = 7;
	v->xsave[sizeof(struct kvm_xsave) - 1] = (u8)(0xa0 + id);
	v->xsave_len = sizeof(struct kvm_xsave);
	v->xcrs.nr_xcrs = 1;
	v->xcrs.xcrs[0].value = 7;
	v->debugregs.db[3] = 0x33;
	v->debugregs.dr7 = 0x400;
	v->lapic.regs[0x23] = (char)id;
	v->lapic.regs[0x80] = 0x20;
	v->lapic.regs[0x3e0] = 0xb;
	v->msrs_len = sizeof msr / sizeof msr[0] * sizeof v->msr[0];
	for (unsigned i = 0; i < ARRAY_SIZE(msr); i++)
		v->msr[i] = (struct kvm_msr_entry){ .index = msr[i], .data = msr[i] * 3ull + id };
	v->events.interrupt.injected = 1;
	v->events.interrupt.nr = 0x31;
	v->events.nmi.masked = 1;
	v->events.sipi_vector = 0x9a;
	v->events.flags = KVM_VCPUEVENT_VALID_SIPI_VECTOR;
	v->tsc_khz = TSC_KHZ;
}

/* ---- its state: given, and looked for --------------------------------------------- */

static u64 features_of(unsigned i)
{
	return VERSION_1 | (i % 2 ? EVENT_IDX : 0);
}

/* Of queue q of device i, as its driver may have made it. */
static struct vq known_queue(unsigned i, unsigned q)
{
	u64 at = 0x10000 + (i * 5 + q) * RINGS;

	return (struct vq){ .desc_gpa = at,
			    .avail_gpa = at + 0x1000,
			    .used_gpa = at + 0x2000,
			    .size = (u16)(16 << i),
			    .ready = true,
			    .last_avail = (u16)(0xff00 + 10 * i + q),
			    .used_idx = (u16)(1000 * (i + 1) + q),
			    .signalled = (u16)(500 + q) };
}

static void give_device(unsigned i)
{
	struct device *dev = vm.device[i];

	dev->status = 15;
	dev->features = features_of(i);
	dev->isr = i % 4;
	dev->config_generation = 40 + i;
	for (unsigned n = 0; n < DEVICE_LIMITS_MAX; n++)
		if (dev->limit[n])
			dev->limit[n]->since_ns = 1; /* not the time of this run */
	vm.window[i] = (struct mmio){ dev, 1, i % 2, i + 1 };
	for (unsigned q = 0; q < dev->n_queues; q++) {
		struct vq is = known_queue(i, q);

		is.size_max = dev->vq[q].size_max;
		dev->vq[q] = is;
	}
}

/* What each kind of device is beyond that. */
static void give_inner_states(void)
{
	struct balloon_state *balloon = vm.device[1]->own;
	struct limit *limit = vm.device[2]->limit[0];
	struct net_state *net = vm.device[3]->own;
	struct vsock_state *vsock = vm.device[4]->own;

	balloon->stat[2] = 77;
	balloon->stats_known = 4;
	balloon->host_cmd = 5;
	balloon->last_run = 6;
	balloon->guest_cmd = 7;
	balloon->guest_said = true;
	vm.device[1]->config[4] = 200; /* pages it has, as the guest says */
	limit->ops.left = 7;
	limit->ops.burst = 2;
	net->link_down = true;
	vsock->next_port = (1u << 30) + 1234567;
}

static void give_platform(void)
{
	shell.cpuid.nent = ARRAY_SIZE(leaf);
	for (unsigned i = 0; i < ARRAY_SIZE(leaf); i++)
		shell.cpuid.entry[i] = (struct kvm_cpuid_entry2){ .function = leaf[i],
								  .eax = LEAF_EAX + i,
								  .ebx = LEAF_EBX,
								  .ecx = LEAF_ECX,
								  .edx = LEAF_EDX };
	vm.ioapic.select = 0x12;
	vm.ioapic.id = 5;
	vm.ioapic.redirection[4] = 0x0100000000000031;
	vm.ioapic.redirection[10] = 0x0200000000000045;
	vm.serial.ier = 5;
	vm.serial.lcr = 3;
	vm.serial.mcr = 0xb;
	vm.serial.lsr = 0x60;
	vm.serial.scr = 0x5c;
	vm.serial.fcr = 1;
	vm.serial.divisor_lo = 12;
	vm.serial.divisor_hi = 1;
	vm.serial.thr_empty_pending = true;
	memcpy(vm.serial.rx + 62, "ty", 2);
	memcpy(vm.serial.rx, "ped", 3);
	vm.serial.rx_head = 62;
	vm.serial.rx_len = 5;
	vm.i8042.control = 0x45;
	vm.i8042.command = 0x60;
	vm.i8042.output_port = 3;
	vm.i8042.keyboard_argument = true;
	memcpy(vm.i8042.buffer + 3, "\x1d\x38\x53", 3);
	vm.i8042.head = 3;
	vm.i8042.len = 3;
}

static void check_device(unsigned i)
{
	const struct device *dev = vm.device[i];

	assert_int_equal(dev->status, 15);
	assert_int_equal(dev->features, features_of(i));
	assert_int_equal(dev->isr, i % 4);
	assert_int_equal(dev->config_generation, 40 + i);
	assert_int_equal(vm.window[i].device_features_sel, 1);
	assert_int_equal(vm.window[i].driver_features_sel, i % 2);
	assert_int_equal(vm.window[i].queue_sel, i + 1);
	for (unsigned q = 0; q < dev->n_queues; q++) {
		struct vq was = known_queue(i, q);
		const struct vq *is = &dev->vq[q];

		assert_true(is->ready && vq_active(is));
		assert_int_equal(is->desc_gpa, was.desc_gpa);
		assert_int_equal(is->avail_gpa, was.avail_gpa);
		assert_int_equal(is->used_gpa, was.used_gpa);
		assert_int_equal(is->size, was.size);
		assert_int_equal(is->last_avail, was.last_avail);
		assert_int_equal(is->used_idx, was.used_idx);
		assert_int_equal(is->signalled, was.signalled);
	}
}

static void check_inner_states(void)
{
	/* Features offered by the version that wrote it, whatever a later one offers. */
	static const u64 offered[DEVICES] = { 0x120000000, 0x12000002a, 0x120006244, 0x12001bbab,
					      0x120000002 };
	const struct balloon_state *balloon = balloon_state(vm.balloon);
	const struct limit *limit = vm.device[2]->limit[0];

	for (unsigned i = 0; i < DEVICES; i++)
		assert_int_equal(vm.device[i]->features_offered, offered[i]);
	assert_int_equal(balloon->stat[2], 77);
	assert_int_equal(balloon->stats_known, 4);
	assert_int_equal(balloon->host_cmd, 5);
	assert_int_equal(balloon->last_run, 6);
	assert_int_equal(balloon->guest_cmd, 7);
	assert_true(balloon->guest_said && !balloon->acknowledge);
	assert_int_equal(balloon->stats_interval_s, 3);
	assert_int_equal(balloon_target_pages(vm.balloon), 256);
	assert_int_equal(balloon_actual_pages(vm.balloon), 200);
	assert_int_equal(limit->ops.size, 10);
	assert_int_equal(limit->ops.left, 7);
	assert_int_equal(limit->ops.burst, 2);
	assert_int_equal(net_state(vm.net[0])->pairs, 1);
	assert_true(net_state(vm.net[0])->link_down);
	assert_int_equal(vsock_state(vm.vsock)->next_port, (1u << 30) + 1234567);
	assert_true(vsock_state(vm.vsock)->reset_pending);
}

static void check_platform(void)
{
	assert_int_equal(vm.ioapic.select, 0x12);
	assert_int_equal(vm.ioapic.id, 5);
	assert_int_equal(vm.ioapic.redirection[4], 0x0100000000000031);
	assert_int_equal(vm.ioapic.redirection[10], 0x0200000000000045);
	assert_int_equal(n_routes, 2); /* the others are masked */
	assert_int_equal(vm.serial.ier, 5);
	assert_int_equal(vm.serial.lcr, 3);
	assert_int_equal(vm.serial.mcr, 0xb);
	assert_int_equal(vm.serial.lsr, 0x60);
	assert_int_equal(vm.serial.scr, 0x5c);
	assert_int_equal(vm.serial.fcr, 1);
	assert_int_equal(vm.serial.divisor_lo, 12);
	assert_int_equal(vm.serial.divisor_hi, 1);
	assert_true(vm.serial.thr_empty_pending);
	assert_memory_equal(vm.serial.rx + 62, "ty", 2);
	assert_memory_equal(vm.serial.rx, "ped", 3);
	assert_int_equal(vm.serial.rx_head, 62);
	assert_int_equal(vm.serial.rx_len, 5);
	assert_int_equal(vm.i8042.control, 0x45);
	assert_int_equal(vm.i8042.command, 0x60);
	assert_int_equal(vm.i8042.output_port, 3);
	assert_true(vm.i8042.keyboard_argument);
	assert_memory_equal(vm.i8042.buffer + 3, "\x1d\x38\x53", 3);
	assert_int_equal(vm.i8042.head, 3);
	assert_int_equal(vm.i8042.len, 3);
	/* Moved on with the TSC, which was set before. */
	assert_int_equal(clock_taken.clock, clock_then.clock + STEP_NS);
	assert_int_equal(clock_taken.realtime, clock_then.realtime + STEP_NS);
	assert_int_equal(clock_taken.flags, KVM_CLOCK_REALTIME);
}

static void check_vcpu(unsigned id)
{
	struct vcpu_full *was = malloc(sizeof *was);

	assert_non_null(was);
	known_vcpu(was, id);
	for (unsigned i = 0; i < ARRAY_SIZE(parts); i++)
		assert_memory_equal((u8 *)&taken[id] + parts[i].at, (u8 *)was + parts[i].at,
				    parts[i].size);
	assert_int_equal(taken[id].msrs_len, was->msrs_len);
	assert_memory_equal(taken[id].msr, was->msr, was->msrs_len);
	assert_int_equal(taken[id].tsc_khz, TSC_KHZ);
	free(was);
}

/* A processor that can do everything shows what the guest has seen, and bits that tell a state. */
static void check_cpuid(const struct state *state)
{
	struct cpuid here = { .nent = ARRAY_SIZE(leaf) };
	struct err err;

	for (unsigned i = 0; i < ARRAY_SIZE(leaf); i++)
		here.entry[i] = (struct kvm_cpuid_entry2){ .function = leaf[i],
							   .eax = ~0u,
							   .ebx = i ? ~0u : LEAF_EBX,
							   .ecx = i ? ~0u : LEAF_ECX,
							   .edx = i ? ~0u : LEAF_EDX };
	assert_int_equal(state_fit_cpuid(state, &here, &err), 0);
	assert_int_equal(here.entry[1].ecx, LEAF_ECX | 1u << 27);
	assert_int_equal(here.entry[1].edx, LEAF_EDX | 1u << 9);
	assert_int_equal(here.entry[2].ebx, LEAF_EBX);
	assert_int_equal(here.entry[2].ecx, LEAF_ECX | 1u << 4);
	assert_int_equal(here.entry[2].edx, LEAF_EDX);
	assert_int_equal(here.entry[3].eax, LEAF_EAX + 3);
	assert_int_equal(here.entry[4].ecx, LEAF_ECX);
	assert_int_equal(here.entry[4].edx, LEAF_EDX | 1u << 9);
}

static void check_config(const struct state *state)
{
	static const struct snapshot_load_request request;
	static struct instance inst;
	struct err err = { "" };

	assert_string_equal(state_config(state), config_text);
	assert_memory_equal(state_pair(state), pair, sizeof pair);
	assert_int_equal(state_mem_size(state), MEM_SIZE);
	assert_true(state_boot_timer(state));
	config_init(&inst.config);
	ok(instance_restore_config(&inst, state_config(state), &request, &err), &err);
	assert_int_equal(inst.config.machine.vcpu_count, 2);
	assert_int_equal(inst.config.machine.mem_mib, 2);
	assert_true(inst.config.balloon.present && inst.config.entropy.present);
	config_forget(&inst.config);
}

/* ---- tests ------------------------------------------------------------------------ */

static void written(struct stream *s)
{
	struct err err;

	make_machine();
	give_platform();
	for (unsigned i = 0; i < DEVICES; i++)
		give_device(i);
	give_inner_states();
	for (unsigned i = 0; i < PROCESSORS; i++) {
		known_vcpu(&gives[i], i);
		tsc[i] = gives[i].msr[0].data;
		khz_here[i] = TSC_KHZ;
	}
	/* Read when the TSC has gone on: what is written goes with the TSC that is written. */
	clock_given = clock_then;
	clock_given.clock += STEP_NS;
	clock_given.realtime += STEP_NS;
	config.boot_timer = true;
	assert_int_equal(stream_create(s, &err), 0);
	assert_int_equal(vm_send(&vm, config_text, pair, s, &err), 0);
	destroy_machine();
}

static void what_is_written_now_is_what_is_kept(void **state)
{
	static u8 bytes[KIB(64)];
	size_t len = kept_bytes(&kept[KEPT_NOW], bytes, sizeof bytes);
	const char *path = getenv("MAYFLY_KEEP");
	struct stream s;

	(void)state;
	assert_int_equal(kept[KEPT_NOW].format, RECORD_FORMAT);
	written(&s);
	if (path)
		keep(&s, path);
	assert_int_equal(s.len, len);
	assert_memory_equal(s.data, bytes, len);
	stream_destroy(&s);
}

/* From a file, as a load has it. */
static void stored(const struct kept *k, struct stream *s)
{
	static u8 bytes[KIB(64)];
	size_t len = kept_bytes(k, bytes, sizeof bytes);
	int fd = memfd_create("state", MFD_CLOEXEC);
	char path[64];
	struct err err;
	u32 format;

	assert_int_equal(write(fd, bytes, len), len);
	snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
	assert_int_equal(snapshot_describe(path, &format, &err), 0);
	assert_int_equal(format, k->format);
	assert_int_equal(stream_load(s, path, &err), 0);
	close(fd);
}

static void all_that_is_kept_is_read(void **state)
{
	(void)state;
	for (unsigned n = 0; n < ARRAY_SIZE(kept); n++) {
		struct vm_source source = { .mem_fd = -1, .realtime = true };
		struct err err = { "" };
		struct stream s;

		memset(taken, 0, sizeof taken);
		for (unsigned i = 0; i < PROCESSORS; i++)
			khz_here[i] = TSC_KHZ / 2;
		stored(&kept[n], &s);
		ok(state_open(&source.state, &s, &err), &err);
		check_config(source.state);
		check_cpuid(source.state);
		make_machine();
		ok(state_apply(&vm, &source, &err), &err);
		check_platform();
		for (unsigned i = 0; i < DEVICES; i++)
			check_device(i);
		check_inner_states();
		for (unsigned i = 0; i < PROCESSORS; i++)
			check_vcpu(i);
		destroy_machine();
		state_destroy(source.state);
		stream_destroy(&s);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_written_now_is_what_is_kept),
		cmocka_unit_test(all_that_is_kept_is_read),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
