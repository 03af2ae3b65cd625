/*
 * device: queues, kicks, interrupts, broken rings, resets, pauses. Part two of test_device.c.
 *
 * What a vCPU leaves for the loop is carried out by turn(), which is one turn of the loop.
 */
#include "src/virtio/device.h"
#include "src/vmm/log.h"
#include "tests/unit/model.h"

#include <stdio.h>

/* ---- queues and kicks --------------------------------------------------------------------- */

static void driver_ok_activates_the_ready_queues(void **state)
{
	(void)state;
	go_live(VERSION_1 | EVENT_IDX, 1);
	assert_false(vq_active(&vq[0]));
	assert_true(vq_active(&vq[1]));
	assert_true(vq[1].event_idx);
	/* The vCPU's part is over; the rest is the loop's. */
	assert_int_equal(calls.loaded + calls.notified[1], 0);
	turn();
	assert_int_equal(calls.loaded, 1);
	assert_int_equal(calls.notified[0], 0);
	/* Looked at although nobody kicked: a kick before DRIVER_OK may have been in vain. */
	assert_int_equal(calls.notified[1], 1);
	assert_int_equal(calls.notified[2], 1);
	turn();
	assert_int_equal(calls.notified[1], 1);
}

static void event_index_only_if_negotiated(void **state)
{
	(void)state;
	go_live(VERSION_1, 0);
	assert_false(vq[0].event_idx);
}

static void kicks_go_to_the_queue_they_name(void **state)
{
	static const u32 nowhere[] = { 3, 4, 16, 0x7fff, 0x10000, 0x80000000, UINT32_MAX };

	(void)state;
	go_live(VERSION_1, 1);
	turn();
	memset(calls.notified, 0, sizeof calls.notified);
	for (unsigned i = 0; i < ARRAY_SIZE(nowhere); i++) {
		device_wake(&dev, nowhere[i]);
		device_kick(&dev, nowhere[i]);
	}
	device_wake(&dev, 0); /* exists, but is not ready */
	device_wake(&dev, 2);
	device_wake(&dev, 2);
	turn();
	assert_int_equal(calls.notified[0], 0);
	assert_int_equal(calls.notified[1], 0);
	assert_int_equal(calls.notified[2], 1);
}

static void stop_loop(void *owner)
{
	loop_stop(owner, 0);
}

static void the_loop_hears_the_eventfds(void **state)
{
	const u64 one = 1;
	struct loop_timer timer;

	(void)state;
	go_live(VERSION_1, 0);
	turn();
	timer.expired = stop_loop;
	timer.owner = loop;
	assert_int_equal(loop_timer_init(loop, &timer), 0);
	for (unsigned n = 2; n < 4; n++) { /* the second time it is not zero before */
		assert_int_equal(write(dev.kick[1].fd, &one, 8), 8); /* what KVM's ioeventfd does */
		loop_timer_set(&timer, 50000000, 0);
		loop_run(loop);
		assert_int_equal(calls.notified[0], 1);
		assert_int_equal(calls.notified[1], n);
	}
	loop_timer_destroy(loop, &timer);
}

static void kicks_at_the_wrong_time_do_nothing(void **state)
{
	static const u8 at[] = {
		0, A, A | D, A | D | F, A | D | F | OK | BAD, A | D | F | OK | GIVE_UP
	};

	(void)state;
	go_live(VERSION_1, 0);
	turn();
	memset(calls.notified, 0, sizeof calls.notified);
	for (unsigned i = 0; i < ARRAY_SIZE(at); i++) {
		dev.status = at[i];
		device_wake(&dev, 0);
		turn();
		assert_int_equal(calls.notified[0], 0);
	}
}

/* ---- interrupts --------------------------------------------------------------------------- */

static void a_queue_interrupts_when_the_driver_wants_it(void **state)
{
	static struct chain chain;

	(void)state;
	go_live(VERSION_1, 0);
	turn();
	device_signal_queue(&dev, 0);
	assert_int_equal(interrupts(), 0); /* nothing was pushed */
	for (u16 i = 0; i < 2; i++) {
		ring_offer(&ring[0], i);
		assert_int_equal(vq_pop(&vq[0], &chain), 1);
		vq_push(&vq[0], &chain);
		ring_avail(&ring[0])[0] = i; /* the second time: no interrupts, please */
		device_signal_queue(&dev, 0);
		assert_int_equal(interrupts(), i == 0);
		assert_int_equal(dev.isr, DEVICE_ISR_USED);
	}
}

