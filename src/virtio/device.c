/*
 * device: see device.h. Knows status, features, config bytes and kicks; not registers, not KVM.
 *
 * Invariant: a queue holds views of guest memory only while the device is between DRIVER_OK and its
 * reset, and only then can its registers not be written (mmio.c asks device_queue_open).
 *
 * Threads. A vCPU that writes a register runs device_set_*, device_config_* and device_wake under
 * the machine lock, and its filter allows it little more than a write to an eventfd. So serving a
 * queue, the `loaded` verb and the log line for a broken device are left to the loop: they happen
 * when it hears of the kick eventfd that was written in their place. `reset` cannot wait: a Linux
 * driver reuses the memory as soon as its write to Status returns.
 */
#include "device.h"

#include "../vmm/log.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>

/* ---- life --------------------------------------------------------------------------------- */

static void post(int fd)
{
	const u64 one = 1;

	if (write(fd, &one, sizeof one) < 0)
		assert(errno == EAGAIN); /* the counter is full: it will be seen anyway */
}

static void kicked(void *owner, u32 events);

static int kick_init(struct device *dev, unsigned q)
{
	int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), r;

	if (fd < 0)
		return -errno;
	dev->kick_of[q] = (struct device_kick){ .dev = dev, .q = q };
	/* Each write to it is an edge of its own, so that nobody has to read it. */
	dev->kick[q] = (struct loop_source){ .fd = fd,
					     .events = EPOLLIN | EPOLLET,
					     .ready = kicked,
					     .owner = &dev->kick_of[q] };
	r = loop_add(dev->loop, &dev->kick[q]);
	if (r < 0) {
		close(fd);
		dev->kick[q].fd = -1;
	}
	return r;
}

static int make_fds(struct device *dev)
{
	int r = 0;

	dev->irq_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (dev->irq_fd < 0)
		return -errno;
	for (unsigned q = 0; q < dev->n_queues && r == 0; q++)
		r = kick_init(dev, q);
	return r;
}

int device_init(struct device *dev, const struct mem *mem, struct loop *loop, struct err *err)
{
	int r;

	assert(dev->n_queues && dev->n_queues <= DEVICE_QUEUES_MAX);
	assert(dev->config_len <= DEVICE_CONFIG_MAX);
	dev->mem = mem;
	dev->loop = loop;
	dev->features_offered |= 1ull << DEVICE_F_VERSION_1 | 1ull << DEVICE_F_EVENT_IDX;
	dev->irq_fd = -1;
	for (unsigned q = 0; q < DEVICE_QUEUES_MAX; q++)
		dev->kick[q].fd = -1;
	for (unsigned q = 0; q < dev->n_queues; q++)
		vq_reset(&dev->vq[q]);
	r = make_fds(dev);
	if (r < 0) {
		device_destroy(dev);
		return fail(err, r, "no eventfds for %s device \"%s\": " OS_ERR, dev->type->name,
			    dev->id, OS_ERR_ARGS(-r));
	}
	return 0;
}

void device_destroy(struct device *dev)
{
	if (!dev->loop)
		return;
	for (unsigned q = 0; q < dev->n_queues; q++) {
		if (dev->kick[q].fd < 0)
			continue;
		loop_del(dev->loop, &dev->kick[q]);
		close(dev->kick[q].fd);
		dev->kick[q].fd = -1;
	}
	if (dev->irq_fd >= 0)
		close(dev->irq_fd);
	dev->irq_fd = -1;
	dev->loop = NULL;
}

/* ---- interrupts --------------------------------------------------------------------------- */

/* Nothing reaches a driver that has not said DRIVER_OK (2.1.2). */
static void interrupt(struct device *dev, u32 cause)
{
	if (!(dev->status & DEVICE_DRIVER_OK))
		return;
	/* The cause is there before the edge: the handler reads InterruptStatus first. */
	atomic_fetch_or(&dev->isr, cause);
	post(dev->irq_fd);
}

void device_signal_queues(struct device *dev, u32 queues)
{
	bool wanted = false;

	assert(queues >> dev->n_queues == 0);
	for (; queues; queues &= queues - 1) {
		struct vq *vq = &dev->vq[__builtin_ctz(queues)];

		if (vq->broken)
			device_break(dev, vq->broken);
		wanted |= vq_should_signal(vq);
	}
	if (wanted && device_active(dev))
		interrupt(dev, DEVICE_ISR_USED);
}

void device_config_changed(struct device *dev)
{
	dev->config_generation++;
	interrupt(dev, DEVICE_ISR_CONFIG);
}

void device_break(struct device *dev, const char *why)
{
	if (dev->status & DEVICE_NEEDS_RESET)
		return;
	dev->status |= DEVICE_NEEDS_RESET;
	dev->complaint = why;
	device_wake(dev, 0);
	interrupt(dev, DEVICE_ISR_CONFIG);
}

/* ---- kicks -------------------------------------------------------------------------------- */

void device_wake(struct device *dev, u32 q)
{
	if (q < dev->n_queues)
		post(dev->kick[q].fd);
}

void device_kick(struct device *dev, u32 q)
{
	if (q >= dev->n_queues || dev->paused || !device_active(dev) || !vq_active(&dev->vq[q]))
		return;
	dev->type->notify(dev, q);
	if (dev->vq[q].broken)
		device_break(dev, dev->vq[q].broken);
}

