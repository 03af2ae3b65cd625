/* vsock: packets against sockets: credit, half-closes, messages, what the guest may not do. */
#include "src/virtio/vsock.h"
#include "src/virtio/vsock_parts.h"
#include "tests/unit/ring.h"
#include "tests/unit/test.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>

#define RINGS 0x10000
#define IN    0x100000
#define OUT   0x80000
#define ROOM  8192u
#define BUFS  16
#define MINE  1000u
#define PORT  5u

static struct mem mem;
static struct loop *loop;
static struct vsock *vsock;
static struct device *dev;
static struct vsock_config cfg;
static struct ring ring[3];
static int server = -1;

static void go_live(u64 features)
{
	device_set_status(dev, 0);
	device_set_status(dev, 3);
	device_set_features(dev, 0, (u32)features);
	device_set_features(dev, 1, 1);
	device_set_status(dev, 11);
	for (unsigned q = 0; q < 3; q++) {
		ring[q] = ring_at(&mem, RINGS + q * 0x3000u, 32);
		ring_program(&ring[q], &dev->vq[q]);
	}
	device_set_status(dev, 15);
	for (u16 i = 0; i < BUFS; i++) {
		ring_set(&ring[0], i, IN + i * ROOM, ROOM, R_WRITE, 0);
		ring_offer(&ring[0], i);
	}
}

static int listen_as(int type)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, type | SOCK_NONBLOCK, 0);

	snprintf(addr.sun_path, sizeof addr.sun_path, "%.90s_%u", cfg.uds_path, PORT);
	unlink(addr.sun_path);
	assert_int_equal(bind(fd, (struct sockaddr *)&addr, sizeof addr), 0);
	assert_int_equal(listen(fd, 8), 0);
	return fd;
}

static int set_up(void **state)
{
	struct err err;

	(void)state;
	cfg = (struct vsock_config){ .guest_cid = 3, .max_connections = 4 };
	snprintf(cfg.uds_path, sizeof cfg.uds_path, "/tmp/mf-unit-vsock-%d", (int)getpid());
	assert_int_equal(mem_create(&mem, MIB(4), MEM_ANON, MEM_PAGES_4K, &err), 0);
	assert_int_equal(loop_create(&loop, &err), 0);
	assert_int_equal(vsock_listen(&cfg, &err), 0);
	assert_int_equal(vsock_create(&vsock, &cfg, &mem, loop, &err), 0);
	dev = vsock_device(vsock);
	server = -1;
	return 0;
}

static int tear_down(void **state)
{
	char name[128];

	(void)state;
	if (server >= 0)
		close(server);
	snprintf(name, sizeof name, "%s_%u", cfg.uds_path, PORT);
	unlink(name);
	vsock_destroy(vsock);
	vsock_unlisten(&cfg);
	loop_destroy(loop);
	mem_destroy(&mem);
	return 0;
}

static void stop(void *owner)
{
	(void)owner;
	loop_stop(loop, 0);
}

static void turn(void)
{
	struct loop_timer soon = { .expired = stop };

	assert_int_equal(loop_timer_init(loop, &soon), 0);
	for (int i = 0; i < 4; i++) {
		loop_timer_set(&soon, 1, 0);
		loop_run(loop);
	}
	loop_timer_destroy(loop, &soon);
}

static struct vsock_header answer; /* the last packet that came */
static u8 answer_data[ROOM];

/* The next packet of the device; false: none. */
static bool receive(void)
{
	struct ring_elem elem;

	turn();
	if (ring_used_idx(&ring[0]) == ring[0].seen)
		return false;
	elem = ring_elem(&ring[0], ring[0].seen++);
	memcpy(&answer, mem_at(&mem, IN + elem.id * ROOM, sizeof answer), sizeof answer);
	if (answer.len)
		memcpy(answer_data, mem_at(&mem, IN + elem.id * ROOM + 44, answer.len), answer.len);
	assert_int_equal(elem.len, 44 + answer.len);
	ring_offer(&ring[0], (u16)elem.id);
	device_wake(dev, 0);
	return true;
}

static u32 window = 65536, forwarded;

static void say(u16 op, u32 port, u32 flags, const void *data, u32 len, u16 type)
{
	struct vsock_header head = { .src_cid = 3,
				     .dst_cid = 2,
				     .src_port = MINE,
				     .dst_port = port,
				     .len = len,
				     .type = type,
				     .op = op,
				     .flags = flags,
				     .buf_alloc = window,
				     .fwd_cnt = forwarded };

	memcpy(mem_at(&mem, OUT, 44), &head, 44);
	if (len)
		memcpy(mem_at(&mem, OUT + 44, len), data, len);
	ring_set(&ring[1], 0, OUT, 44 + len, 0, 0);
	ring_offer(&ring[1], 0);
	device_wake(dev, 1);
	turn();
}

