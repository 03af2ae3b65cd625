/* chain: one request as two byte streams. */
#include "src/virtio/chain.h"
#include "tests/unit/test.h"

#include <stdlib.h>

static u8 in[64], out[64];

/* 64 readable and 64 writable bytes, in segments of `piece` bytes. */
static void make(struct chain *chain, u32 piece)
{
	for (unsigned i = 0; i < sizeof in; i++)
		in[i] = (u8)(i + 1);
	memset(out, 0, sizeof out);
	chain_init(chain, 7);
	for (u32 at = 0; at < sizeof in; at += piece)
		assert_true(chain_add(chain, in + at, (u32)MIN(piece, sizeof in - at), false));
	for (u32 at = 0; at < sizeof out; at += piece)
		assert_true(chain_add(chain, out + at, (u32)MIN(piece, sizeof out - at), true));
}

static void an_empty_chain_has_nothing(void **state)
{
	struct chain chain;
	struct iovec iov;
	u8 byte;

	(void)state;
	memset(&chain, 0xa5, sizeof chain);
	chain_init(&chain, 3);
	assert_int_equal(chain.head, 3);
	assert_false(chain_read(&chain, &byte, 1));
	assert_false(chain_write(&chain, &byte, 1));
	assert_false(chain_skip_read(&chain, 1));
	assert_false(chain_skip_write(&chain, 1));
	assert_false(chain_write_last(&chain, 0));
	assert_int_equal(chain_read_iov(&chain, 1, &iov, 1), -1);
	assert_int_equal(chain_write_iov(&chain, 1, &iov, 1), -1);
	assert_true(chain_read(&chain, &byte, 0));
	assert_int_equal(chain_write_iov(&chain, 0, &iov, 0), 0);
	assert_int_equal(chain.written, 0);
}

static void reading_joins_segments_of_any_size(void **state)
{
	(void)state;
	for (u32 piece = 1; piece <= 65; piece++) {
		for (u32 first = 0; first <= sizeof in; first++) {
			struct chain chain;
			u8 got[64];

			make(&chain, piece);
			assert_true(chain_read(&chain, got, first));
			assert_true(chain_read(&chain, got + first, (u32)sizeof in - first));
			assert_memory_equal(got, in, sizeof in);
			assert_int_equal(chain.read_left, 0);
			assert_int_equal(chain.written, 0);
		}
	}
}

static void writing_spreads_over_segments_of_any_size(void **state)
{
	(void)state;
	for (u32 piece = 1; piece <= 65; piece++) {
		for (u32 first = 0; first <= sizeof out; first++) {
			struct chain chain;

			make(&chain, piece);
			assert_true(chain_write(&chain, in, first));
			assert_int_equal(chain.written, first);
			assert_true(chain_write(&chain, in + first, (u32)sizeof out - first));
			assert_memory_equal(out, in, sizeof out);
			assert_int_equal(chain.write_left, 0);
			assert_int_equal(chain.written, 64);
		}
	}
}

static void asking_for_more_than_is_left_moves_nothing(void **state)
{
	struct chain chain;
	u8 got[65] = { 0 };

	(void)state;
	make(&chain, 5);
	assert_false(chain_read(&chain, got, 65));
	assert_false(chain_skip_read(&chain, 65));
	assert_false(chain_write(&chain, got, 65));
	assert_false(chain_skip_write(&chain, UINT32_MAX));
	assert_int_equal(got[0], 0);
	assert_int_equal(chain.written, 0);
	assert_true(chain_skip_read(&chain, 60));
	assert_false(chain_read(&chain, got, 5));
	assert_true(chain_read(&chain, got, 4));
	assert_memory_equal(got, in + 60, 4);
}

static void the_two_cursors_do_not_meet(void **state)
{
	struct chain chain;
	u8 got[64];

	(void)state;
	make(&chain, 3);
	for (u32 i = 0; i < sizeof in; i++) {
		assert_true(chain_read(&chain, got + i, 1));
		assert_true(chain_write(&chain, got + i, 1));
	}
	assert_memory_equal(out, in, sizeof in);
	assert_false(chain_read(&chain, got, 1)); /* not into the writable part */
}

