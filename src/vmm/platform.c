/* platform: see platform.h. ACPI 6.5, sections 4.8.3.6 (reset) and 4.8.3.7 (sleep control). */
#include "platform.h"

#include "../boot/layout.h"

#define SLEEP_ENABLE	 0x20
#define SLEEP_TYPE_SHIFT 2
#define SLEEP_TYPE_MASK	 7

#define BOOT_TIMER_LEN	 0x1000
#define BOOT_TIMER_MAGIC 123

static void sleep_write(void *owner, u64 off, const void *data, unsigned len)
{
	struct platform *p = owner;
	u8 value = *(const u8 *)data;

	(void)off, (void)len;
	if ((value & SLEEP_ENABLE) &&
	    (value >> SLEEP_TYPE_SHIFT & SLEEP_TYPE_MASK) == LAYOUT_ACPI_S5_TYPE)
		p->power_off(p->owner);
}

static void reset_write(void *owner, u64 off, const void *data, unsigned len)
{
	struct platform *p = owner;

	(void)off, (void)len;
	if (*(const u8 *)data == LAYOUT_ACPI_RESET_VALUE)
		p->reset(p->owner);
}

static void boot_timer_write(void *owner, u64 off, const void *data, unsigned len)
{
	struct platform *p = owner;

	if (off == 0 && len == 1 && *(const u8 *)data == BOOT_TIMER_MAGIC)
		p->booted(p->owner);
}

/* The sleep registers are always awake and the reset register holds nothing. */
static void read_zero(void *owner, u64 off, void *data, unsigned len)
{
	(void)owner, (void)off;
	memset(data, 0, len);
}

static void write_nothing(void *owner, u64 off, const void *data, unsigned len)
{
	(void)owner, (void)off, (void)data, (void)len;
}

int platform_init(struct platform *p, struct bus *port, struct bus *mmio, bool boot_timer,
		  struct err *err)
{
	const struct bus_entry timer = { .base = LAYOUT_BOOT_TIMER,
					 .len = BOOT_TIMER_LEN,
					 .read = read_zero,
					 .write = boot_timer_write,
					 .owner = p };
	const struct {
		u64 base;
		bus_write_fn *write;
	} regs[] = {
		{ LAYOUT_PORT_ACPI_SLEEP, sleep_write },
		{ LAYOUT_PORT_ACPI_WAKE, write_nothing },
		{ LAYOUT_PORT_ACPI_RESET, reset_write },
	};
	int r = 0;

	for (unsigned i = 0; i < ARRAY_SIZE(regs) && !r; i++) {
		struct bus_entry entry = { .base = regs[i].base,
					   .len = 1,
					   .read = read_zero,
					   .write = regs[i].write,
					   .owner = p };

		r = bus_add(port, &entry, err);
	}
	if (!r && boot_timer)
		r = bus_add(mmio, &timer, err);
	return r;
}