static int connect_out(u16 type)
{
	server = listen_as(type == VSOCK_STREAM ? SOCK_STREAM : SOCK_SEQPACKET);
	window = 65536;
	forwarded = 0;
	say(VSOCK_OP_REQUEST, PORT, 0, NULL, 0, type);
	assert_true(receive());
	assert_int_equal(answer.op, VSOCK_OP_RESPONSE);
	return accept4(server, NULL, NULL, SOCK_NONBLOCK);
}

static void nothing_is_sent_beyond_the_guests_credit(void **state)
{
	static u8 bytes[30000];
	int peer;

	(void)state;
	go_live(0);
	peer = connect_out(VSOCK_STREAM);
	window = 1000;
	say(VSOCK_OP_CREDIT_UPDATE, PORT, 0, NULL, 0, VSOCK_STREAM);
	assert_int_equal(send(peer, bytes, sizeof bytes, 0), (ssize_t)sizeof bytes);
	assert_true(receive());
	assert_int_equal(answer.op, VSOCK_OP_RW);
	assert_int_equal(answer.len, 1000);
	assert_true(receive());
	assert_int_equal(answer.op, VSOCK_OP_CREDIT_REQUEST);
	assert_false(receive());
	forwarded = 1000;
	say(VSOCK_OP_CREDIT_UPDATE, PORT, 0, NULL, 0, VSOCK_STREAM);
	assert_true(receive());
	assert_int_equal(answer.len, 1000);
	forwarded = 77777; /* more than was ever sent: no credit, and no harm */
	say(VSOCK_OP_CREDIT_UPDATE, PORT, 0, NULL, 0, VSOCK_STREAM);
	while (receive())
		assert_int_equal(answer.op, VSOCK_OP_CREDIT_REQUEST);
	assert_int_equal(vsock_connections(vsock), 1);
	close(peer);
}

static void a_stream_goes_on_where_the_buffers_ended(void **state)
{
	static u8 bytes[BUFS * (ROOM - 44) + 1000];
	const struct vsock_conn *conn = &vsock->conn[0];
	const struct vq *vq = &dev->vq[0];
	u32 place = 0;
	int peer;

	(void)state;
	go_live(0);
	for (u32 i = 0; i < sizeof bytes; i++)
		bytes[i] = (u8)(i * 7 + i / 256);
	peer = connect_out(VSOCK_STREAM);
	window = 1 << 20;
	say(VSOCK_OP_CREDIT_UPDATE, PORT, 0, NULL, 0, VSOCK_STREAM);
	assert_int_equal(send(peer, bytes, sizeof bytes, 0), (ssize_t)sizeof bytes);
	turn();
	assert_int_equal((u16)(ring_used_idx(&ring[0]) - ring[0].seen), BUFS);
	assert_true(conn->source.fd < 0); /* or the loop would never sleep */
	for (unsigned n = 0; n <= BUFS; n++) {
		assert_true(receive());
		assert_int_equal(answer.op, VSOCK_OP_RW);
		assert_int_equal(answer.len, n < BUFS ? ROOM - 44 : 1000);
		assert_memory_equal(answer_data, bytes + place, answer.len);
		place += answer.len;
	}
	/* Then one that is full, after which there is nothing. */
	assert_int_equal(send(peer, bytes, ROOM - 44, 0), ROOM - 44);
	assert_true(receive());
	assert_int_equal(answer.len, ROOM - 44);
	assert_false(receive());
	assert_true(conn->source.fd >= 0);
	assert_int_equal(vq->last_avail, vq->used_idx); /* what was not needed went back */
	close(peer);
}

static void who_sends_beyond_our_credit_is_reset(void **state)
{
	static u8 bytes[ROOM];
	unsigned n = 0;
	int peer;

	(void)state;
	go_live(0);
	peer = connect_out(VSOCK_STREAM); /* reads nothing */
	while (n++ < 200) {
		say(VSOCK_OP_RW, PORT, 0, bytes, sizeof bytes, VSOCK_STREAM);
		if (receive() && answer.op == VSOCK_OP_RST)
			break;
	}
	assert_true(n < 200);
	assert_int_equal(vsock_connections(vsock), 0);
	close(peer);
}

static void the_guest_is_told_how_far_the_host_has_closed(void **state)
{
	(void)state;
	go_live(0);
	for (int whole = 0; whole < 2; whole++) {
		int peer = connect_out(VSOCK_STREAM);

		assert_int_equal(send(peer, "bye", 3, 0), 3);
		assert_int_equal(whole ? close(peer) : shutdown(peer, SHUT_WR), 0);
		assert_true(receive());
		assert_int_equal(answer.op, VSOCK_OP_RW);
		assert_true(receive());
		assert_int_equal(answer.op, VSOCK_OP_SHUTDOWN);
		assert_int_equal(answer.flags, whole ? VSOCK_NEITHER : VSOCK_NO_SEND);
		assert_false(receive());
		say(VSOCK_OP_RST, PORT, 0, NULL, 0, VSOCK_STREAM);
		assert_int_equal(vsock_connections(vsock), 0);
		if (!whole)
			close(peer);
		close(server);
	}
	server = -1;
}

