/*
 * The transport, the device and the queues, before a model that reads, writes, keeps and gives back
 * chains in all the ways a real one may. What it pops and what it pushes is counted.
 */
#include "tests/fuzz/virtio.h"

#define QUEUES 2
#define HELD   8

int LLVMFuzzerTestOneInput(const u8 *data, size_t size);

static struct model {
	struct device dev;
	struct vq *vq; /* a heap block of just its size */
	struct chain held[HELD];
	unsigned queue_of[HELD], n_held;
	unsigned out[QUEUES]; /* popped and not pushed */
} model;

static struct guest guest;

static void check_chain(const struct chain *c)
{
	u64 readable = 0, writable = 0;

	REQUIRE(c->n_iov <= CHAIN_IOV_MAX && c->n_read <= c->n_iov && c->written == 0);
	for (unsigned i = 0; i < c->n_iov; i++) {
		REQUIRE(c->iov[i].iov_len && in_ram(&guest, c->iov[i].iov_base, c->iov[i].iov_len));
		*(i < c->n_read ? &readable : &writable) += c->iov[i].iov_len;
	}
	REQUIRE(c->read_left == readable && c->write_left == writable);
}

/* A request as a device would treat it: a header, a body, a status byte. */
static void complete(unsigned q, struct chain *c)
{
	struct vq *vq = &model.vq[q];
	u32 before = c->write_left;
	struct iovec iov[16];
	u8 bytes[48] = { 0 };

	if (!chain_read(c, bytes, 16))
		bytes[1] = 1; /* no header: the answer is a status alone */
	for (int i = 0, n = chain_read_iov(c, MIN(c->read_left, 5000u), iov, 16); i < n; i++)
		REQUIRE(in_ram(&guest, iov[i].iov_base, iov[i].iov_len));
	while (chain_skip_read(c, 7))
		;
	if (chain_write(c, bytes, 1 + bytes[0] % sizeof bytes))
		REQUIRE(c->written == 1u + bytes[0] % sizeof bytes);
	for (int i = 0, n = chain_write_iov(c, MIN(c->write_left, 5000u), iov, 16); i < n; i++)
		memset(iov[i].iov_base, 0x5a, iov[i].iov_len);
	REQUIRE(c->written + c->write_left == before);
	if (bytes[1] & 1 && chain_write_last(c, 0xee))
		REQUIRE(c->written == before);
	vq_push(vq, c);
	model.out[q]--;
}

static void on_notify(struct device *dev, unsigned q)
{
	struct chain c;

	REQUIRE(device_active(dev) && !dev->paused);
	vq_suppress_kicks(&dev->vq[q]);
	while (vq_pop(&dev->vq[q], &c) > 0) {
		check_chain(&c);
		if (c.head % 3 == 0 && model.n_held == HELD) {
			vq_unpop(&dev->vq[q], &c); /* the backend is full */
			break;
		}
		model.out[q]++;
		if (c.head % 3 == 0) {
			model.queue_of[model.n_held] = q;
			model.held[model.n_held++] = c;
		} else {
			complete(q, &c);
		}
	}
	device_signal_queue(dev, q);
}

/* The one held at `i` is done. */
static void finish(unsigned i)
{
	unsigned q = model.queue_of[i];

	complete(q, &model.held[i]);
	model.n_held--;
	model.held[i] = model.held[model.n_held];
	model.queue_of[i] = model.queue_of[model.n_held];
	device_signal_queue(&model.dev, q);
	device_wake(&model.dev, q);
}

static void on_drain(struct device *dev)
{
	(void)dev;
	while (model.n_held)
		finish(0);
}

static void on_reset(struct device *dev)
{
	(void)dev;
	model.n_held = 0;
	memset(model.out, 0, sizeof model.out);
}

static void on_config_write(struct device *dev, u32 off, const void *data, u32 len)
{
	REQUIRE(range_ok(off, len, dev->config_len));
	memcpy(dev->config + off, data, len);
	device_config_changed(dev);
}

static const struct device_type type = {
	.name = "fuzz",
	.virtio_id = 42,
	.notify = on_notify,
	.config_write = on_config_write,
	.reset = on_reset,
	.drain = on_drain,
};

static void backend(struct guest *g)
{
	u8 what = (u8)take(g, 1);

	if (what < 0xc0 && model.n_held)
		finish(what % model.n_held);
	else if (what >= 0xfc)
		device_break(&model.dev, "the backend is gone");
	else
		device_config_changed(&model.dev);
}

static void count(void)
{
	for (unsigned q = 0; q < QUEUES; q++) {
		unsigned in_flight = 0;

		for (unsigned w = 0; w < ARRAY_SIZE(model.vq[q].in_flight); w++)
			in_flight += (unsigned)__builtin_popcountll(model.vq[q].in_flight[w]);
		REQUIRE(in_flight == model.out[q]);
	}
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t size)
{
	struct loop *loop = guest_begin(&guest, data, size);
	struct err err;

	memset(&model, 0, sizeof model);
	model.vq = calloc(QUEUES, sizeof *model.vq);
	model.vq[0].size_max = VQ_SIZE_MAX;
	model.vq[1].size_max = 16;
	model.dev.type = &type;
	model.dev.features_offered = 0xff;
	model.dev.config_len = 20;
	model.dev.vq = model.vq;
	model.dev.n_queues = QUEUES;
	REQUIRE(device_init(&model.dev, &guest.mem, loop, &err) == 0);
	guest_attach(&guest, &model.dev);
	guest.backend = backend;
	guest.check = count;
	guest_run(&guest);
	device_destroy(&model.dev);
	free(model.vq);
	return 0;
}
