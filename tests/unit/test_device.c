/*
 * device: status, features, config space, making and unmaking - against a model that only counts.
 * Queues, kicks, interrupts, resets and pauses are in test_device_queues.c.
 */
#include "src/virtio/device.h"
#include "tests/unit/model.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/syscall.h>

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
			if (value <= 0xff && value & GIVE_UP)
				assert_true(now & GIVE_UP);
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

static int epoll_fails_in;

/* Stands before libc's. */
int epoll_ctl(int epfd, int op, int fd, struct epoll_event *event)
{
	if (op == EPOLL_CTL_ADD && epoll_fails_in && --epoll_fails_in == 0) {
		errno = ENOSPC;
		return -1;
	}
	return (int)syscall(SYS_epoll_ctl, epfd, op, fd, event);
}

static void a_full_loop_leaves_nothing(void **state)
{
	struct err err;
	unsigned before;

	(void)state;
	device_destroy(&dev);
	before = open_fds();
	for (int nth = 1; nth <= 3; nth++) {
		epoll_fails_in = nth;
		assert_int_equal(device_init(&dev, &mem, loop, &err), -ENOSPC);
		assert_int_equal(open_fds(), before);
	}
	create();
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

int main(void)
{
	const struct CMUnitTest tests[] = {
		test(everyone_gets_version_1_and_event_idx_and_nobody_indirect),
		test(the_usual_way_up),
		test(every_status_write_is_harmless),
		test(several_bits_at_once_if_none_is_left_out),
		test(features_ok_is_refused_for_the_wrong_features),
		test(features_are_frozen_outside_the_negotiation),
		test(config_reads_beyond_the_end_are_zero),
		test(config_writes_are_whole_or_not_at_all),
		test(config_is_read_only_without_a_verb),
		test(a_full_loop_leaves_nothing),
		test(creation_that_fails_anywhere_leaves_nothing),
		test(a_zeroed_device_can_be_destroyed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
