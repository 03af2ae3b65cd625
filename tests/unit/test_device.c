/*
 * device: status, features, kicks, interrupts, pause - against a model that only counts its calls.
 *
 * What a vCPU leaves for the loop is carried out by turn(), which is one turn of the loop.
 */
#include "src/virtio/device.h"
#include "src/vmm/log.h"
#include "tests/unit/ring.h"

#include <dirent.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/resource.h>

#include <cmocka.h>

#define A	DEVICE_ACKNOWLEDGE
#define D	DEVICE_DRIVER
#define F	DEVICE_FEATURES_OK
#define OK	DEVICE_DRIVER_OK
#define BAD	DEVICE_NEEDS_RESET
#define GIVE_UP DEVICE_FAILED

#define VERSION_1 (1ull << 32)
#define EVENT_IDX (1ull << 29)
#define OWN	  (1ull << 5) /* a feature bit of this kind of device */

static struct mem mem;
static struct loop *loop;
static struct vq vq[3];
static struct ring ring[3];
static struct device dev;

static struct {
	unsigned notified[3], reset, drained, loaded;
	u32 config_off, config_len;
	u8 config[8];
	bool take; /* notify pops one chain and keeps it */
} calls;

static void on_notify(struct device *d, unsigned q)
{
	static struct chain chain;

	assert_ptr_equal(d, &dev);
	assert_true(device_active(d));
	assert_int_equal(calls.loaded, 1); /* always before the first kick */
	calls.notified[q]++;
	if (calls.take && vq_pop(&d->vq[q], &chain) > 0)
		calls.take = false;
}

static void on_config_write(struct device *d, u32 off, const void *data, u32 len)
{
	assert_ptr_equal(d, &dev);
	calls.config_off = off;
	calls.config_len = len;
	memcpy(calls.config, data, len);
}

static void on_reset(struct device *d)
{
	(void)d;
	calls.reset++;
}

static void on_drain(struct device *d)
{
	assert_true(d->paused);
	calls.drained++;
}

static void on_loaded(struct device *d)
{
	assert_true(device_active(d));
	calls.loaded++;
}

static const struct device_type type = {
	.name = "test",
	.virtio_id = 42,
	.notify = on_notify,
	.config_write = on_config_write,
	.reset = on_reset,
	.drain = on_drain,
	.loaded = on_loaded,
};

static void create(void)
{
	struct err err;

	memset(&calls, 0, sizeof calls);
	memset(&dev, 0, sizeof dev);
	for (unsigned q = 0; q < 3; q++)
		vq[q] = (struct vq){ .size_max = 64 };
	dev.type = &type;
	dev.features_offered = OWN;
	dev.config_len = 12;
	for (u8 i = 0; i < sizeof dev.config; i++)
		dev.config[i] = (u8)(i + 1);
	dev.vq = vq;
	dev.n_queues = 3;
	strcpy(dev.id, "unit");
	assert_int_equal(device_init(&dev, &mem, loop, &err), 0);
}

static int set_up(void **state)
{
	struct err err;

	(void)state;
	assert_int_equal(mem_create(&mem, MIB(2), MEM_ANON, MEM_PAGES_4K, &err), 0);
	assert_int_equal(loop_create(&loop, &err), 0);
	create();
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	device_destroy(&dev);
	device_destroy(&dev); /* twice is as good as once */
	loop_destroy(loop);
	mem_destroy(&mem);
	return 0;
}

/* One turn of the loop: the callback of each kick that is there. */
static void turn(void)
{
	for (unsigned q = 0; q < dev.n_queues; q++)
		dev.kick[q].ready(dev.kick[q].owner, EPOLLIN);
}

/* Interrupts raised since the last call. */
static u64 interrupts(void)
{
	u64 count = 0;

	return read(dev.irq_fd, &count, sizeof count) == sizeof count ? count : 0;
}

static void want_features(u64 bits)
{
	device_set_features(&dev, 0, (u32)bits);
	device_set_features(&dev, 1, (u32)(bits >> 32));
}

/* Queues `first` and up of three are made ready, then the driver is done. */
static void go_live(u64 features, unsigned first)
{
	device_set_status(&dev, A);
	device_set_status(&dev, A | D);
	want_features(features);
	device_set_status(&dev, A | D | F);
	for (unsigned q = first; q < 3; q++) {
		ring[q] = ring_at(&mem, 0x10000 * (q + 1), 16);
		ring_program(&ring[q], &vq[q]);
	}
	device_set_status(&dev, A | D | F | OK);
	assert_int_equal(dev.status, A | D | F | OK);
}

/* ---- status ------------------------------------------------------------------------------- */

static void everyone_gets_version_1_and_event_idx_and_nobody_indirect(void **state)
{
	(void)state;
	assert_true(dev.features_offered == (OWN | VERSION_1 | EVENT_IDX));
}

