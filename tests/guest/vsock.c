/*
 * vsock: a driver of good faith that talks to the host, and one that breaks every rule.
 *
 *	do=serve n=N		accepts connections to any port and sends everything back, until N of them
 *				have ended
 *	do=connect port=P n=N bytes=B	N connections at once to the host's port P: sends B bytes each,
 *				reads them back, closes
 *	do=refused port=P	a connection to a port where nobody is ends with RST
 *	do=mute			accepts, and never answers anything else
 *	do=flood n=N		N requests to a port where nobody is; every answer is an RST
 *	do=late port=P n=N	N connections to the host's port P that it ends at once; hears what became
 *				of them when a line is typed, not before
 *	do=hostile		packets that make no sense
 */
#include "guest.h"

#define HOST_CID 2
#define PAYLOAD	 4096
#define HEADER	 44
#define BUFFERS	 32
#define CONNS	 256
enum { REQUEST = 1, RESPONSE, RST, SHUTDOWN, RW, CREDIT_UPDATE, CREDIT_REQUEST };
enum { RX, TX, EVENT };

struct packet {
	u64 src_cid, dst_cid;
	u32 src_port, dst_port, len;
	u16 type, op;
	u32 flags, buf_alloc, fwd_cnt;
	u8 data[PAYLOAD];
} __attribute__((packed));

static struct vrings rings[3];
static struct vio dev, queue[3];
static struct packet in[BUFFERS] __attribute__((aligned(4096)));
static struct packet out __attribute__((aligned(4096)));
static u64 cid;
static u32 fwd[CONNS], sent[CONNS], got[CONNS];

static bool start(void)
{
	bool found = vio_find(&dev, VIO_ID_VSOCK, 0);

	CHECK(found, "a vsock device");
	if (!found || !vio_begin(&dev, 1ull << VIO_F_VERSION_1))
		return false;
	for (unsigned q = 0; q < 3; q++) {
		queue[q] = dev;
		queue[q].queue = q;
		vio_queue(&queue[q], &rings[q], BUFFERS);
	}
	vio_go(&dev);
	cid = read32(dev.base + VIO_CONFIG);
	for (u16 i = 0; i < BUFFERS; i++) {
		vio_desc(&queue[RX], i, (u64)&in[i], sizeof(in[i]), VD_WRITE, 0);
		vio_offer(&queue[RX], i);
	}
	vio_kick(&queue[RX]);
	return true;
}

static void wait_used(struct vio *vio, u32 *id, u32 *len)
{
	while (!vio_wait(vio, id, len))
		relax();
}

static void send_bytes(u32 len)
{
	u32 id, used;

	vio_desc(&queue[TX], 0, (u64)&out, len, 0, 0);
	vio_offer(&queue[TX], 0);
	vio_kick(&queue[TX]);
	wait_used(&queue[TX], &id, &used);
}

/* `out.data` holds `len` bytes already. */
static void say(u16 op, u32 mine, u32 theirs, u32 flags, u32 len, u32 forwarded)
{
	out.src_cid = cid;
	out.dst_cid = HOST_CID;
	out.src_port = mine;
	out.dst_port = theirs;
	out.len = len;
	out.type = 1;
	out.op = op;
	out.flags = flags;
	out.buf_alloc = 1u << 20;
	out.fwd_cnt = forwarded;
	send_bytes(HEADER + len);
}

/* The next packet; given back by release(). */
static struct packet *receive(u32 *id)
{
	u32 len;

	wait_used(&queue[RX], id, &len);
	CHECK(*id < BUFFERS && len >= HEADER && len == HEADER + in[*id].len, "a packet of %u", len);
	return &in[*id];
}

static void release(u32 id)
{
	vio_offer(&queue[RX], (u16)id);
	vio_kick(&queue[RX]);
}

