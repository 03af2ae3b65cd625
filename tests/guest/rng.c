/*
 * rng: the entropy device, by a driver of good faith.
 *
 *	do=read		buffers of many sizes; the bytes differ, and nothing beyond them changes
 *	do=split	one request over many small segments
 *	do=many n=N	N requests with the whole ring in flight
 *	do=events n=N	the same with event index: every completion arrives, kicks as asked for
 *	do=loop		for ever, a line for every hundred (pause, resume)
 */
#include "guest.h"

#define BIG 0x20000

static struct vrings rings;
static u8 buffer[BIG + 64];
static struct vio vio;

static bool start(unsigned size, u64 more)
{
	bool found = vio_find(&vio, VIO_ID_RNG, 0);

	CHECK(found, "an entropy device");
	return found && vio_init(&vio, &rings, size, 1ull << VIO_F_VERSION_1 | more);
}

static u32 ask(u32 n)
{
	u32 id, len;

	vio_desc(&vio, 0, (u64)buffer, n, VD_WRITE, 0);
	vio_offer(&vio, 0);
	vio_kick(&vio);
	if (!vio_wait(&vio, &id, &len)) {
		CHECK(false, "a request for %u bytes is answered", n);
		return 0;
	}
	CHECK(id == 0, "answer names head %u", id);
	return len;
}

/* The chance that good bytes look like this is beyond counting. */
static bool looks_random(const u8 *p, u32 n)
{
	u32 same = 0;

	for (u32 i = 1; i < n; i++)
		same += p[i] == p[i - 1];
	return n < 32 || same < n / 8;
}

static void read_sizes(void)
{
	static const u32 sizes[] = { 1, 2, 16, 64, 1000, 4096, 65536, BIG };

	for (unsigned i = 0; i < ARRAY_SIZE(sizes); i++) {
		u32 got, beyond = 0;

		memset(buffer, 0xcc, sizeof(buffer));
		got = ask(sizes[i]);
		CHECK(got > 0 && got <= sizes[i], "%u bytes for %u", got, sizes[i]);
		CHECK(looks_random(buffer, got < 512 ? got : 512), "%u bytes look random", got);
		for (u32 k = 0; k < 64; k++)
			beyond += buffer[got + k] != 0xcc;
		CHECK(!beyond, "nothing beyond the %u bytes is written", got);
	}
}

static void split(void)
{
	u32 id, len, zero = 0;

	memset(buffer, 0, 4096);
	for (unsigned i = 0; i < 16; i++)
		vio_desc(&vio, i, (u64)buffer + 64 * i, 1 + i, VD_WRITE | (i < 15 ? VD_NEXT : 0),
			 (u16)(i + 1));
	vio_offer(&vio, 0);
	vio_kick(&vio);
	CHECK(vio_wait(&vio, &id, &len), "a split request is answered");
	CHECK(len == 136, "all of it: %u", len);
	for (unsigned i = 0; i < 16; i++) {
		for (unsigned k = 1 + i; k < 64; k++)
			zero += buffer[64 * i + k] != 0;
	}
	CHECK(!zero, "only the segments are written");
}

static void fill_ring(unsigned size)
{
	for (unsigned i = 0; i < size; i++)
		vio_desc(&vio, i, (u64)buffer + 16 * i, 16, VD_WRITE, 0);
}

static void many(bool events)
{
	u32 n = (u32)option("n", 500), size = 32, given = 0, taken = 0, kicks = 0, id, len;
	u16 *used_event = (u16 *)&rings.avail.ring[size];
	u16 *avail_event = (u16 *)&rings.used.ring[size];

	CHECK(start(size, events ? 1ull << VIO_F_EVENT_IDX : 0), "the device starts");
	fill_ring(size);
	while (taken < n) {
		u16 before = vio.avail_idx;

		while (given < n && given - taken < size) {
			vio_offer(&vio, (u16)(given % size));
			given++;
		}
		full_barrier();
		/* The specification's own condition for a kick. */
		if (!events || (u16)(vio.avail_idx - READ_ONCE(*avail_event) - 1) <
				       (u16)(vio.avail_idx - before)) {
			vio_kick(&vio);
			kicks++;
		}
		WRITE_ONCE(*used_event, vio.used_seen);
		if (!vio_wait(&vio, &id, &len)) {
			CHECK(false, "request %u of %u is answered", taken, n);
			return;
		}
		CHECK(len == 16 && id < size, "request %u: head %u length %u", taken, id, len);
		taken++;
	}
	CHECK(rings.used.idx == (u16)n, "used index %u after %u", (u32)rings.used.idx, n);
	CHECK(kicks > 0, "it took kicks");
}

NORETURN static void loop(void)
{
	for (u32 n = 0;; n++) {
		u32 got = ask(64);

		CHECK(got == 64, "64 bytes at %u", n);
		if (n % 100 == 0)
			put("requests %u\n", n);
	}
}

void guest(void)
{
	if (option_is("do", "many") || option_is("do", "events")) {
		many(option_is("do", "events"));
		return;
	}
	CHECK(start(16, 0), "the device starts");
	if (option_is("do", "read"))
		read_sizes();
	else if (option_is("do", "split"))
		split();
	else if (option_is("do", "loop"))
		loop();
	else
		CHECK(false, "do= says nothing known");
}