static void several_queues_interrupt_once(void **state)
{
	static struct chain chain;

	(void)state;
	go_live(VERSION_1, 0);
	turn();
	for (u16 i = 0; i < 3; i++) {
		for (unsigned q = 0; q < 2; q++) {
			ring_offer(&ring[q], i);
			assert_int_equal(vq_pop(&vq[q], &chain), 1);
			vq_push(&vq[q], &chain);
		}
		ring_avail(&ring[0])[0] = i > 1; /* then only the first one wants any, then none */
		ring_avail(&ring[1])[0] = i > 0;
		device_signal_queues(&dev, 3);
		assert_int_equal(interrupts(), i < 2);
		device_signal_queues(&dev, 3);
		assert_int_equal(interrupts(), 0);
	}
}

static void a_config_change_is_told_after_driver_ok(void **state)
{
	u32 generation = dev.config_generation;

	(void)state;
	device_config_changed(&dev);
	assert_int_equal(dev.config_generation, generation + 1);
	assert_int_equal(interrupts(), 0);
	assert_int_equal(dev.isr, 0);
	go_live(VERSION_1, 0);
	device_config_changed(&dev);
	assert_int_equal(dev.config_generation, generation + 2);
	assert_int_equal(interrupts(), 1);
	assert_int_equal(dev.isr, DEVICE_ISR_CONFIG);
	dev.isr = DEVICE_ISR_USED; /* one cause does not hide the other */
	device_config_changed(&dev);
	assert_int_equal(dev.isr, DEVICE_ISR_CONFIG | DEVICE_ISR_USED);
}

/* ---- broken ------------------------------------------------------------------------------- */

static unsigned count_lines(const char *path, const char *with)
{
	FILE *f = fopen(path, "r");
	char line[512];
	unsigned n = 0;

	assert_non_null(f);
	while (fgets(line, sizeof line, f))
		n += strstr(line, with) != NULL;
	fclose(f);
	return n;
}

static void a_ring_that_lies_breaks_its_device_once(void **state)
{
	char path[] = "/tmp/test_device.XXXXXX";
	struct log_config cfg = { .level = LOG_INFO };
	struct err err;

	(void)state;
	close(mkstemp(path));
	strcpy(cfg.path, path);
	assert_int_equal(log_configure(&cfg, &err), 0);
	go_live(VERSION_1, 0);
	turn();
	interrupts();
	calls.take = true;
	ring_offer(&ring[1], 999);
	device_wake(&dev, 1);
	turn();
	assert_int_equal(dev.status, A | D | F | OK | BAD);
	assert_int_equal(dev.isr, DEVICE_ISR_CONFIG);
	assert_int_equal(interrupts(), 1);
	assert_int_equal(count_lines(path, ""), 0); /* might have been a vCPU */
	turn();
	assert_int_equal(count_lines(path, ""), 1);
	device_break(&dev, "once more");
	device_signal_queue(&dev, 1);
	for (unsigned i = 0; i < 5; i++) {
		device_wake(&dev, 0);
		turn();
	}
	assert_int_equal(interrupts(), 0);
	assert_int_equal(calls.notified[0], 1);
	assert_int_equal(count_lines(path, ""), 1);
	assert_int_equal(count_lines(path,
				     "test device \"unit\" needs a reset: an available entry is "
				     "beyond the table"),
			 1);
	unlink(path);

	device_set_status(&dev, 0);
	calls.loaded = 0;
	go_live(VERSION_1, 0); /* as good as new */
	turn();
	assert_int_equal(calls.notified[1], 3);
}

static void a_queue_that_cannot_be_activated_breaks_the_device(void **state)
{
	(void)state;
	device_set_status(&dev, A | D);
	want_features(VERSION_1);
	device_set_status(&dev, A | D | F);
	for (unsigned q = 0; q < 3; q++) {
		ring[q] = ring_at(&mem, 0x10000 * (q + 1), 16);
		ring_program(&ring[q], &vq[q]);
	}
	vq[1].used_gpa = MIB(2);
	device_set_status(&dev, A | D | F | OK);
	assert_int_equal(dev.status, A | D | F | OK | BAD);
	assert_int_equal(interrupts(), 1);
	turn();
	assert_int_equal(calls.loaded + calls.notified[0] + calls.notified[2], 0);
}

