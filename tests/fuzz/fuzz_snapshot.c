/*
 * Snapshots from a hostile source, through everything that reads them: records, the processor's
 * features, the configuration, devices, processors, the interrupt controller. Whatever the bytes,
 * the load is refused in one line, or the machine that comes of it is one that its device's driver
 * can go on with, and that can be saved again.
 *
 * There is no KVM: its ioctls end in a stand-in here, which reads and writes what KVM would. The
 * head and the checksum are made right, since they find damage and not malice.
 *
 * The first byte chooses the device (how_to). Then comes, if it says FROM_FILE, a whole state file;
 * else what a driver does to the device, as in the other harnesses, and which bytes of the state
 * that was saved from it are changed; and what the driver does after the load.
 */
#include "src/vmm/instance.h"
#include "src/vmm/snapshot.h"
#include "src/vmm/vm_parts.h"
#include "tests/fuzz/virtio.h"

#include <fcntl.h>
#include <stdarg.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>

int LLVMFuzzerTestOneInput(const u8 *data, size_t size);

#define FAKE_FD	   1000000 /* the VM and its processor */
#define PINS	   (LAYOUT_GSI_VIRTIO + 1)
#define HEAD	   16
#define FROM_FILE  0x80
#define EDITS_MAX  16
#define XSAVE_SIZE sizeof(struct kvm_xsave)

static struct vm vm;
static struct guest guest;
static struct config config;
static struct vm_shell shell;
static struct loop *loop;

/* ---- what KVM would do
 * ---------------------------------------------------------------------------- */

/* Stands before libc's. Reads or fills all of the argument, so that the sanitizer sees its size. */
int ioctl(int fd, unsigned long request, ...)
{
	static volatile u8 sum;
	va_list args;
	u8 *at;

	va_start(args, request);
	at = va_arg(args, u8 *);
	va_end(args);
	if (fd != FAKE_FD)
		return (int)syscall(SYS_ioctl, fd, request, at);
	if (request == KVM_GET_TSC_KHZ)
		return 2000000;
	if (request == KVM_GET_MSRS || request == KVM_SET_MSRS)
		return 1;
	if (_IOC_DIR(request) & _IOC_WRITE)
		for (unsigned i = 0; i < _IOC_SIZE(request); i++)
			sum ^= at[i];
	else if (_IOC_DIR(request) & _IOC_READ)
		memset(at, 0, _IOC_SIZE(request));
	return 0;
}

static void on_routed(void *owner, const struct kvm_route *routes, unsigned n)
{
	(void)owner;
	REQUIRE(n <= PINS);
	for (unsigned i = 0; i < n; i++)
		REQUIRE(routes[i].gsi < PINS);
}

static void on_unmasked(void *owner, unsigned pin)
{
	(void)owner;
	REQUIRE(pin < PINS);
}

static void on_reset(void *owner)
{
	(void)owner;
}

static void fake_cpuid(struct cpuid *c)
{
	static const u32 leaf[] = { 0, 1, 7, 0x40000001, 0x80000001 };

	c->nent = ARRAY_SIZE(leaf);
	for (unsigned i = 0; i < c->nent; i++)
		c->entry[i] = (struct kvm_cpuid_entry2){ .function = leaf[i],
							 .eax = 0xff,
							 .ebx = 0xffff,
							 .ecx = 0xff00ff,
							 .edx = 0xff00ff00 };
}

/* ---- a machine with one device
 * -------------------------------------------------------------------- */

static void make_rng(struct err *err)
{
	REQUIRE(rng_create(&vm.rng, &guest.mem, loop, err) == 0);
	vm.device[0] = rng_device(vm.rng);
}

static void make_balloon(struct err *err)
{
	struct balloon_config cfg = { .amount_mib = 1, .hinting = true, .reporting = true };

	REQUIRE(balloon_create(&vm.balloon, &cfg, &guest.mem, loop, err) == 0);
	vm.device[0] = balloon_device(vm.balloon);
}

static void make_blk(struct err *err)
{
	static struct blk_config cfg = { .id = "disk", .cache = BLK_WRITEBACK, .no_uring = true };
	struct limit_config limit = { .ops = { 10, 0, 1000, .given = true } };

	if (!cfg.fd)
		cfg.fd = memfd_create("disk", MFD_CLOEXEC);
	REQUIRE(ftruncate(cfg.fd, KIB(64)) == 0);
	REQUIRE(blk_create(&vm.blk[0], &cfg, &guest.mem, loop, err) == 0);
	blk_limit(vm.blk[0], &limit);
	vm.device[0] = blk_device(vm.blk[0]);
}

