/*
 * mmio_regs: virtio-mmio version 2 as a driver sees it (virtio 1.2, 4.2.2), spelled a second time.
 */
#ifndef TEST_MMIO_REGS_H
#define TEST_MMIO_REGS_H

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
	QUEUE_NOTIFY = 0x50,
	INTERRUPT_STATUS = 0x60,
	INTERRUPT_ACK = 0x64,
	STATUS = 0x70,
	DESC_LOW = 0x80,
	DESC_HIGH = 0x84,
	AVAIL_LOW = 0x90,
	AVAIL_HIGH = 0x94,
	USED_LOW = 0xa0,
	USED_HIGH = 0xa4,
	SHM_SEL = 0xac,
	SHM_LEN_LOW = 0xb0,
	SHM_BASE_HIGH = 0xbc,
	QUEUE_RESET = 0xc0,
	GENERATION = 0xfc,
	CONFIG = 0x100,
};

#endif
