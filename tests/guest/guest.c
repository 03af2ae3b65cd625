/*
 * guest: the runtime of the test guests. See guest.h.
 *
 * No library below it; gcc may still call memcpy, memset and memcmp, so they are here too.
 */
#include "guest.h"

#define LOOKS 20000000u /* how often a poll looks before it gives up: minutes where interpreted */

char command_line[LAYOUT_CMDLINE_MAX];
u64 boot_info;
bool boot_pvh;
u32 irq_count[64];

static u32 checks, failed;

/* ---- memory and strings ---------------------------------------------------------------------- */

void *memcpy(void *to, const void *from, size_t n)
{
	void *d = to;

	__asm__ volatile("rep movsb" : "+D"(d), "+S"(from), "+c"(n) : : "memory");
	return to;
}

void *memset(void *to, int byte, size_t n)
{
	void *d = to;

	__asm__ volatile("rep stosb" : "+D"(d), "+c"(n) : "a"(byte) : "memory");
	return to;
}

int memcmp(const void *a, const void *b, size_t n)
{
	const u8 *x = a, *y = b;

	for (; n; n--, x++, y++) {
		if (*x != *y)
			return *x < *y ? -1 : 1;
	}
	return 0;
}

bool str_eq(const char *a, const char *b)
{
	while (*a && *a == *b) {
		a++;
		b++;
	}
	return *a == *b;
}

/* ---- memory-mapped registers ------------------------------------------------------------------- */

u64 mmio_read(u64 addr, unsigned size)
{
	u8 b;
	u16 w;
	u32 l;
	u64 q;

	switch (size) {
	case 1:
		__asm__ volatile("movb (%1), %0" : "=q"(b) : "r"(addr) : "memory");
		return b;
	case 2:
		__asm__ volatile("movw (%1), %0" : "=r"(w) : "r"(addr) : "memory");
		return w;
	case 4:
		__asm__ volatile("movl (%1), %0" : "=r"(l) : "r"(addr) : "memory");
		return l;
	default:
		__asm__ volatile("movq (%1), %0" : "=r"(q) : "r"(addr) : "memory");
		return q;
	}
}

void mmio_write(u64 addr, u64 value, unsigned size)
{
	switch (size) {
	case 1:
		__asm__ volatile("movb %0, (%1)" : : "q"((u8)value), "r"(addr) : "memory");
		break;
	case 2:
		__asm__ volatile("movw %0, (%1)" : : "r"((u16)value), "r"(addr) : "memory");
		break;
	case 4:
		__asm__ volatile("movl %0, (%1)" : : "r"((u32)value), "r"(addr) : "memory");
		break;
	default:
		__asm__ volatile("movq %0, (%1)" : : "r"(value), "r"(addr) : "memory");
	}
}

/* ---- console ----------------------------------------------------------------------------------- */

void putc(char c)
{
	while (!(in8(LAYOUT_PORT_SERIAL + 5) & 0x20))
		relax();
	out8(LAYOUT_PORT_SERIAL, (u8)c);
}

int getc(void)
{
	if (!(in8(LAYOUT_PORT_SERIAL + 5) & 1))
		return -1;
	return in8(LAYOUT_PORT_SERIAL);
}

static void put_number(u64 n, unsigned base)
{
	char digits[24];
	unsigned i = sizeof(digits);

	digits[--i] = 0;
	do {
		digits[--i] = "0123456789abcdef"[n % base];
		n /= base;
	} while (n);
	while (digits[i])
		putc(digits[i++]);
}

static void put_args(const char *fmt, va_list args)
{
	for (; *fmt; fmt++) {
		bool wide = fmt[0] == '%' && fmt[1] == 'l';

		if (*fmt != '%') {
			putc(*fmt);
			continue;
		}
		fmt += wide ? 2 : 1;
		if (*fmt == 's') {
			for (const char *s = va_arg(args, const char *); *s; s++)
				putc(*s);
		} else if (*fmt == 'c') {
			putc((char)va_arg(args, int));
		} else {
			put_number(wide ? va_arg(args, u64) : va_arg(args, u32),
				   *fmt == 'x' ? 16 : 10);
		}
	}
}

