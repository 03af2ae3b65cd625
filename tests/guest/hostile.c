/*
 * hostile: rings that lie. Whatever is offered here, the device must answer it with an error or
 * call itself broken, in bounded time; nothing outside the guest's own buffers may change; and after
 * a reset it must be as good as new.
 *
 *	id=N		the kind of device, default entropy
 *	do=index	heads and next indices beyond the ring
 *	do=cycle	descriptors that lead back to themselves
 *	do=jump		available indices from nowhere
 *	do=address	buffers where there is no memory, that wrap, that never end
 *	do=direction	readable where writable is due, and the other way round
 *	do=header	request headers too short, status bytes missing (drives)
 *	do=indirect	indirect descriptors, which nobody negotiated
 *	do=twice	the same head again while it is in use
 *	do=inside	buffers inside the very ring that names them
 *	do=scribble	the device's own fields overwritten
 *	do=rewrite n=N	descriptors rewritten right after the kick, N times
 *	do=race n=N	a second processor rewrites them all the time
 *	do=sum		many descriptors of one buffer: gigabytes from kilobytes
 *	do=kicks n=N	N kicks with nothing there
 *	do=early	kicks before there is a queue, a driver, anything
 */
#include "guest.h"

#define SIZE 16

static struct vrings rings;
static u8 buffer[0x4000] __attribute__((aligned(4096)));
static u8 guard[64];
static struct vio vio;
static bool block;

static struct {
	u32 type;
	u32 reserved;
	u64 sector;
} header;
static u8 status;

static bool start(void)
{
	bool ok = vio_init(&vio, &rings, SIZE, 1ull << VIO_F_VERSION_1);

	CHECK(ok, "the device starts");
	memset(guard, 0x33, sizeof(guard));
	memset(&header, 0, sizeof(header));
	status = 0xee;
	return ok;
}

/* Broken or answered, but soon: both are right, silence is not. */
static bool reacted(void)
{
	for (u32 looks = 200000; looks; looks--) {
		if (READ_ONCE(rings.used.idx) != vio.used_seen)
			return true;
		if (looks % 64 == 0 && vio_status(&vio) & VIO_S_BROKEN)
			return true;
	}
	return false;
}

static void unharmed(const char *what)
{
	for (unsigned i = 0; i < sizeof(guard); i++)
		CHECK(guard[i] == 0x33, "memory beside the buffer after %s", what);
	CHECK(vio_works(&vio, &rings), "the device works after %s", what);
}

static void expect_reaction(const char *what)
{
	vio_kick(&vio);
	CHECK(reacted(), "%s is answered", what);
	unharmed(what);
}

static void expect_broken(const char *what)
{
	vio_kick(&vio);
	CHECK(vio_wait_broken(&vio), "%s breaks the device", what);
	CHECK(read32(vio.base + VIO_ISR) & 2, "%s: the driver is told", what);
	unharmed(what);
}

/* A good request around descriptor 1, which each case then spoils. */
static void good(void)
{
	start();
	/* Behind the table lie descriptors without fault: whoever goes there must not be stopped by
	 * anything but the bound. */
	for (unsigned i = SIZE; i < VQ_MAX; i++)
		vio_desc(&vio, i, (u64)buffer, 16, VD_WRITE, 0);
	if (!block) {
		vio_desc(&vio, 1, (u64)buffer, 64, VD_WRITE, 0);
		vio_offer(&vio, 1);
		return;
	}
	vio_desc(&vio, 0, (u64)&header, sizeof(header), VD_NEXT, 1);
	vio_desc(&vio, 1, (u64)buffer, 512, VD_WRITE | VD_NEXT, 2);
	vio_desc(&vio, 2, (u64)&status, 1, VD_WRITE, 0);
	vio_offer(&vio, 0);
}

static void index(void)
{
	static const u16 wrong[] = { SIZE, SIZE + 1, VQ_MAX - 1, 0x7fff, 0x8000, 0xffff };

	for (unsigned i = 0; i < ARRAY_SIZE(wrong); i++) {
		good();
		vio.avail_idx--;
		vio_offer(&vio, wrong[i]);
		expect_broken("a head beyond the ring");
		good();
		rings.desc[1].flags |= VD_NEXT;
		rings.desc[1].next = wrong[i];
		expect_broken("a next beyond the ring");
	}
}

static void chain(u16 from, u16 to, u16 n)
{
	for (u16 i = from; i < from + n; i++)
		vio_desc(&vio, i, (u64)buffer, 16, VD_WRITE | VD_NEXT, (u16)(i + 1));
	rings.desc[from + n - 1].next = to;
}

