/*
 * vq: the device's side of the ring against a driver that is honest, mistaken or hostile.
 * How the two sides wake each other is in test_vq_wake.c.
 *
 * Memory is real: two regions with the hole between them, touched only where a test needs it.
 */
#include "src/virtio/vq.h"
#include "tests/unit/ring.h"
#include "tests/unit/test.h"

#include <stdlib.h>

#define RINGS  0x10000
#define BUFFER 0x40000
#define HIGH   MIB(8) /* RAM above the hole */

static struct mem mem;
static struct vq vq;
static struct ring ring;
static struct chain chain;

static int make_memory(void **state)
{
	struct err err;

	(void)state;
	return mem_create(&mem, MEM_HOLE_START + HIGH, MEM_ANON, MEM_PAGES_4K, &err);
}

static int drop_memory(void **state)
{
	(void)state;
	mem_destroy(&mem);
	return 0;
}

/* A fresh queue of `size`, active. */
static void start(u16 size, bool event_idx)
{
	ring = ring_at(&mem, RINGS, size);
	vq.size_max = VQ_SIZE_MAX;
	vq_reset(&vq);
	ring_program(&ring, &vq);
	vq.event_idx = event_idx;
	assert_int_equal(vq_activate(&vq, &mem), 0);
}

static void assert_breaks(const char *why)
{
	u16 used = ring_used_idx(&ring);

	assert_int_equal(vq_pop(&vq, &chain), -EINVAL);
	assert_non_null(vq.broken);
	assert_string_equal(vq.broken, why);
	/* For good: nothing is handed out or written any more. */
	assert_int_equal(vq_pop(&vq, &chain), -EINVAL);
	assert_false(vq_has_work(&vq));
	assert_false(vq_should_signal(&vq));
	assert_int_equal(ring_used_idx(&ring), used);
}

/* Offers one descriptor and tells what becomes of it. */
static int offer_one(u64 addr, u32 len, u16 flags)
{
	start(16, false);
	ring_set(&ring, 0, addr, len, flags, 0);
	ring_offer(&ring, 0);
	return vq_pop(&vq, &chain);
}

/* ---- activation --------------------------------------------------------------------------- */

static const char *activate(u64 desc, u64 avail, u64 used, u16 size)
{
	vq.size_max = VQ_SIZE_MAX;
	vq_reset(&vq);
	vq.desc_gpa = desc;
	vq.avail_gpa = avail;
	vq.used_gpa = used;
	vq.size = size;
	if (vq_activate(&vq, &mem) == 0) {
		assert_true(vq_active(&vq));
		return "fine";
	}
	assert_false(vq_active(&vq));
	assert_null(vq.desc);
	assert_null(vq.avail);
	assert_null(vq.used);
	assert_int_equal(vq_pop(&vq, &chain), -EINVAL);
	return vq.broken;
}

static void activation_wants_a_possible_size(void **state)
{
	static const u16 bad[] = { 0, 3, 6, 100, 255, 257, 512, 0x8000, 0xffff };
	static const u16 good[] = { 1, 2, 4, 128, 256 };

	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++)
		assert_string_equal(activate(0x1000, 0x3000, 0x5000, bad[i]),
				    "the queue size is not a power of two within the maximum");
	for (unsigned i = 0; i < ARRAY_SIZE(good); i++)
		assert_string_equal(activate(0x1000, 0x3000, 0x5000, good[i]), "fine");
	vq.size_max = 64;
	vq.size = 128;
	assert_int_equal(vq_activate(&vq, &mem), -EINVAL);
}

