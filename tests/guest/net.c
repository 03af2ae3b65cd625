/*
 * net: a network card, by a driver of good faith and by one that lies.
 *
 *	do=echo n=N [mrg=0]	sends N frames back to where they came from; a line for each: its length
 *	do=send n=N len=L	sends N frames of L bytes (without header), numbered
 *	do=stall n=N		offers no buffer until a key comes, then takes N frames
 *	do=burst n=N		sends N frames with the ring full, over and over
 *	do=hostile		lengths and places that do not exist
 *	do=wait			prints the link status whenever it changes, for ever
 *	do=pairs n=N		asks for N queue pairs and for too many
 */
#include "guest.h"

#define HEADER 12
#define BUFFER 2048
#define BUFFERS 32
enum { F_MAC = 5, F_MRG = 15, F_STATUS = 16, F_CTRL = 17, F_MQ = 22 };
enum { RX, TX };

static struct vrings rings[2], control_rings;
static struct vrings second_rings[2];
static struct vio dev, rx, tx, second, second_tx; /* two pairs */
static u8 in[BUFFERS][BUFFER] __attribute__((aligned(4096)));
static u8 out[BUFFER];
static u64 taken;

static bool start(u64 features)
{
	bool found = vio_find(&dev, VIO_ID_NET, 0);

	CHECK(found, "a network card");
	taken = features & vio_features(&dev);
	if (!found || !vio_begin(&dev, taken))
		return false;
	rx = tx = dev;
	rx.queue = RX;
	tx.queue = TX;
	vio_queue(&rx, &rings[RX], BUFFERS);
	vio_queue(&tx, &rings[TX], BUFFERS);
	return true;
}

static u64 wanted(void)
{
	return 1ull << VIO_F_VERSION_1 | 1ull << F_MAC | 1ull << F_STATUS |
	       (option("mrg", 1) ? 1ull << F_MRG : 0);
}

static void offer_buffers(void)
{
	for (u16 i = 0; i < BUFFERS; i++) {
		vio_desc(&rx, i, (u64)in[i], BUFFER, VD_WRITE, 0);
		vio_offer(&rx, i);
	}
	vio_kick(&rx);
}

static void wait_used(struct vio *vio, u32 *id, u32 *len)
{
	while (!vio_wait(vio, id, len))
		relax();
}

/* One frame, with its header, which is in one piece; answers when it was taken. */
static void send(u8 *frame, u32 len)
{
	u32 id, used;

	memset(frame, 0, HEADER);
	vio_desc(&tx, 0, (u64)frame, len, 0, 0);
	vio_offer(&tx, 0);
	vio_kick(&tx);
	wait_used(&tx, &id, &used);
}

static void turn_round(u8 *frame)
{
	u8 mac[6];

	memcpy(mac, frame + HEADER, 6);
	memcpy(frame + HEADER, frame + HEADER + 6, 6);
	memcpy(frame + HEADER + 6, mac, 6);
}

static void echo(u64 n)
{
	u32 id, len;

	while (n--) {
		wait_used(&rx, &id, &len);
		CHECK(id < BUFFERS && len > HEADER && len <= BUFFER, "a frame of %u in %u", len, id);
		put("frame %u\n", len - HEADER);
		if (taken >> F_MRG & 1)
			CHECK(in[id][10] == 1 && in[id][11] == 0, "in one buffer");
		turn_round(in[id]);
		send(in[id], len);
		vio_desc(&rx, (unsigned)id, (u64)in[id], BUFFER, VD_WRITE, 0);
		vio_offer(&rx, (u16)id);
		vio_kick(&rx);
	}
}

static void fill(u64 number, u32 len)
{
	memset(out, 0, sizeof(out));
	memset(out + HEADER, 0xff, 6);
	out[HEADER + 6] = 2;
	out[HEADER + 12] = 0x88;
	out[HEADER + 13] = 0xb5; /* for experiments */
	memcpy(out + HEADER + 14, &number, sizeof(number));
	for (u32 i = 22; i < len; i++)
		out[HEADER + i] = (u8)(number + i);
}

static void do_send(u64 n, u32 len)
{
	for (u64 i = 0; i < n; i++) {
		fill(i, len);
		send(out, HEADER + len);
	}
	put("sent\n");
}

static void do_burst(u64 n)
{
	u32 id, used;

	fill(1, 60);
	for (u64 sent = 0; sent < n; sent += BUFFERS) {
		for (u16 i = 0; i < BUFFERS; i++) {
			vio_desc(&tx, i, (u64)out, HEADER + 60, 0, 0);
			vio_offer(&tx, i);
		}
		vio_kick(&tx);
		for (u16 i = 0; i < BUFFERS; i++)
			wait_used(&tx, &id, &used);
	}
	put("sent\n");
}

/* Offers one odd frame; 1: used, 2: the device is broken. */
static int odd(u64 addr, u32 len, u16 flags)
{
	u32 id, used;

	vio_desc(&tx, 0, addr, len, flags, 0);
	vio_offer(&tx, 0);
	vio_kick(&tx);
	for (;;) {
		if (vio_status(&dev) & VIO_S_BROKEN)
			return 2;
		if (READ_ONCE(tx.rings->used.idx) != tx.used_seen) {
			wait_used(&tx, &id, &used);
			return 1;
		}
		relax();
	}
}

static void again(void)
{
	CHECK(start(wanted()), "it starts again");
	vio_go(&dev);
}

