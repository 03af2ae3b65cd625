/*
 * ops: one operation of one device, over and over, with the guest played by this program: the
 * monitor's own objects, real rings in real guest memory, backends that cost little.
 *
 *	ops ROW BATCH KICKS	KICKS times BATCH operations at once; without arguments: the rows
 *
 * ops.py counts what served() costs, under callgrind and strace. A turn is what the monitor's loop
 * does: one epoll_wait, and what was ready; it is ended by an eventfd that is posted last. Two
 *calls of getppid() stand round each, for strace to see. How often the guest was interrupted is
 *printed.
 */
#include "benchmarks/sample.h"
#include "src/virtio/balloon.h"
#include "src/virtio/blk.h"
#include "src/virtio/net.h"
#include "src/virtio/rng.h"
#include "src/virtio/vsock_parts.h"
#include "src/vmm/log.h"
#include "tests/unit/ring.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>

#define RING	  256
#define PAGE	  4096u
#define FRAME	  1514u
#define PAYLOAD	  (PAGE - (u32)sizeof(struct vsock_header))
#define RINGS	  0x10000u
#define SMALL	  MIB(1) /* what describes operation i: 4 KiB each */
#define BULK	  MIB(2) /* its data: 4 KiB each */
#define GIVEN	  MIB(4) /* pages for the balloon: 1024 of them */
#define LIST	  256u	 /* pages in one request of the balloon, as Linux makes them */
#define TURNS	  64	 /* after which a device that has not served everything never will */
#define HOST_PORT 5u
#define MINE	  1000u

static struct mem mem;
static struct loop *loop;
static struct device *dev;
static struct ring ring[DEVICE_QUEUES_MAX];
static struct loop_source last; /* ready last in each turn */
static int wire = -1;		/* the host's end */
static u64 interrupts;

static void must(bool good, const char *what)
{
	if (!good)
		die(what);
}

static void *at(u64 gpa)
{
	return mem_at(&mem, gpa, PAGE);
}

/* ---- turns of the loop ------------------------------------------------------------------------
 */

static void end_turn(void *owner, u32 events)
{
	(void)owner;
	(void)events;
	loop_stop(loop, 0);
}

/* What is counted. */
__attribute__((noinline)) static void served(void)
{
	loop_run(loop);
}

static void turn(void)
{
	u64 count = 1;

	must(write(last.fd, &count, sizeof count) == sizeof count, "write");
	getppid();
	served();
	getppid();
	if (read(dev->irq_fd, &count, sizeof count) == sizeof count)
		interrupts += count;
}

/* The driver has moved its index from `old` on; it kicks if it was asked to (2.7.10). */
static void kick(unsigned q, u16 old)
{
	u16 new = ring[q].avail_idx;

	if ((u16)(new - *ring_avail_event(&ring[q]) - 1) < (u16)(new - old))
		device_wake(dev, q);
}

/* ---- the devices ------------------------------------------------------------------------------
 */

static void make_blk(void)
{
	static struct blk_config cfg = { .id = "disk", .cache = BLK_WRITEBACK, .no_uring = true };
	struct blk *blk;
	struct err err;

	cfg.fd = memfd_create("disk", MFD_CLOEXEC);
	must(cfg.fd >= 0 && ftruncate(cfg.fd, MIB(4)) == 0, "memfd");
	must(blk_create(&blk, &cfg, &mem, loop, &err) == 0, err.msg);
	dev = blk_device(blk);
}

static void make_net(void)
{
	static struct net_config cfg = { .id = "eth0", .queue_pairs = 1 };
	struct net *net;
	struct err err;
	int pair[2];

	must(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK, 0, pair) == 0, "socketpair");
	cfg.fd[0] = pair[0];
	wire = pair[1];
	must(net_create(&net, &cfg, &mem, loop, &err) == 0, err.msg);
	dev = net_device(net);
}

static void make_rng(void)
{
	struct rng *rng;
	struct err err;

	must(rng_create(&rng, &mem, loop, &err) == 0, err.msg);
	dev = rng_device(rng);
}

static void make_balloon(void)
{
	const struct balloon_config cfg = { 0 };
	struct balloon *balloon;
	struct err err;

	must(balloon_create(&balloon, &cfg, &mem, loop, &err) == 0, err.msg);
	dev = balloon_device(balloon);
}

static struct vsock_config vsock_cfg = { .guest_cid = 3, .max_connections = 16 };
static struct sockaddr_un server = { .sun_family = AF_UNIX };