void put(const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	put_args(fmt, args);
	va_end(args);
}

void check_at(bool holds, const char *fmt, ...)
{
	va_list args;

	checks++;
	if (holds)
		return;
	failed++;
	put("FAILED ");
	va_start(args, fmt);
	put_args(fmt, args);
	va_end(args);
	putc('\n');
}

NORETURN void finish(void)
{
	put("checks %u failed %u\n", checks, failed);
	end_i8042();
}

/* ---- command line ------------------------------------------------------------------------------ */

const char *option_find(const char *name, unsigned nth)
{
	const char *at = command_line;

	while (*at) {
		const char *n = name;

		while (*at == ' ')
			at++;
		while (*n && *at == *n) {
			at++;
			n++;
		}
		if (!*n && *at == '=' && nth-- == 0)
			return at + 1;
		while (*at && *at != ' ')
			at++;
	}
	return NULL;
}

bool option_is(const char *name, const char *value)
{
	const char *at = option_find(name, 0);

	if (!at)
		return false;
	while (*value && *at == *value) {
		at++;
		value++;
	}
	return !*value && (!*at || *at == ' ');
}

static int digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	return 99;
}

u64 parse_number(const char **at)
{
	int base = 10;
	u64 n = 0;

	if ((*at)[0] == '0' && (*at)[1] == 'x') {
		base = 16;
		*at += 2;
	}
	for (; digit(**at) < base; (*at)++)
		n = n * (u64)base + (u64)digit(**at);
	return n;
}

u64 option(const char *name, u64 otherwise)
{
	const char *at = option_find(name, 0);

	return at ? parse_number(&at) : otherwise;
}

/* ---- ways to end ------------------------------------------------------------------------------- */

NORETURN void halt_forever(void)
{
	for (;;)
		__asm__ volatile("cli; hlt");
}

NORETURN void end_i8042(void)
{
	out8(LAYOUT_PORT_I8042_CMD, 0xfe);
	halt_forever();
}

NORETURN void end_acpi_off(void)
{
	out8(LAYOUT_PORT_ACPI_SLEEP, LAYOUT_ACPI_S5_TYPE << 2 | 1 << 5);
	halt_forever();
}

NORETURN void end_acpi_reset(void)
{
	out8(LAYOUT_PORT_ACPI_RESET, LAYOUT_ACPI_RESET_VALUE);
	halt_forever();
}

/* An exception without an interrupt table, without a handler for that, is a shutdown. */
NORETURN void end_triple_fault(void)
{
	struct __attribute__((packed)) {
		u16 limit;
		u64 base;
	} none = { 0, 0 };

	__asm__ volatile("lidt %0; ud2" : : "m"(none));
	halt_forever();
}

/* ---- processors and interrupts --------------------------------------------------------------- */

extern const u8 ap_begin[], ap_end[], irq_stubs[];
void guest_main(u64 info, u32 pvh);

struct __attribute__((packed)) gate {
	u16 low;
	u16 selector;
	u8 ist;
	u8 type;
	u16 mid;
	u32 high;
	u32 zero;
};

static struct gate idt[64] __attribute__((aligned(16)));

#define AP_PAGE 0x8000

u32 apic_id(void)
{
	return read32(LAYOUT_LAPIC + 0x20) >> 24;
}

static void ipi(u32 command)
{
	write32(LAYOUT_LAPIC + 0x310, 0);
	write32(LAYOUT_LAPIC + 0x300, command);
	while (read32(LAYOUT_LAPIC + 0x300) & 1 << 12)
		relax();
}

void aps_start(unsigned n)
{
	if (!n)
		return;
	write32(LAYOUT_LAPIC + 0xf0, 0x1ff);
	memcpy((void *)AP_PAGE, ap_begin, (size_t)(ap_end - ap_begin));
	ipi(0xc4500); /* INIT, all but self */
	ipi(0xc4600 | AP_PAGE >> 12);
	ipi(0xc4600 | AP_PAGE >> 12);
}

