/* mmio: every register, every width, every status, as a vCPU's exits reach it through the bus. */
#include "src/virtio/mmio.h"
#include "tests/unit/hear.h"
#include "tests/unit/mmio_regs.h"
#include "tests/unit/ring.h"
#include "tests/unit/test.h"

#include <stdlib.h>

#define BASE 0xc0001000ull

static struct mem mem;
static struct loop *loop;
static struct bus bus;
static struct mmio mmio;
static struct vq vq[2];
static struct device dev;
static unsigned notified[2], config_writes;

static void on_notify(struct device *d, unsigned q)
{
	(void)d;
	notified[q]++;
}

static void on_config_write(struct device *d, u32 off, const void *data, u32 len)
{
	memcpy(d->config + off, data, len);
	config_writes++;
}

static const struct device_type type = {
	.name = "test", .virtio_id = 42, .notify = on_notify, .config_write = on_config_write
};

static int set_up(void **state)
{
	struct err err;

	(void)state;
	assert_int_equal(mem_create(&mem, MIB(2), MEM_ANON, MEM_PAGES_4K, &err), 0);
	assert_int_equal(loop_create(&loop, &err), 0);
	memset(&bus, 0, sizeof bus);
	memset(notified, 0, sizeof notified);
	config_writes = 0;
	dev = (struct device){ .type = &type,
			       .features_offered = 1ull << 5 | 1ull << 40,
			       .config = "0123456789",
			       .config_len = 10,
			       .vq = vq,
			       .n_queues = 2 };
	vq[0] = (struct vq){ .size_max = 256 };
	vq[1] = (struct vq){ .size_max = 64 };
	assert_int_equal(device_init(&dev, &mem, loop, &err), 0);
	assert_int_equal(mmio_map(&mmio, &dev, &bus, BASE, &err), 0);
	bus_seal(&bus);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	device_destroy(&dev);
	loop_destroy(loop);
	mem_destroy(&mem);
	return 0;
}

/* As the vCPU does it: data is all ones before a read, and no entry means a hole. */
static u64 read_n(u64 off, unsigned len)
{
	const struct bus_entry *e = bus_find(&bus, BASE + off, len);
	u64 value = 0, data[2] = { UINT64_MAX, UINT64_MAX };

	if (e)
		e->read(e->owner, BASE + off - e->base, data, len);
	assert_true(data[1] == UINT64_MAX);
	memcpy(&value, data, len);
	return value;
}

static void write_n(u64 off, u64 value, unsigned len)
{
	const struct bus_entry *e = bus_find(&bus, BASE + off, len);

	if (e)
		e->write(e->owner, BASE + off - e->base, &value, len);
}

static u32 rd(u64 off)
{
	return (u32)read_n(off, 4);
}

static void wr(u64 off, u32 value)
{
	write_n(off, value, 4);
}

static void go_to(u32 status)
{
	static const u8 step[] = { 0, 1, 3, 11, 15 };

	for (unsigned i = 0; i < ARRAY_SIZE(step) && step[i] <= status; i++) {
		if (step[i] == 11) {
			wr(DRIVER_FEATURES_SEL, 1);
			wr(DRIVER_FEATURES, 1);
		}
		wr(STATUS, step[i]);
	}
	assert_int_equal(rd(STATUS), status);
}

/* All that the guest can change, to see that it did not. */
struct picture {
	struct mmio mmio;
	u64 features;
	u8 config[DEVICE_CONFIG_MAX];
	u8 status;
	u32 isr;
	struct vq vq[2];
};

static void take(struct picture *p)
{
	memset(p, 0, sizeof *p);
	p->mmio = mmio;
	p->features = dev.features;
	memcpy(p->config, dev.config, sizeof p->config);
	p->status = dev.status;
	p->isr = dev.isr;
	memcpy(p->vq, vq, sizeof vq);
}

static void assert_unchanged(const struct picture *before)
{
	struct picture now;

	take(&now);
	assert_memory_equal(&now, before, sizeof now);
}

/* ---- tests -------------------------------------------------------------------------------- */

