/*
 * model: a virtio device that only counts what it is told, for tests of device.c.
 */
#ifndef TEST_MODEL_H
#define TEST_MODEL_H

#include "src/virtio/device.h"
#include "tests/unit/hear.h"
#include "tests/unit/ring.h"
#include "tests/unit/test.h"

#include <stdlib.h>

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

static inline void create(void)
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

static inline int set_up(void **state)
{
	struct err err;

	(void)state;
	assert_int_equal(mem_create(&mem, MIB(2), MEM_ANON, MEM_PAGES_4K, &err), 0);
	assert_int_equal(loop_create(&loop, &err), 0);
	create();
	return 0;
}

static inline int tear_down(void **state)
{
	(void)state;
	device_destroy(&dev);
	device_destroy(&dev); /* twice is as good as once */
	loop_destroy(loop);
	mem_destroy(&mem);
	return 0;
}

/* What a vCPU left for the loop, done. One turn of the loop: the callback of each kick that is
 * there. */
static inline void turn(void)
{
	for (unsigned q = 0; q < dev.n_queues; q++)
		hear_kick(&dev, q);
}

/* Interrupts raised since the last call. */
static inline u64 interrupts(void)
{
	u64 count = 0;

	return read(dev.irq_fd, &count, sizeof count) == sizeof count ? count : 0;
}

static inline void want_features(u64 bits)
{
	device_set_features(&dev, 0, (u32)bits);
	device_set_features(&dev, 1, (u32)(bits >> 32));
}

/* Queues `first` and up of three are made ready, then the driver is done. */
static inline void go_live(u64 features, unsigned first)
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

#define test(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

#endif