static void make_vsock(void)
{
	struct vsock *vsock;
	struct err err;

	snprintf(vsock_cfg.uds_path, sizeof vsock_cfg.uds_path, "/tmp/mf-ops-%d", (int)getpid());
	must(vsock_listen(&vsock_cfg, &err) == 0, err.msg);
	must(vsock_create(&vsock, &vsock_cfg, &mem, loop, &err) == 0, err.msg);
	dev = vsock_device(vsock);
	snprintf(server.sun_path, sizeof server.sun_path, "/tmp/mf-ops-%d_%u", (int)getpid(),
		 HOST_PORT);
	wire = socket(AF_UNIX, SOCK_STREAM, 0);
	must(bind(wire, (struct sockaddr *)&server, sizeof server) == 0 && listen(wire, 1) == 0,
	     "bind");
}

/* ---- what the driver makes ready once ---------------------------------------------------------
 */

static void describe_blk(u16 i, u32 type, u16 flags)
{
	const u64 head[2] = { type, i * (PAGE / DISK_SECTOR) };

	memcpy(at(SMALL + i * PAGE), head, sizeof head);
	ring_set(&ring[0], 3 * i, SMALL + i * PAGE, sizeof head, R_NEXT, 3 * i + 1);
	ring_set(&ring[0], 3 * i + 1, BULK + i * PAGE, PAGE, flags | R_NEXT, 3 * i + 2);
	ring_set(&ring[0], 3 * i + 2, SMALL + i * PAGE + 512, 1, R_WRITE, 0);
}

static void blk_read(u16 i)
{
	describe_blk(i, 0, R_WRITE);
}

static void blk_write(u16 i)
{
	describe_blk(i, 1, 0);
}

static void net_tx(u16 i)
{
	ring_set(&ring[1], 3 * i, SMALL + i * PAGE, TAP_HEADER + FRAME, 0, 0);
}

static void rng_small(u16 i)
{
	ring_set(&ring[0], 3 * i, SMALL + i * PAGE, 64, R_WRITE, 0);
}

/* From the last one down, which is how Linux names pages that it got in order. */
static void page_list(u16 i, u32 step)
{
	u32 *pfn = at(SMALL + i * PAGE);

	for (u32 n = 0; n < LIST; n++)
		pfn[LIST - 1 - n] = (u32)(GIVEN / PAGE) + n * step;
	ring_set(&ring[0], 3 * i, SMALL + i * PAGE, LIST * sizeof *pfn, 0, 0);
}

static void pages_apart(u16 i)
{
	page_list(i, 2);
}

static void pages_together(u16 i)
{
	page_list(i, 1);
}

static void vsock_say(u16 i, u16 op, u32 len)
{
	const struct vsock_header head = { .src_cid = 3,
					   .dst_cid = VSOCK_HOST_CID,
					   .src_port = MINE,
					   .dst_port = HOST_PORT,
					   .len = len,
					   .type = VSOCK_STREAM,
					   .op = op,
					   .buf_alloc = UINT32_MAX };

	memcpy(at(SMALL + i * PAGE), &head, sizeof head);
	ring_set(&ring[VSOCK_TX], 3 * i, SMALL + i * PAGE, sizeof head + len, 0, 0);
}

static void vsock_tx(u16 i)
{
	vsock_say(i, VSOCK_OP_RW, PAYLOAD);
}

/* ---- the rows ---------------------------------------------------------------------------------
 */

static const struct row {
	const char *name;
	void (*make)(void);
	void (*describe)(u16 i); /* operation i of a batch; NULL: the host sends it */
	u8 q;
	u32 len; /* of what the host sends or gets */
} rows[] = {
	{ "blk-read-4k", make_blk, blk_read, 0, 0 },
	{ "blk-write-4k", make_blk, blk_write, 0, 0 },
	{ "net-tx-1514", make_net, net_tx, 1, TAP_HEADER + FRAME },
	{ "net-rx-1514", make_net, NULL, 0, TAP_HEADER + FRAME },
	{ "vsock-to-host-4k", make_vsock, vsock_tx, VSOCK_TX, PAYLOAD },
	{ "vsock-to-guest-4k", make_vsock, NULL, VSOCK_RX, PAYLOAD },
	{ "vsock-to-guest-64", make_vsock, NULL, VSOCK_RX, 64 },
	{ "rng-64", make_rng, rng_small, 0, 0 },
	{ "balloon-256-apart", make_balloon, pages_apart, 0, 0 },
	{ "balloon-256-together", make_balloon, pages_together, 0, 0 },
};