static void the_device_says_what_it_is(void **state)
{
	(void)state;
	assert_int_equal(rd(MAGIC), 0x74726976);
	assert_int_equal(rd(VERSION), 2);
	assert_int_equal(rd(DEVICE_ID), 42);
	assert_int_equal(rd(VENDOR_ID), 0);
	assert_int_equal(rd(STATUS), 0);
	assert_int_equal(rd(INTERRUPT_STATUS), 0);
	assert_int_equal(rd(GENERATION), 0);
	device_config_changed(&dev);
	assert_int_equal(rd(GENERATION), 1);
}

static void a_driver_comes_up_as_linux_does(void **state)
{
	struct ring ring = ring_at(&mem, 0x10000, 128);
	u64 features;

	(void)state;
	wr(STATUS, 0);
	wr(STATUS, 1);
	wr(STATUS, 3);
	wr(DEVICE_FEATURES_SEL, 1);
	features = (u64)rd(DEVICE_FEATURES) << 32;
	wr(DEVICE_FEATURES_SEL, 0);
	features |= rd(DEVICE_FEATURES);
	assert_true(features == (1ull << 5 | 1ull << 40 | 1ull << 32 | 1ull << 29));
	wr(DRIVER_FEATURES_SEL, 1);
	wr(DRIVER_FEATURES, (u32)(features >> 32));
	wr(DRIVER_FEATURES_SEL, 0);
	wr(DRIVER_FEATURES, (u32)features);
	wr(STATUS, 11);
	assert_int_equal(rd(STATUS), 11);
	wr(QUEUE_SEL, 1);
	assert_int_equal(rd(QUEUE_READY), 0);
	assert_int_equal(rd(QUEUE_NUM_MAX), 64);
	wr(QUEUE_SEL, 0);
	assert_int_equal(rd(QUEUE_NUM_MAX), 256);
	wr(QUEUE_NUM, 128);
	wr(DESC_LOW, (u32)ring.desc_gpa);
	wr(DESC_HIGH, 0);
	wr(AVAIL_LOW, (u32)ring.avail_gpa);
	wr(AVAIL_HIGH, 0);
	wr(USED_LOW, (u32)ring.used_gpa);
	wr(USED_HIGH, 0);
	wr(QUEUE_READY, 1);
	assert_int_equal(rd(QUEUE_READY), 1);
	wr(STATUS, 15);
	assert_int_equal(rd(STATUS), 15);
	assert_true(vq_active(&vq[0]));
	assert_int_equal(vq[0].size, 128);
	assert_true(vq[0].event_idx);
	assert_false(vq_active(&vq[1]));
	wr(STATUS, 0);
	assert_int_equal(rd(STATUS), 0);
	assert_int_equal(rd(QUEUE_READY), 0);
}

static void ring_addresses_have_two_halves(void **state)
{
	(void)state;
	go_to(11);
	wr(QUEUE_SEL, 1);
	for (unsigned reg = DESC_LOW; reg <= USED_LOW; reg += 0x10) {
		wr(reg, 0x11111111 * (reg >> 4));
		wr(reg + 4, reg);
		wr(reg + 8, ~0u); /* reserved */
	}
	assert_true(vq[1].desc_gpa == 0x8088888888);
	assert_true(vq[1].avail_gpa == 0x9099999999);
	assert_true(vq[1].used_gpa == 0xa0aaaaaaaa);
	wr(DESC_HIGH, 0);
	assert_true(vq[1].desc_gpa == 0x88888888);
	assert_true(vq[0].desc_gpa == 0);
}

static void below_config_only_aligned_words_exist(void **state)
{
	static const u8 status[] = { 0, 3, 11, 15 };
	struct picture before;

	(void)state;
	for (unsigned s = 0; s < ARRAY_SIZE(status); s++) {
		go_to(status[s]);
		dev.isr = 3;
		take(&before);
		for (u64 off = 0; off < CONFIG; off++)
			for (unsigned len = 1; len <= 8; len *= 2) {
				if (len == 4 && off % 4 == 0)
					continue;
				/* 4 bytes at 0xfe reach into config space: a hole as well. */
				assert_true(read_n(off, len) == UINT64_MAX >> (64 - 8 * len));
				write_n(off, UINT64_MAX, len);
				write_n(off, 0, len);
			}
		assert_unchanged(&before);
		assert_int_equal(config_writes, 0);
	}
}