static void cycle(void)
{
	static const u16 shapes[][2] = { { 0, 1 }, { 0, 2 }, { 1, 3 }, { 7, 8 }, { 0, SIZE }, { 15, SIZE } };

	for (unsigned i = 0; i < ARRAY_SIZE(shapes); i++) {
		start();
		chain(0, shapes[i][0], shapes[i][1]);
		vio_offer(&vio, 0);
		expect_broken("a cycle");
		start();
		chain(0, shapes[i][0], shapes[i][1]);
		for (unsigned k = 0; k < SIZE; k++)
			rings.desc[k].len = 0;
		vio_offer(&vio, 0);
		expect_broken("a cycle of nothing");
	}
	/* The longest chain that is no cycle. */
	start();
	chain(0, 0, SIZE);
	rings.desc[SIZE - 1].flags = VD_WRITE;
	vio_offer(&vio, 0);
	expect_reaction("a chain of the whole ring");
}

static void jump(void)
{
	static const u16 jumps[] = { SIZE + 1, 2 * SIZE, 256, 257, 0x7fff, 0x8000, 0xffff };

	for (unsigned i = 0; i < ARRAY_SIZE(jumps); i++) {
		good();
		WRITE_ONCE(rings.avail.idx, jumps[i]);
		expect_broken("an available index from nowhere");
	}
	/* Going back: one is taken, then the index says that it never was. */
	good();
	vio_kick(&vio);
	CHECK(reacted(), "the first is answered");
	WRITE_ONCE(rings.avail.idx, 0);
	expect_broken("an available index that goes back");
}

static void address(void)
{
	u64 end = option("mem_mib", 128) << 20;
	const struct {
		const char *what;
		u64 addr;
		u32 len;
	} cases[] = {
		{ "a hole", 0xd0000000, 512 },
		{ "a device's window", vio.base, 512 },
		{ "the IOAPIC", LAYOUT_IOAPIC, 512 },
		{ "the local APIC", LAYOUT_LAPIC, 512 },
		{ "across the end of memory", end - 256, 512 },
		{ "right behind memory", end, 512 },
		{ "the last byte of memory", end - 1, 512 },
		{ "wrapping around", 0xfffffffffffffff8, 512 },
		{ "the very top", ~0ull, 512 },
		{ "not canonical", 0x8000000000000000, 512 },
		{ "all of 4 GiB", 0, 0xffffffff },
		{ "2 GiB", (u64)buffer, 0x80000000 },
		{ "more than there is", end - 0x1000, 0xfffff000 },
		{ "nothing", (u64)buffer, 0 },
		{ "nothing nowhere", 0xd0000000, 0 },
	};

	for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
		good();
		rings.desc[1].addr = cases[i].addr;
		rings.desc[1].len = cases[i].len;
		expect_reaction(cases[i].what);
		if (!block)
			continue;
		good(); /* the other way: the device reads from there */
		header.type = 1;
		header.sector = option("scratch", 8);
		rings.desc[1] = (struct vdesc){ cases[i].addr, cases[i].len, VD_NEXT, 2 };
		expect_reaction(cases[i].what);
		good(); /* a header there */
		rings.desc[0].addr = cases[i].addr;
		rings.desc[0].len = cases[i].len;
		expect_reaction(cases[i].what);
		good(); /* the status byte there */
		rings.desc[2].addr = cases[i].addr;
		rings.desc[2].len = cases[i].len;
		expect_reaction(cases[i].what);
	}
}

static void direction(void)
{
	memset(buffer, 0x44, sizeof(buffer));
	good();
	rings.desc[1].flags ^= VD_WRITE;
	vio_kick(&vio);
	CHECK(reacted(), "a buffer of the wrong direction is answered");
	for (unsigned i = 0; i < 512; i++)
		CHECK(buffer[i] == 0x44, "what is only to be read is not written");
	unharmed("a wrong direction");
	if (!block)
		return;
	good();
	rings.desc[0].flags |= VD_WRITE;
	expect_reaction("a header that can not be read");
	good();
	rings.desc[2].flags = 0;
	expect_reaction("a status that can not be written");
	good();
	rings.desc[1].flags = VD_NEXT; /* readable after writable: */
	rings.desc[0].flags = VD_NEXT | VD_WRITE;
	expect_reaction("readable after writable");
	good();
	rings.desc[0].flags = VD_WRITE | VD_NEXT;
	rings.desc[1].flags = VD_NEXT;
	rings.desc[2].flags = 0;
	expect_reaction("everything the wrong way round");
}

