/* balloon: pages leave the process, and nothing a guest says takes more than they are. */
#include "src/virtio/balloon.h"
#include "src/virtio/device_state.h"
#include "tests/unit/hear.h"
#include "tests/unit/ring.h"
#include "tests/unit/test.h"

#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#define RINGS  0x10000
#define LIST   0x80000 /* page numbers */
#define AREA   MIB(1)  /* given away from here */
#define PAGE   4096u
#define ALL    (1ull << 1 | 1ull << 2 | 1ull << 3 | 1ull << 5)

static struct mem mem;
static struct loop *loop;
static struct balloon *balloon;
static struct device *dev;
static struct ring ring[5];
static struct err err;

static void go_live(u64 features)
{
	device_set_status(dev, 0);
	device_set_status(dev, 3);
	device_set_features(dev, 0, (u32)(features & dev->features_offered));
	device_set_features(dev, 1, 1);
	device_set_status(dev, 11);
	for (unsigned q = 0; q < dev->n_queues; q++) {
		ring[q] = ring_at(&mem, RINGS + q * 0x3000u, 16);
		ring_program(&ring[q], &dev->vq[q]);
	}
	device_set_status(dev, 15);
	assert_int_equal(dev->status, 15);
}

static void make(struct balloon_config cfg)
{
	assert_int_equal(balloon_create(&balloon, &cfg, &mem, loop, &err), 0);
	dev = balloon_device(balloon);
}

static int set_up(void **state)
{
	(void)state;
	assert_int_equal(mem_create(&mem, MIB(8), MEM_ANON, MEM_PAGES_4K, &err), 0);
	assert_int_equal(loop_create(&loop, &err), 0);
	balloon = NULL;
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	balloon_destroy(balloon);
	loop_destroy(loop);
	mem_destroy(&mem);
	return 0;
}

static void kick(unsigned q)
{
	device_wake(dev, q);
	hear_kick(dev, q);
}

static void offer(unsigned q, u16 head, u64 gpa, u32 len, u16 flags)
{
	ring_set(&ring[q], head, gpa, len, flags, 0);
	ring_offer(&ring[q], head);
}

static bool resident(u64 gpa)
{
	unsigned char there;

	assert_int_equal(mincore(mem_at(&mem, gpa, PAGE), PAGE, &there), 0);
	return there & 1;
}

static void touch(u64 gpa, u64 len)
{
	memset(mem_at(&mem, gpa, len), 0xab, len);
}

static void list(const u32 *pfn, u32 n)
{
	memcpy(mem_at(&mem, LIST, 4ull * n), pfn, 4ull * n);
}

static void what_is_given_leaves_the_process_and_reads_as_zero(void **state)
{
	/* Neighbours in no order, some of them twice, one far away. */
	static const u32 pfn[] = { 258, 256, 257, 260, 257, 300, 259, 302, 303, 304, 305, 303 };

	(void)state;
	make((struct balloon_config){ .amount_mib = 1 });
	go_live(0);
	touch(AREA, MIB(1));
	list(pfn, ARRAY_SIZE(pfn));
	offer(0, 0, LIST, sizeof pfn, 0);
	kick(0);
	assert_int_equal(ring_used_idx(&ring[0]), 1);
	for (u32 page = 256; page < 512; page++) {
		bool given = (page >= 256 && page <= 260) || page == 300 ||
			     (page >= 302 && page <= 305);

		assert_int_equal(resident((u64)page * PAGE), !given);
		assert_int_equal(*(u8 *)mem_at(&mem, (u64)page * PAGE, 1), given ? 0 : 0xab);
	}
}

static void thousands_of_pages_in_one_request(void **state)
{
	static u32 pfn[1536];

	(void)state;
	make((struct balloon_config){ .amount_mib = 1 });
	go_live(0);
	touch(AREA, MIB(6));
	for (u32 i = 0; i < ARRAY_SIZE(pfn); i++)
		pfn[i] = 256 + (i * 1021) % 1536; /* a permutation */
	list(pfn, ARRAY_SIZE(pfn));
	offer(0, 3, LIST, sizeof pfn, 0);
	kick(0);
	for (u32 page = 256; page < 256 + 1536; page++)
		assert_false(resident((u64)page * PAGE));
}