static void the_usual_way_up(void **state)
{
	static const u8 step[] = { A, D, F, OK };
	u8 status = 0;

	(void)state;
	for (unsigned i = 0; i < 4; i++) {
		status |= step[i];
		device_set_status(&dev, status);
		assert_int_equal(dev.status, status);
		device_set_status(&dev, status); /* again: nothing new */
		assert_int_equal(dev.status, status);
		assert_int_equal(device_queue_open(&dev), step[i] == F);
		assert_int_equal(device_active(&dev), step[i] == OK);
		if (step[i] == D)
			want_features(VERSION_1);
	}
	turn();
	turn();
	assert_int_equal(calls.loaded, 1);
	assert_int_equal(calls.reset, 0);
}

/* From each state that can be reached, every value that can be written. */
static void every_status_write_is_harmless(void **state)
{
	static const u8 from[] = { 0,
				   A,
				   A | D,
				   A | D | F,
				   A | D | F | OK,
				   A | GIVE_UP,
				   A | D | BAD,
				   A | D | F | OK | BAD };

	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(from); i++)
		for (u32 value = 0; value < 0x300; value++) {
			u8 now, was = from[i], sick = was & (BAD | GIVE_UP);

			dev.status = was;
			dev.features = VERSION_1;
			device_set_status(&dev, value);
			now = dev.status;
			if (value == 0) {
				assert_int_equal(now, 0);
				continue;
			}
			assert_int_equal(now & was, was);	  /* nothing is taken back */
			assert_int_equal(now & ~was & ~value, 0); /* nothing uncalled for */
			assert_int_equal(now & BAD, was & BAD);	  /* the device's own bit */
			assert_true(!(now & D) || now & A);
			assert_true(!(now & F) || now & D);
			assert_true(!(now & OK) || now & F);
			if (sick || value > 0xff || (was & 0xf & ~value))
				assert_int_equal(now & 0xf, was & 0xf);
		}
}

static void several_bits_at_once_if_none_is_left_out(void **state)
{
	(void)state;
	device_set_status(&dev, A | D);
	assert_int_equal(dev.status, A | D);
	want_features(VERSION_1);
	device_set_status(&dev, A | D | OK); /* FEATURES_OK is left out */
	assert_int_equal(dev.status, A | D);
	device_set_status(&dev, A | D | F | OK);
	assert_int_equal(dev.status, A | D | F | OK);
}

static void features_ok_is_refused_for_the_wrong_features(void **state)
{
	static const u64 bad[] = { 0,
				   OWN,
				   OWN | EVENT_IDX,
				   VERSION_1 | 1,
				   VERSION_1 | 1ull << 63,
				   VERSION_1 | 1ull << 28 /* INDIRECT_DESC */,
				   VERSION_1 | 1ull << 34 /* RING_PACKED */,
				   ~0ull };
	static const u64 good[] = { VERSION_1, VERSION_1 | OWN, VERSION_1 | EVENT_IDX,
				    VERSION_1 | EVENT_IDX | OWN };

	(void)state;
	device_set_status(&dev, A | D);
	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
		want_features(bad[i]);
		device_set_status(&dev, A | D | F);
		assert_int_equal(dev.status, A | D);
	}
	for (unsigned i = 0; i < ARRAY_SIZE(good); i++) {
		device_set_status(&dev, 0);
		device_set_status(&dev, A | D);
		want_features(good[i]);
		device_set_status(&dev, A | D | F);
		assert_int_equal(dev.status, A | D | F);
		assert_true(dev.features == good[i]);
	}
}

static void features_are_frozen_outside_the_negotiation(void **state)
{
	static const u8 frozen[] = {
		0, A, A | D | F, A | D | F | OK, A | D | GIVE_UP, A | D | BAD
	};

	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(frozen); i++) {
		dev.status = frozen[i];
		dev.features = VERSION_1 | OWN;
		want_features(EVENT_IDX);
		assert_true(dev.features == (VERSION_1 | OWN));
	}
	dev.status = A | D;
	device_set_features(&dev, 2, ~0u);
	device_set_features(&dev, 32, ~0u);
	device_set_features(&dev, ~0u, ~0u);
	assert_true(dev.features == (VERSION_1 | OWN));
	want_features(EVENT_IDX);
	assert_true(dev.features == EVENT_IDX);
}

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
	assert_int_equal(write(dev.kick[1].fd, &one, 8), 8); /* what KVM's ioeventfd does */
	timer.expired = stop_loop;
	timer.owner = loop;
	assert_int_equal(loop_timer_init(loop, &timer), 0);
	loop_timer_set(&timer, 50000000, 0);
	loop_run(loop);
	loop_timer_destroy(loop, &timer);
	assert_int_equal(calls.notified[0], 1);
	assert_int_equal(calls.notified[1], 2);
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

/* ---- config space ------------------------------------------------------------------------- */

