/*
 * guest: what every test guest is made of - ports, memory-mapped registers, a console, the ways to
 * end, processors, interrupts and a virtio-mmio driver.
 *
 * A guest is one behaviour group; `do=word` on the command line chooses which. It checks what it
 * sees itself (CHECK), prints only what does not hold, and ends with `checks <n> failed <m>`; the
 * Python side reads that. Nothing is taken from Linux or from the monitor's sources but its map of
 * addresses: a guest must not share the monitor's idea of the specification.
 */
#ifndef GUEST_H
#define GUEST_H

#include "../../src/boot/layout.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))
#define NORETURN      __attribute__((noreturn))

/* ---- ports, memory-mapped registers, processor ------------------------------------------------ */

static inline u8 in8(u16 port)
{
	u8 v;

	__asm__ volatile("inb %1, %0" : "=a"(v) : "Nd"(port) : "memory");
	return v;
}

static inline u16 in16(u16 port)
{
	u16 v;

	__asm__ volatile("inw %1, %0" : "=a"(v) : "Nd"(port) : "memory");
	return v;
}

static inline u32 in32(u16 port)
{
	u32 v;

	__asm__ volatile("inl %1, %0" : "=a"(v) : "Nd"(port) : "memory");
	return v;
}

static inline void out8(u16 port, u8 v)
{
	__asm__ volatile("outb %0, %1" : : "a"(v), "Nd"(port) : "memory");
}

static inline void out16(u16 port, u16 v)
{
	__asm__ volatile("outw %0, %1" : : "a"(v), "Nd"(port) : "memory");
}

static inline void out32(u16 port, u32 v)
{
	__asm__ volatile("outl %0, %1" : : "a"(v), "Nd"(port) : "memory");
}

/* `size` 1, 2, 4 or 8; exactly one access of that width. */
u64 mmio_read(u64 addr, unsigned size);
void mmio_write(u64 addr, u64 value, unsigned size);

static inline u32 read32(u64 addr)
{
	u32 v;

	__asm__ volatile("movl (%1), %0" : "=r"(v) : "r"(addr) : "memory");
	return v;
}

static inline void write32(u64 addr, u32 v)
{
	__asm__ volatile("movl %0, (%1)" : : "r"(v), "r"(addr) : "memory");
}

#define READ_ONCE(x)	 (*(const volatile __typeof__(x) *)&(x))
#define WRITE_ONCE(x, v) (*(volatile __typeof__(x) *)&(x) = (v))

/* Orders a store before a later load (MFENCE is not everywhere interpreted). */
static inline void full_barrier(void)
{
	__asm__ volatile("lock orl $0, (%%rsp)" : : : "memory", "cc");
}

static inline void barrier(void)
{
	__asm__ volatile("" : : : "memory");
}

static inline void relax(void)
{
	__asm__ volatile("pause" : : : "memory");
}

static inline void wrmsr(u32 index, u64 value)
{
	__asm__ volatile("wrmsr" : : "c"(index), "a"((u32)value), "d"((u32)(value >> 32)) : "memory");
}

static inline void cpuid(u32 leaf, u32 sub, u32 r[4])
{
	__asm__ volatile("cpuid"
			 : "=a"(r[0]), "=b"(r[1]), "=c"(r[2]), "=d"(r[3])
			 : "a"(leaf), "c"(sub));
}

static inline u32 atomic_add(u32 *to, u32 n)
{
	__asm__ volatile("lock xaddl %0, %1" : "+r"(n), "+m"(*to) : : "memory", "cc");
	return n;
}

/* ---- console, checks, command line ----------------------------------------------------------- */

void putc(char c);
int getc(void);			     /* -1: nothing there */
void put(const char *fmt, ...);	     /* %s %c %u %x, with l for 64 bits */
void check_at(bool holds, const char *fmt, ...);

/* Counts; says `FAILED ...` if it does not hold. */
#define CHECK(holds, ...) check_at((holds), __VA_ARGS__)

NORETURN void finish(void); /* the verdict, then a reset that ends the monitor with 0 */

extern char command_line[LAYOUT_CMDLINE_MAX];

/* `name=value` on the command line. */
bool option_is(const char *name, const char *value);
u64 option(const char *name, u64 otherwise); /* decimal, or hexadecimal with 0x */
const char *option_find(const char *name, unsigned nth); /* the value of the nth such word, or NULL */
u64 parse_number(const char **at);

void *memcpy(void *to, const void *from, size_t n);
void *memset(void *to, int byte, size_t n);
int memcmp(const void *a, const void *b, size_t n);
bool str_eq(const char *a, const char *b);

/* ---- ways to end ------------------------------------------------------------------------------ */

NORETURN void halt_forever(void);
NORETURN void end_i8042(void);
NORETURN void end_acpi_off(void);
NORETURN void end_acpi_reset(void);
NORETURN void end_triple_fault(void);

/* ---- processors and interrupts ------------------------------------------------------------------ */

/* Starts every other processor; each runs ap_main(its number in order of arrival, from 1). */
void aps_start(unsigned n);
void ap_main(unsigned ticket); /* the guest may define it; by default it halts */

