/*
 * regs: the virtio-mmio registers of one device, by a driver that follows no rule.
 *
 *	id=N			the kind of device, default entropy
 *	do=identify n=N		magic, version, ids; after the Nth window there is nothing
 *	do=widths		every offset in every width, read and written
 *	do=selectors		queue and feature selectors far out of range
 *	do=features		what may be acknowledged and what not
 *	do=status		the order of the status bits, and orders that are wrong
 *	do=queue		sizes and places of rings that must be refused
 *	do=frozen		registers that must not matter once the device runs
 *	do=config		the configuration space and beyond
 *	do=resets n=N		N resets at every stage, with requests on their way
 *	do=random n=N seed=S	N random accesses anywhere in the window
 */
#include "guest.h"

static struct vrings rings, other;
static u8 buffer[4096] __attribute__((aligned(4096)));
static struct vio vio;
static u32 kind;

static const u32 far[] = { 1, 2, 3, 16, 17, 255, 0x7fffffff, 0x80000000, 0xffffffff };

static u32 reg(u32 at)
{
	return read32(vio.base + at);
}

static void set(u32 at, u32 value)
{
	write32(vio.base + at, value);
}

static void still_works(const char *after)
{
	CHECK(vio_works(&vio, &rings), "the device works after %s", after);
}

static void identify(void)
{
	u64 n = option("n", 1);

	for (u64 i = 0; i < n; i++) {
		u64 base = LAYOUT_VIRTIO + LAYOUT_VIRTIO_STEP * i;

		CHECK(read32(base + VIO_MAGIC) == 0x74726976, "magic of window %lu", i);
		CHECK(read32(base + VIO_VERSION) == 2, "version of window %lu", i);
		CHECK(read32(base + VIO_DEVICE) != 0, "device of window %lu", i);
		CHECK(read32(base + VIO_STATUS) == 0, "status of window %lu", i);
		CHECK(read32(base + VIO_ISR) == 0, "interrupt status of window %lu", i);
	}
	for (u64 i = n; i < n + 2; i++)
		CHECK(read32(LAYOUT_VIRTIO + LAYOUT_VIRTIO_STEP * i) == 0xffffffff,
		      "nothing in window %lu", i);
	CHECK(reg(VIO_DEVICE) == kind, "the command line names the window of device %u", kind);
	CHECK(reg(VIO_QUEUE_MAX) == 256, "queue of %u", reg(VIO_QUEUE_MAX));
}

static void widths(void)
{
	u32 magic_bytes = 0;

	for (unsigned size = 1; size <= 8; size *= 2) {
		for (u64 at = 0; at < 0x1000; at += size < 4 ? 1 : 4)
			mmio_read(vio.base + at, size);
	}
	/* Narrow or unaligned writes are not for registers: they may do nothing at all. */
	CHECK(vio_begin(&vio, 1ull << VIO_F_VERSION_1), "features");
	vio_queue(&vio, &rings, 16);
	for (unsigned size = 1; size <= 2; size++) {
		for (u64 at = 0; at < 0x100; at++) {
			if (at / 4 * 4 != VIO_NOTIFY)
				mmio_write(vio.base + at, 0, size);
		}
	}
	CHECK(reg(VIO_STATUS) == 11, "narrow writes leave the status alone: %x", reg(VIO_STATUS));
	CHECK(reg(VIO_QUEUE_READY) == 1, "narrow writes leave the queue alone");
	mmio_write(vio.base + VIO_STATUS, 0, 8);
	mmio_write(vio.base + VIO_QUEUE_READY - 2, 0, 8);
	for (u64 at = 0; at < 4; at++)
		magic_bytes |= (u32)(mmio_read(vio.base + at, 1) & 0xff) << 8 * at;
	put("magic by bytes %x\n", magic_bytes);
	still_works("accesses of every width");
}

