/* rng: the entropy device, from its registers to the guest's buffers. */
#include "src/virtio/rng.h"
#include "tests/unit/hear.h"
#include "tests/unit/ring.h"
#include "tests/unit/test.h"

#include <stdlib.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#define RINGS  0x10000
#define BUFFER 0x100000
#define CAP    65536u

static struct mem mem;
static struct loop *loop;
static struct rng *rng;
static struct device *dev;
static struct ring ring;

/* How the host's randomness behaves: the calls after `good` ones end like this. */
static struct {
	unsigned good;
	bool interrupted; /* just once */
	bool empty;
	size_t at_most;
} host;

/* Stands before libc's. */
ssize_t getrandom(void *to, size_t len, unsigned flags)
{
	bool good = host.good > 0;

	host.good -= good;
	if (!good && host.interrupted) {
		host.interrupted = false;
		errno = EINTR;
		return -1;
	}
	if (!good && host.empty) {
		errno = EAGAIN;
		return -1;
	}
	if (host.at_most)
		len = MIN(len, host.at_most);
	return syscall(SYS_getrandom, to, len, flags);
}

static void go_live(u16 size)
{
	device_set_status(dev, 0);
	device_set_status(dev, 1);
	device_set_status(dev, 3);
	device_set_features(dev, 1, 1);
	device_set_status(dev, 11);
	ring = ring_at(&mem, RINGS, size);
	ring_program(&ring, &dev->vq[0]);
	device_set_status(dev, 15);
	assert_int_equal(dev->status, 15);
}

static int set_up(void **state)
{
	struct err err;

	(void)state;
	assert_int_equal(mem_create(&mem, MEM_HOLE_START + MIB(4), MEM_ANON, MEM_PAGES_4K, &err),
			 0);
	assert_int_equal(loop_create(&loop, &err), 0);
	assert_int_equal(rng_create(&rng, &mem, loop, &err), 0);
	dev = rng_device(rng);
	go_live(256);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	memset(&host, 0, sizeof host);
	rng_destroy(rng);
	rng_destroy(NULL);
	loop_destroy(loop);
	mem_destroy(&mem);
	return 0;
}

static void turn(void)
{
	hear_kick(dev, 0);
}

static void kick(void)
{
	device_wake(dev, 0);
	turn();
}

static u64 interrupts(void)
{
	u64 count = 0;

	return read(dev->irq_fd, &count, sizeof count) == sizeof count ? count : 0;
}

static u8 *at(u64 gpa, u64 len)
{
	u8 *p = mem_at(&mem, gpa, MAX(len, 1));

	assert_non_null(p);
	return p;
}

/* Random bytes, as far as a test can say: no run of 32 zeroes. */
static bool filled(u64 gpa, u32 len)
{
	static const u8 zero[32];
	const u8 *p = at(gpa, len);

	for (u32 i = 0; i + 32 <= len; i += 32)
		if (memcmp(p + i, zero, 32) == 0)
			return false;
	return true;
}

static bool untouched(u64 gpa, u32 len)
{
	const u8 *p = at(gpa, len);

	for (u32 i = 0; i < len; i++)
		if (p[i])
			return false;
	return true;
}

static void it_is_an_entropy_device(void **state)
{
	u8 byte = 1;

	(void)state;
	assert_int_equal(dev->type->virtio_id, 4);
	assert_int_equal(dev->n_queues, 1);
	assert_int_equal(dev->vq[0].size_max, 256);
	assert_true(dev->features_offered == (1ull << 32 | 1ull << 29));
	device_config_read(dev, 0, &byte, 1);
	assert_int_equal(byte, 0);
}

static void a_buffer_is_filled_and_nothing_beside_it(void **state)
{
	(void)state;
	memset(at(BUFFER, 0x4000), 0, 0x4000);
	ring_set(&ring, 0, BUFFER + 0x1000, 0x800, R_WRITE, 0);
	ring_offer(&ring, 0);
	kick();
	assert_int_equal(ring_used_idx(&ring), 1);
	assert_int_equal(ring_elem(&ring, 0).len, 0x800);
	assert_true(filled(BUFFER + 0x1000, 0x800));
	assert_true(untouched(BUFFER, 0x1000));
	assert_true(untouched(BUFFER + 0x1800, 0x800));
	assert_int_equal(dev->isr, DEVICE_ISR_USED);
	assert_int_equal(interrupts(), 1);
}