u32 apic_id(void);

/* IDT and local APIC ready for vectors 32..63; interrupts come in only inside irq_window(). */
void irq_init(void);
void irq_window(bool halt);
extern u32 irq_count[64];

/* Routes an IOAPIC pin to a vector of this processor. */
void ioapic_route(unsigned pin, unsigned vector, bool level, bool masked);
u32 ioapic_read(unsigned index);
void ioapic_write(unsigned index, u32 value);

/* ---- how we were started --------------------------------------------------------------------- */

extern u64 boot_info;	/* zero page or PVH start info */
extern bool boot_pvh;
extern u64 entry_cr0, entry_cr3, entry_cr4, entry_rsp, entry_rflags, entry_efer;

void guest(void); /* each guest defines it; returning from it is finish() */

/* ---- virtio-mmio ------------------------------------------------------------------------------ */

enum {
	VIO_MAGIC = 0x00,
	VIO_VERSION = 0x04,
	VIO_DEVICE = 0x08,
	VIO_VENDOR = 0x0c,
	VIO_DEV_FEATURES = 0x10,
	VIO_DEV_FEATURES_SEL = 0x14,
	VIO_DRV_FEATURES = 0x20,
	VIO_DRV_FEATURES_SEL = 0x24,
	VIO_QUEUE_SEL = 0x30,
	VIO_QUEUE_MAX = 0x34,
	VIO_QUEUE_NUM = 0x38,
	VIO_QUEUE_READY = 0x44,
	VIO_NOTIFY = 0x50,
	VIO_ISR = 0x60,
	VIO_ACK = 0x64,
	VIO_STATUS = 0x70,
	VIO_DESC_LO = 0x80,
	VIO_DESC_HI = 0x84,
	VIO_AVAIL_LO = 0x90,
	VIO_AVAIL_HI = 0x94,
	VIO_USED_LO = 0xa0,
	VIO_USED_HI = 0xa4,
	VIO_SHM_SEL = 0xac,
	VIO_CONFIG_GEN = 0xfc,
	VIO_CONFIG = 0x100,
};

enum { VIO_S_ACK = 1, VIO_S_DRIVER = 2, VIO_S_OK = 4, VIO_S_FEATURES = 8, VIO_S_BROKEN = 64 };
enum { VIO_ID_NET = 1, VIO_ID_BLOCK = 2, VIO_ID_RNG = 4, VIO_ID_BALLOON = 5, VIO_ID_VSOCK = 19 };
enum { VIO_F_EVENT_IDX = 29, VIO_F_VERSION_1 = 32 };
enum { VD_NEXT = 1, VD_WRITE = 2, VD_INDIRECT = 4 };

struct vdesc {
	u64 addr;
	u32 len;
	u16 flags;
	u16 next;
};

struct vavail {
	u16 flags;
	u16 idx;
	u16 ring[256];
	u16 used_event;
};

struct vused {
	u16 flags;
	u16 idx;
	struct {
		u32 id;
		u32 len;
	} ring[256];
	u16 avail_event;
};

#define VQ_MAX 256

/* The three parts of one ring, where a driver of good faith would put them. */
struct vrings {
	struct vdesc desc[VQ_MAX] __attribute__((aligned(4096)));
	struct vavail avail __attribute__((aligned(4096)));
	struct vused used __attribute__((aligned(4096)));
};

struct vio {
	u64 base;
	unsigned irq;
	struct vrings *rings;
	unsigned queue;	  /* the one this struct drives; a copy of the struct for each */
	unsigned size;	  /* of that queue */
	u16 avail_idx;	  /* ours, not the ring's */
	u16 used_seen;
};

/* The nth device of that kind among the command line's virtio_mmio.device= words. */
bool vio_find(struct vio *vio, u32 virtio_id, unsigned nth);

u64 vio_features(struct vio *vio);
u32 vio_status(struct vio *vio);

/* Reset, acknowledge, features; false if the device refuses them. No queue yet. */
bool vio_begin(struct vio *vio, u64 features);
/* The queue in `rings` with `size` entries, ready. */
void vio_queue(struct vio *vio, struct vrings *rings, unsigned size);
void vio_queue_at(struct vio *vio, u64 desc, u64 avail, u64 used, unsigned size);
void vio_go(struct vio *vio); /* DRIVER_OK */
/* All of it. */
bool vio_init(struct vio *vio, struct vrings *rings, unsigned size, u64 features);

void vio_desc(struct vio *vio, unsigned i, u64 addr, u32 len, u16 flags, u16 next);
void vio_offer(struct vio *vio, u16 head); /* into the available ring, index published */
void vio_kick(struct vio *vio);
/* Waits for the next used entry; false after very many looks. */
bool vio_wait(struct vio *vio, u32 *id, u32 *len);
/* Waits until the device says it is broken. */
bool vio_wait_broken(struct vio *vio);

/* From reset to one good request, on a block or an entropy device: is it still of use? */
bool vio_works(struct vio *vio, struct vrings *rings);

#endif
