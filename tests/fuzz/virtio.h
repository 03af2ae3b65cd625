/*
 * virtio: a guest made of fuzz input, in front of any virtio device behind its registers.
 *
 * The bytes are a program: each operation is one byte and its operands. Mostly it is a driver that
 * knows what it does (come up, offer a chain, kick), so that inputs get deep; then it changes one
 * thing: a register, a word of memory, a ring index. Memory is two small regions with unmapped
 * pages on both sides, so that one byte too far is a fault.
 *
 * After every operation guest_check() asks whether the monitor's side is still whole.
 */
#ifndef FUZZ_VIRTIO_H
#define FUZZ_VIRTIO_H

#include "src/virtio/mmio.h"
#include "src/vmm/log.h"
#include "tests/unit/hear.h"
#include "tests/unit/mmio_regs.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#define REQUIRE(what)                                                                              \
	do {                                                                                       \
		if (!(what)) {                                                                     \
			fprintf(stderr, "not so: %s\n", #what);                                    \
			abort();                                                                   \
		}                                                                                  \
	} while (0)

#define GUEST_REGION 0x10000u /* bytes in each of the two regions */
#define GUEST_BASE   0xc0001000ull
#define GUEST_RINGS  0x1000u /* queue q: rings at (1 + 3q) * 0x1000 and the two pages after */
#define GUEST_OPS    2000    /* an input ends here at the latest */

struct guest {
	const u8 *at, *end; /* what is left of the input */
	struct mem mem;
	struct bus bus;
	struct mmio mmio;
	struct device *dev;
	u32 ring_size;
	u8 ring_at_end;		      /* which of the rings; another number: none */
	u16 avail[DEVICE_QUEUES_MAX]; /* what the driver thinks avail.idx is */
	/* One more operation, of the device behind: its backend does something. May be NULL. */
	void (*backend)(struct guest *g);
	void (*check)(void); /* what else has to hold after each operation; may be NULL */
};

static inline u64 take(struct guest *g, unsigned bytes)
{
	u64 value = 0;

	bytes = (unsigned)MIN((size_t)bytes, (size_t)(g->end - g->at));
	memcpy(&value, g->at, bytes);
	g->at += bytes;
	return value;
}

/* ---- memory ------------------------------------------------------------------------------- */

/* Between two pages that nobody may touch. */
static inline u8 *guarded(void)
{
	u8 *area = mmap(NULL, GUEST_REGION + 8192, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	REQUIRE(area != MAP_FAILED);
	REQUIRE(mprotect(area + 4096, GUEST_REGION, PROT_READ | PROT_WRITE) == 0);
	return area + 4096;
}

static inline void guest_memory(struct mem *mem)
{
	static u8 *low, *high;

	if (!low) {
		low = guarded();
		high = guarded();
	}
	memset(low, 0, GUEST_REGION);
	memset(high, 0, GUEST_REGION);
	*mem = (struct mem){ .n_regions = 2, .size = 2 * GUEST_REGION, .fd = -1 };
	mem->region[0] = (struct mem_region){ .size = GUEST_REGION, .host = low };
	mem->region[1] = (struct mem_region){
		.gpa = MEM_HOLE_END, .size = GUEST_REGION, .host = high
	};
}

static inline void poke(struct guest *g, u64 gpa, u64 value, unsigned len)
{
	void *p = mem_at(&g->mem, gpa, len);

	if (p)
		memcpy(p, &value, len);
}

/* ---- registers ---------------------------------------------------------------------------- */

static inline u64 reg_read(struct guest *g, u64 off, unsigned len)
{
	const struct bus_entry *e = bus_find(&g->bus, GUEST_BASE + off, len);
	u64 value = UINT64_MAX;

	if (e)
		e->read(e->owner, GUEST_BASE + off - e->base, &value, len);
	return value;
}

static inline void reg_write(struct guest *g, u64 off, u64 value, unsigned len)
{
	const struct bus_entry *e = bus_find(&g->bus, GUEST_BASE + off, len);

	if (e)
		e->write(e->owner, GUEST_BASE + off - e->base, &value, len);
}

/*
 * Where ring `which` (0 descriptors, 1 available, 2 used) of a queue is: on a page of its own, or
 * with its last byte at the end of a region.
 */
static inline u64 ring_at(const struct guest *g, unsigned q, unsigned which)
{
	const u64 len[] = { 16u * g->ring_size, 6 + 2u * g->ring_size, 6 + 8u * g->ring_size };
	u64 end = q ? MEM_HOLE_END + GUEST_REGION : GUEST_REGION;

	if (which == g->ring_at_end)
		return ALIGN_DOWN(end - len[which], which == 1 ? 2 : which == 2 ? 4 : 16);
	return (u64)GUEST_RINGS * (1 + 3 * q + which);
}

/* One step of the way up; `flip` changes what is written in just this one. */
static inline void up_write(struct guest *g, unsigned *step, u8 which, u32 flip, u64 off, u32 value)
{
	reg_write(g, off, (*step)++ == which ? value ^ flip : value, 4);
}

/* The whole way up, with at most one step gone wrong. */
static inline void guest_up(struct guest *g)
{
	u8 shape = (u8)take(g, 1), which;
	u32 features = (u32)take(g, 4) | 1u << 29, flip, start;
	unsigned step = 1;

	g->ring_size = 1u << (shape & 15) % 9;
	g->ring_at_end = shape >> 4;
	which = (u8)take(g, 1);
	flip = which ? (u32)take(g, 4) : 0;
	start = (u32)take(g, 2);
	up_write(g, &step, which, flip, STATUS, 0);
	up_write(g, &step, which, flip, STATUS, 1);
	up_write(g, &step, which, flip, STATUS, 3);
	up_write(g, &step, which, flip, DRIVER_FEATURES_SEL, 0);
	up_write(g, &step, which, flip, DRIVER_FEATURES, features & (u32)g->dev->features_offered);
	up_write(g, &step, which, flip, DRIVER_FEATURES_SEL, 1);
	up_write(g, &step, which, flip, DRIVER_FEATURES, 1);
	up_write(g, &step, which, flip, STATUS, 11);
	for (unsigned q = 0; q < g->dev->n_queues; q++) {
		up_write(g, &step, which, flip, QUEUE_SEL, q);
		up_write(g, &step, which, flip, QUEUE_NUM,
			 MIN(g->ring_size, g->dev->vq[q].size_max));
		up_write(g, &step, which, flip, DESC_LOW, (u32)ring_at(g, q, 0));
		up_write(g, &step, which, flip, DESC_HIGH, 0);
		up_write(g, &step, which, flip, AVAIL_LOW, (u32)ring_at(g, q, 1));
		up_write(g, &step, which, flip, AVAIL_HIGH, 0);
		up_write(g, &step, which, flip, USED_LOW, (u32)ring_at(g, q, 2));
		up_write(g, &step, which, flip, USED_HIGH, 0);
		up_write(g, &step, which, flip, QUEUE_READY, 1);
		poke(g, ring_at(g, q, 1) + 2, start, 2);
		g->avail[q] = (u16)start;
	}
	up_write(g, &step, which, flip, STATUS, 15);
	/* As if it had been up for long: indices may be about to wrap. */
	for (unsigned q = 0; q < g->dev->n_queues; q++)
		if (vq_active(&g->dev->vq[q]))
			g->dev->vq[q].last_avail = g->dev->vq[q].used_idx =
				g->dev->vq[q].signalled = (u16)start;
}

/* ---- chains ------------------------------------------------------------------------------- */

static inline u64 some_address(struct guest *g)
{
	static const u64 place[] = { 0xa000,	       0xc000,
				     MEM_HOLE_END,     MEM_HOLE_END + 0x8000,
				     GUEST_REGION - 8, MEM_HOLE_END + GUEST_REGION - 8,
				     MEM_HOLE_END - 8, GUEST_RINGS };
	u8 kind = (u8)take(g, 1);

	if (kind < 0xf0)
		return place[kind % 8] + (kind >> 3);
	return kind < 0xf8 ? MEM_HOLE_START + take(g, 4) : take(g, 8);
}

static inline u32 some_length(struct guest *g)
{
	static const u32 usual[] = { 0, 1, 8, 16, 64, 512, 4096, 0x8000 };
	u8 kind = (u8)take(g, 1);

	return kind < 0xf8 ? usual[kind % 8] + (kind >> 6) : (u32)take(g, 4);
}

static inline void set_desc(struct guest *g, unsigned q, u16 i, u16 flags, u16 next)
{
	u64 at = ring_at(g, q, 0) + 16u * i;

	poke(g, at, some_address(g), 8);
	poke(g, at + 8, some_length(g), 4);
	poke(g, at + 12, flags, 2);
	poke(g, at + 14, next, 2);
}

/* A chain that is right but for where its buffers are, and perhaps its last link. */
static inline void guest_offer(struct guest *g)
{
	u8 shape = (u8)take(g, 1), kick = (u8)take(g, 1);
	unsigned q = (shape >> 6) % g->dev->n_queues, n = 1 + shape % 8, n_read = (shape >> 3) % 8;
	u16 size = MAX(g->dev->vq[q].size, 1), head = (u16)(take(g, 1) % size);
	u64 avail = ring_at(g, q, 1);

	n_read = MIN(n_read, n);
	for (unsigned i = 0; i < n; i++) {
		u16 flags = (i >= n_read ? 2 : 0) | (i + 1 < n ? 1 : 0);
		u16 next = (u16)((head + i + 1) % size);

		set_desc(g, q, (u16)((head + i) % size), kick >= 0xf0 ? (u16)take(g, 1) : flags,
			 kick >= 0xf8 ? (u16)take(g, 2) : next);
	}
	poke(g, avail + 4 + 2u * (g->avail[q] % size), head, 2);
	g->avail[q]++;
	poke(g, avail + 2, g->avail[q], 2);
	if (kick & 1)
		reg_write(g, QUEUE_NOTIFY, q, 4);
}

static inline void guest_moves_index(struct guest *g)
{
	unsigned q = (unsigned)take(g, 1) % g->dev->n_queues;

	g->avail[q] = (u16)(g->avail[q] + (signed char)take(g, 1));
	poke(g, ring_at(g, q, 1) + 2, g->avail[q], 2);
}

/* ---- the program -------------------------------------------------------------------------- */

/* One turn of the loop. */
static inline void guest_serve(struct guest *g)
{
	for (unsigned q = 0; q < g->dev->n_queues; q++)
		hear_kick(g->dev, q);
}

static inline bool in_ram(const struct guest *g, const void *p, u64 len)
{
	for (unsigned i = 0; i < g->mem.n_regions; i++) {
		const struct mem_region *r = &g->mem.region[i];

		if ((const u8 *)p >= r->host &&
		    range_ok((u64)((const u8 *)p - r->host), len, r->size))
			return true;
	}
	return false;
}

static inline void guest_check(const struct guest *g)
{
	const struct device *dev = g->dev;

	REQUIRE(!(dev->status & DEVICE_DRIVER_OK) || dev->status & DEVICE_FEATURES_OK);
	REQUIRE(!(dev->status & DEVICE_FEATURES_OK) || !(dev->features & ~dev->features_offered));
	REQUIRE(dev->isr <= 3);
	for (unsigned q = 0; q < dev->n_queues; q++) {
		const struct vq *vq = &dev->vq[q];

		if (!vq->desc)
			continue;
		REQUIRE(dev->status & DEVICE_DRIVER_OK && vq->ready);
		REQUIRE(vq->size && vq->size <= vq->size_max && !(vq->size & (vq->size - 1)));
		REQUIRE(in_ram(g, vq->desc, 16u * vq->size));
		REQUIRE(in_ram(g, vq->avail, 6 + 2u * vq->size));
		REQUIRE(in_ram(g, vq->used, 6 + 8u * vq->size));
	}
	if (g->check)
		g->check();
}

static inline void guest_pauses(struct guest *g)
{
	device_pause(g->dev);
	if (take(g, 1) & 1)
		guest_serve(g);
	device_resume(g->dev);
}

/* One of the registers that belong to a queue, of a queue that is there or not. */
static inline void guest_queue_register(struct guest *g)
{
	static const u8 reg[] = { QUEUE_NUM_MAX, QUEUE_NUM, QUEUE_READY, DESC_LOW,
				  DESC_HIGH,	 AVAIL_LOW, USED_LOW,	 QUEUE_NOTIFY };
	u8 which = (u8)take(g, 1);

	reg_write(g, QUEUE_SEL, which >> 5 == 7 ? take(g, 4) : which >> 5, 4);
	reg_read(g, reg[which % 8], 4);
	if (which & 8)
		reg_write(g, reg[which % 8], take(g, which & 16 ? 4 : 1), 4);
}

static inline void guest_step(struct guest *g)
{
	static const u16 width[] = { 1, 2, 4, 8 };
	u8 op = (u8)take(g, 1);
	unsigned len = width[op >> 4 & 3];
	u64 off;

	switch (op % 13) {
	case 0:
		guest_up(g);
		break;
	case 1:
	case 2:
	case 3:
		guest_offer(g);
		break;
	case 4:
		guest_serve(g);
		break;
	case 5:
		off = take(g, 1) * 4;
		reg_write(g, off, take(g, 4), 4);
		break;
	case 6:
		off = take(g, 2) % MMIO_WINDOW;
		reg_write(g, off, take(g, len), len);
		break;
	case 7:
		reg_read(g, take(g, 2) % MMIO_WINDOW, len);
		break;
	case 8:
		off = take(g, 2);
		poke(g, off, take(g, len), len);
		break;
	case 9:
		guest_moves_index(g);
		break;
	case 10:
		guest_pauses(g);
		break;
	case 12:
		guest_queue_register(g);
		break;
	default:
		if (g->backend)
			g->backend(g);
		break;
	}
}

/* `dev` is made and on the bus; runs the whole input against it. */
static inline void guest_run(struct guest *g)
{
	for (unsigned n = 0; g->at < g->end && n < GUEST_OPS; n++) {
		guest_step(g);
		guest_check(g);
	}
	guest_serve(g);
	guest_check(g);
	reg_write(g, STATUS, 0, 4);
	REQUIRE(reg_read(g, STATUS, 4) == UINT64_MAX << 32); /* zero, in the low half */
	guest_check(g);
}

/* Memory, an empty bus and a loop: what a device is made with. */
static inline struct loop *guest_begin(struct guest *g, const u8 *data, size_t size)
{
	static struct loop *loop;
	struct err err;

	if (!loop) {
		REQUIRE(loop_create(&loop, &err) == 0);
		REQUIRE(log_configure(&(struct log_config){ .level = LOG_OFF }, &err) == 0);
	}
	*g = (struct guest){ .at = data, .end = data + size };
	guest_memory(&g->mem);
	return loop;
}

static inline void guest_attach(struct guest *g, struct device *dev)
{
	struct err err;

	g->dev = dev;
	REQUIRE(mmio_map(&g->mmio, dev, &g->bus, GUEST_BASE, &err) == 0);
	bus_seal(&g->bus);
}

#endif