static void reserved_and_write_only_registers_read_as_zero(void **state)
{
	static const u32 zero[] = { VENDOR_ID,
				    0x18,
				    0x1c,
				    DEVICE_FEATURES_SEL,
				    DRIVER_FEATURES,
				    DRIVER_FEATURES_SEL,
				    0x28,
				    0x2c,
				    QUEUE_SEL,
				    QUEUE_NUM,
				    0x3c,
				    0x40,
				    0x48,
				    0x4c,
				    QUEUE_NOTIFY,
				    0x54,
				    0x58,
				    0x5c,
				    INTERRUPT_ACK,
				    0x68,
				    0x6c,
				    0x74,
				    0x78,
				    0x7c,
				    DESC_LOW,
				    DESC_HIGH,
				    0x88,
				    0x8c,
				    AVAIL_LOW,
				    AVAIL_HIGH,
				    0x98,
				    0x9c,
				    USED_LOW,
				    USED_HIGH,
				    0xa8,
				    SHM_SEL,
				    QUEUE_RESET,
				    0xc4,
				    0xf8 };

	(void)state;
	go_to(11);
	wr(DEVICE_FEATURES_SEL, 1);
	wr(QUEUE_SEL, 1);
	wr(DESC_LOW, 0x1000);
	for (unsigned i = 0; i < ARRAY_SIZE(zero); i++)
		assert_int_equal(rd(zero[i]), 0);
}

static void there_are_no_shared_memory_regions(void **state)
{
	(void)state;
	for (u32 sel = 0; sel < 3; sel++) {
		wr(SHM_SEL, sel);
		for (u32 reg = SHM_LEN_LOW; reg <= SHM_BASE_HIGH; reg += 4)
			assert_int_equal(rd(reg), UINT32_MAX);
	}
}

static void registers_to_be_read_are_not_written(void **state)
{
	static const u32 reg[] = { MAGIC,	    VERSION,	   DEVICE_ID,	     VENDOR_ID,
				   DEVICE_FEATURES, QUEUE_NUM_MAX, INTERRUPT_STATUS, GENERATION,
				   SHM_LEN_LOW };
	struct picture before;

	(void)state;
	go_to(11);
	dev.isr = 3;
	take(&before);
	for (unsigned i = 0; i < ARRAY_SIZE(reg); i++) {
		u32 was = rd(reg[i]);

		wr(reg[i], ~was);
		assert_int_equal(rd(reg[i]), was);
	}
	assert_unchanged(&before);
}

static void a_queue_that_is_not_there_is_empty(void **state)
{
	static const u32 sel[] = { 2, 3, 16, 256, 0x7fffffff, 0x80000000, UINT32_MAX };
	struct picture before;

	(void)state;
	go_to(11);
	for (unsigned i = 0; i < ARRAY_SIZE(sel); i++) {
		wr(QUEUE_SEL, sel[i]);
		take(&before);
		assert_int_equal(rd(QUEUE_NUM_MAX), 0);
		assert_int_equal(rd(QUEUE_READY), 0);
		wr(QUEUE_NUM, 16);
		wr(QUEUE_READY, 1);
		for (u32 reg = DESC_LOW; reg <= USED_HIGH; reg += 4)
			wr(reg, ~0u);
		wr(QUEUE_RESET, 1);
		assert_unchanged(&before);
	}
}

static void a_feature_word_that_is_not_there_is_empty(void **state)
{
	static const u32 sel[] = { 2, 3, 32, 0x7fffffff, 0x80000000, UINT32_MAX };

	(void)state;
	go_to(3);
	for (unsigned i = 0; i < ARRAY_SIZE(sel); i++) {
		wr(DEVICE_FEATURES_SEL, sel[i]);
		assert_int_equal(rd(DEVICE_FEATURES), 0);
		wr(DRIVER_FEATURES_SEL, sel[i]);
		wr(DRIVER_FEATURES, ~0u);
		assert_true(dev.features == 0);
	}
}

static void write_queue_registers(void)
{
	wr(QUEUE_SEL, 0);
	wr(QUEUE_NUM, 16);
	for (u32 reg = DESC_LOW; reg <= USED_HIGH; reg += 4)
		wr(reg, 0x4000);
}