static void selectors(void)
{
	CHECK(vio_begin(&vio, 1ull << VIO_F_VERSION_1), "features");
	vio_queue(&vio, &rings, 16);
	for (unsigned i = 0; i < ARRAY_SIZE(far); i++) {
		set(VIO_QUEUE_SEL, far[i]);
		CHECK(reg(VIO_QUEUE_MAX) == 0, "queue %x does not exist", far[i]);
		CHECK(reg(VIO_QUEUE_READY) == 0, "queue %x is not ready", far[i]);
		set(VIO_QUEUE_NUM, 0xffff);
		for (u32 r = VIO_DESC_LO; r <= VIO_USED_HI; r += 4)
			set(r, 0xffffffff);
		set(VIO_QUEUE_READY, 1);
		CHECK(reg(VIO_QUEUE_READY) == 0, "queue %x can not be made ready", far[i]);
		set(VIO_DEV_FEATURES_SEL, far[i] < 2 ? 2 : far[i]);
		CHECK(reg(VIO_DEV_FEATURES) == 0, "features of word %x", far[i]);
		set(VIO_DRV_FEATURES_SEL, far[i] < 2 ? 2 : far[i]);
		set(VIO_DRV_FEATURES, 0xffffffff);
		set(VIO_SHM_SEL, far[i]);
		set(VIO_NOTIFY, far[i]);
	}
	set(VIO_QUEUE_SEL, 0);
	CHECK(reg(VIO_QUEUE_READY) == 1, "queue 0 is as it was");
	vio_go(&vio);
	for (unsigned i = 0; i < ARRAY_SIZE(far); i++)
		set(VIO_NOTIFY, far[i]);
	CHECK(!(reg(VIO_STATUS) & VIO_S_BROKEN), "kicks of other queues do not matter");
	still_works("selectors out of range");
}

static void features(void)
{
	u64 offered = vio_features(&vio), wrong = 0;

	CHECK(offered >> VIO_F_VERSION_1 & 1, "version 1 is offered");
	CHECK(!(offered >> 28 & 1), "indirect descriptors are not offered");
	CHECK(!vio_begin(&vio, 0), "nothing without version 1");
	for (unsigned bit = 0; bit < 64; bit++) {
		if (offered >> bit & 1)
			continue;
		wrong += vio_begin(&vio, 1ull << VIO_F_VERSION_1 | 1ull << bit);
	}
	CHECK(!wrong, "%lu features that were not offered were accepted", wrong);
	CHECK(vio_begin(&vio, offered), "everything that is offered");
	/* Too late to change one's mind. */
	set(VIO_DRV_FEATURES_SEL, 1);
	set(VIO_DRV_FEATURES, 0);
	vio_queue(&vio, &rings, 16);
	vio_go(&vio);
	CHECK(!(reg(VIO_STATUS) & VIO_S_BROKEN), "features are fixed by FEATURES_OK");
	still_works("features");
}

static void status(void)
{
	static const u32 orders[][3] = {
		{ VIO_S_OK, 0, 0 },	       { VIO_S_FEATURES, VIO_S_OK, 0 },
		{ 1, VIO_S_OK | 1, 0 },	       { 1, 1 | VIO_S_FEATURES, 1 | VIO_S_FEATURES | VIO_S_OK },
		{ 3, 3 | VIO_S_OK, 0 },	       { 0xff, 0, 0 },
		{ 0xffffff00, 0xffffffff, 1 }, { VIO_S_BROKEN, 1 | VIO_S_BROKEN, 15 },
	};

	for (unsigned i = 0; i < ARRAY_SIZE(orders); i++) {
		set(VIO_STATUS, 0);
		for (unsigned k = 0; k < 3; k++) {
			set(VIO_STATUS, orders[i][k]);
			CHECK((reg(VIO_STATUS) & 15) != 15, "order %u does not start it", i);
		}
		set(VIO_NOTIFY, 0);
		set(VIO_STATUS, 0);
		CHECK(reg(VIO_STATUS) == 0, "reset after order %u", i);
	}
	CHECK(vio_init(&vio, &rings, 16, 1ull << VIO_F_VERSION_1), "it starts");
	set(VIO_STATUS, 3);
	CHECK(reg(VIO_STATUS) == 15 || reg(VIO_STATUS) & VIO_S_BROKEN, "bits can only be set: %x",
	      reg(VIO_STATUS));
	set(VIO_STATUS, 0);
	CHECK(reg(VIO_STATUS) == 0 && reg(VIO_QUEUE_READY) == 0, "a reset takes the queue");
	set(VIO_STATUS, 128);
	CHECK(reg(VIO_STATUS) == 128, "the driver may fail");
	still_works("a mess of status bits");
}