static void headers(void)
{
	static const u32 lengths[] = { 0, 1, 4, 8, 15, 17, 32, 4096 };

	for (unsigned i = 0; i < ARRAY_SIZE(lengths); i++) {
		good();
		rings.desc[0].len = lengths[i];
		expect_reaction("a header of another length");
		good();
		rings.desc[2].len = lengths[i];
		expect_reaction("a status of another length");
	}
	good();
	rings.desc[1].flags = VD_WRITE; /* the data is last: the status has to be its last byte */
	expect_reaction("no status");
	good();
	rings.desc[0].flags = 0;
	expect_reaction("a header and nothing else");
	good();
	rings.desc[0].next = 2;
	expect_reaction("no data");
}

static void indirect(void)
{
	static struct vdesc table[4] __attribute__((aligned(16)));

	table[0] = (struct vdesc){ (u64)buffer, 64, VD_WRITE, 0 };
	good();
	rings.desc[1] = (struct vdesc){ (u64)table, sizeof(table), VD_INDIRECT, 0 };
	expect_broken("an indirect descriptor");
	good();
	rings.desc[1] = (struct vdesc){ (u64)table, sizeof(table), VD_INDIRECT | VD_NEXT, 2 };
	expect_broken("an indirect descriptor with a next");
	good();
	rings.desc[1] = (struct vdesc){ (u64)table, 17, VD_INDIRECT | VD_WRITE, 2 };
	expect_broken("an indirect descriptor to write to");
}

static void twice(void)
{
	good();
	for (unsigned i = 1; i < SIZE; i++)
		vio_offer(&vio, block ? 0 : 1);
	expect_reaction("the same head many times");
	for (unsigned round = 0; round < 20; round++) {
		good();
		vio_kick(&vio);
		vio_offer(&vio, block ? 0 : 1);
		expect_reaction("the same head again while in use");
	}
}

static void inside(void)
{
	const u64 places[] = { (u64)rings.desc, (u64)&rings.avail, (u64)&rings.used,
			       (u64)&rings.used - 16, (u64)&rings.desc[1] };

	for (unsigned i = 0; i < ARRAY_SIZE(places); i++) {
		good();
		rings.desc[1].addr = places[i];
		vio_kick(&vio);
		/* The answer may have been overwritten: only the device's health can be judged. */
		for (unsigned k = 0; k < 2000; k++)
			relax();
		vio_kick(&vio);
		unharmed("a buffer inside the ring");
	}
}

static void scribble(void)
{
	u32 answered = 0;

	good();
	for (unsigned i = 0; i < 40; i++) {
		u16 expected = (u16)(i + 1);

		if (i)
			vio_offer(&vio, block ? 0 : 1);
		WRITE_ONCE(rings.used.idx, (u16)(0x5555 * i));
		rings.used.flags = 0xffff;
		rings.used.avail_event = (u16)i;
		vio_kick(&vio);
		for (u32 looks = 200000; looks && READ_ONCE(rings.used.idx) != expected; looks--)
			relax();
		answered += READ_ONCE(rings.used.idx) == expected;
	}
	CHECK(answered == 40, "the device counts for itself: %u of 40", answered);
	CHECK(!(vio_status(&vio) & VIO_S_BROKEN), "its own fields do not matter to it");
	unharmed("scribbling on the used ring");
}

/* One of the ways in which descriptor 1 can be wrong. */
static void spoil(u32 how)
{
	static const u64 places[] = { 0xd0000000, ~0ull, 0x7fffff8, 0, 0xfec00000 };

	switch (how % 4) {
	case 0:
		WRITE_ONCE(rings.desc[1].addr, places[how / 4 % ARRAY_SIZE(places)]);
		break;
	case 1:
		WRITE_ONCE(rings.desc[1].len, 0xffffffffu >> how / 4 % 32);
		break;
	case 2:
		WRITE_ONCE(rings.desc[1].flags, (u16)(how / 4 % 8));
		break;
	default:
		WRITE_ONCE(rings.desc[1].next, (u16)(how / 4 * 7));
	}
}

static void rewrite_many(void)
{
	u64 n = option("n", 300);

	for (u64 i = 0; i < n; i++) {
		if (i % 16 == 0 || vio_status(&vio) & VIO_S_BROKEN)
			start();
		if (block) {
			vio_desc(&vio, 0, (u64)&header, sizeof(header), VD_NEXT, 1);
			vio_desc(&vio, 2, (u64)&status, 1, VD_WRITE, 0);
		}
		vio_desc(&vio, 1, (u64)buffer, 512, VD_WRITE | (block ? VD_NEXT : 0), 2);
		vio_offer(&vio, block ? 0 : 1);
		vio_kick(&vio);
		spoil((u32)i);
	}
}