/* What a vCPU left for the loop to do. */
static void catch_up(struct device *dev)
{
	if (dev->complaint)
		log_guest("%s device \"%s\" needs a reset: %s", dev->type->name, dev->id,
			  dev->complaint);
	dev->complaint = NULL;
	if (!dev->fresh || dev->paused)
		return;
	dev->fresh = false;
	if (device_active(dev) && dev->type->loaded)
		dev->type->loaded(dev);
}

static void kicked(void *owner, u32 events)
{
	struct device_kick *kick = owner;

	(void)events;
	catch_up(kick->dev);
	device_kick(kick->dev, kick->q);
}

int device_remap(struct device *dev, struct err *err)
{
	assert(dev->paused || !device_active(dev));
	for (unsigned q = 0; q < dev->n_queues; q++) {
		struct vq *vq = &dev->vq[q];

		if (vq_active(vq) && vq_activate(vq, dev->mem) < 0)
			return fail(err, -EINVAL, "%s \"%s\", queue %u: %s", dev->type->name, dev->id, q,
				    vq->broken);
	}
	return 0;
}

void device_pause(struct device *dev)
{
	dev->paused = true;
	if (dev->type->drain)
		dev->type->drain(dev);
}

void device_resume(struct device *dev)
{
	dev->paused = false;
	catch_up(dev);
	if (atomic_load(&dev->isr))
		post(dev->irq_fd);
	for (unsigned q = 0; q < dev->n_queues; q++)
		device_kick(dev, q);
}

/* ---- status and features (2.1, 2.2, 3.1.1) ------------------------------------------------ */

static void reset(struct device *dev)
{
	if (dev->type->reset)
		dev->type->reset(dev);
	for (unsigned q = 0; q < dev->n_queues; q++)
		vq_reset(&dev->vq[q]);
	dev->features = 0;
	dev->status = 0;
	/* Kicks and interrupts on their way stay: a late edge finds nothing to do at either end. */
	atomic_store(&dev->isr, 0);
}

static bool features_acceptable(const struct device *dev)
{
	return !(dev->features & ~dev->features_offered) && device_has(dev, DEVICE_F_VERSION_1);
}

/* The queues become active; chains made available before this moment get no kick of their own. */
static void activate(struct device *dev)
{
	dev->fresh = true;
	for (unsigned q = 0; q < dev->n_queues; q++) {
		struct vq *vq = &dev->vq[q];

		if (!vq->ready)
			continue;
		vq->event_idx = device_has(dev, DEVICE_F_EVENT_IDX);
		if (vq_activate(vq, dev->mem) < 0)
			device_break(dev, vq->broken);
	}
	for (unsigned q = 0; q < dev->n_queues; q++)
		device_wake(dev, q);
}

/* One bit of the sequence, whose predecessors are all set. False: refused, and not set. */
static bool advance(struct device *dev, u8 bit)
{
	if (bit == DEVICE_FEATURES_OK && !features_acceptable(dev))
		return false;
	dev->status |= bit;
	if (bit == DEVICE_DRIVER_OK)
		activate(dev);
	return true;
}

void device_set_status(struct device *dev, u32 status)
{
	static const u8 sequence[] = { DEVICE_ACKNOWLEDGE, DEVICE_DRIVER, DEVICE_FEATURES_OK,
				       DEVICE_DRIVER_OK };
	u8 set = dev->status & (u8)~DEVICE_NEEDS_RESET;

	if (status == 0) {
		reset(dev);
		return;
	}
	if (status > UINT8_MAX)
		return;
	if (status & DEVICE_FAILED)
		dev->status |= DEVICE_FAILED;
	if (dev->status & (DEVICE_FAILED | DEVICE_NEEDS_RESET))
		return;
	/* A bit that is missing ends it: nothing is left out, nothing is taken back (2.1.1). */
	for (unsigned i = 0; i < ARRAY_SIZE(sequence) && status & sequence[i]; i++)
		if (!(set & sequence[i]) && !advance(dev, sequence[i]))
			return;
}

void device_set_features(struct device *dev, u32 half, u32 bits)
{
	if (half > 1 || !device_expects(dev, DEVICE_DRIVER, DEVICE_FEATURES_OK))
		return;
	dev->features &= ~(0xffffffffull << 32 * half);
	dev->features |= (u64)bits << 32 * half;
}

bool device_queue_open(const struct device *dev)
{
	return device_expects(dev, DEVICE_FEATURES_OK, DEVICE_DRIVER_OK);
}

/* ---- config space (2.5) ------------------------------------------------------------------- */

void device_config_read(struct device *dev, u32 off, void *data, u32 len)
{
	memset(data, 0, len);
	if (off < dev->config_len)
		memcpy(data, dev->config + off, MIN(len, dev->config_len - off));
}

void device_config_write(struct device *dev, u32 off, const void *data, u32 len)
{
	if (!dev->type->config_write || !range_ok(off, len, dev->config_len))
		return;
	if (dev->status & DEVICE_DRIVER && !(dev->status & (DEVICE_FAILED | DEVICE_NEEDS_RESET)))
		dev->type->config_write(dev, off, data, len);
}