static void activation_checks_where_the_rings_are(void **state)
{
	const u64 top = MEM_HOLE_START, high = MEM_HOLE_END, end = MEM_HOLE_END + HIGH;
	const char *outside = "a ring lies outside RAM", *overlap = "the rings overlap",
		   *crooked = "a ring is misaligned", *fine = "fine";
	/* 16 entries: 256 bytes of descriptors, 38 of available ring, 134 of used ring. */
	const struct {
		u64 desc, avail, used;
		const char *what;
	} rows[] = {
		{ 0, 0x100, 0x128, fine }, /* each right behind the other */
		{ top - 256, 0x3000, 0x5000, fine },
		{ 0x1000, top - 38, 0x5000, fine },
		{ 0x1000, 0x3000, top - 136, fine },
		{ high, high + 0x100, end - 136, fine },
		{ 0x1008, 0x3000, 0x5000, crooked },
		{ 0x1000, 0x3001, 0x5000, crooked },
		{ 0x1000, 0x3000, 0x5002, crooked },
		{ 0x1000, 0x10fe, 0x5000, overlap },
		{ 0x1000, 0x3000, 0x10fc, overlap },
		{ 0x1000, 0x3000, 0x3024, overlap },
		{ 0x1000, 0x1000, 0x1000, overlap },
		{ 0x3020, 0x3000, 0x5000, overlap },
		{ top - 240, 0x3000, 0x5000, outside },
		{ 0x1000, top - 36, 0x5000, outside },
		{ 0x1000, 0x3000, top - 132, outside },
		{ top, 0x3000, 0x5000, outside },
		{ 0x1000, high - 2, 0x5000, outside },
		{ 0x1000, 0x3000, end, outside },
		{ UINT64_MAX - 15, 0x3000, 0x5000, outside },
		{ 0x1000, UINT64_MAX - 1, 0x5000, outside },
		{ 0x1000, 0x3000, UINT64_MAX - 3, outside },
	};

	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(rows); i++)
		assert_string_equal(activate(rows[i].desc, rows[i].avail, rows[i].used, 16),
				    rows[i].what);
}

static void activation_keeps_the_indices(void **state)
{
	(void)state;
	start(8, true);
	vq.last_avail = vq.used_idx = vq.signalled = 4711;
	vq.in_flight[0] = 1;
	assert_int_equal(vq_activate(&vq, &mem), 0);
	assert_int_equal(vq.last_avail, 4711);
	assert_int_equal(vq.used_idx, 4711);
	assert_int_equal(vq.in_flight[0], 0);
}

static void a_queue_that_is_not_active_does_nothing(void **state)
{
	(void)state;
	vq.size_max = 64;
	vq_reset(&vq);
	assert_int_equal(vq.size, 64);
	assert_int_equal(vq_pop(&vq, &chain), 0);
	assert_false(vq_has_work(&vq));
	assert_false(vq_should_signal(&vq));
	vq_suppress_kicks(&vq);
}

/* ---- chains ------------------------------------------------------------------------------- */

static void a_chain_is_first_read_then_written(void **state)
{
	(void)state;
	start(16, false);
	ring_set(&ring, 5, BUFFER, 16, R_NEXT, 2);
	ring_set(&ring, 2, BUFFER + 0x100, 512, R_NEXT, 9);
	ring_set(&ring, 9, BUFFER + 0x1000, 4096, R_WRITE | R_NEXT, 0);
	ring_set(&ring, 0, BUFFER + 0x3000, 1, R_WRITE, 77);
	ring_offer(&ring, 5);
	assert_true(vq_has_work(&vq));
	assert_int_equal(vq_pop(&vq, &chain), 1);
	assert_int_equal(chain.head, 5);
	assert_int_equal(chain.n_iov, 4);
	assert_int_equal(chain.n_read, 2);
	assert_int_equal(chain.read_left, 528);
	assert_int_equal(chain.write_left, 4097);
	assert_ptr_equal(chain.iov[1].iov_base, mem_at(&mem, BUFFER + 0x100, 512));
	assert_false(vq_has_work(&vq));
	assert_int_equal(vq_pop(&vq, &chain), 0);
}

static void an_empty_descriptor_adds_nothing_and_is_not_looked_up(void **state)
{
	(void)state;
	start(16, false);
	ring_set(&ring, 0, UINT64_MAX, 0, R_NEXT, 1);
	ring_set(&ring, 1, BUFFER, 8, R_NEXT, 2);
	ring_set(&ring, 2, MEM_HOLE_START, 0, R_WRITE, 0);
	ring_offer(&ring, 0);
	assert_int_equal(vq_pop(&vq, &chain), 1);
	assert_int_equal(chain.n_iov, 1);
	assert_int_equal(chain.read_left, 8);
	assert_int_equal(chain.write_left, 0);
}

