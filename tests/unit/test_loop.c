/* loop: callbacks run on one thread, under one lock, and never for what was deleted. */
#include "test.h"

#include "src/vmm/loop.h"

#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>

static struct loop *loop;

static int setup(void **state)
{
	struct err err;

	(void)state;
	return loop_create(&loop, &err);
}

static int teardown(void **state)
{
	(void)state;
	loop_destroy(loop);
	return 0;
}

struct counter {
	struct loop_source source;
	struct loop_work work;
	int count, stop_at;
	struct loop_source *victim;
};

static void count(void *owner)
{
	struct counter *c = owner;

	if (++c->count == c->stop_at)
		loop_stop(loop, c->count);
}

static void ready(void *owner, u32 events)
{
	struct counter *c = owner;

	(void)events;
	if (c->victim)
		loop_del(loop, c->victim);
	count(owner);
}

static struct counter signalled(void)
{
	return (struct counter){ .source = { .fd = eventfd(1, EFD_NONBLOCK), .events = EPOLLIN,
					     .ready = ready } };
}

static void a_ready_source_is_called_until_stopped(void **state)
{
	struct counter c = signalled();

	(void)state;
	c.stop_at = 3;
	c.source.owner = &c;
	assert_int_equal(loop_add(loop, &c.source), 0);
	assert_int_equal(loop_run(loop), 3);
	loop_del(loop, &c.source);
	close(c.source.fd);
}

/* Both are ready in the same batch; whichever comes first deletes the other. */
static void a_source_deleted_in_its_batch_is_not_called(void **state)
{
	struct counter a = signalled(), b = signalled();

	(void)state;
	a.source.owner = &a, b.source.owner = &b;
	a.victim = &b.source, b.victim = &a.source;
	a.stop_at = b.stop_at = 2;
	assert_int_equal(loop_add(loop, &a.source), 0);
	assert_int_equal(loop_add(loop, &b.source), 0);
	loop_run(loop);
	assert_int_equal(MIN(a.count, b.count), 0);
	assert_int_equal(MAX(a.count, b.count), 2);
	close(a.source.fd);
	close(b.source.fd);
}

static void a_pending_call_runs_once(void **state)
{
	struct counter c = { .stop_at = 1 };

	(void)state;
	c.work = (struct loop_work){ .run = count, .owner = &c };
	loop_call(loop, &c.work);
	loop_call(loop, &c.work);
	assert_int_equal(loop_run(loop), 1);
	assert_false(c.work.pending);
}

static void a_call_taken_back_does_not_run(void **state)
{
	struct counter a = { 0 }, b = { .stop_at = 1 }, c = { 0 };

	(void)state;
	a.work = (struct loop_work){ .run = count, .owner = &a };
	b.work = (struct loop_work){ .run = count, .owner = &b };
	c.work = (struct loop_work){ .run = count, .owner = &c };
	loop_call(loop, &a.work);
	loop_call(loop, &c.work);
	loop_uncall(loop, &c.work); /* the last one: the tail must follow */
	loop_call(loop, &b.work);
	loop_uncall(loop, &a.work);
	loop_uncall(loop, &a.work);
	loop_run(loop);
	assert_int_equal(a.count, 0);
	assert_int_equal(b.count, 1);
	assert_int_equal(c.count, 0);
}

static void *call_many(void *arg)
{
	struct counter *c = arg;

	for (int i = 0; i < 10000; i++) {
		loop_lock(loop);
		if (!c->work.pending)
			c->victim = NULL;
		loop_unlock(loop);
		loop_call(loop, &c->work);
	}
	loop_lock(loop);
	c->stop_at = c->count + 1;
	loop_unlock(loop);
	loop_call(loop, &c->work);
	return NULL;
}

/* The last call, made after all others, is never lost. */
static void calls_from_another_thread_arrive(void **state)
{
	struct counter c = { 0 };
	pthread_t thread;

	(void)state;
	c.work = (struct loop_work){ .run = count, .owner = &c };
	pthread_create(&thread, NULL, call_many, &c);
	loop_run(loop);
	pthread_join(thread, NULL);
	assert_true(c.count >= 1);
}

static void expired(void *owner)
{
	count(owner);
}

static void a_timer_repeats_until_disarmed(void **state)
{
	struct counter c = { .stop_at = 3 };
	struct loop_timer timer = { .expired = expired, .owner = &c };

	(void)state;
	assert_int_equal(loop_timer_init(loop, &timer), 0);
	loop_timer_set(&timer, 1000, 1000);
	assert_int_equal(loop_run(loop), 3);
	loop_timer_destroy(loop, &timer);
	loop_timer_destroy(loop, &timer);
	assert_int_equal(timer.source.fd, -1);
}

static void time_goes_forward(void **state)
{
	u64 a = loop_now_ns();

	(void)state;
	assert_true(loop_now_ns() >= a);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(a_ready_source_is_called_until_stopped, setup, teardown),
		cmocka_unit_test_setup_teardown(a_source_deleted_in_its_batch_is_not_called, setup,
						teardown),
		cmocka_unit_test_setup_teardown(a_pending_call_runs_once, setup, teardown),
		cmocka_unit_test_setup_teardown(a_call_taken_back_does_not_run, setup, teardown),
		cmocka_unit_test_setup_teardown(calls_from_another_thread_arrive, setup, teardown),
		cmocka_unit_test_setup_teardown(a_timer_repeats_until_disarmed, setup, teardown),
		cmocka_unit_test(time_goes_forward),
	};

	return cmocka_run_group_tests_name("loop", tests, NULL, NULL);
}