static void make_net(struct err *err)
{
	static struct net_config cfg = { .id = "eth0", .queue_pairs = 1, .mtu = 1500 };
	static int wire[2];

	if (!wire[0])
		REQUIRE(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK, 0, wire) == 0);
	cfg.fd[0] = wire[0];
	REQUIRE(net_create(&vm.net[0], &cfg, &guest.mem, loop, err) == 0);
	vm.device[0] = net_device(vm.net[0]);
}

static void make_vsock(struct err *err)
{
	static struct vsock_config cfg = { .guest_cid = 3, .max_connections = 8 };

	if (!cfg.uds_path[0]) {
		snprintf(cfg.uds_path, sizeof cfg.uds_path, "/tmp/mf-fuzz-snapshot-%d",
			 (int)getpid());
		REQUIRE(vsock_listen(&cfg, err) == 0);
		unlink(cfg.uds_path);
	}
	REQUIRE(vsock_create(&vm.vsock, &cfg, &guest.mem, loop, err) == 0);
	vm.device[0] = vsock_device(vm.vsock);
}

static void (*const make_device[])(struct err *err) = { make_rng, make_balloon, make_blk, make_net,
							make_vsock };

static void make_machine(unsigned kind)
{
	static int line = -1, out = -1;
	struct err err;

	if (line < 0) {
		line = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
		out = open("/dev/null", O_WRONLY | O_CLOEXEC);
	}
	memset(&vm, 0, sizeof vm);
	memset(&shell, 0, sizeof shell);
	shell.kvm.vm_fd = FAKE_FD;
	fake_cpuid(&shell.cpuid);
	vm.cfg = &config;
	vm.shell = &shell;
	vm.mem.size = MIB(2); /* as far as the state is concerned; the devices have guest.mem */
	vm.paused = true;
	vm.n_devices = 1;
	vm.vcpus = &shell.vcpus;
	shell.vcpus.n = 1;
	shell.vcpus.xsave_size = XSAVE_SIZE;
	shell.vcpus.vcpu[0] = (struct vcpu){ .all = &shell.vcpus, .fd = FAKE_FD };
	vm.ioapic.routed = on_routed;
	vm.ioapic.unmasked = on_unmasked;
	vm.i8042.reset = on_reset;
	REQUIRE(ioapic_init(&vm.ioapic, PINS, &vm.mmio, &err) == 0);
	REQUIRE(serial_init(&vm.serial, loop, &vm.port, line, -1, out, &err) == 0);
	REQUIRE(i8042_init(&vm.i8042, &vm.port, line, &err) == 0);
	make_device[kind](&err);
	guest.dev = vm.device[0];
	guest.bus = (struct bus){ 0 };
	REQUIRE(mmio_map(&vm.window[0], guest.dev, &guest.bus, GUEST_BASE, &err) == 0);
	bus_seal(&guest.bus);
	bus_seal(&vm.mmio);
	bus_seal(&vm.port);
}

static void destroy_machine(void)
{
	rng_destroy(vm.rng);
	balloon_destroy(vm.balloon);
	blk_destroy(vm.blk[0]);
	net_destroy(vm.net[0]);
	vsock_destroy(vm.vsock);
	serial_destroy(&vm.serial);
}

/* ---- the state
 * -------------------------------------------------------------------------------------- */

static void save(struct stream *s)
{
	static const u8 pair[STATE_PAIR_LEN] = "0123456789abcde";
	static const char text[] =
		"{\"machine-config\":{\"vcpu_count\":1,\"mem_size_mib\":2},"
		"\"boot-source\":{\"kernel_image_path\":\"/k\",\"boot_args\":\"a=b\"},"
		"\"drives\":[],\"network-interfaces\":[],\"vsock\":null,"
		"\"balloon\":{\"amount_mib\":1,\"deflate_on_oom\":true},\"entropy\":{}}";
	struct err err;

	REQUIRE(stream_create(s, &err) == 0);
	REQUIRE(vm_send(&vm, text, pair, s, &err) == 0);
}

/* Head and checksum, as a writer of malice would have them. */
static void seal(struct stream *s)
{
	static u8 head[HEAD];
	u64 sum;

	if (!head[0]) {
		struct stream empty;
		struct err err;

		REQUIRE(stream_create(&empty, &err) == 0);
		record_save(&empty, NULL, 0);
		memcpy(head, empty.data, HEAD);
		stream_destroy(&empty);
	}
	if (s->len < HEAD + sizeof sum)
		return;
	memcpy(s->data, head, HEAD);
	sum = stream_checksum(s->data, s->len - sizeof sum);
	memcpy(s->data + s->len - sizeof sum, &sum, sizeof sum);
}

/* A few bytes, anywhere. */
static void edit(struct stream *s)
{
	u64 n = take(&guest, 1) % (EDITS_MAX + 1);

	for (u64 i = 0; i < n; i++) {
		u64 at = take(&guest, 2) % s->len;
		unsigned len = 1 + (unsigned)take(&guest, 1) % 8;
		u64 value = take(&guest, len);

		memcpy(s->data + at, &value, MIN((size_t)len, s->len - at));
	}
}