/* Outside notify, where completions are reaped: signalling tells. */
static void a_ring_that_lies_to_a_completion_breaks_its_device(void **state)
{
	static struct chain chain;

	(void)state;
	go_live(VERSION_1, 0);
	turn();
	ring_move_idx(&ring[0], 17);
	assert_int_equal(vq_pop(&vq[0], &chain), -EINVAL);
	device_signal_queue(&dev, 0);
	assert_true(dev.status & BAD);
}

/* ---- reset -------------------------------------------------------------------------------- */

static void assert_pristine(void)
{
	assert_int_equal(dev.status, 0);
	assert_true(dev.features == 0);
	assert_int_equal(dev.isr, 0);
	for (unsigned q = 0; q < 3; q++) {
		struct vq fresh = { .size = 64, .size_max = 64 };

		assert_memory_equal(&vq[q], &fresh, sizeof fresh);
	}
}

static void a_reset_at_each_point_of_the_way_up(void **state)
{
	(void)state;
	for (unsigned round = 0; round < 10000; round++) {
		unsigned stop = round % 6;

		calls.loaded = 0;
		if (stop > 0)
			device_set_status(&dev, A);
		if (stop > 1)
			device_set_status(&dev, A | D);
		if (stop > 2) {
			want_features(VERSION_1 | EVENT_IDX);
			device_set_status(&dev, A | D | F);
			ring[2] = ring_at(&mem, 0x10000, 16);
			ring_program(&ring[2], &vq[2]);
		}
		if (stop > 3)
			device_set_status(&dev, A | D | F | OK);
		if (stop > 4) {
			ring_offer(&ring[2], 3);
			calls.take = true; /* one stays in flight */
			device_wake(&dev, 2);
			turn();
			assert_false(calls.take);
			device_config_changed(&dev);
		}
		device_set_status(&dev, 0);
		assert_int_equal(calls.reset, round + 1);
		assert_pristine();
	}
	calls.loaded = 0;
	go_live(VERSION_1, 0);
	turn();
	assert_int_equal(calls.loaded, 1);
}

static void edges_from_before_a_reset_do_nothing(void **state)
{
	(void)state;
	go_live(VERSION_1, 0);
	device_wake(&dev, 0);
	device_set_status(&dev, 0); /* before the loop came to it */
	turn();
	assert_int_equal(calls.loaded + calls.notified[0], 0);
}

static void giving_up_stops_everything_until_reset(void **state)
{
	(void)state;
	go_live(VERSION_1, 0);
	turn();
	device_set_status(&dev, A | D | F | OK | GIVE_UP);
	assert_true(dev.status & GIVE_UP);
	device_wake(&dev, 0);
	turn();
	assert_int_equal(calls.notified[0], 1);
	device_set_status(&dev, 0);
	assert_pristine();
}

/* ---- pause -------------------------------------------------------------------------------- */

static void a_paused_device_serves_nothing_and_loses_nothing(void **state)
{
	(void)state;
	go_live(VERSION_1, 1);
	device_pause(&dev); /* before the loop was told of DRIVER_OK */
	assert_int_equal(calls.drained, 1);
	device_wake(&dev, 2);
	turn();
	assert_int_equal(calls.loaded + calls.notified[1] + calls.notified[2], 0);
	device_resume(&dev);
	assert_int_equal(calls.loaded, 1);
	assert_int_equal(calls.notified[0], 0);
	assert_int_equal(calls.notified[1], 1);
	assert_int_equal(calls.notified[2], 1);
	assert_int_equal(interrupts(), 0);
	/* An interrupt that was raised and not acknowledged is raised again. */
	device_config_changed(&dev);
	assert_int_equal(interrupts(), 1);
	device_pause(&dev);
	device_resume(&dev);
	assert_int_equal(interrupts(), 1);
	assert_int_equal(calls.loaded, 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		test(driver_ok_activates_the_ready_queues),
		test(event_index_only_if_negotiated),
		test(kicks_go_to_the_queue_they_name),
		test(the_loop_hears_the_eventfds),
		test(kicks_at_the_wrong_time_do_nothing),
		test(a_queue_interrupts_when_the_driver_wants_it),
		test(several_queues_interrupt_once),
		test(a_config_change_is_told_after_driver_ok),
		test(a_ring_that_lies_breaks_its_device_once),
		test(a_queue_that_cannot_be_activated_breaks_the_device),
		test(a_ring_that_lies_to_a_completion_breaks_its_device),
		test(a_reset_at_each_point_of_the_way_up),
		test(edges_from_before_a_reset_do_nothing),
		test(giving_up_stops_everything_until_reset),
		test(a_paused_device_serves_nothing_and_loses_nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
