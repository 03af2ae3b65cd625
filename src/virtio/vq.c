/*
 * vq: one split virtqueue, device side. Knows rings and barriers; not devices, files or transports.
 *
 * The ring, retold (virtio 1.2, 2.7). Three arrays in guest RAM share a size N:
 *
 *   descriptor table (2.7.5)  N x { addr, len, flags, next }: pieces of guest memory linked into
 *                             chains. The driver writes, we read.
 *   available ring (2.7.6)    flags, idx, N chain heads, used_event. The driver writes, we read.
 *   used ring (2.7.8)         flags, idx, N x { head, bytes written }, avail_event. We write.
 *
 * Both idx run freely through 65535 -> 0; entry i lives in slot i mod N, which is why N is a power
 * of two. The driver fills a slot, then moves avail.idx; we take the chain, do what it says in
 * whatever order suits, fill a used slot, then move used.idx.
 *
 * Who wakes whom: each side names the index at which it wants to hear from the other. used_event is
 * "interrupt me when you have written this used entry" (2.7.7), avail_event is "kick me when you
 * have written this available entry" (2.7.10). Asking and then sleeping has a hole: an entry
 * written just before the request is seen by nobody. So whoever asks must look once more before it
 * sleeps, with a full barrier between - and so must the driver, mirrored. Without
 * VIRTIO_F_EVENT_IDX a flag bit in each ring stands for "never mind", with the same hole and the
 * same cure.
 *
 * The other side is hostile. What keeps us whole:
 *  - ring addresses and size are checked by vq_activate() and cannot change while views are held;
 *  - every field is loaded once into a local, checked, and only the local is used;
 *  - last_avail and used_idx are ours: the guest's copy of used.idx is written, never read;
 *  - a walk ends after N descriptors; a chain has at most CHAIN_IOV_MAX segments and fewer than
 *    4 GiB; heads in flight are distinct, so there are at most N of them;
 *  - a lie sets vq->broken, after which the queue hands out nothing and writes nothing until reset.
 *
 * Barriers are in this file only; each names the driver's barrier it pairs with, by the step of
 * 2.7.13 (supplying buffers) or 2.7.14 (receiving used buffers).
 */
#include "vq.h"

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the rings are little-endian (1.4)");

#define DESC_NEXT     1
#define DESC_WRITE    2
#define DESC_INDIRECT 4

#define AVAIL_NO_INTERRUPT 1
#define USED_NO_NOTIFY	   1

struct desc {
	u64 addr;
	u32 len;
	u16 flags, next;
};

struct avail {
	u16 flags, idx;
	u16 ring[]; /* then used_event */
};

struct used_elem {
	u32 id, len;
};

struct used {
	u16 flags, idx;
	struct used_elem ring[]; /* then avail_event */
};

static_assert(sizeof(struct desc) == 16 && sizeof(struct avail) == 4 && sizeof(struct used) == 4,
	      "layout of 2.7.5, 2.7.6, 2.7.8");

static int break_queue(struct vq *vq, const char *why)
{
	vq->broken = why;
	return -EINVAL;
}

static u16 slot(const struct vq *vq, u16 index)
{
	return index & (vq->size - 1);
}

/* ---- activation --------------------------------------------------------------------------- */

void vq_reset(struct vq *vq)
{
	*vq = (struct vq){ .size_max = vq->size_max, .size = vq->size_max };
}

static const char *check_rings(const struct vq *vq, u64 desc_len, u64 avail_len, u64 used_len)
{
	if (vq->desc_gpa % 16 || vq->avail_gpa % 2 || vq->used_gpa % 4)
		return "a ring is misaligned";
	if (ranges_overlap(vq->desc_gpa, desc_len, vq->avail_gpa, avail_len) ||
	    ranges_overlap(vq->desc_gpa, desc_len, vq->used_gpa, used_len) ||
	    ranges_overlap(vq->avail_gpa, avail_len, vq->used_gpa, used_len))
		return "the rings overlap";
	return NULL;
}