static void rewrite(void)
{
	rewrite_many();
	unharmed("rewritten descriptors");
}

static u32 race_over;

void ap_main(unsigned ticket)
{
	(void)ticket;
	for (u32 i = 0; !READ_ONCE(race_over); i++) {
		spoil(i);
		WRITE_ONCE(rings.desc[1].addr, (u64)buffer);
		WRITE_ONCE(rings.desc[1].flags, VD_WRITE | (block ? VD_NEXT : 0));
	}
	WRITE_ONCE(race_over, 2);
}

static void race(void)
{
	aps_start(1);
	rewrite_many();
	WRITE_ONCE(race_over, 1);
	while (READ_ONCE(race_over) != 2)
		relax();
	unharmed("a race");
}

static void sum(void)
{
	u64 room = (option("mem_mib", 128) - 16) << 20;
	u32 each = room > 16 << 20 ? 16 << 20 : (u32)room;

	for (unsigned round = 0; round < 4; round++) {
		CHECK(vio_init(&vio, &rings, 256, 1ull << VIO_F_VERSION_1), "the device starts");
		memset(guard, 0x33, sizeof(guard));
		for (u16 i = 0; i < 256; i++)
			vio_desc(&vio, i, 4 << 20, each, (i ? VD_WRITE : 0) | VD_NEXT, (u16)(i + 1));
		if (!block)
			rings.desc[0].flags |= VD_WRITE;
		rings.desc[255] = (struct vdesc){ (u64)&status, 1, VD_WRITE, 0 };
		vio_offer(&vio, 0);
		expect_reaction("gigabytes");
	}
}

static void kicks(void)
{
	u64 n = option("n", 10000);

	start();
	for (u64 i = 0; i < n; i++)
		write32(vio.base + VIO_NOTIFY, i % 8 == 7 ? (u32)i : 0);
	CHECK(!(vio_status(&vio) & VIO_S_BROKEN), "kicks alone break nothing");
	unharmed("many kicks");
}

static void early(void)
{
	write32(vio.base + VIO_STATUS, 0);
	write32(vio.base + VIO_NOTIFY, 0);
	write32(vio.base + VIO_STATUS, 1);
	write32(vio.base + VIO_NOTIFY, 0);
	CHECK(vio_begin(&vio, 1ull << VIO_F_VERSION_1), "features");
	write32(vio.base + VIO_NOTIFY, 0);
	vio_queue(&vio, &rings, SIZE);
	vio_desc(&vio, 0, (u64)buffer, 64, VD_WRITE, 0);
	memset(guard, 0x33, sizeof(guard));
	memset(buffer, 0, 64);
	vio_offer(&vio, 0);
	vio_kick(&vio);
	for (unsigned i = 0; i < 5000; i++)
		relax();
	CHECK(rings.used.idx == 0, "nothing is served before DRIVER_OK");
	for (unsigned i = 0; i < 64; i++)
		CHECK(!buffer[i], "nothing is written before DRIVER_OK");
	vio_go(&vio);
	unharmed("kicks too early");
	/* DRIVER_OK without a queue. */
	CHECK(vio_begin(&vio, 1ull << VIO_F_VERSION_1), "features");
	vio_go(&vio);
	for (unsigned i = 0; i < 10; i++)
		write32(vio.base + VIO_NOTIFY, 0);
	unharmed("kicks without a queue");
}

void guest(void)
{
	static const struct {
		const char *word;
		void (*run)(void);
	} words[] = {
		{ "index", index },	    { "cycle", cycle },	      { "jump", jump },
		{ "address", address },	    { "direction", direction }, { "header", headers },
		{ "indirect", indirect },   { "twice", twice },	      { "inside", inside },
		{ "scribble", scribble },   { "rewrite", rewrite },   { "race", race },
		{ "sum", sum },		    { "kicks", kicks },	      { "early", early },
	};
	bool known = false;

	block = option("id", VIO_ID_RNG) == VIO_ID_BLOCK;
	CHECK(vio_find(&vio, (u32)option("id", VIO_ID_RNG), 0), "the device");
	vio.rings = &rings;
	for (unsigned i = 0; i < ARRAY_SIZE(words); i++) {
		if (option_is("do", words[i].word)) {
			words[i].run();
			known = true;
		}
	}
	CHECK(known, "do= says something known");
}
