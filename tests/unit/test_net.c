/* net: frames between a tap that is a socket here and the guest's buffers. */
#include "src/virtio/net.h"
#include "tests/unit/hear.h"
#include "tests/unit/ring.h"
#include "tests/unit/test.h"

#include <stdlib.h>
#include <sys/socket.h>

#define RINGS  0x10000
#define BUFFER 0x100000
#define HEADER 12
#define MRG    (1ull << 15)
#define TSO4   (1ull << 7 | 1ull << 1)

static struct mem mem;
static struct loop *loop;
static struct net *net;
static struct device *dev;
static struct ring ring[2];
static int wire; /* the other end of the tap */
static struct net_config cfg;

static void go_live(u64 features)
{
	device_set_status(dev, 0);
	device_set_status(dev, 3);
	device_set_features(dev, 0, (u32)features);
	device_set_features(dev, 1, 1);
	device_set_status(dev, 11);
	for (unsigned q = 0; q < 2; q++) {
		ring[q] = ring_at(&mem, RINGS + q * 0x3000u, 32);
		ring_program(&ring[q], &dev->vq[q]);
	}
	device_set_status(dev, 15);
	assert_int_equal(dev->status, 15);
}

static int set_up(void **state)
{
	struct err err;
	int pair[2];

	(void)state;
	assert_int_equal(mem_create(&mem, MIB(4), MEM_ANON, MEM_PAGES_4K, &err), 0);
	assert_int_equal(loop_create(&loop, &err), 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK, 0, pair), 0);
	cfg = (struct net_config){ .id = "eth0",
				   .fd = { pair[0] },
				   .queue_pairs = 1,
				   .mac = { 2, 0, 0, 0, 0, 9 },
				   .mac_given = true };
	wire = pair[1];
	assert_int_equal(net_create(&net, &cfg, &mem, loop, &err), 0);
	dev = net_device(net);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	net_destroy(net);
	close(cfg.fd[0]);
	close(wire);
	loop_destroy(loop);
	mem_destroy(&mem);
	return 0;
}

static void kick(unsigned q)
{
	device_wake(dev, q);
	hear_kick(dev, q);
}

/* A frame as the tap would give it: header and `len` bytes that tell their place. */
static void arrive(u32 len)
{
	static u8 frame[70000];

	memset(frame, 0, HEADER);
	for (u32 i = 0; i < len; i++)
		frame[HEADER + i] = (u8)(i * 7);
	assert_int_equal(send(wire, frame, HEADER + len, 0), (ssize_t)(HEADER + len));
}

static void offer(unsigned q, u16 head, u64 gpa, u32 len, u16 flags)
{
	ring_set(&ring[q], head, gpa, len, flags, 0);
	ring_offer(&ring[q], head);
}

static u8 *at(u64 gpa)
{
	return mem_at(&mem, gpa, 1);
}

static void a_frame_goes_over_as_many_buffers_as_it_takes(void **state)
{
	u32 place = 0;

	(void)state;
	go_live(MRG);
	for (u16 i = 0; i < 32; i++)
		offer(0, i, BUFFER + i * 0x1000u, 200, R_WRITE);
	arrive(1000);
	kick(0);
	assert_int_equal(ring_used_idx(&ring[0]), 6); /* 1012 bytes, 200 each */
	assert_int_equal(at(BUFFER)[10], 6);
	for (u16 n = 0; n < 6; n++) {
		struct ring_elem elem = ring_elem(&ring[0], n);

		assert_int_equal(elem.id, n);
		assert_int_equal(elem.len, n < 5 ? 200 : 12);
		for (u32 i = n ? 0 : HEADER; i < elem.len; i++, place++)
			assert_int_equal(at(BUFFER + n * 0x1000u)[i], (u8)(place * 7));
	}
	assert_int_equal(place, 1000);
}