/* What was under way when a connection ended is answered with RST too: each ends once. */
static void serve(u64 n)
{
	static bool open[CONNS];
	u32 forwarded = 0, id;

	put("serving\n");
	while (n) {
		struct packet *p = receive(&id);
		u32 mine = p->dst_port, theirs = p->src_port, len = p->len, op = p->op;

		CHECK(p->src_cid == HOST_CID && p->dst_cid == cid, "from the host to us");
		memcpy(out.data, p->data, len);
		release(id);
		forwarded = op == REQUEST ? 0 : forwarded + len; /* one connection after the other */
		n -= op == RST && open[theirs % CONNS];
		open[theirs % CONNS] = op == REQUEST || (op != RST && open[theirs % CONNS]);
		if (op == REQUEST)
			say(RESPONSE, mine, theirs, 0, 0, 0);
		else if (op == RW)
			say(RW, mine, theirs, 0, len, forwarded);
		else if (op == CREDIT_REQUEST)
			say(CREDIT_UPDATE, mine, theirs, 0, 0, forwarded);
		else if (op == SHUTDOWN)
			say(SHUTDOWN, mine, theirs, 3, 0, forwarded);
	}
}

static u8 byte_of(u32 conn, u32 at)
{
	return (u8)(conn * 31 + at * 7);
}

static void send_piece(u32 conn, u32 port, u32 bytes)
{
	u32 len = bytes - sent[conn] < PAYLOAD ? bytes - sent[conn] : PAYLOAD;

	for (u32 i = 0; i < len; i++)
		out.data[i] = byte_of(conn, sent[conn] + i);
	sent[conn] += len;
	say(RW, 1000 + conn, port, 0, len, fwd[conn]);
}

static void check_piece(u32 conn, const struct packet *p)
{
	u32 wrong = 0;

	for (u32 i = 0; i < p->len; i++)
		wrong += p->data[i] != byte_of(conn, got[conn] + i);
	CHECK(!wrong, "connection %u: bytes from %u on", conn, got[conn]);
	got[conn] += p->len;
	fwd[conn] += p->len;
}

static void connect(u32 n, u32 port, u32 bytes)
{
	u32 ended = 0, id;

	for (u32 i = 0; i < n; i++)
		say(REQUEST, 1000 + i, port, 0, 0, 0);
	while (ended < n) {
		struct packet *p = receive(&id);
		u32 conn = p->dst_port - 1000, op = p->op;

		CHECK(conn < n && p->src_port == port, "a connection of ours");
		if (conn >= n)
			return;
		if (op == RW)
			check_piece(conn, p);
		release(id);
		if (op == RST) {
			CHECK(got[conn] == bytes, "connection %u had %u back", conn, got[conn]);
			ended++;
		} else if (op == RESPONSE || (op == RW && got[conn] == sent[conn])) {
			if (sent[conn] < bytes)
				send_piece(conn, port, bytes);
			else
				say(SHUTDOWN, 1000 + conn, port, 3, 0, fwd[conn]);
		} else if (op == CREDIT_REQUEST) {
			say(CREDIT_UPDATE, 1000 + conn, port, 0, 0, fwd[conn]);
		}
	}
	put("connected\n");
}

static void late(u32 n, u32 port)
{
	u32 id;

	for (u32 i = 0; i < n; i++) {
		say(REQUEST, 1000 + i, port, 0, 0, 0);
		say(SHUTDOWN, 1000 + i, port, 3, 0, 0);
	}
	put("late\n");
	while (getc() != '\n')
		relax();
	while (n) {
		struct packet *p = receive(&id);

		n -= p->op == RST && p->src_port == port;
		release(id);
	}
}

static void expect_rst(u32 mine, const char *what)
{
	u32 id;
	struct packet *p = receive(&id);

	CHECK(p->op == RST && p->dst_port == mine, "%s is answered by RST, not %u", what, p->op);
	release(id);
}

static void flood(u32 n)
{
	u32 asked = 0, answered = 0, id, len;

	while (answered < n) {
		for (; asked < n && asked - answered < 60; asked++)
			say(REQUEST, asked + 1, 9, 0, 0, 0);
		wait_used(&queue[RX], &id, &len);
		CHECK(in[id].op == RST, "refused");
		release(id);
		answered++;
	}
}

