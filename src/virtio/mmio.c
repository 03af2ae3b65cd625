/*
 * mmio: see mmio.h. Knows the registers of virtio-mmio version 2 (virtio 1.2, 4.2.2) and turns each
 * access into one question to, or one order for, the device. Must not know what kind it is.
 *
 * Invariant: nothing the guest writes here is used as an index or a shift before it was compared
 * with the number of things there are; selectors keep whatever value they were given.
 *
 * Below the config space only aligned accesses of 32 bits exist (4.2.2.2). Any other is a hole:
 * reads give all ones, writes go nowhere. Registers that cannot be read, are reserved, or belong to
 * a queue that does not exist, read as zero; registers of shared memory regions, of which there are
 * none, read as all ones, which is how the specification spells "no such region".
 */
#include "mmio.h"

enum {
	MAGIC = 0x00,
	VERSION = 0x04,
	DEVICE_ID = 0x08,
	VENDOR_ID = 0x0c,
	DEVICE_FEATURES = 0x10,
	DEVICE_FEATURES_SEL = 0x14,
	DRIVER_FEATURES = 0x20,
	DRIVER_FEATURES_SEL = 0x24,
	QUEUE_SEL = 0x30,
	QUEUE_NUM_MAX = 0x34,
	QUEUE_NUM = 0x38,
	QUEUE_READY = 0x44,
	QUEUE_NOTIFY = MMIO_QUEUE_NOTIFY,
	INTERRUPT_STATUS = 0x60,
	INTERRUPT_ACK = 0x64,
	INTERRUPT_END = 0x68,
	STATUS = 0x70,
	QUEUE_DESC_LOW = 0x80,
	QUEUE_DESC_HIGH = 0x84,
	QUEUE_AVAIL_LOW = 0x90,
	QUEUE_AVAIL_HIGH = 0x94,
	QUEUE_USED_LOW = 0xa0,
	QUEUE_USED_HIGH = 0xa4,
	SHM_LEN_LOW = 0xb0,
	SHM_LEN_HIGH = 0xb4,
	SHM_BASE_LOW = 0xb8,
	SHM_BASE_HIGH = 0xbc,
	CONFIG_GENERATION = 0xfc,
	CONFIG = 0x100,
};

/* The selected queue, or NULL. */
static struct vq *selected(const struct mmio *mmio)
{
	return mmio->queue_sel < mmio->dev->n_queues ? &mmio->dev->vq[mmio->queue_sel] : NULL;
}

/* ---- reads -------------------------------------------------------------------------------- */

static u32 offered(const struct mmio *mmio)
{
	u32 half = mmio->device_features_sel;

	return half < 2 ? (u32)(mmio->dev->features_offered >> 32 * half) : 0;
}

static u32 reg_read(const struct mmio *mmio, u64 reg)
{
	const struct device *dev = mmio->dev;
	const struct vq *vq = selected(mmio);

	switch (reg) {
	case MAGIC:
		return 0x74726976; /* "virt" */
	case VERSION:
		return 2;
	case DEVICE_ID:
		return dev->type->virtio_id;
	case VENDOR_ID:
		return 0;
	case DEVICE_FEATURES:
		return offered(mmio);
	case QUEUE_NUM_MAX:
		return vq ? vq->size_max : 0;
	case QUEUE_READY:
		return vq ? vq->ready : 0;
	case STATUS:
		return dev->status;
	case SHM_LEN_LOW:
	case SHM_LEN_HIGH:
	case SHM_BASE_LOW:
	case SHM_BASE_HIGH:
		return UINT32_MAX;
	case CONFIG_GENERATION:
		return dev->config_generation;
	default:
		return 0;
	}
}

/* ---- writes ------------------------------------------------------------------------------- */

/* Where half of a ring address is kept, or NULL if `reg` is no such register. */
static u64 *ring_address(struct vq *vq, u64 reg)
{
	switch (reg) {
	case QUEUE_DESC_LOW:
	case QUEUE_DESC_HIGH:
		return &vq->desc_gpa;
	case QUEUE_AVAIL_LOW:
	case QUEUE_AVAIL_HIGH:
		return &vq->avail_gpa;
	case QUEUE_USED_LOW:
	case QUEUE_USED_HIGH:
		return &vq->used_gpa;
	default:
		return NULL;
	}
}

static void set_half(u64 *word, bool high, u32 value)
{
	unsigned shift = high ? 32 : 0;

	*word = (*word & ~(0xffffffffull << shift)) | (u64)value << shift;
}

