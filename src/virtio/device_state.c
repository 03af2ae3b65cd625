/*
 * device_state: see device_state.h.
 *
 * Invariant: after a load the device is in a state that register writes of a guest lead to, or the
 * load has failed. Indices of the rings are any numbers: vq.c bounds them at each use.
 */
#include "device_state.h"

static_assert(sizeof(struct vq_state) == 40, "no padding in a file");

/* ---- saving ------------------------------------------------------------------------------------- */

static void save_queue(const struct vq *vq, struct vq_state *state)
{
	*state = (struct vq_state){
		.desc_gpa = vq->desc_gpa,
		.avail_gpa = vq->avail_gpa,
		.used_gpa = vq->used_gpa,
		.size = vq->size,
		.last_avail = vq->last_avail,
		.used_idx = vq->used_idx,
		.signalled = vq->signalled,
		.ready = vq->ready,
	};
}

void device_save(const struct device *dev, struct device_state *state)
{
	*state = (struct device_state){
		.virtio_id = dev->type->virtio_id,
		.n_queues = dev->n_queues,
		.offered = dev->features_offered,
		.features = dev->features,
		.config_len = dev->config_len,
		.config_generation = dev->config_generation,
		.isr = atomic_load(&dev->isr),
		.own_size = dev->own_size,
		.status = dev->status,
	};
	assert(dev->own_size <= sizeof state->own);
	memcpy(state->config, dev->config, sizeof state->config);
	memcpy(state->id, dev->id, sizeof dev->id);
	if (dev->own_size)
		memcpy(state->own, dev->own, dev->own_size);
	for (unsigned i = 0; i < DEVICE_LIMITS_MAX; i++)
		if (dev->limit[i])
			state->limit[i] = *dev->limit[i];
	for (unsigned q = 0; q < dev->n_queues; q++)
		save_queue(&dev->vq[q], &state->vq[q]);
}

/* ---- loading ------------------------------------------------------------------------------------ */

/* It is the device that the configuration names, and offers no less than it did. */
static int check_kind(const struct device *dev, const struct device_state *s, struct err *err)
{
	if (s->virtio_id != dev->type->virtio_id ||
	    strnlen(s->id, sizeof s->id) > DEVICE_ID_MAX || strcmp(s->id, dev->id) != 0)
		return fail(err, -EINVAL, "it is not %s \"%s\"", dev->type->name, dev->id);
	if (s->n_queues != dev->n_queues || s->config_len != dev->config_len ||
	    s->own_size != dev->own_size)
		return fail(err, -EINVAL, "it has other queues or registers than %s \"%s\"",
			    dev->type->name, dev->id);
	if (s->offered & ~dev->features_offered)
		return fail(err, -ENOTSUP, "it offers features that are not to be had here: 0x%llx",
			    (unsigned long long)(s->offered & ~dev->features_offered));
	return 0;
}

/* Bits come in the order of 3.1.1, and FEATURES_OK seals what is acceptable. */
static int check_status(const struct device_state *s, struct err *err)
{
	static const u8 sequence[] = { DEVICE_ACKNOWLEDGE, DEVICE_DRIVER, DEVICE_FEATURES_OK,
				       DEVICE_DRIVER_OK };
	u8 known = DEVICE_NEEDS_RESET | DEVICE_FAILED;
	bool ended = false, bad = false;

	for (unsigned i = 0; i < ARRAY_SIZE(sequence); i++) {
		bad |= ended && (s->status & sequence[i]);
		ended |= !(s->status & sequence[i]);
		known |= sequence[i];
	}
	if (bad || (s->status & ~known))
		return fail(err, -EINVAL, "status 0x%x cannot be", s->status);
	if ((s->status & DEVICE_FEATURES_OK) &&
	    (s->features & ~s->offered || !(s->features >> DEVICE_F_VERSION_1 & 1)))
		return fail(err, -EINVAL, "features 0x%llx cannot have been accepted",
			    (unsigned long long)s->features);
	if (s->features && !(s->status & DEVICE_DRIVER))
		return fail(err, -EINVAL, "there are features without a driver");
	if (s->isr & ~(DEVICE_ISR_USED | DEVICE_ISR_CONFIG))
		return fail(err, -EINVAL, "interrupt status 0x%x cannot be", s->isr);
	return 0;
}

static int load_queue(struct device *dev, unsigned q, const struct vq_state *s, struct err *err)
{
	struct vq *vq = &dev->vq[q];

	if (s->ready > 1)
		return fail(err, -EINVAL, "queue %u: ready is %u", q, s->ready);
	if (s->ready && !(dev->status & DEVICE_FEATURES_OK))
		return fail(err, -EINVAL, "queue %u is ready too early", q);
	vq->desc_gpa = s->desc_gpa;
	vq->avail_gpa = s->avail_gpa;
	vq->used_gpa = s->used_gpa;
	vq->size = s->size;
	vq->ready = s->ready;
	vq->last_avail = s->last_avail;
	vq->used_idx = s->used_idx;
	vq->signalled = s->signalled;
	if (!vq->ready || !device_active(dev))
		return 0;
	vq->event_idx = device_has(dev, DEVICE_F_EVENT_IDX);
	if (vq_activate(vq, dev->mem) < 0)
		return fail(err, -EINVAL, "queue %u: %s", q, vq->broken);
	return 0;
}

/* The levels are of the limit that is configured, or they are of none. */
static int load_limits(struct device *dev, const struct device_state *s, struct err *err)
{
	for (unsigned i = 0; i < DEVICE_LIMITS_MAX; i++) {
		const struct limit *from = &s->limit[i];
		struct limit *to = dev->limit[i];

		if (!to)
			continue;
		if (!limit_plausible(from))
			return fail(err, -EINVAL, "the levels of its rate limit cannot be");
		if (from->bytes.size == to->bytes.size && from->bytes.period_ns == to->bytes.period_ns)
			to->bytes = from->bytes;
		if (from->ops.size == to->ops.size && from->ops.period_ns == to->ops.period_ns)
			to->ops = from->ops;
		limit_loaded(to, loop_now_ns());
	}
	return 0;
}

/*
 * Registers that the guest writes come from the snapshot; others describe what is behind the device
 * now, and the driver is told if that is no longer what it was.
 */
static void load_config(struct device *dev, const struct device_state *s)
{
	bool same = memcmp(dev->config, s->config, dev->config_len) == 0;

	dev->config_generation = s->config_generation;
	if (dev->type->config_write)
		memcpy(dev->config, s->config, dev->config_len);
	else if (!same) {
		dev->config_generation++;
		if (dev->status & DEVICE_DRIVER_OK)
			atomic_fetch_or(&dev->isr, DEVICE_ISR_CONFIG);
	}
}

int device_load(struct device *dev, const struct device_state *s, struct err *err)
{
	int r = check_kind(dev, s, err);

	if (!r)
		r = check_status(s, err);
	if (!r && dev->own_size && dev->type->plausible && !dev->type->plausible(dev, s->own))
		r = fail(err, -EINVAL, "its inner state cannot be");
	if (!r)
		r = load_limits(dev, s, err);
	if (r < 0)
		return r;
	dev->paused = true;
	dev->features_offered = s->offered;
	dev->features = s->features;
	dev->status = s->status;
	atomic_store(&dev->isr, s->isr);
	if (dev->own_size)
		memcpy(dev->own, s->own, dev->own_size);
	load_config(dev, s);
	for (unsigned q = 0; q < dev->n_queues && !r; q++)
		r = load_queue(dev, q, &s->vq[q], err);
	dev->fresh = device_active(dev);
	return r;
}