static void two_requests_get_different_bytes(void **state)
{
	(void)state;
	for (u16 i = 0; i < 2; i++) {
		ring_set(&ring, i, BUFFER + i * 64u, 64, R_WRITE, 0);
		ring_offer(&ring, i);
	}
	kick();
	assert_memory_not_equal(at(BUFFER, 64), at(BUFFER + 64, 64), 64);
	assert_int_equal(interrupts(), 1); /* one for both */
}

static void a_long_buffer_is_filled_up_to_the_cap(void **state)
{
	static const u32 length[] = { 1, CAP - 1, CAP, CAP + 1, 0x100000, 0x80000000 };

	(void)state;
	for (u16 i = 0; i < ARRAY_SIZE(length); i++) {
		u32 want = MIN(length[i], CAP);

		memset(at(BUFFER, CAP + 64), 0, CAP + 64);
		ring_set(&ring, 0, BUFFER, length[i], R_WRITE, 0);
		ring_offer(&ring, 0);
		kick();
		assert_int_equal(ring_elem(&ring, i).len, want);
		assert_true(filled(BUFFER, want));
		assert_true(untouched(BUFFER + want, 64));
		turn();
	}
}

static void a_buffer_in_many_pieces_is_filled_in_order(void **state)
{
	(void)state;
	memset(at(BUFFER, MIB(1)), 0, MIB(1));
	for (u16 i = 0; i < 256; i++) /* 256 times 300 bytes: the cap falls into a piece */
		ring_set(&ring, i, BUFFER + i * 1024u, 300, R_WRITE | (i < 255 ? R_NEXT : 0),
			 (u16)(i + 1));
	ring_offer(&ring, 0);
	kick();
	assert_int_equal(ring_elem(&ring, 0).len, CAP);
	for (u16 i = 0; i < 256; i++) {
		u32 want = i < CAP / 300 ? 300 : i == CAP / 300 ? CAP % 300 : 0;

		assert_true(filled(BUFFER + i * 1024u, want));
		assert_true(untouched(BUFFER + i * 1024u + want, 300 - want));
	}
}

/* 255 times the same 16 MiB: nearly 4 GiB are asked for, 64 KiB are made, nothing is allocated. */
static void lengths_that_add_up_cost_nothing(void **state)
{
	struct rusage before, after;

	(void)state;
	getrusage(RUSAGE_SELF, &before);
	for (unsigned round = 0; round < 50; round++) {
		for (u16 i = 0; i < 255; i++)
			ring_set(&ring, i, BUFFER, (u32)MIB(16), R_WRITE | (i < 254 ? R_NEXT : 0),
				 (u16)(i + 1));
		ring_offer(&ring, 0);
		kick();
		assert_int_equal(ring_elem(&ring, (u16)round).len, CAP);
		turn();
	}
	getrusage(RUSAGE_SELF, &after);
	assert_true(after.ru_maxrss - before.ru_maxrss < 4096); /* KiB */
	ring_set(&ring, 254, BUFFER, (u32)MIB(16), R_WRITE | R_NEXT, 255);
	ring_set(&ring, 255, BUFFER, (u32)MIB(16), R_WRITE, 0);
	ring_offer(&ring, 0);
	kick();
	assert_true(dev->status & DEVICE_NEEDS_RESET); /* 4 GiB are too many (2.7.5.2) */
}

static void what_cannot_be_written_is_left_alone(void **state)
{
	u8 secret[64];

	(void)state;
	memset(at(BUFFER, 64), 0x5a, 64);
	memcpy(secret, at(BUFFER, 64), 64);
	ring_set(&ring, 0, BUFFER, 64, 0, 0);
	ring_offer(&ring, 0);
	ring_set(&ring, 1, BUFFER, 64, R_NEXT, 2);
	ring_set(&ring, 2, BUFFER + 0x1000, 64, R_WRITE, 0);
	ring_offer(&ring, 1);
	ring_set(&ring, 3, BUFFER, 0, R_WRITE, 0);
	ring_offer(&ring, 3);
	kick();
	assert_int_equal(ring_used_idx(&ring), 3);
	assert_int_equal(ring_elem(&ring, 0).len, 0);
	assert_int_equal(ring_elem(&ring, 1).len, 64);
	assert_int_equal(ring_elem(&ring, 2).len, 0);
	assert_memory_equal(at(BUFFER, 64), secret, 64);
}