static void a_chain_may_use_every_descriptor(void **state)
{
	(void)state;
	start(256, false);
	for (u16 i = 0; i < 256; i++)
		ring_set(&ring, i, BUFFER + i, 1, i < 255 ? R_NEXT : R_WRITE, (u16)(i + 1));
	ring_offer(&ring, 0);
	assert_int_equal(vq_pop(&vq, &chain), 1);
	assert_int_equal(chain.n_iov, 256);
}

static void a_loop_ends(void **state)
{
	static const u32 lengths[] = { 0, 1, 4096 };

	(void)state;
	/* From every head into every cycle: `from` .. `last` and back to `to`. */
	for (unsigned l = 0; l < ARRAY_SIZE(lengths); l++)
		for (u16 last = 0; last < 8; last++)
			for (u16 to = 0; to <= last; to++) {
				start(8, false);
				for (u16 i = 0; i <= last; i++)
					ring_set(&ring, i, BUFFER, lengths[l], R_NEXT | R_WRITE,
						 i == last ? to : (u16)(i + 1));
				ring_offer(&ring, 0);
				assert_breaks("a chain is a loop");
			}
}

static void indices_stay_inside_the_table(void **state)
{
	static const u16 bad[] = { 16, 17, 0x8000, 0xffff };

	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
		start(16, false);
		ring_offer(&ring, bad[i]);
		assert_breaks("an available entry is beyond the table");
		start(16, false);
		ring_set(&ring, 3, BUFFER, 8, R_NEXT, bad[i]);
		ring_offer(&ring, 3);
		assert_breaks("a descriptor index is beyond the table");
	}
}

static void the_available_index_is_at_most_the_size_ahead(void **state)
{
	static const u16 ahead[] = { 17, 18, 256, 0x7fff, 0x8000, 0xffff };

	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(ahead); i++) {
		start(16, i % 2);
		ring_start_at(&ring, &vq, (u16)(i * 13107));
		ring_move_idx(&ring, (u16)(ring.avail_idx + ahead[i]));
		assert_breaks("the available index is too far ahead");
	}
	start(16, false);
	for (u16 i = 0; i < 16; i++) {
		ring_set(&ring, i, BUFFER, 1, 0, 0);
		ring_offer(&ring, i);
	}
	for (u16 i = 0; i < 16; i++)
		assert_int_equal(vq_pop(&vq, &chain), 1);
}

static void a_head_in_flight_cannot_be_offered_again(void **state)
{
	(void)state;
	start(256, false);
	ring_set(&ring, 200, BUFFER, 8, R_WRITE, 0);
	ring_offer(&ring, 200);
	assert_int_equal(vq_pop(&vq, &chain), 1);
	vq_push(&vq, &chain);
	ring_offer(&ring, 200); /* given back: free to be used */
	assert_int_equal(vq_pop(&vq, &chain), 1);
	ring_offer(&ring, 200);
	assert_breaks("a chain was made available twice");
	vq_push(&vq, &chain); /* the backend completes late: nothing is written */
	assert_int_equal(ring_used_idx(&ring), 1);
}

static void indirect_descriptors_were_not_offered(void **state)
{
	static const u16 with[] = { 0, R_WRITE, R_NEXT, R_NEXT | R_WRITE };

	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(with); i++) {
		start(16, false);
		ring_set(&ring, 0, BUFFER, 16, R_NEXT, 1);
		ring_set(&ring, 1, BUFFER, 32, R_INDIRECT | with[i], 2);
		ring_set(&ring, 2, BUFFER, 16, R_WRITE, 0);
		ring_offer(&ring, 0);
		assert_breaks("an indirect descriptor, which was not offered");
	}
}

static void readable_after_writable_is_refused(void **state)
{
	(void)state;
	for (u32 len = 0; len < 2; len++) {
		start(16, false);
		ring_set(&ring, 0, BUFFER, len, R_NEXT | R_WRITE, 1);
		ring_set(&ring, 1, BUFFER, 16, 0, 0);
		ring_offer(&ring, 0);
		assert_breaks("a readable buffer after a writable one");
	}
}