static void what_a_frame_leaves_is_the_next_ones(void **state)
{
	(void)state;
	go_live(MRG);
	for (u16 i = 0; i < 32; i++)
		offer(0, i, BUFFER + i * 0x1000u, 512, R_WRITE);
	for (u32 n = 0; n < 5; n++)
		arrive(60 + n);
	kick(0);
	assert_int_equal(ring_used_idx(&ring[0]), 5);
	for (u16 n = 0; n < 5; n++)
		assert_int_equal(ring_elem(&ring[0], n).len, HEADER + 60u + n);
}

static void a_pause_gives_back_what_is_held(void **state)
{
	(void)state;
	go_live(MRG);
	for (u16 i = 0; i < 32; i++)
		offer(0, i, BUFFER + i * 0x1000u, 512, R_WRITE);
	kick(0);
	device_pause(dev);
	assert_int_equal(dev->vq[0].last_avail, 0);
	for (unsigned i = 0; i < ARRAY_SIZE(dev->vq[0].in_flight); i++)
		assert_int_equal(dev->vq[0].in_flight[i], 0);
	arrive(77);
	device_resume(dev);
	assert_int_equal(ring_used_idx(&ring[0]), 1);
	assert_int_equal(ring_elem(&ring[0], 0).id, 0);
}

static void a_driver_without_merging_gets_one_buffer_a_frame(void **state)
{
	(void)state;
	go_live(0);
	offer(0, 4, BUFFER, 1526, R_WRITE);
	offer(0, 5, BUFFER + 0x1000, 1526, R_WRITE);
	arrive(1500);
	arrive(60);
	kick(0);
	assert_int_equal(ring_used_idx(&ring[0]), 2);
	assert_int_equal(ring_elem(&ring[0], 0).id, 4);
	assert_int_equal(ring_elem(&ring[0], 1).id, 5);
	assert_int_equal(at(BUFFER)[10], 1);
}

static void a_large_frame_waits_until_there_is_room_for_it(void **state)
{
	(void)state;
	go_live(MRG | TSO4);
	for (u16 i = 0; i < 16; i++)
		offer(0, i, BUFFER + i * 0x1000u, 4096, R_WRITE);
	arrive(60000);
	kick(0);
	assert_int_equal(ring_used_idx(&ring[0]), 0); /* 64 KiB, and a little, may come */
	offer(0, 16, BUFFER + 0x10000, 4096, R_WRITE);
	kick(0);
	assert_int_equal(ring_used_idx(&ring[0]), 15);
}

static void transmit(u32 len, u8 last_mac_byte)
{
	u8 *frame = at(BUFFER);

	memset(frame, 0, HEADER + 14);
	frame[HEADER + 6] = 2;
	frame[HEADER + 11] = last_mac_byte;
	offer(1, 0, BUFFER, len, 0);
	kick(1);
}

static void what_is_no_frame_is_counted_and_dropped(void **state)
{
	u8 frame[128];

	(void)state;
	go_live(0);
	transmit(0, 9);
	transmit(HEADER + 13, 9);
	transmit(NET_FRAME_MAX + 1, 9);
	assert_int_equal(net_metrics(net)->tx_malformed_frames, 3);
	assert_int_equal(recv(wire, frame, sizeof frame, 0), -1);
	transmit(HEADER + 60, 9);
	assert_int_equal(recv(wire, frame, sizeof frame, 0), HEADER + 60);
	assert_int_equal(net_metrics(net)->tx_spoofed_mac_count, 0);
	transmit(HEADER + 60, 8); /* goes out, and is counted */
	assert_int_equal(recv(wire, frame, sizeof frame, 0), HEADER + 60);
	assert_int_equal(net_metrics(net)->tx_spoofed_mac_count, 1);
	assert_int_equal(ring_used_idx(&ring[1]), 5);
}

static void a_tap_that_is_full_is_waited_for(void **state)
{
	u8 frame[2048];
	unsigned sent = 0, got = 0;

	(void)state;
	go_live(0);
	for (u16 round = 0; round < 4000 && !net_metrics(net)->tx_waits; round++, sent++)
		transmit(HEADER + 1500, 9);
	assert_int_equal(net_metrics(net)->tx_waits, 1);
	assert_int_equal(ring_used_idx(&ring[1]), sent - 1);
	while (recv(wire, frame, sizeof frame, 0) > 0)
		got++;
	assert_int_equal(got, sent - 1);
	kick(1);
	assert_int_equal(ring_used_idx(&ring[1]), sent);
	assert_int_equal(recv(wire, frame, sizeof frame, 0), HEADER + 1500);
}