static void queue_registers_are_open_between_features_and_driver_ok(void **state)
{
	static const u8 closed[] = { 0, 1, 3, 15, 11 | 64, 11 | 128, 15 | 64, 15 | 128 };
	struct picture before;

	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(closed); i++)
		for (int ready = 0; ready < 2; ready++) {
			dev.status = closed[i];
			vq[0].ready = ready;
			wr(QUEUE_SEL, 0);
			take(&before);
			write_queue_registers();
			wr(QUEUE_READY, !ready);
			assert_unchanged(&before);
		}
	dev.status = 11;
	vq[0].ready = false;
	write_queue_registers();
	assert_int_equal(vq[0].size, 16);
	assert_true(vq[0].used_gpa == 0x400000004000);
}

static void a_ready_queue_can_only_be_made_unready(void **state)
{
	struct picture before;

	(void)state;
	go_to(11);
	wr(QUEUE_SEL, 0);
	wr(QUEUE_READY, 2); /* bit 0 counts */
	assert_int_equal(rd(QUEUE_READY), 0);
	wr(QUEUE_READY, 3);
	assert_int_equal(rd(QUEUE_READY), 1);
	take(&before);
	write_queue_registers();
	wr(QUEUE_READY, 1);
	assert_unchanged(&before);
	wr(QUEUE_READY, 0);
	assert_int_equal(rd(QUEUE_READY), 0);
	wr(QUEUE_NUM, 16);
	assert_int_equal(vq[0].size, 16);
}

/* Sizes that would be fine if only their low half were looked at. */
static void a_size_is_not_cut_into_a_good_one(void **state)
{
	static const u32 size[] = { 0, 3, 257, 512, 0xffff, 0x10000, 0x10010, 0x80000010, ~0u };

	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(size); i++) {
		go_to(11);
		write_queue_registers();
		wr(DESC_HIGH, 0);
		wr(AVAIL_HIGH, 0);
		wr(USED_HIGH, 0);
		wr(AVAIL_LOW, 0x8000);
		wr(USED_LOW, 0xc000);
		wr(QUEUE_NUM, size[i]);
		wr(QUEUE_READY, 1);
		wr(STATUS, 15);
		assert_int_equal(rd(STATUS), 15 | 64);
		assert_int_equal(rd(INTERRUPT_STATUS), 2);
	}
}

static void a_kick_as_an_exit_reaches_the_loop(void **state)
{
	static const u32 value[] = { 2, 0x8000, 0x10000, 0x10001, 0x80000000, UINT32_MAX };

	(void)state;
	go_to(11);
	write_queue_registers();
	wr(DESC_HIGH, 0);
	wr(AVAIL_HIGH, 0);
	wr(USED_HIGH, 0);
	wr(AVAIL_LOW, 0x8000);
	wr(USED_LOW, 0xc000);
	wr(QUEUE_READY, 1);
	wr(STATUS, 15);
	hear_kick(&dev, 0);
	assert_int_equal(notified[0], 1);
	for (unsigned i = 0; i < ARRAY_SIZE(value); i++)
		wr(QUEUE_NOTIFY, value[i]);
	hear_kick(&dev, 0);
	hear_kick(&dev, 1);
	assert_int_equal(notified[0] + notified[1], 1);
	wr(QUEUE_NOTIFY, 0);
	assert_int_equal(notified[0], 1); /* not on the vCPU */
	hear_kick(&dev, 0);
	assert_int_equal(notified[0], 2);
}

static void interrupts_are_acknowledged_bit_by_bit_without_the_lock(void **state)
{
	(void)state;
	for (u64 off = 0; off < MMIO_WINDOW; off += 4)
		assert_int_equal(bus_find(&bus, BASE + off, 4)->lockless,
				 off == 0x60 || off == 0x64);
	dev.isr = 3;
	assert_int_equal(rd(INTERRUPT_STATUS), 3);
	wr(INTERRUPT_ACK, 0);
	wr(INTERRUPT_ACK, ~3u);
	assert_int_equal(rd(INTERRUPT_STATUS), 3);
	wr(INTERRUPT_ACK, 1);
	assert_int_equal(rd(INTERRUPT_STATUS), 2);
	wr(INTERRUPT_ACK, ~0u);
	assert_int_equal(rd(INTERRUPT_STATUS), 0);
}

