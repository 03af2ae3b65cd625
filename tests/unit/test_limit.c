/* limit: what passes, when, and that no number breaks it. */
#include "test.h"

#include "../../src/virtio/limit.h"

#define SECOND 1000000000ull
#define MS     1000000ull

static struct limit_config bytes(u64 size, u64 burst, u64 refill_ms)
{
	return (struct limit_config){ .bandwidth = { size, burst, refill_ms, .given = true } };
}

static struct limit_config ops(u64 size, u64 refill_ms)
{
	return (struct limit_config){ .ops = { size, 0, refill_ms, .given = true } };
}

static struct limit make(struct limit_config config)
{
	struct limit limit;

	limit_set(&limit, &config, 0);
	assert_true(limit_plausible(&limit));
	return limit;
}

static void nothing_limits_without_a_bucket(void **state)
{
	const struct limit_config none[] = { { .given = false }, bytes(0, 5, 100), bytes(5, 5, 0) };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(none); i++) {
		struct limit limit = make(none[i]);

		assert_true(limit_none(&limit));
		for (int n = 0; n < 100; n++)
			assert_true(limit_take(&limit, UINT64_MAX, UINT64_MAX, 0));
		assert_int_equal(limit_wait_ns(&limit, 1, UINT64_MAX, 0), 0);
	}
}

static void a_full_bucket_passes_its_size_and_no_more(void **state)
{
	struct limit limit = make(bytes(1000, 0, 100));

	(void)state;
	for (int n = 0; n < 10; n++)
		assert_true(limit_take(&limit, 1, 100, 0));
	assert_false(limit_take(&limit, 1, 1, 0));
	assert_int_equal(limit_wait_ns(&limit, 1, 1, 0), MS / 10);
	assert_false(limit_take(&limit, 1, 1, MS / 10 - 1));
	assert_true(limit_take(&limit, 1, 1, MS / 10));
}

static void the_wait_that_is_named_is_the_wait_that_is_needed(void **state)
{
	struct limit limit = make(bytes(7, 0, 3));
	u64 now = 0, wait;

	(void)state;
	for (u64 n = 1; n < 2000; n++) {
		u64 want = n % 20 + 1;

		while ((wait = limit_wait_ns(&limit, 1, want, now)) > 0) {
			assert_false(limit_take(&limit, 1, want, now + wait - 1));
			now += wait;
		}
		assert_true(limit_take(&limit, 1, want, now));
		assert_true(limit_plausible(&limit));
	}
}

static void both_buckets_have_to_have_it(void **state)
{
	struct limit_config config = bytes(1000, 0, 1000);
	struct limit limit;

	(void)state;
	config.ops = ops(2, 1000).ops;
	limit = make(config);
	assert_true(limit_take(&limit, 1, 10, 0));
	assert_false(limit_take(&limit, 1, 2000, 0)); /* larger than what is left of its bucket */
	assert_int_equal(limit.ops.left, 1);
	assert_true(limit_take(&limit, 1, 10, 0));
	assert_false(limit_take(&limit, 1, 10, 0));
	assert_int_equal(limit.bytes.left, 980);
	assert_int_equal(limit_wait_ns(&limit, 1, 10, 0), SECOND / 2);
}

static void the_burst_goes_first_and_once(void **state)
{
	struct limit limit = make(bytes(100, 50, 1000));

	(void)state;
	assert_true(limit_take(&limit, 1, 150, 0));
	assert_false(limit_take(&limit, 1, 1, 0));
	assert_true(limit_take(&limit, 1, 100, 10 * SECOND));
	assert_false(limit_take(&limit, 1, 50, 10 * SECOND));
	assert_int_equal(limit.bytes.burst, 0);
}

static void what_is_larger_than_the_bucket_passes_and_is_paid_for(void **state)
{
	struct limit limit = make(bytes(100, 0, 1000));

	(void)state;
	assert_true(limit_take(&limit, 1, 1000, 0));
	assert_false(limit_take(&limit, 1, 1, 9 * SECOND));
	assert_int_equal(limit_wait_ns(&limit, 1, 1, 0), 0 * SECOND + 10 * MS);
	assert_true(limit_take(&limit, 1, 1, 9 * SECOND + 10 * MS));
}