static void mute(void)
{
	u32 id;

	put("mute\n");
	for (;;) {
		struct packet *p = receive(&id);
		u32 mine = p->dst_port, theirs = p->src_port;
		bool request = p->op == REQUEST;

		release(id);
		if (request && option("accept", 1))
			say(RESPONSE, mine, theirs, 0, 0, 0);
	}
}

static void broken(u64 addr, u32 len, u16 flags, const char *what)
{
	vio_desc(&queue[TX], 0, addr, len, flags, 0);
	vio_offer(&queue[TX], 0);
	vio_kick(&queue[TX]);
	CHECK(vio_wait_broken(&dev), "%s breaks the device", what);
	CHECK(start(), "it starts again");
}

static void hostile(u32 port)
{
	u32 id;

	for (u16 op = 0; op < 12; op++) {
		if (op == RST || op == REQUEST)
			continue;
		say(op, 50u + op, port, 0, 0, 0);
		expect_rst(50u + op, "a word out of nowhere");
	}
	say(0xffff, 80, port, 0, 0, 0);
	expect_rst(80, "an unknown word");
	out.type = 7;
	/* Headers that are cut, and names that are not ours: no answer, and no harm. */
	send_bytes(0);
	send_bytes(1);
	send_bytes(HEADER - 1);
	cid += 1;
	say(REQUEST, 81, port, 0, 0, 0);
	cid -= 1;
	/* A connection whose packets promise more than they hold. */
	say(REQUEST, 90, port, 0, 0, 0);
	CHECK(receive(&id)->op == RESPONSE, "connected");
	release(id);
	out.len = 100;
	out.op = RW;
	out.dst_port = port;
	out.src_port = 90;
	send_bytes(HEADER + 10);
	expect_rst(90, "a short packet");
	say(REQUEST, 91, port, 0, 0, 0);
	CHECK(receive(&id)->op == RESPONSE, "connected");
	release(id);
	out.len = 0xffffffff;
	out.op = RW;
	send_bytes(HEADER + 10);
	expect_rst(91, "a length beyond everything");
	say(REQUEST, 92, port, 0, 0, 0);
	CHECK(receive(&id)->op == RESPONSE, "connected");
	release(id);
	say(REQUEST, 92, port, 0, 0, 0);
	expect_rst(92, "a second request");
	/* More than the credit: the host does not read. */
	say(REQUEST, 93, port, 0, 0, 0);
	CHECK(receive(&id)->op == RESPONSE, "connected");
	release(id);
	say(CREDIT_UPDATE, 93, port, 0, 0, 0xfffffff0u); /* more read than was ever sent */
	for (u32 i = 0; i < 2000; i++) {
		u32 len;

		say(RW, 93, port, 0, PAYLOAD, 0);
		if (READ_ONCE(queue[RX].rings->used.idx) == queue[RX].used_seen)
			continue;
		wait_used(&queue[RX], &id, &len);
		if (in[id].op == RST)
			break;
		release(id);
		CHECK(i < 1999, "an end to it");
	}
	release(id);
	broken(0xc0000000, HEADER, 0, "a packet outside RAM");
	broken(0xffffffffffffffe0ull, 0x1000, 0, "a packet that wraps");
	vio_desc(&queue[RX], 0, (u64)&in[0], 20, VD_WRITE, 0);
	put("survived\n");
}

void guest(void)
{
	u32 n = (u32)option("n", 1), port = (u32)option("port", 5000);

	if (!start())
		return;
	if (option_is("do", "serve")) {
		serve(n);
	} else if (option_is("do", "connect")) {
		connect(n, port, (u32)option("bytes", 1000));
	} else if (option_is("do", "refused")) {
		say(REQUEST, 77, port, 0, 0, 0);
		expect_rst(77, "a port where nobody is");
	} else if (option_is("do", "mute")) {
		mute();
	} else if (option_is("do", "flood")) {
		flood(n);
	} else if (option_is("do", "late")) {
		late(n, port);
	} else if (option_is("do", "hostile")) {
		hostile(port);
	} else {
		CHECK(false, "nothing to do");
	}
	CHECK(!(vio_status(&dev) & VIO_S_BROKEN), "the device is well");
}