static void a_buffer_outside_ram_breaks_the_device_and_nothing_else(void **state)
{
	const u64 top = MEM_HOLE_START, high = MEM_HOLE_END, end = high + MIB(4);
	const struct {
		u64 addr;
		u32 len;
	} rows[] = {
		{ top - 1, 2 },	   { top, 64 }, { top - 64, 0x40000080 }, { high - 64, 128 },
		{ end - 1, 2 },	   { end, 1 },	{ 0xc0001000, 4 },	  { UINT64_MAX - 7, 16 },
		{ 0, UINT32_MAX },
	};

	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(rows); i++) {
		go_live(16);
		turn();
		interrupts();
		memset(at(top - 64, 64), 0, 64);
		memset(at(end - 64, 64), 0, 64);
		/* The good part of the chain is not written either. */
		ring_set(&ring, 0, top - 64, 32, R_WRITE | R_NEXT, 1);
		ring_set(&ring, 1, rows[i].addr, rows[i].len, R_WRITE, 0);
		ring_offer(&ring, 0);
		kick();
		assert_true(dev->status & DEVICE_NEEDS_RESET);
		assert_int_equal(dev->isr, DEVICE_ISR_CONFIG);
		assert_int_equal(interrupts(), 1);
		assert_int_equal(ring_used_idx(&ring), 0);
		assert_true(untouched(top - 64, 64));
		assert_true(untouched(end - 64, 64));
	}
}

static void the_edges_of_ram_can_be_filled(void **state)
{
	static const u64 edge[] = { MEM_HOLE_START - 64, MEM_HOLE_END, MEM_HOLE_END + MIB(4) - 64 };

	(void)state;
	for (u16 i = 0; i < ARRAY_SIZE(edge); i++) {
		ring_set(&ring, i, edge[i], 64, R_WRITE, 0);
		ring_offer(&ring, i);
	}
	kick();
	assert_int_equal(ring_used_idx(&ring), 3);
	for (u16 i = 0; i < ARRAY_SIZE(edge); i++)
		assert_true(filled(edge[i], 64));
}

static void short_and_interrupted_randomness_is_asked_for_again(void **state)
{
	(void)state;
	memset(at(BUFFER, 4096), 0, 4096);
	host.at_most = 100;
	host.good = 3;
	host.interrupted = true;
	ring_set(&ring, 0, BUFFER, 4096, R_WRITE, 0);
	ring_offer(&ring, 0);
	kick();
	assert_false(host.interrupted);
	assert_int_equal(ring_elem(&ring, 0).len, 4096);
	assert_true(filled(BUFFER, 4096));
}

/* Only whole pieces are told of: a guest never takes its own old bytes for randomness. */
static void randomness_that_ends_is_not_made_up(void **state)
{
	(void)state;
	memset(at(BUFFER, 4096), 0, 4096);
	ring_set(&ring, 0, BUFFER, 1024, R_WRITE | R_NEXT, 1);
	ring_set(&ring, 1, BUFFER + 1024, 1024, R_WRITE, 0);
	ring_offer(&ring, 0);
	host.good = 1;
	host.empty = true;
	kick();
	assert_int_equal(ring_elem(&ring, 0).len, 1024);
	assert_true(filled(BUFFER, 1024));
	assert_true(untouched(BUFFER + 1024, 1024));
	assert_int_equal(dev->status, 15);
}

static void a_host_without_randomness_is_told_of_at_creation(void **state)
{
	struct rng *none = rng;
	struct rlimit limit, old;
	struct err err;

	(void)state;
	host.empty = true;
	assert_int_equal(rng_create(&none, &mem, loop, &err), -EAGAIN);
	assert_null(none);
	assert_non_null(strstr(err.msg, "randomness"));
	host.empty = false;
	getrlimit(RLIMIT_NOFILE, &old);
	limit = (struct rlimit){ 0, old.rlim_max };
	setrlimit(RLIMIT_NOFILE, &limit);
	assert_int_equal(rng_create(&none, &mem, loop, &err), -EMFILE);
	setrlimit(RLIMIT_NOFILE, &old);
	assert_null(none);
}

static void a_greedy_guest_shares_the_loop(void **state)
{
	unsigned turns = 0;

	(void)state;
	for (u16 i = 0; i < 64; i++) {
		ring_set(&ring, i, BUFFER, CAP, R_WRITE, 0);
		ring_offer(&ring, i);
	}
	kick();
	assert_int_equal(ring_used_idx(&ring), 2);
	for (; ring_used_idx(&ring) < 64; turns++) {
		assert_true(turns < 64);
		turn(); /* it comes back by itself */
	}
	go_live(256);
	for (u16 i = 0; i < 256; i++) { /* small ones count as well */
		ring_set(&ring, i, BUFFER, i % 2, R_WRITE, 0);
		ring_offer(&ring, i);
	}
	kick();
	assert_int_equal(ring_used_idx(&ring), 128);
	turn();
	assert_int_equal(ring_used_idx(&ring), 256);
}

