/*
 * count: a guest that goes on for ever and notices if anything of it was lost on the way: it is
 * saved and loaded while it runs.
 *
 *	pages=N		a page of memory in turn is checked against what it must hold, and changed
 *	rng=1		and an entropy device is asked now and then
 *	quiet=1		without writing to any of it again
 *	clock=1		with KVM's clock on
 *
 * A line for every hundred rounds; "generation" when it has become another machine, "stopped" when
 * the clock says that it stood still.
 */
#include "guest.h"

#define PAGES_MAX 4096
#define WORDS	  (4096 / 8)

static u64 memory[PAGES_MAX][WORDS];
static struct vrings rings;
static struct vio vio;
static u8 buffer[16];

/* KVM's documentation of its MSRs: the clock of one processor, and its flag of having been stopped. */
#define MSR_CLOCK     0x4b564d01
#define CLOCK_FLAGS   29
#define CLOCK_STOPPED 2
static volatile u8 time_info[32] __attribute__((aligned(32)));

static u64 expected(u64 round, u64 page)
{
	return (round + 1) * 0x9e3779b97f4a7c15ull ^ page;
}

static void check_page(u64 page, u64 round)
{
	u64 want = expected(round, page);

	if (memory[page][0] != want || memory[page][page % WORDS] != want ||
	    memory[page][WORDS - 1] != want)
		put("FAILED page %u of round %u\n", (u32)page, (u32)round);
}

static void fill_page(u64 page, u64 round)
{
	memory[page][0] = memory[page][page % WORDS] = memory[page][WORDS - 1] =
		expected(round, page);
}

static void ask_rng(void)
{
	u32 id, len;

	vio_desc(&vio, 0, (u64)buffer, sizeof(buffer), VD_WRITE, 0);
	vio_offer(&vio, 0);
	vio_kick(&vio);
	if (!vio_wait(&vio, &id, &len) || len != sizeof(buffer)) {
		put("FAILED the entropy device answers\n");
		return;
	}
	put("random");
	for (unsigned i = 0; i < sizeof(buffer); i++)
		put(" %u", (u32)buffer[i]);
	put("\n");
}

/* The flag is the guest's to take back. */
static void look_at_clock(void)
{
	if (time_info[CLOCK_FLAGS] & CLOCK_STOPPED) {
		time_info[CLOCK_FLAGS] &= (u8)~CLOCK_STOPPED;
		put("stopped\n");
	}
}

void guest(void)
{
	u64 pages = option("pages", 64), generation = mmio_read(LAYOUT_VMGENID, 8);
	bool rng = option("rng", 0), quiet = option("quiet", 0);

	if (rng)
		CHECK(vio_find(&vio, VIO_ID_RNG, 0) &&
			      vio_init(&vio, &rings, 16, 1ull << VIO_F_VERSION_1),
		      "an entropy device");
	if (option("clock", 0))
		wrmsr(MSR_CLOCK, (u64)time_info | 1);
	for (u64 page = 0; page < pages; page++)
		fill_page(page, 0);
	for (u64 n = 0;; n++) {
		u64 page = n % pages;

		check_page(page, quiet ? 0 : n / pages);
		if (!quiet)
			fill_page(page, n / pages + 1);
		if (n % 100)
			continue;
		put("count %u\n", (u32)n);
		look_at_clock();
		if (rng)
			ask_rng();
		if (mmio_read(LAYOUT_VMGENID, 8) != generation) {
			generation = mmio_read(LAYOUT_VMGENID, 8);
			put("generation changed\n");
		}
	}
}
