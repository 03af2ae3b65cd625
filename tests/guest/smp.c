/*
 * smp: the other processors.
 *
 *	do=start n=N	starts N-1 of them; each writes in, with its own APIC id, then halts
 *	do=work n=N	all count together with locked additions; the sum must be right
 *	do=count n=N	all count for ever, the first one prints the sum (pause, resume)
 *	do=spare	none is started: they stay parked
 */
#include "guest.h"

#define ROUNDS 2000
#define LOOKS  200000000u

static u32 arrived, total, finished;
static u32 ids[64];
static u32 per_cpu[64];

static void work(void)
{
	for (unsigned i = 0; i < ROUNDS; i++)
		atomic_add(&total, 1);
	atomic_add(&finished, 1);
}

void ap_main(unsigned ticket)
{
	ids[ticket % 64] = apic_id() + 1;
	atomic_add(&arrived, 1);
	if (option_is("do", "work"))
		work();
	while (option_is("do", "count")) {
		per_cpu[ticket % 64]++;
		relax();
	}
	halt_forever();
}

static bool wait_for(const u32 *count, u32 n)
{
	for (u32 looks = LOOKS; looks; looks--) {
		if (READ_ONCE(*count) >= n)
			return true;
		relax();
	}
	return false;
}

static void check_ids(u32 n)
{
	u64 seen = 0;

	for (u32 t = 1; t < n; t++) {
		u32 id = ids[t] - 1;

		CHECK(id > 0 && id < n, "APIC id %u of %u processors", id, n);
		CHECK(!(seen >> (id & 63) & 1), "APIC id %u twice", id);
		seen |= 1ull << (id & 63);
	}
	CHECK(apic_id() == 0, "the boot processor has APIC id 0");
}

NORETURN static void count(u32 n)
{
	for (;;) {
		for (u32 t = 1; t < n; t++)
			put("cpu %u at %u\n", t, READ_ONCE(per_cpu[t]));
	}
}

void guest(void)
{
	u32 n = (u32)option("n", 2);

	if (option_is("do", "spare")) {
		CHECK(true, "alone");
		return;
	}
	aps_start(n - 1);
	CHECK(wait_for(&arrived, n - 1), "%u of %u processors came", arrived, n - 1);
	check_ids(n);
	if (option_is("do", "work")) {
		work();
		CHECK(wait_for(&finished, n), "all finished: %u", finished);
		CHECK(total == n * ROUNDS, "sum %u of %u", total, n * ROUNDS);
	}
	if (option_is("do", "count"))
		count(n);
	put("processors %u\n", arrived + 1);
}