static void go_live(void)
{
	device_set_status(dev, 3);
	device_set_features(dev, 0, (u32)dev->features_offered);
	device_set_features(dev, 1, (u32)(dev->features_offered >> 32));
	device_set_status(dev, 11);
	for (unsigned q = 0; q < dev->n_queues; q++) {
		ring[q] = ring_at(&mem, RINGS + q * 0x3000u, RING);
		ring_program(&ring[q], &dev->vq[q]);
	}
	device_set_status(dev, 15);
	must(dev->status == 15, "the device does not go live");
}

/* All buffers of a receive queue, as drivers keep it. */
static void fill(unsigned q)
{
	for (u16 i = 0; i < RING; i++) {
		ring_set(&ring[q], i, BULK + i * PAGE, PAGE, R_WRITE, 0);
		ring_offer(&ring[q], i);
	}
	turn();
}

/* What was used of a receive queue is offered anew. */
static void refill(unsigned q)
{
	struct ring *r = &ring[q];
	u16 old = r->avail_idx;

	for (; r->seen != ring_used_idx(r); r->seen++)
		ring_offer(r, (u16)ring_elem(r, r->seen).id);
	*ring_used_event(r) = r->seen; /* as Linux: it wants to hear of the next one */
	kick(q, old);
}

static void connect_vsock(void)
{
	int listener = wire;

	fill(VSOCK_RX);
	vsock_say(0, VSOCK_OP_REQUEST, 0);
	ring_offer(&ring[VSOCK_TX], 0);
	device_wake(dev, VSOCK_TX);
	turn();
	wire = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
	unlink(server.sun_path);
	vsock_unlisten(&vsock_cfg);
	must(wire >= 0 && ring_used_idx(&ring[VSOCK_RX]) == 1, "no connection");
	refill(VSOCK_RX);
}

/* The host's part of a batch. */
static void exchange(const struct row *row, bool sends, unsigned batch)
{
	static u8 bytes[PAGE];

	for (unsigned i = 0; i < batch && row->len; i++) {
		ssize_t n = sends ? send(wire, bytes, row->len, 0) : recv(wire, bytes, row->len, 0);

		must(n == (ssize_t)row->len, "the host's end");
	}
}

static void operate(const struct row *row, u16 batch)
{
	struct ring *r = &ring[row->q];
	u16 old = r->avail_idx, end = (u16)(ring_used_idx(r) + batch);

	*ring_used_event(r) = ring_used_idx(r);
	if (!row->describe)
		exchange(row, true, batch);
	for (u16 i = 0; i < batch && row->describe; i++)
		ring_offer(r, 3 * i);
	kick(row->q, old);
	for (unsigned n = 0; n < TURNS && ring_used_idx(r) != end; n++)
		turn();
	must(ring_used_idx(r) == end, "not served");
	if (row->describe)
		exchange(row, false, batch);
	if (row->make == make_vsock || !row->describe)
		refill(0);
}

int main(int argc, char **argv)
{
	const struct row *row = rows;
	struct err err;

	for (; row < rows + ARRAY_SIZE(rows) && (argc < 4 || strcmp(row->name, argv[1]) != 0);
	     row++)
		if (argc < 4)
			puts(row->name);
	if (row == rows + ARRAY_SIZE(rows))
		return argc >= 4;
	must(mem_create(&mem, MIB(16), MEM_ANON, MEM_PAGES_4K, &err) == 0, err.msg);
	must(loop_create(&loop, &err) == 0, err.msg);
	must(log_configure(&(struct log_config){ .level = LOG_OFF }, &err) == 0, err.msg);
	row->make();
	go_live();
	last = (struct loop_source){ .fd = eventfd(0, EFD_CLOEXEC),
				     .events = EPOLLIN | EPOLLET,
				     .ready = end_turn };
	must(loop_add(loop, &last) == 0, "epoll");
	if (row->make == make_vsock)
		connect_vsock();
	else if (!row->describe)
		fill(row->q);
	for (u16 i = 0; i < (u16)atoi(argv[2]) && row->describe; i++)
		row->describe(i);
	for (int n = atoi(argv[3]); n; n--)
		operate(row, (u16)atoi(argv[2]));
	printf("%s interrupts %llu\n", row->name, (unsigned long long)interrupts);
	return 0;
}
