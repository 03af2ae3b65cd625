/*
 * irq: interrupts from the devices through the IOAPIC to a processor.
 *
 *	do=ioapic	the IOAPIC's own registers
 *	do=serial	the transmitter's interrupt: masked, unmasked, again and again
 *	do=device	completions of an entropy request, n=N times, halting for each
 *	do=cpu1		the same, routed to the second processor
 *	do=input	halts until a character comes; ends at 'q'
 */
#include "guest.h"

#define SERIAL_VECTOR 33
#define DEVICE_VECTOR 34
#define LOOKS	      1000000u

static struct vrings rings;
static u8 buffer[64];
static u32 ap_ready, ap_woken;

static void ioapic_registers(void)
{
	u32 version = ioapic_read(1);
	unsigned pins = (version >> 16 & 0xff) + 1;

	CHECK(pins > LAYOUT_GSI_VIRTIO - 1 && pins <= 64, "IOAPIC has %u pins", pins);
	CHECK((version & 0xff) >= 0x11 && (version & 0xff) <= 0x20, "version %x", version & 0xff);
	for (unsigned pin = 0; pin < pins; pin++)
		CHECK(ioapic_read(0x10 + 2 * pin) & 1u << 16, "pin %u starts masked", pin);
	for (unsigned pin = 0; pin < pins; pin++) {
		ioapic_write(0x11 + 2 * pin, pin << 24);
		ioapic_write(0x10 + 2 * pin, 0x10000 | (32 + pin));
	}
	for (unsigned pin = 0; pin < pins; pin++) {
		CHECK(ioapic_read(0x10 + 2 * pin) == (0x10000 | (32 + pin)), "pin %u low", pin);
		CHECK(ioapic_read(0x11 + 2 * pin) == pin << 24, "pin %u high", pin);
	}
	/* Read-only bits, registers that are not there, other widths: nothing may break. */
	ioapic_write(0x10, 0xffffffff);
	CHECK(!(ioapic_read(0x10) & (1u << 12 | 1u << 14)), "delivery status is read-only");
	ioapic_write(0x10, 0x10000);
	for (unsigned i = 0; i < 256; i++)
		ioapic_read(i);
	for (unsigned i = 0x10 + 2 * pins; i < 256; i++)
		ioapic_write(i, 0xffffffff);
	for (unsigned size = 1; size <= 8; size *= 2) {
		for (u64 at = LAYOUT_IOAPIC; at < LAYOUT_IOAPIC + 0x100; at += size)
			mmio_read(at, size);
	}
	CHECK(ioapic_read(1) == version, "version is still the same");
}

/* Lets interrupts in until `vector` was counted up to `n`. */
static bool wait_count(unsigned vector, u32 n)
{
	for (u32 looks = LOOKS; looks; looks--) {
		if (irq_count[vector] >= n)
			return true;
		irq_window(false);
	}
	return false;
}

static void serial(void)
{
	u32 n = (u32)option("n", 5);

	irq_init();
	ioapic_route(LAYOUT_GSI_SERIAL, SERIAL_VECTOR, false, true);
	out8(LAYOUT_PORT_SERIAL + 4, 0x08); /* OUT2 lets the interrupt out */
	out8(LAYOUT_PORT_SERIAL + 1, 0);
	for (unsigned i = 0; i < 100; i++)
		irq_window(false);
	CHECK(irq_count[SERIAL_VECTOR] == 0, "no interrupt while masked");
	ioapic_route(LAYOUT_GSI_SERIAL, SERIAL_VECTOR, false, false);
	for (u32 i = 1; i <= n; i++) {
		out8(LAYOUT_PORT_SERIAL + 1, 2); /* the transmitter is empty: an edge */
		CHECK(wait_count(SERIAL_VECTOR, i), "interrupt %u of the transmitter", i);
		CHECK((in8(LAYOUT_PORT_SERIAL + 2) & 0xf) == 2, "it says what it was");
		out8(LAYOUT_PORT_SERIAL + 1, 0);
	}
	for (unsigned i = 0; i < 100; i++)
		irq_window(false);
	CHECK(irq_count[SERIAL_VECTOR] <= n + 1, "%u interrupts for %u", irq_count[SERIAL_VECTOR], n);
}