/* A ready queue can only be made unready; once the device is active not even that. */
static void queue_write(struct mmio *mmio, u64 reg, u32 value)
{
	struct vq *vq = selected(mmio);
	u64 *address;

	if (!vq || !device_queue_open(mmio->dev))
		return;
	if (reg == QUEUE_READY) {
		vq->ready = value & 1;
		return;
	}
	if (vq->ready)
		return;
	address = ring_address(vq, reg);
	if (address)
		set_half(address, reg & 4, value);
	else if (reg == QUEUE_NUM)
		vq->size = (u16)MIN(value, UINT16_MAX); /* cut, it stays wrong: refused later */
}

static void reg_write(struct mmio *mmio, u64 reg, u32 value)
{
	struct device *dev = mmio->dev;

	switch (reg) {
	case DEVICE_FEATURES_SEL:
		mmio->device_features_sel = value;
		break;
	case DRIVER_FEATURES_SEL:
		mmio->driver_features_sel = value;
		break;
	case DRIVER_FEATURES:
		device_set_features(dev, mmio->driver_features_sel, value);
		break;
	case QUEUE_SEL:
		mmio->queue_sel = value;
		break;
	case QUEUE_NOTIFY: /* where the ioeventfd did not catch it */
		device_wake(dev, value);
		break;
	case STATUS:
		device_set_status(dev, value);
		break;
	default:
		queue_write(mmio, reg, value);
		break;
	}
}

/* ---- the window --------------------------------------------------------------------------- */

static void window_read(struct mmio *mmio, u64 off, void *data, unsigned len)
{
	u32 value;

	if (off >= CONFIG) {
		device_config_read(mmio->dev, (u32)(off - CONFIG), data, len);
	} else if (len == 4 && off % 4 == 0) {
		value = reg_read(mmio, off);
		memcpy(data, &value, 4);
	}
}

static void window_write(struct mmio *mmio, u64 off, const void *data, unsigned len)
{
	u32 value;

	if (off >= CONFIG) {
		device_config_write(mmio->dev, (u32)(off - CONFIG), data, len);
	} else if (len == 4 && off % 4 == 0) {
		memcpy(&value, data, 4);
		reg_write(mmio, off, value);
	}
}

static void low_read(void *owner, u64 off, void *data, unsigned len)
{
	window_read(owner, off, data, len);
}

static void low_write(void *owner, u64 off, const void *data, unsigned len)
{
	window_write(owner, off, data, len);
}

static void high_read(void *owner, u64 off, void *data, unsigned len)
{
	window_read(owner, INTERRUPT_END + off, data, len);
}

static void high_write(void *owner, u64 off, const void *data, unsigned len)
{
	window_write(owner, INTERRUPT_END + off, data, len);
}

/* The two registers of every interrupt. No lock: they are one atomic word. */
static void interrupt_read(void *owner, u64 off, void *data, unsigned len)
{
	struct mmio *mmio = owner;
	u32 value = off == 0 ? atomic_load(&mmio->dev->isr) : 0;

	if (len == 4 && off % 4 == 0)
		memcpy(data, &value, 4);
}

static void interrupt_write(void *owner, u64 off, const void *data, unsigned len)
{
	struct mmio *mmio = owner;
	u32 value;

	if (len != 4 || off != INTERRUPT_ACK - INTERRUPT_STATUS)
		return;
	memcpy(&value, data, 4);
	atomic_fetch_and(&mmio->dev->isr, ~value);
}

int mmio_map(struct mmio *mmio, struct device *dev, struct bus *bus, u64 base, struct err *err)
{
	const struct bus_entry part[] = {
		{ .len = INTERRUPT_STATUS, .read = low_read, .write = low_write },
		{ .len = INTERRUPT_END - INTERRUPT_STATUS,
		  .read = interrupt_read,
		  .write = interrupt_write,
		  .lockless = true },
		{ .len = MMIO_WINDOW - INTERRUPT_END, .read = high_read, .write = high_write },
	};
	u64 at = base;

	*mmio = (struct mmio){ .dev = dev };
	for (unsigned i = 0; i < ARRAY_SIZE(part); i++) {
		struct bus_entry entry = part[i];
		int r;

		entry.base = at;
		entry.owner = mmio;
		r = bus_add(bus, &entry, err);
		if (r < 0)
			return r;
		at += entry.len;
	}
	return 0;
}