static void pages_that_are_not_ram_are_passed_over(void **state)
{
	static const u32 pfn[] = { 0xffffffff, 2048, 2047, 0xc0001, 0x80000000, 3000 };

	(void)state;
	make((struct balloon_config){ .amount_mib = 1 });
	go_live(0);
	touch(MIB(8) - PAGE, PAGE);
	list(pfn, ARRAY_SIZE(pfn));
	offer(0, 0, LIST, sizeof pfn, 0);
	kick(0);
	assert_int_equal(ring_used_idx(&ring[0]), 1);
	assert_false(resident(MIB(8) - PAGE));
	assert_int_equal(balloon_metrics(balloon)->event_fails, 5);
	assert_int_equal(dev->status, 15);
}

static void a_guest_that_gives_its_own_ring_hurts_itself(void **state)
{
	const u32 pfn[] = { RINGS / PAGE, RINGS / PAGE + 1, RINGS / PAGE + 2, LIST / PAGE };

	(void)state;
	make((struct balloon_config){ .amount_mib = 1 });
	go_live(0);
	list(pfn, ARRAY_SIZE(pfn));
	offer(0, 0, LIST, sizeof pfn, 0);
	kick(0);
	kick(0);
	kick(1);
	device_set_status(dev, 0);
	go_live(0);
	kick(0);
}

static void odd_lengths_are_survived(void **state)
{
	static const u32 pfn[] = { 256, 257 };

	(void)state;
	make((struct balloon_config){ .amount_mib = 1 });
	go_live(0);
	touch(AREA, 4 * PAGE);
	list(pfn, 2);
	offer(0, 0, LIST, 1, 0);
	offer(0, 1, LIST, 7, 0);
	offer(0, 2, LIST, 64, R_WRITE); /* nothing to read in it */
	kick(0);
	assert_int_equal(ring_used_idx(&ring[0]), 3);
	assert_false(resident(AREA));
	assert_true(resident(AREA + PAGE));
}

static void a_new_size_is_told(void **state)
{
	u32 pages;

	(void)state;
	make((struct balloon_config){ .amount_mib = 1 });
	go_live(0);
	device_config_read(dev, 0, &pages, 4);
	assert_int_equal(pages, 256);
	balloon_resize(balloon, 3);
	device_config_read(dev, 0, &pages, 4);
	assert_int_equal(pages, 768);
	assert_int_equal(atomic_load(&dev->isr) & DEVICE_ISR_CONFIG, DEVICE_ISR_CONFIG);
	pages = 512;
	device_config_write(dev, 4, &pages, 4);
	assert_int_equal(balloon_actual_pages(balloon), 512);
	device_config_write(dev, 0, &pages, 4); /* not the driver's */
	assert_int_equal(balloon_target_pages(balloon), 768);
	device_config_write(dev, 2, &pages, 4);
	device_config_write(dev, 6, &pages, 4);
	assert_int_equal(balloon_target_pages(balloon), 768);
	assert_int_equal(balloon_actual_pages(balloon), 512);
}

static void queues_are_numbered_by_what_the_driver_took(void **state)
{
	(void)state;
	make((struct balloon_config){ .stats_interval_s = 1, .hinting = true, .reporting = true });
	assert_int_equal(dev->n_queues, 5);
	go_live(1ull << 5); /* reporting is the third queue now */
	touch(AREA, 8 * PAGE);
	offer(2, 0, AREA, 4 * PAGE, R_WRITE);
	kick(2);
	assert_int_equal(ring_used_idx(&ring[2]), 1);
	assert_false(resident(AREA));
	assert_true(resident(AREA + 4 * PAGE));
	offer(3, 0, AREA + 4 * PAGE, PAGE, R_WRITE);
	kick(3); /* not any of the driver's */
	assert_true(resident(AREA + 4 * PAGE));
}

