/*
 * holes: accesses to where nothing is, and accesses of the wrong kind to where something is.
 *
 *	do=ports n=N	the first N ports (default all) that nobody owns, every width: all ones
 *	do=mmio		addresses without a device, every width and alignment: all ones
 *	do=strings	repeated port instructions on ports that exist and that do not
 *	do=timer	reads of the boot timer's page
 *	do=leak		values read from holes never contain what was written just before
 *	do=storm n=N	N accesses to holes as fast as it goes
 */
#include "guest.h"

static u8 block[4096];

/* Ports with somebody behind them; all others are holes. */
static bool owned(u32 port)
{
	return (port >= 0x3f8 && port < 0x400) || (port >= 0x60 && port <= 0x64) ||
	       (port >= 0x600 && port < 0x608) || (port >= 0x20 && port < 0x22) ||
	       (port >= 0xa0 && port < 0xa2) || (port >= 0x40 && port < 0x44) || port == 0x61 ||
	       (port >= 0x4d0 && port < 0x4d2) || (port >= 0x70 && port < 0x72);
}

static bool near_owned(u32 port)
{
	for (u32 p = port; p < port + 4; p++) {
		if (owned(p))
			return true;
	}
	return false;
}

static void ports(void)
{
	u32 end = (u32)option("n", 0x10000), step = (u32)option("step", 1), bad = 0;

	for (u32 port = 0; port < end; port += step) {
		if (near_owned(port))
			continue;
		bad += in8((u16)port) != 0xff;
		if (port < 0xffff)
			bad += in16((u16)port) != 0xffff;
		if (port < 0xfffd)
			bad += in32((u16)port) != 0xffffffff;
		if (bad == 1)
			put("first at port %x\n", port);
		out8((u16)port, 0x5a);
		out32((u16)port, 0x5a5a5a5a);
	}
	CHECK(!bad, "%u reads from ports without a device were not all ones", bad);
}

static u64 ones(unsigned size)
{
	return size == 8 ? ~0ull : (1ull << 8 * size) - 1;
}

static void mmio(void)
{
	static const u64 holes[] = { 0xd0000000, 0xcffffff8, 0xe0000000, 0xf0000000, 0xfd000000,
				     LAYOUT_VIRTIO + 0x1000 * LAYOUT_DEVICES_MAX,
				     LAYOUT_IOAPIC + 0x1000, 0xffff0000, 0xfffffff0 };

	for (unsigned i = 0; i < ARRAY_SIZE(holes); i++) {
		for (unsigned size = 1; size <= 8; size *= 2) {
			u64 got = mmio_read(holes[i], size);

			CHECK(got == ones(size), "%lx width %u gave %lx", holes[i], size, got);
			mmio_write(holes[i], 0x0123456789abcdef, size);
			/* Not aligned, but within eight bytes. */
			got = mmio_read(holes[i] + 1, size < 8 ? size : 4);
			CHECK(got == ones(size < 8 ? size : 4), "%lx + 1 gave %lx", holes[i], got);
		}
	}
}

static void string_in(u16 port, unsigned size, u64 count)
{
	void *to = block;

	if (size == 1)
		__asm__ volatile("rep insb" : "+D"(to), "+c"(count) : "d"(port) : "memory");
	else if (size == 2)
		__asm__ volatile("rep insw" : "+D"(to), "+c"(count) : "d"(port) : "memory");
	else
		__asm__ volatile("rep insl" : "+D"(to), "+c"(count) : "d"(port) : "memory");
}

static void string_out(u16 port, unsigned size, u64 count)
{
	const void *from = block;

	if (size == 1)
		__asm__ volatile("rep outsb" : "+S"(from), "+c"(count) : "d"(port) : "memory");
	else if (size == 2)
		__asm__ volatile("rep outsw" : "+S"(from), "+c"(count) : "d"(port) : "memory");
	else
		__asm__ volatile("rep outsl" : "+S"(from), "+c"(count) : "d"(port) : "memory");
}

static void strings(void)
{
	static const u16 counts[] = { 1, 2, 3, 7, 16, 100, 1024 };
	static const u8 message[] = "string output, whole\n";

	for (unsigned c = 0; c < ARRAY_SIZE(counts); c++) {
		for (unsigned size = 1; size <= 4; size *= 2) {
			u32 bytes = counts[c] * size, bad = 0;

			memset(block, 0, sizeof(block));
			string_in(0x1234, size, counts[c]);
			for (u32 i = 0; i < bytes; i++)
				bad += block[i] != 0xff;
			CHECK(!bad, "%u of %u bytes of a string were not ones", bad, bytes);
			CHECK(bytes >= sizeof(block) || block[bytes] == 0, "nothing beyond the string");
			string_out(0x1234, size, counts[c]);
			string_in(LAYOUT_PORT_SERIAL + 7, size, counts[c]);
			string_out(LAYOUT_PORT_SERIAL + 7, size, counts[c]);
		}
	}
	memcpy(block, message, sizeof(message));
	string_out(LAYOUT_PORT_SERIAL, 1, sizeof(message) - 1);
}

static void timer(void)
{
	for (unsigned size = 1; size <= 8; size *= 2) {
		for (u64 at = 0; at < 64; at += size)
			mmio_read(LAYOUT_BOOT_TIMER + at, size);
	}
	CHECK(true, "the timer's page was read");
}

static void leak(void)
{
	for (unsigned size = 1; size <= 8; size *= 2) {
		mmio_write(0xd0000000, 0xa5a5a5a5a5a5a5a5, 8);
		CHECK(mmio_read(0xd0000100, size) == ones(size), "nothing of the write before");
	}
	out32(0x1234, 0xa5a5a5a5);
	CHECK(in8(0x1300) == 0xff && in16(0x1300) == 0xffff, "nothing of the port write before");
	CHECK(in32(0x1300) == 0xffffffff, "nothing of the port write before");
}

static void storm(void)
{
	u64 n = option("n", 10000);

	for (u64 i = 0; i < n; i++) {
		out8((u16)(0x1000 + i % 512), (u8)i);
		mmio_write(0xd0000000 + i % 4096, i, 1);
	}
	CHECK(true, "the storm is over");
}

void guest(void)
{
	if (option_is("do", "ports"))
		ports();
	else if (option_is("do", "mmio"))
		mmio();
	else if (option_is("do", "strings"))
		strings();
	else if (option_is("do", "timer"))
		timer();
	else if (option_is("do", "leak"))
		leak();
	else if (option_is("do", "storm"))
		storm();
	else
		CHECK(false, "do= says nothing known");
}