__attribute__((weak)) void ap_main(unsigned ticket)
{
	(void)ticket;
}

void irq_init(void)
{
	struct __attribute__((packed)) {
		u16 limit;
		u64 base;
	} pointer = { sizeof(idt) - 1, (u64)idt };

	for (unsigned v = 0; v < ARRAY_SIZE(idt); v++) {
		u64 at = (u64)irq_stubs + 16 * v;

		idt[v] = (struct gate){ .low = (u16)at, .selector = 8, .type = 0x8e,
					.mid = (u16)(at >> 16), .high = (u32)(at >> 32) };
	}
	__asm__ volatile("lidt %0" : : "m"(pointer));
	out8(0x21, 0xff); /* should there be a PIC: not now */
	out8(0xa1, 0xff);
	write32(LAYOUT_LAPIC + 0xf0, 0x1ff);
	write32(LAYOUT_LAPIC + 0x80, 0);
}

u32 ioapic_read(unsigned index)
{
	write32(LAYOUT_IOAPIC, index);
	return read32(LAYOUT_IOAPIC + 0x10);
}

void ioapic_write(unsigned index, u32 value)
{
	write32(LAYOUT_IOAPIC, index);
	write32(LAYOUT_IOAPIC + 0x10, value);
}

void ioapic_route(unsigned pin, unsigned vector, bool level, bool masked)
{
	ioapic_write(0x10 + 2 * pin + 1, apic_id() << 24);
	ioapic_write(0x10 + 2 * pin, vector | (level ? 1u << 15 : 0) | (masked ? 1u << 16 : 0));
}

/* ---- start -------------------------------------------------------------------------------------- */

static u64 peek(u64 addr, unsigned size)
{
	return mmio_read(addr, size);
}

static void copy_command_line(void)
{
	const char *from;

	if (boot_pvh)
		from = (const char *)peek(boot_info + 24, 8);
	else
		from = (const char *)(peek(boot_info + 0x228, 4) | peek(boot_info + 0xc8, 4) << 32);
	for (unsigned i = 0; i + 1 < sizeof(command_line) && from[i]; i++)
		command_line[i] = from[i];
}

void guest_main(u64 info, u32 pvh)
{
	boot_info = info;
	boot_pvh = pvh;
	copy_command_line();
	guest();
	finish();
}

/* ---- virtio-mmio --------------------------------------------------------------------------------- */

bool vio_find(struct vio *vio, u32 virtio_id, unsigned nth)
{
	const char *at;

	/* Each word is <size>K@0x<address>:<line>. */
	for (unsigned i = 0; (at = option_find("virtio_mmio.device", i)); i++) {
		parse_number(&at);
		at += 2;
		vio->base = parse_number(&at);
		at++;
		vio->irq = (unsigned)parse_number(&at);
		if (read32(vio->base + VIO_DEVICE) == virtio_id && nth-- == 0)
			return true;
	}
	return false;
}

u64 vio_features(struct vio *vio)
{
	u64 low;

	write32(vio->base + VIO_DEV_FEATURES_SEL, 0);
	low = read32(vio->base + VIO_DEV_FEATURES);
	write32(vio->base + VIO_DEV_FEATURES_SEL, 1);
	return low | (u64)read32(vio->base + VIO_DEV_FEATURES) << 32;
}

u32 vio_status(struct vio *vio)
{
	return read32(vio->base + VIO_STATUS);
}

bool vio_begin(struct vio *vio, u64 features)
{
	u64 b = vio->base;

	write32(b + VIO_STATUS, 0);
	if (vio_status(vio))
		return false;
	write32(b + VIO_STATUS, VIO_S_ACK);
	write32(b + VIO_STATUS, VIO_S_ACK | VIO_S_DRIVER);
	write32(b + VIO_DRV_FEATURES_SEL, 0);
	write32(b + VIO_DRV_FEATURES, (u32)features);
	write32(b + VIO_DRV_FEATURES_SEL, 1);
	write32(b + VIO_DRV_FEATURES, (u32)(features >> 32));
	write32(b + VIO_STATUS, VIO_S_ACK | VIO_S_DRIVER | VIO_S_FEATURES);
	vio->avail_idx = 0;
	vio->used_seen = 0;
	return vio_status(vio) & VIO_S_FEATURES;
}