static void reported_pages_are_given_back_whole(void **state)
{
	(void)state;
	make((struct balloon_config){ .reporting = true });
	go_live(ALL);
	touch(AREA, 8 * PAGE);
	offer(2, 0, AREA + 1, 2 * PAGE, R_WRITE); /* no whole page but the second */
	kick(2);
	assert_true(resident(AREA));
	assert_false(resident(AREA + PAGE));
	assert_true(resident(AREA + 2 * PAGE));
	assert_int_equal(balloon_metrics(balloon)->report_count, 1);
}

static void put_stat(unsigned i, u16 tag, u64 value)
{
	u8 *p = mem_at(&mem, LIST + 10u * i, 10);

	memcpy(p, &tag, 2);
	memcpy(p + 2, &value, 8);
}

static void statistics_are_read_and_asked_for_again(void **state)
{
	struct balloon_config cfg = { .stats_interval_s = 1 };

	(void)state;
	make(cfg);
	go_live(ALL);
	put_stat(0, 4, 123456);
	put_stat(1, 77, 1); /* newer than we are */
	put_stat(2, 15, 9);
	offer(2, 0, LIST, 30, 0);
	kick(2);
	assert_int_equal(ring_used_idx(&ring[2]), 0); /* not used before it is asked for again */
	assert_int_equal(balloon_state(balloon)->stat[BALLOON_FREE], 123456);
	assert_int_equal(balloon_state(balloon)->stat[BALLOON_DIRECT_RECLAIM], 9);
	assert_int_equal(balloon_state(balloon)->stats_known, 1u << 4 | 1u << 15);
	assert_int_equal(balloon_set_interval(balloon, 2, &err), 0); /* asks at once */
	assert_int_equal(ring_used_idx(&ring[2]), 1);
	put_stat(0, 4, 5);
	offer(2, 1, LIST, 10, 0);
	kick(2);
	assert_int_equal(balloon_state(balloon)->stat[BALLOON_FREE], 5);
	assert_int_equal(balloon_set_interval(balloon, 0, &err), -EINVAL);
	assert_int_equal(balloon_set_interval(balloon, 1, &err), 0);
	offer(2, 2, LIST, 9, 0); /* less than one of them */
	kick(2);
	assert_int_equal(balloon_metrics(balloon)->stats_updates_count, 2);
	assert_int_equal(balloon_metrics(balloon)->stats_update_fails, 1);
}

static void say(u32 cmd)
{
	memcpy(mem_at(&mem, LIST, 4), &cmd, 4);
	offer(2, 0, LIST, 4, 0);
	kick(2);
}

static u32 hint_cmd(void)
{
	u32 cmd;

	device_config_read(dev, 8, &cmd, 4);
	return cmd;
}

static void free_pages_are_taken_during_a_run_and_not_after(void **state)
{
	(void)state;
	make((struct balloon_config){ .hinting = true });
	assert_int_equal(balloon_hint_start(balloon, true, &err), -EAGAIN);
	go_live(ALL);
	touch(AREA, 8 * PAGE);
	assert_int_equal(balloon_hint_start(balloon, true, &err), 0);
	assert_int_equal(hint_cmd(), 2);
	offer(2, 1, AREA, PAGE, R_WRITE);
	kick(2); /* before the guest began */
	assert_true(resident(AREA));
	say(2);
	offer(2, 1, AREA, PAGE, R_WRITE);
	kick(2);
	assert_false(resident(AREA));
	say(0);
	assert_int_equal(hint_cmd(), 1); /* acknowledged */
	offer(2, 1, AREA + PAGE, PAGE, R_WRITE);
	kick(2);
	assert_true(resident(AREA + PAGE));
	assert_int_equal(balloon_hint_start(balloon, false, &err), 0);
	assert_int_equal(hint_cmd(), 3); /* a new number: the guest knows 2 */
	offer(2, 1, AREA + PAGE, PAGE, R_WRITE);
	kick(2); /* of the old run */
	assert_true(resident(AREA + PAGE));
	say(3);
	say(0);
	assert_int_equal(hint_cmd(), 3);
	assert_int_equal(balloon_hint_stop(balloon, &err), 0);
	assert_int_equal(hint_cmd(), 1);
}

