/*
 * keyboard: the keyboard controller.
 *
 *	do=keys		prints every scan code that comes, until `n` have come
 *	do=irq		the same, halting for the keyboard's interrupt
 *	do=commands	the controller's own commands
 *	do=fuzz n=N	N pseudo-random accesses, none of them the reset
 */
#include "guest.h"

#define STATUS 0x64
#define DATA   0x60
#define VECTOR 35
#define LOOKS  20000u

static bool data_there(void)
{
	return in8(STATUS) & 1;
}

static int answer(void)
{
	for (u32 looks = LOOKS; looks; looks--) {
		if (data_there())
			return in8(DATA);
		relax();
	}
	return -1;
}

static void drain(void)
{
	for (u32 i = 0; i < 64 && data_there(); i++)
		in8(DATA);
}

static void keys(bool wait)
{
	u64 n = option("n", 4);

	if (wait) {
		irq_init();
		ioapic_route(LAYOUT_GSI_KEYBOARD, VECTOR, false, false);
	}
	out8(STATUS, 0x60); /* keyboard on, its interrupt on, no translation */
	out8(DATA, 0x01);
	put("listening\n");
	for (u64 i = 0; i < n;) {
		if (data_there()) {
			put("key %x\n", (u32)in8(DATA));
			i++;
		} else if (wait) {
			irq_window(true);
		}
	}
	/* Keys that were there before the first look: their interrupt may still be on its way. */
	while (wait && !irq_count[VECTOR])
		irq_window(true);
	CHECK(true, "keys came with interrupts");
}

static void expect(int want, const char *what)
{
	int got = answer();

	CHECK(got == want, "%s: %x, not %x", what, (u32)got, (u32)want);
}

static void commands(void)
{
	drain();
	out8(STATUS, 0xaa);
	expect(0x55, "self test");
	out8(STATUS, 0xab);
	expect(0x00, "port test");
	out8(STATUS, 0x60);
	out8(DATA, 0x45);
	out8(STATUS, 0x20);
	expect(0x45, "command byte");
	out8(STATUS, 0xad); /* off and on again */
	out8(STATUS, 0xae);
	out8(DATA, 0xff);
	expect(0xfa, "keyboard reset");
	expect(0xaa, "keyboard test");
	expect(-1, "nothing more to say");
}

static void fuzz(void)
{
	u64 n = option("n", 2000);
	u32 random = 12345;

	for (u64 i = 0; i < n; i++) {
		u8 v;

		random = random * 1103515245 + 12345;
		v = (u8)(random >> 16);
		if (random >> 30 == 0)
			in8(random & 1 << 12 ? DATA : STATUS);
		else if (random >> 30 == 1)
			out8(DATA, v);
		else if (v < 0xf0 && v != 0xd1) /* pulses reset; so does the output port's bit 0 */
			out8(STATUS, v);
		in8(STATUS);
	}
	CHECK(true, "still here");
}

void guest(void)
{
	if (option_is("do", "keys"))
		keys(false);
	else if (option_is("do", "irq"))
		keys(true);
	else if (option_is("do", "commands"))
		commands();
	else if (option_is("do", "fuzz"))
		fuzz();
	else
		CHECK(false, "do= says nothing known");
}
