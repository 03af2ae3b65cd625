/*
 * ends: every way in which a guest can end, or not end.
 *
 *	do=off		ACPI S5 through the sleep control register
 *	do=sleep	every other value in that register: must not end the machine
 *	do=reset	ACPI reset register
 *	do=noreset	every other value in that register: must not end the machine
 *	do=i8042	reset through the keyboard controller
 *	do=triple	triple fault
 *	do=lost		jumps to where there is no memory
 *	do=halt		halts with interrupts off
 *	do=wait		halts with interrupts on, nothing will ever come
 *	do=spin		runs in a circle
 *	do=timer	writes the boot timer (not with magic=0), then `n` other values to it
 * With ap=1 a second processor does it, while the first spins.
 */
#include "guest.h"

static void sleep_otherwise(void)
{
	for (unsigned type = 0; type < 8; type++) {
		out8(LAYOUT_PORT_ACPI_SLEEP, (u8)(type << 2)); /* without the enable bit */
		if (type != LAYOUT_ACPI_S5_TYPE)
			out8(LAYOUT_PORT_ACPI_SLEEP, (u8)(type << 2 | 1 << 5));
	}
	CHECK(!(in8(LAYOUT_PORT_ACPI_WAKE) & 0x7f), "sleep status is clear");
	CHECK(true, "still awake");
}

static void reset_otherwise(void)
{
	for (unsigned v = 0; v < 256; v++) {
		if (v != LAYOUT_ACPI_RESET_VALUE)
			out8(LAYOUT_PORT_ACPI_RESET, (u8)v);
	}
	CHECK(true, "still running");
}

static void undead(void)
{
	out8(LAYOUT_PORT_ACPI_SLEEP, LAYOUT_ACPI_S5_TYPE << 2 | 1 << 5);
	out8(LAYOUT_PORT_SERIAL, 0x21); /* the very next instruction, before anybody can have parked us */
}

static void lost(void)
{
	void (*nowhere)(void) = (void (*)(void))0xd0000000;

	nowhere();
}

static void timer(void)
{
	if (option("magic", 1))
		mmio_write(LAYOUT_BOOT_TIMER, 123, 1);
	for (u64 i = 0; i < option("n", 0); i++) {
		mmio_write(LAYOUT_BOOT_TIMER + i % 0x1000, i % 123, 1);
		mmio_write(LAYOUT_BOOT_TIMER + (i % 0x200) * 8, i, 8);
	}
	CHECK(true, "the timer was written");
}

static void act(void)
{
	put("now\n");
	if (option_is("do", "off"))
		end_acpi_off();
	else if (option_is("do", "reset"))
		end_acpi_reset();
	else if (option_is("do", "i8042"))
		end_i8042();
	else if (option_is("do", "triple"))
		end_triple_fault();
	else if (option_is("do", "undead"))
		undead();
	else if (option_is("do", "lost"))
		lost();
	else if (option_is("do", "halt"))
		halt_forever();
	else if (option_is("do", "sleep"))
		sleep_otherwise();
	else if (option_is("do", "noreset"))
		reset_otherwise();
	else if (option_is("do", "timer"))
		timer();
	else if (option_is("do", "wait"))
		for (;;)
			irq_window(true);
	else if (option_is("do", "spin"))
		for (;;)
			relax();
	else
		CHECK(false, "do= says nothing known");
}

void ap_main(unsigned ticket)
{
	if (ticket == 1)
		act();
	halt_forever();
}

void guest(void)
{
	if (option_is("do", "wait"))
		irq_init();
	if (!option("ap", 0)) {
		act();
		return;
	}
	aps_start(1);
	for (;;)
		relax();
}
