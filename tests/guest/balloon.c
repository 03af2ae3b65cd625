/*
 * balloon: a driver of good faith that gives memory back, and one that lies about it.
 *
 *	do=inflate mib=N	touches N MiB from 16 MiB up, gives them back, finds zeros, touches again;
 *				a line after each step (touched, given, back) and waits for a key
 *	do=target		prints the target whenever it changes, for ever
 *	do=stats		answers every question with the number of the answer
 *	do=report mib=N		touches N MiB, reports them as free; a line after each, waits for a key
 *	do=hostile		page numbers and lengths that do not exist
 */
#include "guest.h"

#define START  0x1000000u
#define PAGE   4096u
#define LIST   256
enum { INFLATE, DEFLATE, THIRD };

static struct vrings rings[3];
static struct vio dev, queue[3];
static u32 pfn[LIST];

static bool start(unsigned n_queues)
{
	bool found = vio_find(&dev, VIO_ID_BALLOON, 0);

	CHECK(found, "a balloon");
	if (!found || !vio_begin(&dev, vio_features(&dev) & ~(1ull << VIO_F_EVENT_IDX)))
		return false;
	for (unsigned q = 0; q < n_queues; q++) {
		queue[q] = dev;
		queue[q].queue = q;
		vio_queue(&queue[q], &rings[q], 16);
	}
	vio_go(&dev);
	return true;
}

static bool send(unsigned q, u64 addr, u32 len, u16 flags)
{
	u32 id, used;

	vio_desc(&queue[q], 0, addr, len, flags, 0);
	vio_offer(&queue[q], 0);
	vio_kick(&queue[q]);
	return vio_wait(&queue[q], &id, &used);
}

static void wait_key(const char *line)
{
	put("%s\n", line);
	while (getc() < 0)
		relax();
}

static void touch(u32 pages)
{
	for (u32 i = 0; i < pages; i++)
		WRITE_ONCE(*(u64 *)(u64)(START + i * PAGE), 0x1122334455667788ull + i);
}

static u32 not_zero(u32 pages)
{
	u32 n = 0;

	for (u32 i = 0; i < pages; i++)
		n += READ_ONCE(*(u64 *)(u64)(START + i * PAGE)) != 0;
	return n;
}

/* As Linux does it: up to 256 page numbers a request. */
static void give(unsigned q, u32 pages)
{
	for (u32 at = 0; at < pages;) {
		u32 n = 0;

		for (; n < LIST && at < pages; n++, at++)
			pfn[n] = START / PAGE + at;
		CHECK(send(q, (u64)pfn, n * 4, 0), "a list of %u pages is taken", n);
	}
}

static void do_inflate(u32 pages)
{
	touch(pages);
	wait_key("touched");
	give(INFLATE, pages);
	wait_key("given");
	CHECK(not_zero(pages) == 0, "pages that come back are zero");
	give(DEFLATE, pages);
	touch(pages);
	wait_key("back");
}

static void do_report(u32 pages)
{
	touch(pages);
	wait_key("touched");
	for (u32 at = 0; at < pages; at += 512)
		CHECK(send(THIRD, START + at * PAGE, 512 * PAGE, VD_WRITE), "a report is taken");
	wait_key("reported");
}

static void do_target(void)
{
	u32 seen = 0xffffffff;

	for (;;) {
		u32 target = read32(dev.base + VIO_CONFIG);

		if (target != seen)
			put("target %u\n", target);
		seen = target;
		write32(dev.base + VIO_CONFIG + 4, target); /* as if it had been given */
		relax();
	}
}

static void do_stats(void)
{
	static struct {
		u16 tag;
		u64 value;
	} __attribute__((packed)) stat[2];

	for (u64 n = 1;; n++) {
		stat[0].tag = 4;
		stat[0].value = n * 1000;
		stat[1].tag = 5;
		stat[1].value = n;
		while (!send(THIRD, (u64)stat, sizeof(stat), 0))
			relax();
		put("asked %lu\n", n);
	}
}

static void do_hostile(void)
{
	static const u32 wrong[] = { 0xffffffff, 0xfffff, 0xc0000, 0xc0001, 0x7fffffff, 0x100000 };

	for (unsigned i = 0; i < ARRAY_SIZE(wrong); i++) {
		for (unsigned j = 0; j < LIST; j++)
			pfn[j] = wrong[i] + j;
		CHECK(send(INFLATE, (u64)pfn, sizeof(pfn), 0), "pages from %x on", wrong[i]);
	}
	CHECK(send(INFLATE, (u64)pfn, 3, 0), "less than a page number");
	CHECK(send(INFLATE, (u64)pfn, sizeof(pfn), VD_WRITE), "nothing to read");
	CHECK(send(DEFLATE, (u64)pfn, sizeof(pfn), 0), "deflating what was never given");
	vio_desc(&queue[INFLATE], 0, 0x100000, 0x400000, 0, 0);
	vio_offer(&queue[INFLATE], 0);
	vio_kick(&queue[INFLATE]);
	CHECK(vio_wait_broken(&dev), "a list of a million pages breaks the device");
	CHECK(start(2), "it starts again");
	/* A list outside RAM breaks the device; a reset mends it. */
	vio_desc(&queue[INFLATE], 0, 0xc0000000, 64, 0, 0);
	vio_offer(&queue[INFLATE], 0);
	vio_kick(&queue[INFLATE]);
	CHECK(vio_wait_broken(&dev), "a list outside RAM breaks the device");
	CHECK(start(2), "it starts again");
	pfn[0] = START / PAGE;
	CHECK(send(INFLATE, (u64)pfn, 4, 0), "it works again");
}

void guest(void)
{
	u32 pages = (u32)option("mib", 4) * 256;
	bool third = option_is("do", "stats") || option_is("do", "report");

	if (!start(third ? 3 : 2))
		return;
	if (option_is("do", "inflate"))
		do_inflate(pages);
	else if (option_is("do", "report"))
		do_report(pages);
	else if (option_is("do", "target"))
		do_target();
	else if (option_is("do", "stats"))
		do_stats();
	else if (option_is("do", "hostile"))
		do_hostile();
	else
		CHECK(false, "nothing to do");
}