static void request(struct vio *vio)
{
	vio_desc(vio, 0, (u64)buffer, sizeof(buffer), VD_WRITE, 0);
	vio_offer(vio, 0);
	vio_kick(vio);
}

static void acknowledge(struct vio *vio, u32 i)
{
	u32 isr = read32(vio->base + VIO_ISR);

	CHECK(isr == 1, "interrupt status %x at request %u", isr, i);
	write32(vio->base + VIO_ACK, isr);
	CHECK(read32(vio->base + VIO_ISR) == 0, "acknowledged at request %u", i);
}

static void device(void)
{
	u32 n = (u32)option("n", 20), id, len;
	struct vio vio;

	irq_init();
	CHECK(vio_find(&vio, VIO_ID_RNG, 0), "an entropy device");
	CHECK(vio_init(&vio, &rings, 8, 1ull << VIO_F_VERSION_1), "the device starts");
	ioapic_route(vio.irq, DEVICE_VECTOR, false, false);
	for (u32 i = 1; i <= n; i++) {
		request(&vio);
		/* Halting is the point: nothing but the interrupt can end it. */
		while (irq_count[DEVICE_VECTOR] < i)
			irq_window(true);
		CHECK(vio_wait(&vio, &id, &len) && len == sizeof(buffer), "completion %u", i);
		acknowledge(&vio, i);
	}
	CHECK(irq_count[DEVICE_VECTOR] == n, "%u interrupts for %u", irq_count[DEVICE_VECTOR], n);
	/* Asked not to, the device does not interrupt. */
	rings.avail.flags = 1;
	request(&vio);
	CHECK(vio_wait(&vio, &id, &len), "completion without an interrupt");
	for (unsigned i = 0; i < 100; i++)
		irq_window(false);
	CHECK(irq_count[DEVICE_VECTOR] == n, "no interrupt when none is wanted");
}

void ap_main(unsigned ticket)
{
	(void)ticket;
	write32(LAYOUT_LAPIC + 0xf0, 0x1ff);
	irq_init();
	atomic_add(&ap_ready, 1);
	while (!irq_count[DEVICE_VECTOR])
		irq_window(true);
	atomic_add(&ap_woken, 1);
}

static void cpu1(void)
{
	struct vio vio;
	u32 id, len;

	aps_start(1);
	CHECK(vio_find(&vio, VIO_ID_RNG, 0), "an entropy device");
	CHECK(vio_init(&vio, &rings, 8, 1ull << VIO_F_VERSION_1), "the device starts");
	for (u32 looks = LOOKS; !READ_ONCE(ap_ready) && looks; looks--)
		relax();
	ioapic_write(0x11 + 2 * vio.irq, 1u << 24);
	ioapic_write(0x10 + 2 * vio.irq, DEVICE_VECTOR);
	request(&vio);
	CHECK(vio_wait(&vio, &id, &len), "completion");
	for (u32 looks = 100 * LOOKS; !READ_ONCE(ap_woken) && looks; looks--)
		relax();
	CHECK(READ_ONCE(ap_woken) == 1, "the second processor was interrupted");
}

static void input(void)
{
	int c = 0;

	irq_init();
	ioapic_route(LAYOUT_GSI_SERIAL, SERIAL_VECTOR, false, false);
	out8(LAYOUT_PORT_SERIAL + 4, 0x08);
	out8(LAYOUT_PORT_SERIAL + 1, 1);
	put("listening\n");
	while (c != 'q') {
		c = getc();
		if (c < 0)
			irq_window(true);
		else
			put("got %c\n", c);
	}
	/* Input that was there before the first look: its interrupt may still be on its way. */
	while (!irq_count[SERIAL_VECTOR])
		irq_window(true);
	CHECK(true, "input came with interrupts");
}

void guest(void)
{
	if (option_is("do", "ioapic"))
		ioapic_registers();
	else if (option_is("do", "serial"))
		serial();
	else if (option_is("do", "device"))
		device();
	else if (option_is("do", "cpu1"))
		cpu1();
	else if (option_is("do", "input"))
		input();
	else
		CHECK(false, "do= says nothing known");
}