int vq_activate(struct vq *vq, const struct mem *mem)
{
	u16 n = vq->size;
	u64 desc_len = 16ull * n, avail_len = 6 + 2ull * n, used_len = 6 + 8ull * n;
	void *desc, *avail, *used;

	vq->desc = vq->avail = vq->used = NULL;
	vq->broken = NULL;
	memset(vq->in_flight, 0, sizeof vq->in_flight);
	if (!n || n & (n - 1) || n > vq->size_max || n > VQ_SIZE_MAX)
		return break_queue(vq, "the queue size is not a power of two within the maximum");

	/* Placement first: ranges that lie in RAM do not wrap, so that they can be compared. */
	desc = mem_at(mem, vq->desc_gpa, desc_len);
	avail = mem_at(mem, vq->avail_gpa, avail_len);
	used = mem_at(mem, vq->used_gpa, used_len);
	if (!desc || !avail || !used)
		return break_queue(vq, "a ring lies outside RAM");
	vq->broken = check_rings(vq, desc_len, avail_len, used_len);
	if (vq->broken)
		return -EINVAL;

	vq->mem = mem;
	vq->desc = desc;
	vq->avail = avail;
	vq->used = used;
	return 0;
}

/* ---- taking chains ------------------------------------------------------------------------ */

/* How many chains the driver says are waiting; more than `size` is a lie. */
static u16 waiting(const struct vq *vq)
{
	const struct avail *avail = vq->avail;

	/*
	 * Acquire: descriptors and the slot are read after idx. Pairs with the driver's barrier
	 * before it moves idx (2.7.13, step 4). An atomic 16-bit load: idx is never seen torn.
	 */
	return (u16)(__atomic_load_n(&avail->idx, __ATOMIC_ACQUIRE) - vq->last_avail);
}

static void ask_for_kick(struct vq *vq)
{
	struct used *used = vq->used;
	u16 *avail_event = (u16 *)&used->ring[vq->size];

	if (vq->event_idx)
		WRITE_ONCE(*avail_event, vq->last_avail);
	else
		WRITE_ONCE(used->flags, 0);
	/*
	 * Full: the request is visible before idx is looked at again. Pairs with the driver's
	 * barrier between moving idx and reading avail_event or flags (2.7.13, step 6): one of the
	 * two sides sees the other's store.
	 */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
}

static struct desc load_desc(const struct vq *vq, u16 i)
{
	const struct desc *d = (const struct desc *)vq->desc + i;

	return (struct desc){ .addr = READ_ONCE(d->addr),
			      .len = READ_ONCE(d->len),
			      .flags = READ_ONCE(d->flags),
			      .next = READ_ONCE(d->next) };
}

/* Adds a buffer as one segment, or as several where host mappings end. NULL, or what is wrong. */
static const char *add_buffer(const struct vq *vq, struct chain *chain, const struct desc *d)
{
	u64 gpa = d->addr, left = d->len;

	while (left) {
		u64 piece = left;
		void *host = mem_span(vq->mem, gpa, &piece);

		if (!host)
			return "a buffer lies outside RAM";
		if (!chain_add(chain, host, (u32)piece, d->flags & DESC_WRITE))
			return "a chain is too long";
		gpa += piece;
		left -= piece;
	}
	return NULL;
}

/*
 * One descriptor joins the chain. The specification does not forbid an empty one, and a stream has
 * no use for it: it counts against the length of the walk, and its address is not looked at.
 */
static const char *add_desc(const struct vq *vq, struct chain *chain, const struct desc *d,
			    bool *writable)
{
	if (d->flags & DESC_INDIRECT)
		return "an indirect descriptor, which was not offered";
	if (*writable && !(d->flags & DESC_WRITE))
		return "a readable buffer after a writable one"; /* 2.7.4.2 */
	*writable = d->flags & DESC_WRITE;
	return add_buffer(vq, chain, d);
}

static const char *walk(const struct vq *vq, struct chain *chain)
{
	bool writable = false;
	u16 i = chain->head;

	for (unsigned n = 0; n < vq->size; n++) {
		struct desc d;
		const char *wrong;

		if (i >= vq->size)
			return "a descriptor index is beyond the table";
		d = load_desc(vq, i);
		wrong = add_desc(vq, chain, &d, &writable);
		if (wrong || !(d.flags & DESC_NEXT))
			return wrong;
		i = d.next;
	}
	return "a chain is a loop";
}