/* A queue like that must never run: it is not ready, or the device says that it is broken. */
static void refused(const char *what, u64 desc, u64 avail, u64 used, u32 size)
{
	bool ready;

	CHECK(vio_begin(&vio, 1ull << VIO_F_VERSION_1), "features");
	vio_queue_at(&vio, desc, avail, used, size);
	vio_go(&vio);
	ready = reg(VIO_QUEUE_READY) == 1;
	set(VIO_NOTIFY, 0);
	CHECK(!ready || reg(VIO_STATUS) & VIO_S_BROKEN, "%s is refused (status %x)", what,
	      reg(VIO_STATUS));
}

static void queue(void)
{
	u64 d = (u64)rings.desc, a = (u64)&rings.avail, u = (u64)&rings.used;
	u64 end = option("mem_mib", 128) << 20;

	refused("size 0", d, a, u, 0);
	refused("size 3", d, a, u, 3);
	refused("size 512", d, a, u, 512);
	refused("size 257", d, a, u, 257);
	refused("size 65536", d, a, u, 65536);
	refused("size 0x80000000", d, a, u, 0x80000000);
	refused("descriptors off by 8", d + 8, a, u, 16);
	refused("available ring off by 1", d, a + 1, u, 16);
	refused("used ring off by 2", d, a, u + 2, 16);
	refused("descriptors at no memory", 0xd0000000, a, u, 16);
	refused("available ring at no memory", d, 0xd0000000, u, 16);
	refused("used ring at no memory", d, a, 0xd0000000, 16);
	refused("used ring in its own window", d, a, vio.base + 0x100, 16);
	refused("descriptors across the end of memory", end - 16, a, u, 16);
	refused("available ring across the end of memory", d, end - 8, u, 16);
	refused("used ring across the end of memory", d, a, end - 8, 16);
	refused("descriptors at the top", ~15ull, a, u, 16);
	refused("available ring at the top", d, ~1ull, u, 16);
	refused("used ring at the top", d, a, ~3ull, 16);
	refused("descriptors that wrap", 0xfffffffffffffff0, a, u, 256);
	refused("rings on top of each other", d, d, d, 16);
	refused("used on the available ring", d, a, a, 16);
	refused("available ring among the descriptors", d, d + 64, u, 16);
	still_works("bad queues");
}

static void frozen(void)
{
	CHECK(vio_init(&vio, &rings, 16, 1ull << VIO_F_VERSION_1), "the device starts");
	memset(&other, 0xff, sizeof(other));
	set(VIO_QUEUE_NUM, 256);
	set(VIO_DESC_LO, (u32)(u64)other.desc);
	set(VIO_AVAIL_LO, (u32)(u64)&other.avail);
	set(VIO_USED_HI, 0xffffffff);
	set(VIO_DRV_FEATURES, 0xffffffff);
	set(VIO_QUEUE_READY, 1);
	/* Offered in the rings that were there when the queue was made ready. */
	vio_desc(&vio, 0, (u64)buffer, 64, VD_WRITE, 0);
	for (u16 i = 0; i < 40; i++) {
		u32 id, len;

		if (kind != VIO_ID_RNG)
			break;
		vio_offer(&vio, 0);
		vio_kick(&vio);
		CHECK(vio_wait(&vio, &id, &len) && len == 64, "request %u in the old ring", (u32)i);
	}
	still_works("registers changed under way");
}