static void buffers_are_wholly_in_ram(void **state)
{
	const u64 top = MEM_HOLE_START, high = MEM_HOLE_END, end = MEM_HOLE_END + HIGH;
	const struct {
		u64 addr;
		u32 len;
		int result;
	} rows[] = {
		{ 0, 1, 1 },
		{ 0, 0xc0000000, 1 }, /* the whole of region 1 */
		{ top - 1, 1, 1 },
		{ high, 1, 1 },
		{ high, (u32)HIGH, 1 },
		{ end - 1, 1, 1 },
		{ 0, 0xc0000001, -EINVAL },
		{ 0, UINT32_MAX, -EINVAL },
		{ top - 1, 2, -EINVAL },	  /* over the edge */
		{ top - 1, 0x40000002, -EINVAL }, /* over the hole and into region 2 */
		{ top, 1, -EINVAL },
		{ top + 0x1000, 4, -EINVAL }, /* a device's registers */
		{ high - 1, 2, -EINVAL },
		{ high, (u32)HIGH + 1, -EINVAL },
		{ end - 1, 2, -EINVAL },
		{ end, 1, -EINVAL },
		{ UINT64_MAX - 7, 16, -EINVAL },
		{ UINT64_MAX, 1, -EINVAL },
		{ UINT64_MAX, UINT32_MAX, -EINVAL },
		{ 1ull << 63, 16, -EINVAL },
	};

	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(rows); i++) {
		assert_int_equal(offer_one(rows[i].addr, rows[i].len, 0), rows[i].result);
		assert_int_equal(offer_one(rows[i].addr, rows[i].len, R_WRITE), rows[i].result);
		if (rows[i].result < 0)
			assert_string_equal(vq.broken, "a buffer lies outside RAM");
		else
			assert_int_equal(chain.write_left, rows[i].len);
	}
}

/* No such machine is built today; the split must be right before one is. */
static void a_buffer_over_two_mappings_is_split(void **state)
{
	struct mem split = { .n_regions = 2, .size = 0x2000 };
	u8 *low = mem_at(&mem, 0x100000, 0x1000), *high = mem_at(&mem, 0x200000, 0x1000);

	(void)state;
	split.region[0] = (struct mem_region){ .gpa = 0, .size = 0x1000, .host = low };
	split.region[1] =
		(struct mem_region){ .gpa = 0x1000, .size = 0x1000, .host = high };
	start(16, false);
	vq.mem = &split;
	ring_set(&ring, 0, 0xf00, 0x300, R_WRITE, 0);
	ring_offer(&ring, 0);
	assert_int_equal(vq_pop(&vq, &chain), 1);
	assert_int_equal(chain.n_iov, 2);
	assert_ptr_equal(chain.iov[0].iov_base, low + 0xf00);
	assert_int_equal(chain.iov[0].iov_len, 0x100);
	assert_ptr_equal(chain.iov[1].iov_base, high);
	assert_int_equal(chain.iov[1].iov_len, 0x200);
	ring_set(&ring, 1, 0xf00, 0x1200, R_WRITE, 0);
	ring_offer(&ring, 1);
	assert_breaks("a buffer lies outside RAM");
	/* All 256 descriptors cross: more segments than a chain has room for. */
	start(256, false);
	vq.mem = &split;
	for (u16 i = 0; i < 256; i++)
		ring_set(&ring, i, 0xfff, 2, i < 255 ? R_NEXT : 0, (u16)(i + 1));
	ring_offer(&ring, 0);
	assert_breaks("a chain is too long");
}

static void a_chain_is_shorter_than_four_gib(void **state)
{
	(void)state;
	for (u32 last = 0x7fffffff; last <= 0x80000000; last++) {
		start(16, false);
		ring_set(&ring, 0, 0, 0x80000000, R_NEXT, 1);
		ring_set(&ring, 1, 0, last, R_WRITE, 0);
		ring_offer(&ring, 0);
		if (last == 0x7fffffff)
			assert_int_equal(vq_pop(&vq, &chain), 1);
		else
			assert_breaks("a chain is too long");
	}
}