static void config_space_is_read_in_any_width(void **state)
{
	(void)state;
	for (unsigned len = 1; len <= 8; len *= 2)
		for (u64 off = 0; off + len <= MMIO_WINDOW - CONFIG; off++) {
			u64 got = read_n(CONFIG + off, len);

			for (unsigned b = 0; b < len; b++)
				assert_int_equal((u8)(got >> 8 * b),
						 off + b < 10 ? '0' + (int)(off + b) : 0);
		}
}

static void config_space_is_written_only_inside(void **state)
{
	(void)state;
	go_to(3);
	for (unsigned len = 1; len <= 8; len *= 2)
		for (u64 off = 0; off + len <= MMIO_WINDOW - CONFIG; off++) {
			unsigned before = config_writes;

			write_n(CONFIG + off, 0x7878787878787878, len);
			assert_int_equal(config_writes - before, off + len <= 10);
		}
	assert_memory_equal(dev.config, "xxxxxxxxxx\0\0\0\0", 14);
}

static void nothing_is_left_after_the_window(void **state)
{
	(void)state;
	assert_null(bus_find(&bus, BASE - 1, 1));
	assert_null(bus_find(&bus, BASE + MMIO_WINDOW, 1));
	assert_null(bus_find(&bus, BASE + MMIO_WINDOW - 4, 8));
	assert_null(bus_find(&bus, BASE + 0x5c, 8)); /* over the edge of two entries */
	assert_true(read_n(MMIO_WINDOW - 4, 4) == 0);
}

static void a_window_that_is_taken_is_refused(void **state)
{
	struct bus other = { .n = 0 };
	struct mmio second;
	struct err err;

	(void)state;
	assert_int_equal(mmio_map(&second, &dev, &other, BASE, &err), 0);
	assert_int_equal(other.n, 3);
	assert_int_equal(mmio_map(&second, &dev, &other, BASE + 0x800, &err), -EEXIST);
}

/* A guest that writes anything anywhere: the invariants hold, whatever it does. */
static void a_storm_of_accesses_leaves_the_machine_whole(void **state)
{
	static const u32 favourite[] = {
		STATUS,	   QUEUE_SEL, QUEUE_NUM,       QUEUE_READY,	    QUEUE_NOTIFY, DESC_LOW,
		AVAIL_LOW, USED_LOW,  DRIVER_FEATURES, DRIVER_FEATURES_SEL, INTERRUPT_ACK
	};
	static const u32 value[] = { 0,	  1,   2,      3,      11,     15,	 16, 64,
				     128, 256, 0x1000, 0x2000, 0x8000, 0x100000, ~0u };

	(void)state;
	srandom(1);
	for (unsigned i = 0; i < 1000000; i++) {
		u64 off = random() % 4 ? favourite[(u64)random() % ARRAY_SIZE(favourite)]
				       : (u64)random() % MMIO_WINDOW;
		u32 v = random() % 4 ? value[(u64)random() % ARRAY_SIZE(value)] : (u32)random();

		if (random() % 8)
			wr(off, v);
		else
			read_n(off, 1u << random() % 4);
		for (unsigned q = 0; q < 2; q++) {
			if (vq[q].desc) {
				assert_true(dev.status & DEVICE_DRIVER_OK);
				assert_true(vq[q].ready && vq[q].size <= vq[q].size_max);
			}
		}
	}
}

#define test(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		test(the_device_says_what_it_is),
		test(a_driver_comes_up_as_linux_does),
		test(ring_addresses_have_two_halves),
		test(below_config_only_aligned_words_exist),
		test(reserved_and_write_only_registers_read_as_zero),
		test(there_are_no_shared_memory_regions),
		test(registers_to_be_read_are_not_written),
		test(a_queue_that_is_not_there_is_empty),
		test(a_feature_word_that_is_not_there_is_empty),
		test(queue_registers_are_open_between_features_and_driver_ok),
		test(a_ready_queue_can_only_be_made_unready),
		test(a_size_is_not_cut_into_a_good_one),
		test(a_kick_as_an_exit_reaches_the_loop),
		test(interrupts_are_acknowledged_bit_by_bit_without_the_lock),
		test(config_space_is_read_in_any_width),
		test(config_space_is_written_only_inside),
		test(nothing_is_left_after_the_window),
		test(a_window_that_is_taken_is_refused),
		test(a_storm_of_accesses_leaves_the_machine_whole),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