/* However it is asked, what has passed is what the rate says, within one bucket. */
static void the_rate_holds_over_time_in_any_steps(void **state)
{
	static const u64 steps[] = { 1, 999, 12345, MS, 7 * MS + 3, SECOND + 1 };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(steps); i++) {
		struct limit limit = make(bytes(123457, 0, 77));
		u64 now = 0, passed = 0, end = MIN(100 * SECOND, steps[i] * 200000);
		double expected;

		for (; now <= end; now += steps[i])
			while (limit_take(&limit, 1, 1000, now))
				passed += 1000;
		expected = 123457.0 * (double)end / (77.0 * (double)MS);
		assert_true((double)passed <= expected + 123457 + 1000);
		if (steps[i] < 77 * MS)
			assert_true((double)passed >= expected - 1000);
	}
}

static void a_change_fills_the_bucket_that_is_given_and_no_other(void **state)
{
	struct limit_config config = bytes(100, 0, 1000), change = ops(0, 0);
	struct limit limit;

	(void)state;
	config.ops = ops(1, 1000).ops;
	limit = make(config);
	assert_true(limit_take(&limit, 1, 100, 0));
	limit_patch(&limit, &change, 0); /* takes the limit on operations away */
	assert_false(limit_take(&limit, 1, 1, 0));
	change = bytes(10, 0, 1000);
	limit_patch(&limit, &change, 0);
	assert_true(limit_take(&limit, 100, 10, 0));
	assert_false(limit_take(&limit, 1, 1, 0));
}

static void a_clock_that_goes_back_gives_nothing(void **state)
{
	struct limit limit = make(bytes(10, 0, 1000));

	(void)state;
	assert_true(limit_take(&limit, 1, 10, 100 * SECOND));
	assert_false(limit_take(&limit, 1, 1, 0));
	assert_true(limit_take(&limit, 1, 1, SECOND / 10));
	limit_loaded(&limit, 5 * SECOND);
	assert_false(limit_take(&limit, 1, 1, 5 * SECOND));
}

static void no_number_breaks_it(void **state)
{
	static const u64 odd[] = { 1, 2, 1u << 31, 1ull << 63, UINT64_MAX - 1, UINT64_MAX };

	(void)state;
	for (size_t s = 0; s < ARRAY_SIZE(odd); s++)
		for (size_t r = 0; r < ARRAY_SIZE(odd); r++)
			for (size_t b = 0; b < ARRAY_SIZE(odd); b++) {
				struct limit limit = make(bytes(odd[s], odd[b], odd[r]));

				for (size_t n = 0; n < 64; n++) {
					u64 want = odd[n % ARRAY_SIZE(odd)];
					u64 now = odd[n * 7 % ARRAY_SIZE(odd)];

					limit_wait_ns(&limit, 1, want, now);
					limit_take(&limit, 1, want, now);
					assert_true(limit_plausible(&limit));
				}
			}
}

static void levels_that_cannot_be_are_noticed(void **state)
{
	struct limit limit = make(bytes(100, 0, 1));

	(void)state;
	limit.bytes.left = 101;
	assert_false(limit_plausible(&limit));
	limit = make(bytes(100, 0, 1));
	limit.bytes.period_ns = 0;
	assert_false(limit_plausible(&limit));
	limit = make(bytes(100, 0, 1));
	limit.ops.debt = 1;
	assert_false(limit_plausible(&limit));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(nothing_limits_without_a_bucket),
		cmocka_unit_test(a_full_bucket_passes_its_size_and_no_more),
		cmocka_unit_test(the_wait_that_is_named_is_the_wait_that_is_needed),
		cmocka_unit_test(both_buckets_have_to_have_it),
		cmocka_unit_test(the_burst_goes_first_and_once),
		cmocka_unit_test(what_is_larger_than_the_bucket_passes_and_is_paid_for),
		cmocka_unit_test(the_rate_holds_over_time_in_any_steps),
		cmocka_unit_test(a_change_fills_the_bucket_that_is_given_and_no_other),
		cmocka_unit_test(a_clock_that_goes_back_gives_nothing),
		cmocka_unit_test(no_number_breaks_it),
		cmocka_unit_test(levels_that_cannot_be_are_noticed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