/* ---- giving back -------------------------------------------------------------------------- */

static void pop_one(u16 head, struct chain *into)
{
	ring_set(&ring, head, BUFFER + 64u * head, 64, R_WRITE, 0);
	ring_offer(&ring, head);
	assert_int_equal(vq_pop(&vq, into), 1);
}

static void chains_come_back_in_any_order_with_their_length(void **state)
{
	static struct chain c[4];
	static const u16 order[] = { 2, 0, 3, 1 };

	(void)state;
	start(4, false);
	ring_start_at(&ring, &vq, 65534); /* through 65535 -> 0 */
	for (u16 i = 0; i < 4; i++)
		pop_one(i, &c[i]);
	for (u16 i = 0; i < 4; i++) {
		u16 head = order[i];
		struct ring_elem elem;

		assert_true(chain_skip_write(&c[head], head * 16u));
		vq_push(&vq, &c[head]);
		assert_int_equal(ring_used_idx(&ring), (u16)(65535 + i));
		elem = ring_elem(&ring, (u16)(65534 + i));
		assert_int_equal(elem.id, head);
		assert_int_equal(elem.len, head * 16);
	}
}

static void the_used_ring_is_written_and_never_read(void **state)
{
	u16 *used;

	(void)state;
	start(8, true);
	used = ring_used(&ring);
	for (u16 i = 0; i < 100; i++) {
		pop_one(i % 8, &chain);
		memset(used, 0xa5 + i, 6 + 8 * 8); /* flags, idx, entries, avail_event */
		vq_push(&vq, &chain);
		assert_int_equal(ring_used_idx(&ring), i + 1);
		assert_int_equal(ring_elem(&ring, i).id, i % 8);
		memset(used, 0x5a + i, 6 + 8 * 8);
		assert_int_equal(vq_pop(&vq, &chain), 0);
		assert_int_equal(*ring_avail_event(&ring), i + 1);
	}
}

static void a_chain_put_back_comes_again(void **state)
{
	struct chain first;

	(void)state;
	start(4, false);
	ring_start_at(&ring, &vq, 0);
	pop_one(2, &first);
	assert_true(chain_write(&first, "x", 1));
	vq_unpop(&vq, &first);
	assert_true(vq_has_work(&vq));
	assert_int_equal(vq_pop(&vq, &chain), 1);
	assert_int_equal(chain.head, 2);
	assert_int_equal(chain.written, 0);
	vq_push(&vq, &chain);
	assert_int_equal(ring_used_idx(&ring), 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(activation_wants_a_possible_size),
		cmocka_unit_test(activation_checks_where_the_rings_are),
		cmocka_unit_test(activation_keeps_the_indices),
		cmocka_unit_test(a_queue_that_is_not_active_does_nothing),
		cmocka_unit_test(a_chain_is_first_read_then_written),
		cmocka_unit_test(an_empty_descriptor_adds_nothing_and_is_not_looked_up),
		cmocka_unit_test(a_chain_may_use_every_descriptor),
		cmocka_unit_test(a_loop_ends),
		cmocka_unit_test(indices_stay_inside_the_table),
		cmocka_unit_test(the_available_index_is_at_most_the_size_ahead),
		cmocka_unit_test(a_head_in_flight_cannot_be_offered_again),
		cmocka_unit_test(indirect_descriptors_were_not_offered),
		cmocka_unit_test(readable_after_writable_is_refused),
		cmocka_unit_test(buffers_are_wholly_in_ram),
		cmocka_unit_test(a_buffer_over_two_mappings_is_split),
		cmocka_unit_test(a_chain_is_shorter_than_four_gib),
		cmocka_unit_test(chains_come_back_in_any_order_with_their_length),
		cmocka_unit_test(the_used_ring_is_written_and_never_read),
		cmocka_unit_test(a_chain_put_back_comes_again),
	};

	return cmocka_run_group_tests(tests, make_memory, drop_memory);
}