void vio_queue_at(struct vio *vio, u64 desc, u64 avail, u64 used, unsigned size)
{
	u64 b = vio->base;

	vio->size = size;
	write32(b + VIO_QUEUE_SEL, vio->queue);
	write32(b + VIO_QUEUE_NUM, size);
	write32(b + VIO_DESC_LO, (u32)desc);
	write32(b + VIO_DESC_HI, (u32)(desc >> 32));
	write32(b + VIO_AVAIL_LO, (u32)avail);
	write32(b + VIO_AVAIL_HI, (u32)(avail >> 32));
	write32(b + VIO_USED_LO, (u32)used);
	write32(b + VIO_USED_HI, (u32)(used >> 32));
	write32(b + VIO_QUEUE_READY, 1);
}

void vio_queue(struct vio *vio, struct vrings *rings, unsigned size)
{
	vio->rings = rings;
	memset(rings, 0, sizeof(*rings));
	vio_queue_at(vio, (u64)rings->desc, (u64)&rings->avail, (u64)&rings->used, size);
}

void vio_go(struct vio *vio)
{
	write32(vio->base + VIO_STATUS, VIO_S_ACK | VIO_S_DRIVER | VIO_S_FEATURES | VIO_S_OK);
}

bool vio_init(struct vio *vio, struct vrings *rings, unsigned size, u64 features)
{
	if (!vio_begin(vio, features))
		return false;
	vio_queue(vio, rings, size);
	vio_go(vio);
	return !(vio_status(vio) & VIO_S_BROKEN);
}

void vio_desc(struct vio *vio, unsigned i, u64 addr, u32 len, u16 flags, u16 next)
{
	vio->rings->desc[i] = (struct vdesc){ addr, len, flags, next };
}

void vio_offer(struct vio *vio, u16 head)
{
	vio->rings->avail.ring[vio->avail_idx % vio->size] = head;
	barrier();
	vio->avail_idx++;
	WRITE_ONCE(vio->rings->avail.idx, vio->avail_idx);
}

void vio_kick(struct vio *vio)
{
	full_barrier();
	write32(vio->base + VIO_NOTIFY, vio->queue);
}

bool vio_wait(struct vio *vio, u32 *id, u32 *len)
{
	struct vused *used = &vio->rings->used;
	u32 looks = LOOKS;

	while (READ_ONCE(used->idx) == vio->used_seen) {
		if (!--looks)
			return false;
		relax();
	}
	barrier();
	*id = used->ring[vio->used_seen % vio->size].id;
	*len = used->ring[vio->used_seen % vio->size].len;
	vio->used_seen++;
	return true;
}

bool vio_wait_broken(struct vio *vio)
{
	u32 looks = LOOKS / 64; /* each look is an exit */

	while (!(vio_status(vio) & VIO_S_BROKEN)) {
		if (!--looks)
			return false;
		relax();
	}
	return true;
}

static u8 works_header[16], works_data[512], works_status;

bool vio_works(struct vio *vio, struct vrings *rings)
{
	bool block = read32(vio->base + VIO_DEVICE) == VIO_ID_BLOCK;
	u32 id, len;

	if (!vio_init(vio, rings, 16, 1ull << VIO_F_VERSION_1))
		return false;
	memset(works_header, 0, sizeof(works_header)); /* read sector 0 */
	works_status = 0xee;
	vio_desc(vio, 0, (u64)works_header, sizeof(works_header), VD_NEXT, 1);
	vio_desc(vio, 1, (u64)works_data, sizeof(works_data), VD_WRITE | (block ? VD_NEXT : 0), 2);
	vio_desc(vio, 2, (u64)&works_status, 1, VD_WRITE, 0);
	vio_offer(vio, block ? 0 : 1);
	vio_kick(vio);
	if (!vio_wait(vio, &id, &len) || len < sizeof(works_data))
		return false;
	return !block || works_status == 0;
}