/* So many tokens that there is one left when the tap is full and takes frames again. */
static void a_frame_that_waits_for_the_tap_pays_once(void **state)
{
	struct limit_config limit = { .given = true, .ops = { .given = true, .refill_ms = 1000000000 } };
	unsigned sent = 0;
	u8 frame[2048];

	(void)state;
	go_live(0);
	while (!net_metrics(net)->tx_waits && sent < 4000) {
		transmit(HEADER + 1500, 8);
		sent++;
	}
	while (recv(wire, frame, sizeof frame, 0) > 0)
		;
	kick(1);
	/* The same again, with just as many tokens as there are frames, and one more. */
	limit.ops.size = sent + 1;
	net_limit(net, &(struct limit_config){ 0 }, &limit);
	while (recv(wire, frame, sizeof frame, 0) > 0)
		;
	for (unsigned i = 0; i < sent; i++)
		transmit(HEADER + 1500, 8);
	assert_int_equal(net_metrics(net)->tx_waits, 2);
	for (int i = 0; i < 5; i++)
		kick(1); /* the tap is as full as it was */
	assert_int_equal(net_metrics(net)->tx_waits, 7);
	assert_int_equal(net_metrics(net)->tx_spoofed_mac_count, 2 * sent);
	while (recv(wire, frame, sizeof frame, 0) > 0)
		;
	kick(1);
	transmit(HEADER + 1500, 8);
	assert_int_equal(net_metrics(net)->tx_rate_limiter_throttled, 0);
	assert_int_equal(ring_used_idx(&ring[1]), (u16)(2 * sent + 1));
	transmit(HEADER + 1500, 8); /* the first that there is no token for */
	assert_int_equal(net_metrics(net)->tx_rate_limiter_throttled, 1);
}

static void stop(void *owner)
{
	loop_stop(owner, 0);
}

static void what_waits_for_a_tap_that_vanishes_is_dropped(void **state)
{
	struct loop_work work = { .run = stop, .owner = loop };
	unsigned sent = 0;

	(void)state;
	go_live(0);
	for (; sent < 4000 && !net_metrics(net)->tx_waits; sent++)
		transmit(HEADER + 1500, 9);
	assert_int_equal(ring_used_idx(&ring[1]), sent - 1);
	close(wire);
	wire = dup(cfg.fd[0]); /* for tear_down() */
	for (int turn = 0; turn < 8; turn++) {
		loop_call(loop, &work);
		assert_int_equal(loop_run(loop), 0);
	}
	assert_true(net_state(net)->link_down);
	/* The loop may have served that already; it does nothing unless somebody has kicked. */
	hear_kick(dev, 1);
	assert_int_equal(ring_used_idx(&ring[1]), sent);
}

static void a_reset_while_buffers_are_held(void **state)
{
	(void)state;
	for (int round = 0; round < 3; round++) {
		go_live(MRG);
		for (u16 i = 0; i < 32; i++)
			offer(0, i, BUFFER + i * 0x1000u, 512, R_WRITE);
		kick(0);
		device_set_status(dev, 0);
		arrive(60);
		kick(0);
	}
}

#define test(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		test(a_frame_goes_over_as_many_buffers_as_it_takes),
		test(what_a_frame_leaves_is_the_next_ones),
		test(a_pause_gives_back_what_is_held),
		test(a_driver_without_merging_gets_one_buffer_a_frame),
		test(a_large_frame_waits_until_there_is_room_for_it),
		test(what_is_no_frame_is_counted_and_dropped),
		test(a_tap_that_is_full_is_waited_for),
		test(a_frame_that_waits_for_the_tap_pays_once),
		test(what_waits_for_a_tap_that_vanishes_is_dropped),
		test(a_reset_while_buffers_are_held),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