static void config_reads_beyond_the_end_are_zero(void **state)
{
	static const u32 offsets[] = {
		0, 1, 11, 12, 13, 63, 64, 65, 0xeff, 0x7fffffff, UINT32_MAX
	};

	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(offsets); i++)
		for (u32 len = 0; len <= 64; len++) {
			u8 got[66];

			memset(got, 0xa5, sizeof got);
			device_config_read(&dev, offsets[i], got, len);
			for (u32 b = 0; b < len; b++) {
				u64 at = (u64)offsets[i] + b;

				assert_int_equal(got[b], at < 12 ? at + 1 : 0);
			}
			assert_int_equal(got[len], 0xa5);
		}
}

static void config_writes_are_whole_or_not_at_all(void **state)
{
	static const u32 offsets[] = { 0, 1, 8, 11, 12, 13, 64, 0xeff, UINT32_MAX };
	u8 bytes[8] = "abcdefg";

	(void)state;
	dev.status = A | D;
	for (unsigned i = 0; i < ARRAY_SIZE(offsets); i++)
		for (u32 len = 1; len <= 8; len++) {
			bool inside = (u64)offsets[i] + len <= 12;

			memset(&calls, 0, sizeof calls);
			device_config_write(&dev, offsets[i], bytes, len);
			assert_int_equal(calls.config_len, inside ? len : 0);
			assert_int_equal(calls.config_off, inside ? offsets[i] : 0);
		}
	assert_int_equal(dev.config[0], 1); /* what becomes of it is the model's business */
	memset(&calls, 0, sizeof calls);
	dev.status = A;
	device_config_write(&dev, 0, bytes, 4);
	dev.status = A | D | GIVE_UP;
	device_config_write(&dev, 0, bytes, 4);
	assert_int_equal(calls.config_len, 0);
}

static void config_is_read_only_without_a_verb(void **state)
{
	static const struct device_type deaf = { .name = "deaf", .notify = on_notify };

	(void)state;
	dev.type = &deaf;
	dev.status = A | D;
	device_config_write(&dev, 0, "abcd", 4);
	assert_int_equal(dev.config[0], 1);
	device_set_status(&dev, 0); /* none of the optional verbs is missed */
	device_pause(&dev);
	device_resume(&dev);
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

/* ---- making and unmaking ------------------------------------------------------------------ */

static unsigned open_fds(void)
{
	DIR *dir = opendir("/proc/self/fd");
	unsigned n = 0;

	while (readdir(dir))
		n++;
	closedir(dir);
	return n;
}

static void creation_that_fails_anywhere_leaves_nothing(void **state)
{
	struct rlimit limit, old;
	struct err err;
	int low = dup(0);

	(void)state;
	close(low);
	device_destroy(&dev);
	low = dup(0); /* the lowest free number: allow `room` more */
	close(low);
	getrlimit(RLIMIT_NOFILE, &old);
	for (unsigned room = 0; room < 4; room++) {
		unsigned before = open_fds();

		limit = (struct rlimit){ (rlim_t)low + room, old.rlim_max };
		setrlimit(RLIMIT_NOFILE, &limit);
		assert_int_equal(device_init(&dev, &mem, loop, &err), -EMFILE);
		setrlimit(RLIMIT_NOFILE, &old);
		assert_non_null(strstr(err.msg, "unit"));
		assert_int_equal(open_fds(), before);
		device_destroy(&dev);
	}
	create();
}

static void a_zeroed_device_can_be_destroyed(void **state)
{
	struct device none = { 0 };

	(void)state;
	device_destroy(&none);
	assert_true(fcntl(0, F_GETFD) >= 0 || errno != EBADF); /* stdin lives */
}

#define test(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		test(everyone_gets_version_1_and_event_idx_and_nobody_indirect),
		test(the_usual_way_up),
		test(every_status_write_is_harmless),
		test(several_bits_at_once_if_none_is_left_out),
		test(features_ok_is_refused_for_the_wrong_features),
		test(features_are_frozen_outside_the_negotiation),
		test(driver_ok_activates_the_ready_queues),
		test(event_index_only_if_negotiated),
		test(kicks_go_to_the_queue_they_name),
		test(the_loop_hears_the_eventfds),
		test(kicks_at_the_wrong_time_do_nothing),
		test(a_queue_interrupts_when_the_driver_wants_it),
		test(a_config_change_is_told_after_driver_ok),
		test(a_ring_that_lies_breaks_its_device_once),
		test(a_queue_that_cannot_be_activated_breaks_the_device),
		test(a_ring_that_lies_to_a_completion_breaks_its_device),
		test(a_reset_at_each_point_of_the_way_up),
		test(edges_from_before_a_reset_do_nothing),
		test(giving_up_stops_everything_until_reset),
		test(config_reads_beyond_the_end_are_zero),
		test(config_writes_are_whole_or_not_at_all),
		test(config_is_read_only_without_a_verb),
		test(a_paused_device_serves_nothing_and_loses_nothing),
		test(creation_that_fails_anywhere_leaves_nothing),
		test(a_zeroed_device_can_be_destroyed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