static void config(void)
{
	static const u64 outside[] = { 0x3c, 0x40, 0x44, 0x80, 0x100, 0xef8, 0xefc };
	u32 before = reg(VIO_CONFIG), generation = reg(VIO_CONFIG_GEN);

	for (unsigned size = 1; size <= 8; size *= 2) {
		for (u64 at = 0; at + size <= 0xf00; at += size)
			mmio_write(vio.base + VIO_CONFIG + at, 0xa5a5a5a5a5a5a5a5, size);
		for (u64 at = 0; at + size <= 0xf00; at++)
			mmio_read(vio.base + VIO_CONFIG + at, size);
	}
	for (unsigned i = 0; i < ARRAY_SIZE(outside); i++) {
		u32 v = reg(VIO_CONFIG + (u32)outside[i]);

		CHECK(v == 0 || v == 0xffffffff, "config + %lx is %x", outside[i], v);
	}
	/* Across the end of the window, into whatever is next. */
	mmio_read(vio.base + 0xffc, 8);
	mmio_write(vio.base + 0xffc, 0, 8);
	CHECK(reg(VIO_CONFIG) == before, "configuration is read-only");
	CHECK(reg(VIO_CONFIG_GEN) == generation, "generation %u", generation);
	still_works("configuration accesses");
}

static void resets(void)
{
	u64 n = option("n", 50);

	for (u64 i = 0; i < n; i++) {
		bool stages[] = { i % 5 > 0, i % 5 > 1, i % 5 > 2, i % 5 > 3 };

		if (stages[0])
			set(VIO_STATUS, 1);
		if (stages[1])
			CHECK(vio_begin(&vio, 1ull << VIO_F_VERSION_1), "features %lu", i);
		if (stages[2])
			vio_queue(&vio, &rings, 16);
		if (stages[3]) {
			vio_go(&vio);
			for (unsigned k = 0; k < 8; k++) {
				vio_desc(&vio, k, (u64)buffer + 256 * k, 256, VD_WRITE, 0);
				vio_offer(&vio, (u16)k);
			}
			vio_kick(&vio);
		}
		set(VIO_STATUS, 0);
		CHECK(reg(VIO_STATUS) == 0, "reset %lu", i);
		if (stages[3]) {
			/* After the reset nothing may touch our memory any more. */
			memset(buffer, 0, sizeof(buffer));
			for (unsigned k = 0; k < 200; k++)
				relax();
			for (unsigned k = 0; k < 8 * 256; k += 16)
				CHECK(!buffer[k], "memory after reset %lu", i);
		}
	}
	still_works("resets");
}

static void random_accesses(void)
{
	u64 n = option("n", 2000), seed = option("seed", 1);
	static const u8 hot[] = { VIO_DEV_FEATURES_SEL, VIO_DRV_FEATURES, VIO_DRV_FEATURES_SEL,
				  VIO_QUEUE_SEL, VIO_QUEUE_NUM, VIO_QUEUE_READY, VIO_NOTIFY,
				  VIO_ACK, VIO_STATUS, VIO_DESC_LO, VIO_AVAIL_LO, VIO_USED_LO,
				  VIO_DESC_HI, VIO_STATUS, VIO_STATUS, VIO_NOTIFY };

	memset(&other, 0xff, sizeof(other));
	for (u64 i = 0; i < n; i++) {
		u32 r, value;

		seed = seed * 6364136223846793005 + 1442695040888963407;
		r = (u32)(seed >> 33);
		value = r & 1 ? r >> 8 & 15 : r & 2 ? (u32)(u64)&other + (r >> 4 & 0xfff0) : r;
		if (r & 0x30)
			set(hot[r >> 16 & 15], value);
		else
			mmio_write(vio.base + (r >> 8 & 0xff8), value, 1u << (r >> 6 & 3));
		mmio_read(vio.base + (r >> 12 & 0xff8), 1u << (r >> 4 & 3));
	}
	still_works("random accesses");
}

void guest(void)
{
	kind = (u32)option("id", VIO_ID_RNG);
	CHECK(vio_find(&vio, kind, 0), "a device of kind %u", kind);
	vio.rings = &rings;
	if (option_is("do", "identify"))
		identify();
	else if (option_is("do", "widths"))
		widths();
	else if (option_is("do", "selectors"))
		selectors();
	else if (option_is("do", "features"))
		features();
	else if (option_is("do", "status"))
		status();
	else if (option_is("do", "queue"))
		queue();
	else if (option_is("do", "frozen"))
		frozen();
	else if (option_is("do", "config"))
		config();
	else if (option_is("do", "resets"))
		resets();
	else if (option_is("do", "random"))
		random_accesses();
	else
		CHECK(false, "do= says nothing known");
}