static void a_view_shows_what_a_copy_would_move(void **state)
{
	struct iovec iov[80];

	(void)state;
	for (u32 piece = 1; piece <= 64; piece++) {
		for (u32 skip = 0; skip <= 64; skip++) {
			struct chain chain;
			u32 at = skip, len = 64 - skip;
			int n;

			make(&chain, piece);
			assert_true(chain_skip_read(&chain, skip));
			assert_true(chain_skip_write(&chain, skip));
			n = chain_read_iov(&chain, len, iov, ARRAY_SIZE(iov));
			for (int i = 0; i < n; i++) {
				assert_ptr_equal(iov[i].iov_base, in + at);
				at += (u32)iov[i].iov_len;
			}
			assert_int_equal(at, 64);
			/* One entry fewer than needed is refused; cursors did not move. */
			assert_int_equal(chain_read_iov(&chain, len, iov, n - 1), n ? -1 : 0);
			assert_int_equal(chain_write_iov(&chain, len, iov, n), n);
			assert_int_equal(chain_write_iov(&chain, len + 1, iov, 80), -1);
			assert_int_equal(chain.read_left, len);
			assert_int_equal(chain.written, skip);
		}
	}
}

static void a_view_does_not_reach_beyond_what_was_asked(void **state)
{
	struct chain chain;
	struct iovec iov[8];

	(void)state;
	make(&chain, 16);
	assert_int_equal(chain_write_iov(&chain, 20, iov, 8), 2);
	assert_ptr_equal(iov[0].iov_base, out);
	assert_int_equal(iov[0].iov_len, 16);
	assert_int_equal(iov[1].iov_len, 4);
}

static void the_last_byte_is_found_wherever_the_cursor_is(void **state)
{
	(void)state;
	for (u32 skip = 0; skip <= 64; skip++) {
		struct chain chain;

		make(&chain, 5); /* the last segment has four bytes */
		assert_true(chain_skip_write(&chain, skip));
		assert_true(chain_write_last(&chain, 0x5a));
		assert_int_equal(out[63], 0x5a);
		for (unsigned i = 0; i < 63; i++)
			assert_int_equal(out[i], 0);
		assert_int_equal(chain.written, 64);
		assert_false(chain_write(&chain, "", 1));
		assert_true(chain_write_last(&chain, 0xa5)); /* twice is as good as once */
		assert_int_equal(chain.written, 64);
	}
}

static void a_chain_without_writable_part_has_no_last_byte(void **state)
{
	struct chain chain;
	u8 byte = 1;

	(void)state;
	chain_init(&chain, 0);
	assert_true(chain_add(&chain, &byte, 1, false));
	assert_false(chain_write_last(&chain, 0));
	assert_int_equal(byte, 1);
	assert_int_equal(chain.written, 0);
}

static void segments_are_limited(void **state)
{
	struct chain chain;
	u8 byte;

	(void)state;
	chain_init(&chain, 0);
	for (unsigned i = 0; i < CHAIN_IOV_MAX; i++)
		assert_true(chain_add(&chain, &byte, 1, i > 100));
	assert_false(chain_add(&chain, &byte, 1, true));
	assert_int_equal(chain.n_read, 101);
	assert_int_equal(chain.write_left, CHAIN_IOV_MAX - 101);
}

static void the_sum_of_lengths_does_not_wrap(void **state)
{
	struct chain chain;
	u8 byte;

	(void)state;
	chain_init(&chain, 0);
	assert_true(chain_add(&chain, &byte, 0x80000000, false));
	assert_true(chain_add(&chain, &byte, 0x7fffffff, true));
	assert_false(chain_add(&chain, &byte, 1, true));
	assert_false(chain_add(&chain, &byte, UINT32_MAX, true));
	assert_int_equal(chain.n_iov, 2);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(an_empty_chain_has_nothing),
		cmocka_unit_test(reading_joins_segments_of_any_size),
		cmocka_unit_test(writing_spreads_over_segments_of_any_size),
		cmocka_unit_test(asking_for_more_than_is_left_moves_nothing),
		cmocka_unit_test(the_two_cursors_do_not_meet),
		cmocka_unit_test(a_view_shows_what_a_copy_would_move),
		cmocka_unit_test(a_view_does_not_reach_beyond_what_was_asked),
		cmocka_unit_test(the_last_byte_is_found_wherever_the_cursor_is),
		cmocka_unit_test(a_chain_without_writable_part_has_no_last_byte),
		cmocka_unit_test(segments_are_limited),
		cmocka_unit_test(the_sum_of_lengths_does_not_wrap),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
