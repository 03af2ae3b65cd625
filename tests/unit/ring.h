/*
 * ring: a guest driver's side of a split virtqueue, for tests: it can be as honest or as wrong as
 * the test likes. Independent of src/virtio on purpose: the layout is spelled a second time here.
 */
#ifndef TEST_RING_H
#define TEST_RING_H

#include "src/virtio/vq.h"
#include "src/vmm/mem.h"

#define R_NEXT	   1
#define R_WRITE	   2
#define R_INDIRECT 4

struct ring_desc {
	u64 addr;
	u32 len;
	u16 flags, next;
};

struct ring_elem {
	u32 id, len;
};

struct ring {
	const struct mem *mem;
	u64 desc_gpa, avail_gpa, used_gpa;
	u16 size;
	u16 avail_idx; /* next to offer */
	u16 seen;      /* next used entry to look at */
};

static inline struct ring_desc *ring_desc(const struct ring *r)
{
	return mem_at(r->mem, r->desc_gpa, 16u * r->size);
}

static inline u16 *ring_avail(const struct ring *r) /* flags, idx, ring, used_event */
{
	return mem_at(r->mem, r->avail_gpa, 6 + 2u * r->size);
}

static inline u16 *ring_used(const struct ring *r) /* flags, idx, elements, avail_event */
{
	return mem_at(r->mem, r->used_gpa, 6 + 8u * r->size);
}

static inline u16 *ring_used_event(const struct ring *r)
{
	return ring_avail(r) + 2 + r->size;
}

static inline u16 *ring_avail_event(const struct ring *r)
{
	return ring_used(r) + 2 + 4 * r->size;
}

static inline u16 ring_used_idx(const struct ring *r)
{
	return __atomic_load_n(&ring_used(r)[1], __ATOMIC_ACQUIRE);
}

static inline struct ring_elem ring_elem(const struct ring *r, u16 index)
{
	struct ring_elem elem;

	memcpy(&elem, ring_used(r) + 2 + 4 * (index % r->size), sizeof elem);
	return elem;
}

/* Three zeroed rings, each on pages of its own, from `gpa` upward (three pages). */
static inline struct ring ring_at(const struct mem *mem, u64 gpa, u16 size)
{
	struct ring r = { .mem = mem,
			  .desc_gpa = gpa,
			  .avail_gpa = gpa + 0x1000,
			  .used_gpa = gpa + 0x2000,
			  .size = size };

	memset(ring_desc(&r), 0, 0x1000);
	memset(ring_avail(&r), 0, 0x1000);
	memset(ring_used(&r), 0, 0x1000);
	return r;
}

static inline void ring_set(const struct ring *r, u16 i, u64 addr, u32 len, u16 flags, u16 next)
{
	ring_desc(r)[i] = (struct ring_desc){ addr, len, flags, next };
}

static inline void ring_move_idx(struct ring *r, u16 idx)
{
	r->avail_idx = idx;
	__atomic_store_n(&ring_avail(r)[1], idx, __ATOMIC_RELEASE);
}

static inline void ring_offer(struct ring *r, u16 head)
{
	ring_avail(r)[2 + r->avail_idx % r->size] = head;
	ring_move_idx(r, (u16)(r->avail_idx + 1));
}

/* Both counters, theirs and ours, as if the queue had been in use for long. */
static inline void ring_start_at(struct ring *r, struct vq *vq, u16 index)
{
	r->seen = vq->last_avail = vq->used_idx = vq->signalled = index;
	ring_used(r)[1] = index;
	ring_move_idx(r, index);
}

/* Fills the vq's registers, as the transport would. */
static inline void ring_program(const struct ring *r, struct vq *vq)
{
	vq->desc_gpa = r->desc_gpa;
	vq->avail_gpa = r->avail_gpa;
	vq->used_gpa = r->used_gpa;
	vq->size = r->size;
	vq->ready = true;
}

#endif