static void a_reset_at_each_point_of_the_way_up(void **state)
{
	static const u8 way[] = { 0, 1, 3, 11, 15 };

	(void)state;
	for (unsigned round = 0; round < 2000; round++) {
		device_set_status(dev, 0);
		for (unsigned i = 0; i <= round % 5; i++) {
			device_set_status(dev, way[i]);
			if (way[i] == 3)
				device_set_features(dev, 1, 1);
			if (way[i] != 11)
				continue;
			ring = ring_at(&mem, RINGS, 16);
			ring_program(&ring, &dev->vq[0]);
			ring_set(&ring, 0, BUFFER, 64, R_WRITE, 0);
			ring_offer(&ring, 0);
		}
		if (round % 2)
			kick();
		if (round % 10 == 9) /* up, and kicked */
			assert_int_equal(ring_used_idx(&ring), 1);
		device_set_status(dev, 0);
		kick();
		assert_int_equal(dev->status, 0);
	}
}

#define test(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

/* ---- limits -------------------------------------------------------------------------------- */

static void stop_when_served(void *owner)
{
	(void)owner;
	if (ring_used_idx(&ring) == 3)
		loop_stop(loop, 0);
}

static void run_until_served(void)
{
	struct loop_timer look = { .expired = stop_when_served };

	assert_int_equal(loop_timer_init(loop, &look), 0);
	loop_timer_set(&look, 1000000, 1000000);
	loop_run(loop);
	loop_timer_destroy(loop, &look);
}

static void what_is_over_the_limit_comes_later_by_itself(void **state)
{
	const struct limit_config one_op = { .ops = { 1, 0, 30, .given = true } };

	(void)state;
	rng_limit(rng, &one_op);
	for (u16 i = 0; i < 3; i++) {
		ring_set(&ring, i, BUFFER + 0x1000u * i, 64, R_WRITE, 0);
		ring_offer(&ring, i);
	}
	kick();
	assert_int_equal(ring_used_idx(&ring), 1);
	kick();
	assert_int_equal(ring_used_idx(&ring), 1);
	run_until_served();
	assert_true(filled(BUFFER + 0x2000, 64));
}

static void a_limit_that_is_taken_away_holds_nothing_up(void **state)
{
	const struct limit_config slow = { .bandwidth = { 64, 0, 3600000, .given = true } };
	const struct limit_config none = { .bandwidth = { 0, 0, 0, .given = true } };

	(void)state;
	rng_limit(rng, &slow);
	for (u16 i = 0; i < 3; i++) {
		ring_set(&ring, i, BUFFER + 0x1000u * i, 64, R_WRITE, 0);
		ring_offer(&ring, i);
	}
	kick();
	assert_int_equal(ring_used_idx(&ring), 1);
	rng_limit(rng, &none);
	turn();
	assert_int_equal(ring_used_idx(&ring), 3);
}

static void a_reset_while_something_is_held_up(void **state)
{
	const struct limit_config one_op = { .ops = { 1, 0, 1, .given = true } };

	(void)state;
	rng_limit(rng, &one_op);
	for (u16 i = 0; i < 2; i++) {
		ring_set(&ring, i, BUFFER, 64, R_WRITE, 0);
		ring_offer(&ring, i);
	}
	kick();
	device_set_status(dev, 0);
	go_live(256);
	for (u16 i = 0; i < 3; i++) {
		ring_set(&ring, i, BUFFER, 64, R_WRITE, 0);
		ring_offer(&ring, i);
	}
	kick();
	run_until_served();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		test(it_is_an_entropy_device),
		test(a_buffer_is_filled_and_nothing_beside_it),
		test(two_requests_get_different_bytes),
		test(a_long_buffer_is_filled_up_to_the_cap),
		test(a_buffer_in_many_pieces_is_filled_in_order),
		test(lengths_that_add_up_cost_nothing),
		test(what_cannot_be_written_is_left_alone),
		test(a_buffer_outside_ram_breaks_the_device_and_nothing_else),
		test(the_edges_of_ram_can_be_filled),
		test(short_and_interrupted_randomness_is_asked_for_again),
		test(randomness_that_ends_is_not_made_up),
		test(a_host_without_randomness_is_told_of_at_creation),
		test(a_greedy_guest_shares_the_loop),
		test(a_reset_at_each_point_of_the_way_up),
		test(what_is_over_the_limit_comes_later_by_itself),
		test(a_limit_that_is_taken_away_holds_nothing_up),
		test(a_reset_while_something_is_held_up),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