/* A file of just this size, so that a read beyond its end is seen. */
static void read_file(struct stream *s)
{
	size_t len = (size_t)(guest.end - guest.at);

	*s = (struct stream){ .data = malloc(len + !len), .len = len, .room = len };
	REQUIRE(s->data);
	memcpy(s->data, guest.at, len);
	guest.at = guest.end;
}

static void drive(unsigned steps)
{
	for (; steps && guest.at < guest.end; steps--) {
		guest_step(&guest);
		guest_check(&guest);
	}
}

static void save_driven(struct stream *s, unsigned kind)
{
	unsigned steps = (unsigned)take(&guest, 1) % 32;

	make_machine(kind);
	guest_up(&guest);
	drive(steps);
	device_pause(guest.dev);
	save(s);
	destroy_machine();
	edit(s);
}

/* ---- loading
 * ---------------------------------------------------------------------------------------- */

/* 0, or refused in one line. */
static bool accepted(int r, const struct err *err)
{
	REQUIRE((r < 0) == (err->msg[0] != '\0'));
	for (const char *c = err->msg; *c; c++)
		REQUIRE((u8)*c >= ' ' && *c != 0x7f);
	return r >= 0;
}

/* Nothing of the host's is opened here: what would be is left to the harness of the configuration.
 */
static void load_config(const struct state *state)
{
	static const struct snapshot_load_request req;
	static struct instance inst;
	const char *text = state_config(state);
	struct err err = { "" };

	if (strstr(text, "host") || strstr(text, "uds") || strchr(text, '\\'))
		return;
	config_init(&inst.config);
	(void)accepted(instance_restore_config(&inst, text, &req, &err), &err);
	config_forget(&inst.config);
}

static void use_ports(void)
{
	for (unsigned i = 0; i < vm.port.n; i++) {
		const struct bus_entry *e = &vm.port.entry[i];

		for (u64 off = 0; off < e->len * 4; off++) {
			u8 byte = 0xff;

			e->read(e->owner, off % e->len, &byte, 1);
			byte = (u8)take(&guest, 1);
			e->write(e->owner, off % e->len, &byte, 1);
		}
	}
	REQUIRE(vm.serial.rx_len <= SERIAL_FIFO && vm.i8042.len <= I8042_BUFFER);
	if (i8042_ctrl_alt_del(&vm.i8042) == 0)
		REQUIRE(vm.i8042.len <= I8042_BUFFER);
}

static void use_ioapic(void)
{
	const struct bus_entry *e = bus_find(&vm.mmio, LAYOUT_IOAPIC, 4);
	u32 value = 0;

	e->read(e->owner, 0x10, &value, 4);
	value = (u32)take(&guest, 4);
	e->write(e->owner, 0x10, &value, 4);
}

/* It is paused; what can be saved of it is a state again. */
static void save_again(void)
{
	struct stream stream;
	struct state *state;
	struct err err;

	save(&stream);
	REQUIRE(state_open(&state, &stream, &err) == 0);
	state_destroy(state);
	stream_destroy(&stream);
}

static void go_on(void)
{
	guest_check(&guest);
	save_again();
	device_resume(guest.dev);
	guest_serve(&guest);
	guest_check(&guest);
	for (u64 off = 0; off < 0x140; off += 4)
		reg_read(&guest, off, 4);
	for (unsigned q = 0; q < guest.dev->n_queues; q++)
		reg_write(&guest, QUEUE_NOTIFY, q, 4);
	use_ports();
	use_ioapic();
	drive(64);
	guest_serve(&guest);
	guest_check(&guest);
	reg_write(&guest, STATUS, 0, 4);
	guest_check(&guest);
}

static void load(struct stream *s, unsigned kind)
{
	struct vm_source source = { .mem_fd = -1 };
	struct err err = { "" };

	if (!accepted(state_open(&source.state, s, &err), &err))
		return;
	load_config(source.state);
	make_machine(kind);
	source.realtime = take(&guest, 1) & 1;
	if (accepted(state_fit_cpuid(source.state, &shell.cpuid, &err), &err) &&
	    accepted(state_apply(&vm, &source, &err), &err))
		go_on();
	destroy_machine();
	state_destroy(source.state);
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t size)
{
	struct stream stream;
	unsigned kind;
	u8 how_to;

	loop = guest_begin(&guest, data, size);
	how_to = (u8)take(&guest, 1);
	kind = (how_to & ~FROM_FILE) % ARRAY_SIZE(make_device);
	if (how_to & FROM_FILE)
		read_file(&stream);
	else
		save_driven(&stream, kind);
	seal(&stream);
	load(&stream, kind);
	stream_destroy(&stream);
	return 0;
}