static void halves_are_closed_one_by_one(void **state)
{
	char got[16];
	int peer;

	(void)state;
	go_live(0);
	peer = connect_out(VSOCK_STREAM);
	say(VSOCK_OP_RW, PORT, 0, "bye", 3, VSOCK_STREAM);
	say(VSOCK_OP_SHUTDOWN, PORT, VSOCK_NO_SEND, NULL, 0, VSOCK_STREAM);
	assert_int_equal(recv(peer, got, sizeof got, 0), 3);
	assert_int_equal(recv(peer, got, sizeof got, 0), 0);
	assert_int_equal(send(peer, "still here", 10, 0), 10);
	assert_true(receive());
	assert_int_equal(answer.op, VSOCK_OP_RW);
	assert_memory_equal(answer_data, "still here", 10);
	close(peer);
	assert_true(receive());
	assert_int_equal(answer.op, VSOCK_OP_SHUTDOWN);
	assert_int_equal(answer.flags, VSOCK_NEITHER);
	say(VSOCK_OP_RST, PORT, 0, NULL, 0, VSOCK_STREAM);
	assert_int_equal(vsock_connections(vsock), 0);
}

static void messages_keep_their_bounds(void **state)
{
	u8 got[64], large[9000];
	int peer;

	(void)state;
	go_live(1ull << VSOCK_F_SEQPACKET);
	peer = connect_out(VSOCK_SEQPACKET);
	say(VSOCK_OP_RW, PORT, 0, "one ", 4, VSOCK_SEQPACKET);
	assert_int_equal(recv(peer, got, sizeof got, 0), -1); /* not whole yet */
	say(VSOCK_OP_RW, PORT, VSOCK_EOM, "message", 7, VSOCK_SEQPACKET);
	say(VSOCK_OP_RW, PORT, VSOCK_EOM, "two", 3, VSOCK_SEQPACKET);
	assert_int_equal(recv(peer, got, sizeof got, 0), 11);
	assert_memory_equal(got, "one message", 11);
	assert_int_equal(recv(peer, got, sizeof got, 0), 3);

	memset(large, 'x', sizeof large);
	assert_int_equal(send(peer, large, sizeof large, 0), (ssize_t)sizeof large);
	assert_int_equal(send(peer, "y", 1, 0), 1);
	assert_true(receive());
	assert_int_equal(answer.len, ROOM - 44);
	assert_int_equal(answer.flags, 0);
	assert_true(receive());
	assert_int_equal(answer.len, sizeof large - (ROOM - 44));
	assert_int_equal(answer.flags, VSOCK_EOM);
	assert_true(receive());
	assert_int_equal(answer.len, 1);
	assert_int_equal(answer.flags, VSOCK_EOM);
	close(peer);
}

static void messages_only_where_they_were_agreed_on(void **state)
{
	(void)state;
	go_live(0);
	server = listen_as(SOCK_SEQPACKET);
	say(VSOCK_OP_REQUEST, PORT, 0, NULL, 0, VSOCK_SEQPACKET);
	assert_true(receive());
	assert_int_equal(answer.op, VSOCK_OP_RST);
}

static void a_reset_device_has_no_connections(void **state)
{
	char byte;
	int peer;

	(void)state;
	go_live(0);
	peer = connect_out(VSOCK_STREAM);
	device_set_status(dev, 0);
	turn();
	assert_int_equal(vsock_connections(vsock), 0);
	assert_int_equal(recv(peer, &byte, 1, 0), 0);
	close(peer);
}

static void a_restored_guest_is_told_once(void **state)
{
	u32 id = 77;

	(void)state;
	go_live(0);
	vsock_restored(vsock);
	memcpy(mem_at(&mem, OUT, 4), &id, 4);
	for (u16 i = 0; i < 2; i++) {
		ring_set(&ring[2], i, OUT, 8, R_WRITE, 0);
		ring_offer(&ring[2], i);
	}
	device_wake(dev, 2);
	turn();
	assert_int_equal(ring_used_idx(&ring[2]), 1);
	assert_int_equal(ring_elem(&ring[2], 0).len, 4);
	memcpy(&id, mem_at(&mem, OUT, 4), 4);
	assert_int_equal(id, 0);
	assert_false(vsock_state(vsock)->reset_pending);
}

#define test(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		test(nothing_is_sent_beyond_the_guests_credit),
		test(a_stream_goes_on_where_the_buffers_ended),
		test(who_sends_beyond_our_credit_is_reset),
		test(the_guest_is_told_how_far_the_host_has_closed),
		test(halves_are_closed_one_by_one),
		test(messages_keep_their_bounds),
		test(messages_only_where_they_were_agreed_on),
		test(a_reset_device_has_no_connections),
		test(a_restored_guest_is_told_once),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