static void do_hostile(void)
{
	CHECK(odd((u64)out, 0, 0) == 1, "an empty frame is dropped");
	CHECK(odd((u64)out, 1, 0) == 1, "a frame of one byte is dropped");
	CHECK(odd((u64)out, HEADER + 13, 0) == 1, "less than a frame is dropped");
	CHECK(odd(0x100000, 70000, 0) == 1, "more than a frame is dropped");
	CHECK(odd(0x100000, 0x700000, 0) == 1, "much more than a frame is dropped");
	CHECK(odd((u64)out, 100, VD_WRITE) == 1, "a frame to write to is dropped");
	memset(out, 0xff, HEADER); /* a header that makes no sense */
	CHECK(odd((u64)out, HEADER + 60, 0) == 1, "a nonsense header is dropped");
	CHECK(odd(0xc0000000, 100, 0) == 2, "a frame outside RAM breaks the device");
	again();
	CHECK(odd(0xfffffffffffffff0ull, 0xffffffff, 0) == 2, "a frame that wraps breaks it");
	again();
	/* Receive buffers: too small for a header. */
	vio_desc(&rx, 0, (u64)in[0], HEADER, VD_WRITE, 0);
	vio_offer(&rx, 0);
	vio_kick(&rx);
	CHECK(vio_wait_broken(&dev), "a receive buffer without room breaks the device");
	again();
	vio_desc(&rx, 0, (u64)in[0], BUFFER, 0, 0); /* not writable */
	vio_offer(&rx, 0);
	vio_kick(&rx);
	CHECK(vio_wait_broken(&dev), "a receive buffer that cannot be written breaks it");
	again();
	fill(7, 60);
	send(out, HEADER + 60);
	put("sent\n");
}

static void do_wait(void)
{
	u16 seen = 0xffff;

	for (;;) {
		u16 status = (u16)mmio_read(dev.base + VIO_CONFIG + 6, 2);

		if (status != seen)
			put("link %u\n", status);
		seen = status;
		relax();
	}
}

static u8 ask_pairs(struct vio *control, u16 n)
{
	static struct {
		u8 class, command;
		u16 pairs;
	} head;
	static u8 answer;
	u32 id, used;

	head.class = 4;
	head.command = 0;
	head.pairs = n;
	answer = 0xee;
	vio_desc(control, 0, (u64)&head, sizeof(head), VD_NEXT, 1);
	vio_desc(control, 1, (u64)&answer, 1, VD_WRITE, 0);
	vio_offer(control, 0);
	vio_kick(control);
	wait_used(control, &id, &used);
	return answer;
}

/* Pairs that were in use and no longer are take no link with them, and can be had again. */
static void fewer_and_more(struct vio *control, u16 n)
{
	for (int round = 0; round < 3; round++) {
		vio_kick(&second);
		CHECK(ask_pairs(control, n) == 0, "all of them");
		vio_kick(&second);
		CHECK(ask_pairs(control, 1) == 0, "one");
		fill(1, 60);
		send(out, HEADER + 60);
		CHECK(mmio_read(dev.base + VIO_CONFIG + 6, 2) == 1, "the link is up");
	}
}

/* A frame in a queue whose pair is not in use yet goes as soon as it is. */
static void early_frame(struct vio *control, u16 n)
{
	u32 id, used;

	fill(2, 60);
	vio_desc(&second_tx, 0, (u64)out, HEADER + 60, 0, 0);
	vio_offer(&second_tx, 0);
	vio_kick(&second_tx);
	CHECK(ask_pairs(control, 1) == 0, "one");
	CHECK(READ_ONCE(second_tx.rings->used.idx) == 0, "a pair that is not in use sends nothing");
	CHECK(ask_pairs(control, n) == 0, "all of them");
	wait_used(&second_tx, &id, &used);
}

static void do_pairs(u16 n)
{
	struct vio control = dev;

	control.queue = 2 * n;
	vio_queue(&control, &control_rings, 16);
	second = dev;
	second.queue = 2;
	vio_queue(&second, &second_rings[RX], BUFFERS);
	second_tx = dev;
	second_tx.queue = 3;
	vio_queue(&second_tx, &second_rings[TX], BUFFERS);
	vio_go(&dev);
	for (u16 i = 0; i < BUFFERS; i++) {
		vio_desc(&second, i, (u64)in[i], BUFFER, VD_WRITE, 0);
		vio_offer(&second, i);
	}
	early_frame(&control, n);
	CHECK(taken >> F_MQ & 1, "several queues are offered");
	CHECK(mmio_read(dev.base + VIO_CONFIG + 8, 2) == n, "as many as configured");
	CHECK(ask_pairs(&control, n) == 0, "all of them");
	fewer_and_more(&control, n);
	CHECK(ask_pairs(&control, 0) == 1, "none");
	CHECK(ask_pairs(&control, (u16)(n + 1)) == 1, "one too many");
	CHECK(ask_pairs(&control, 0xffff) == 1, "far too many");
}

void guest(void)
{
	u64 n = option("n", 1);
	bool pairs = option_is("do", "pairs");

	if (!start(wanted() | (pairs ? 1ull << F_CTRL | 1ull << F_MQ : 0)))
		return;
	if (pairs) {
		do_pairs((u16)n);
		return;
	}
	vio_go(&dev);
	put("up\n");
	if (option_is("do", "echo")) {
		offer_buffers();
		echo(n);
	} else if (option_is("do", "stall")) {
		while (getc() < 0)
			relax();
		offer_buffers();
		echo(n);
	} else if (option_is("do", "send")) {
		do_send(n, (u32)option("len", 60));
	} else if (option_is("do", "burst")) {
		do_burst(n);
	} else if (option_is("do", "hostile")) {
		do_hostile();
	} else if (option_is("do", "wait")) {
		do_wait();
	} else {
		CHECK(false, "nothing to do");
	}
	CHECK(!(vio_status(&dev) & VIO_S_BROKEN), "the card is well");
}
