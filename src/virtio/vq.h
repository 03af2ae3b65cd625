/*
 * vq: one split virtqueue (virtio 1.2, section 2.7), device side.
 *
 * The only file that knows descriptors, rings and barriers. It hands out chains (chain.h) and takes
 * them back; devices never see a descriptor, and vq never sees a file.
 *
 * Loop thread, or a dispatcher holding the machine lock. The rings live in guest RAM and are
 * hostile: every field is read once, every index is bounded by the size that was fixed at
 * activation, our own counters are never read back from the guest. A ring that lies breaks its
 * queue (vq->broken, once, for good until reset); the caller then marks the device NEEDS_RESET.
 */
#ifndef VQ_H
#define VQ_H

#include "../vmm/base.h"
#include "../vmm/err.h"
#include "../vmm/mem.h"
#include "chain.h"

#define VQ_SIZE_MAX 256

struct vq {
	/* What the queue is: guest-visible, written by the transport before activation. */
	u64 desc_gpa, avail_gpa, used_gpa;
	u16 size; /* a power of two, at most size_max */
	u16 size_max;
	bool ready;
	bool event_idx; /* VIRTIO_F_EVENT_IDX was negotiated */
	u16 last_avail; /* next entry of the available ring to read */
	u16 used_idx;	/* next entry of the used ring to write */
	u16 signalled;	/* used_idx at the last interrupt decision */

	/* What it holds: rebuilt by vq_activate(). */
	const struct mem *mem;
	void *desc, *avail, *used;	 /* host views, checked for their whole length */
	const char *broken;		 /* what the guest did wrong; NULL while healthy */
	u64 in_flight[VQ_SIZE_MAX / 64]; /* heads that are popped and not yet pushed */
};

/* Forgets everything but size_max, which is also the size again: the state after device reset. */
void vq_reset(struct vq *vq);

/*
 * Checks size, alignment, placement (all three rings whole in RAM, not overlapping each other) and
 * takes the host views. The guest's own DRIVER_OK and a loaded snapshot both come through here.
 * -EINVAL leaves the queue not active and says why in vq->broken. The indices are kept (zero after
 * a reset, or as loaded); nothing is in flight afterwards. A queue without views is not active: it
 * has no work, gives no chains and wants no interrupt.
 */
int vq_activate(struct vq *vq, const struct mem *mem) MUST_CHECK;

static inline bool vq_active(const struct vq *vq)
{
	return vq->desc && !vq->broken;
}

/*
 * Takes the next available chain. 1: `chain` is filled. 0: nothing there (and, with event index,
 * the guest has been asked to kick; the ring was looked at again after asking). -EINVAL: broken.
 */
int vq_pop(struct vq *vq, struct chain *chain) MUST_CHECK;

/*
 * Puts the last popped chain back, as if it had not been taken (a backend that is full). No kick
 * will tell of it: the device comes back for it by itself (vq_has_work).
 */
void vq_unpop(struct vq *vq, const struct chain *chain);

/*
 * Gives a chain back with the number of bytes its write cursor has passed. Any order. On a broken
 * queue nothing is written. The chain must be in flight: after a reset it no longer is (device.h).
 */
void vq_push(struct vq *vq, const struct chain *chain);

/*
 * The same for those who hold several chains by their heads. vq_put() writes an entry that the
 * driver does not see before vq_publish(): what belongs together appears at once. vq_return() is
 * vq_unpop(); several go back in the reverse order of their pops.
 */
void vq_put(struct vq *vq, u16 head, u32 written);
void vq_publish(struct vq *vq);
void vq_return(struct vq *vq, u16 head);

/* After a batch of pushes: whether the guest wants an interrupt now. Nothing new pushed: no. */
bool vq_should_signal(struct vq *vq);

/* Asks for no kicks (we are polling anyway); vq_pop() returning 0 asks for them again. */
void vq_suppress_kicks(struct vq *vq);

/* Whether chains are waiting, without taking one. */
bool vq_has_work(const struct vq *vq);

#endif