static u64 *in_flight_word(struct vq *vq, u16 head)
{
	return &vq->in_flight[head / 64];
}

static u64 in_flight_bit(u16 head)
{
	return 1ull << head % 64;
}

static int take_head(struct vq *vq, struct chain *chain, u16 head)
{
	const char *wrong;

	if (head >= vq->size)
		return break_queue(vq, "an available entry is beyond the table");
	if (*in_flight_word(vq, head) & in_flight_bit(head))
		return break_queue(vq, "a chain was made available twice");
	chain_init(chain, head);
	wrong = walk(vq, chain);
	if (wrong)
		return break_queue(vq, wrong);
	*in_flight_word(vq, head) |= in_flight_bit(head);
	vq->last_avail++;
	return 1;
}

int vq_pop(struct vq *vq, struct chain *chain)
{
	const struct avail *avail = vq->avail;
	u16 n;

	if (vq->broken)
		return -EINVAL;
	if (!avail)
		return 0;
	n = waiting(vq);
	if (!n) {
		ask_for_kick(vq);
		n = waiting(vq);
	}
	if (!n)
		return 0;
	if (n > vq->size)
		return break_queue(vq, "the available index is too far ahead");
	return take_head(vq, chain, READ_ONCE(avail->ring[slot(vq, vq->last_avail)]));
}

static void forget(struct vq *vq, u16 head)
{
	assert(*in_flight_word(vq, head) & in_flight_bit(head));
	*in_flight_word(vq, head) &= ~in_flight_bit(head);
}

void vq_return(struct vq *vq, u16 head)
{
	forget(vq, head);
	vq->last_avail--;
}

void vq_unpop(struct vq *vq, const struct chain *chain)
{
	vq_return(vq, chain->head);
}

bool vq_has_work(const struct vq *vq)
{
	return vq_active(vq) && waiting(vq);
}

void vq_suppress_kicks(struct vq *vq)
{
	struct used *used = vq->used;

	/* With event index there is nothing to do: avail_event stays behind, and a driver that has
	 * passed it does not kick. */
	if (vq_active(vq) && !vq->event_idx)
		WRITE_ONCE(used->flags, USED_NO_NOTIFY);
}

/* ---- giving chains back ------------------------------------------------------------------- */

void vq_put(struct vq *vq, u16 head, u32 written)
{
	struct used *used = vq->used;
	struct used_elem *elem;

	forget(vq, head);
	if (vq->broken)
		return;
	elem = &used->ring[slot(vq, vq->used_idx)];
	WRITE_ONCE(elem->id, head);
	WRITE_ONCE(elem->len, written);
	vq->used_idx++;
}

void vq_publish(struct vq *vq)
{
	struct used *used = vq->used;

	if (vq->broken)
		return;
	/*
	 * Release: the data and the entry are visible before idx. Pairs with the driver's barrier
	 * between reading idx and reading the entry (2.7.14).
	 */
	__atomic_store_n(&used->idx, vq->used_idx, __ATOMIC_RELEASE);
}

void vq_push(struct vq *vq, const struct chain *chain)
{
	vq_put(vq, chain->head, chain->written);
	vq_publish(vq);
}

/* Whether the other side, which asked to hear about `event`, hears about (old, new] (2.7.7.2). */
static bool crossed(u16 event, u16 new, u16 old)
{
	return (u16)(new - event - 1) < (u16)(new - old);
}

bool vq_should_signal(struct vq *vq)
{
	const struct avail *avail = vq->avail;
	u16 old = vq->signalled, new = vq->used_idx;

	if (!vq_active(vq) || old == new)
		return false;
	vq->signalled = new;
	/*
	 * Full: used.idx is visible before used_event or flags is read. Pairs with the driver's
	 * barrier between writing those and looking at used.idx once more (2.7.14).
	 */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	if (vq->event_idx)
		return crossed(READ_ONCE(avail->ring[vq->size]), new, old);
	return !(READ_ONCE(avail->flags) & AVAIL_NO_INTERRUPT);
}