static void a_run_that_ended_early_is_not_taken_for_the_next(void **state)
{
	(void)state;
	make((struct balloon_config){ .hinting = true });
	go_live(ALL);
	touch(AREA, 4 * PAGE);
	assert_int_equal(balloon_hint_start(balloon, true, &err), 0);
	say(2);
	assert_int_equal(balloon_hint_stop(balloon, &err), 0);
	assert_int_equal(balloon_hint_start(balloon, true, &err), 0);
	offer(2, 1, AREA, PAGE, R_WRITE);
	kick(2); /* the guest has not seen that there is a new one */
	assert_true(resident(AREA));
	assert_int_equal(balloon_metrics(balloon)->hint_fails, 1);
	say(3);
	go_live(ALL);
	assert_int_equal(hint_cmd(), 0);
	assert_int_equal(balloon_state(balloon)->guest_cmd, 0);
	assert_int_equal(balloon_hint_start(balloon, true, &err), 0);
	assert_int_equal(hint_cmd(), 4);
}

/* What is locked in memory cannot be dropped. The sanitizer makes nothing of mlock(). */
static void what_the_kernel_would_not_drop_is_counted(void **state)
{
	const struct balloon_metrics *metrics;

	(void)state;
	make((struct balloon_config){ .hinting = true, .reporting = true });
	metrics = balloon_metrics(balloon);
	go_live(ALL);
	touch(AREA, PAGE);
	assert_int_equal(syscall(SYS_mlock, mem_at(&mem, AREA, PAGE), PAGE), 0);
	offer(3, 1, AREA, PAGE, R_WRITE);
	kick(3);
	assert_int_equal(metrics->report_count, 1);
	assert_int_equal(metrics->report_freed, 0);
	assert_int_equal(metrics->report_fails, 1);
	assert_int_equal(balloon_hint_start(balloon, true, &err), 0);
	say(2);
	offer(2, 1, AREA, PAGE, R_WRITE);
	kick(2);
	assert_int_equal(metrics->hint_freed, 0);
	assert_int_equal(metrics->hint_fails, 1);
	assert_true(resident(AREA));
}

static void what_was_not_configured_is_refused(void **state)
{
	(void)state;
	make((struct balloon_config){ .amount_mib = 1 });
	go_live(ALL);
	assert_int_equal(dev->n_queues, 2);
	assert_int_equal(balloon_set_interval(balloon, 0, &err), 0);
	assert_int_equal(balloon_set_interval(balloon, 1, &err), -EINVAL);
	assert_int_equal(balloon_hint_start(balloon, true, &err), -EINVAL);
	assert_int_equal(balloon_hint_stop(balloon, &err), -EINVAL);
}

#define test(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

static void its_state_moves_to_another(void **state)
{
	static const struct balloon_config cfg = { .amount_mib = 1, .stats_interval_s = 5,
						   .deflate_on_oom = true, .hinting = true,
						   .reporting = true };
	static struct device_state saved;
	struct balloon_state was;

	(void)state;
	make(cfg);
	go_live(ALL);
	assert_int_equal(balloon_hint_start(balloon, true, &err), 0);
	device_pause(dev);
	device_save(dev, &saved);
	was = *balloon_state(balloon);
	balloon_destroy(balloon);
	make(cfg);
	assert_int_equal(device_load(dev, &saved, &err), 0);
	assert_memory_equal(balloon_state(balloon), &was, sizeof was);
	device_resume(dev);
	assert_int_equal(dev->status, 15);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		test(what_is_given_leaves_the_process_and_reads_as_zero),
		test(thousands_of_pages_in_one_request),
		test(pages_that_are_not_ram_are_passed_over),
		test(a_guest_that_gives_its_own_ring_hurts_itself),
		test(odd_lengths_are_survived),
		test(a_new_size_is_told),
		test(queues_are_numbered_by_what_the_driver_took),
		test(reported_pages_are_given_back_whole),
		test(statistics_are_read_and_asked_for_again),
		test(free_pages_are_taken_during_a_run_and_not_after),
		test(a_run_that_ended_early_is_not_taken_for_the_next),
		test(what_the_kernel_would_not_drop_is_counted),
		test(what_was_not_configured_is_refused),
		test(its_state_moves_to_another),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
