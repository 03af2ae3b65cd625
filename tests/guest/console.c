/*
 * console: what a guest does with its serial port, and the simplest guest of all.
 *
 *	do=hello	one line, the verdict
 *	do=echo		echoes what is typed in upper case; ends at 'q'
 *	do=flood n=N	N lines of 64 bytes, never waiting for the transmitter
 *	do=count	counts up for ever, one number a line (pause, resume, kill)
 *	do=chatter	the same, all in one line: output that no end of a line hastens
 *	do=deaf		says so, then never reads its input
 *	do=line		reads a line, says how long it was and its checksum
 *	do=uart		the registers: scratch, divisor latch, loopback, FIFO control, every width
 */
#include "guest.h"

#define UART LAYOUT_PORT_SERIAL

static void echo(void)
{
	put("listening\n");
	for (;;) {
		int c = getc();

		if (c < 0) {
			relax();
			continue;
		}
		if (c == 'q')
			return;
		putc(c >= 'a' && c <= 'z' ? (char)(c - 32) : (char)c);
	}
}

static void flood(void)
{
	u64 lines = option("n", 1000);

	for (u64 i = 0; i < lines; i++) {
		for (unsigned c = 0; c < 63; c++)
			out8(UART, (u8)('a' + (i + c) % 26));
		out8(UART, '\n');
	}
	/* The end of the flood must not be among the bytes that may be dropped. */
	put("\nflood over\n");
}

NORETURN static void count_up(void)
{
	for (u64 n = 0;; n++)
		put("count %lu\n", n);
}

NORETURN static void chatter(void)
{
	for (u64 n = 0;; n++)
		put("%lu ", n);
}

NORETURN static void deaf(void)
{
	put("deaf\n");
	for (;;)
		relax();
}

static void line(void)
{
	u32 n = 0, sum = 0;
	int c;

	put("listening\n");
	while ((c = getc()) != '\n') {
		if (c < 0)
			continue;
		n++;
		sum = sum * 31 + (u32)c;
	}
	put("line %u %x\n", n, sum);
}

static void divisor_latch(void)
{
	u8 lcr = in8(UART + 3);

	out8(UART + 3, lcr | 0x80);
	out8(UART + 0, 0x0c);
	out8(UART + 1, 0x01);
	CHECK(in8(UART + 0) == 0x0c && in8(UART + 1) == 0x01, "divisor latch keeps its value");
	out8(UART + 0, 1);
	out8(UART + 1, 0);
	out8(UART + 3, lcr & 0x7f);
	CHECK(!(in8(UART + 3) & 0x80), "line control gives up the latch");
}

static void loopback(void)
{
	u8 mcr = in8(UART + 4);

	out8(UART + 4, 0x10);
	out8(UART, 0x5a);
	CHECK(in8(UART + 5) & 1, "loopback: a byte is there");
	CHECK(in8(UART) == 0x5a, "loopback: it is the byte that was sent");
	out8(UART + 4, 0x1a); /* loops RTS and OUT2 back to CTS and DCD */
	CHECK((in8(UART + 6) & 0xf0) == 0x90, "loopback: modem status %x", (u32)in8(UART + 6));
	out8(UART + 4, mcr & 0x0f);
}

static void uart(void)
{
	static const u8 patterns[] = { 0x00, 0xff, 0x55, 0xaa };

	for (unsigned i = 0; i < ARRAY_SIZE(patterns); i++) {
		out8(UART + 7, patterns[i]);
		CHECK(in8(UART + 7) == patterns[i], "scratch register %x", (u32)patterns[i]);
	}
	divisor_latch();
	loopback();
	out8(UART + 2, 1);
	CHECK((in8(UART + 2) & 0xc0) == 0xc0, "FIFO enabled shows: %x", (u32)in8(UART + 2));
	out8(UART + 2, 7);
	out8(UART + 1, 0x0f);
	CHECK(in8(UART + 1) == 0x0f, "interrupt enable keeps four bits");
	out8(UART + 1, 0xff);
	CHECK(!(in8(UART + 1) & 0xf0), "interrupt enable has no more than four bits");
	out8(UART + 1, 2);
	CHECK((in8(UART + 2) & 0x0f) == 2, "transmitter empty is the pending interrupt");
	CHECK((in8(UART + 2) & 0x0f) == 1, "reading it acknowledges it");
	out8(UART + 1, 0);
	/* Wider than the registers are, and beyond them: whatever it gives, nothing may break. */
	for (u16 at = UART; at < UART + 8; at++) {
		in16(at);
		in32(at);
		if (at > UART + 1) /* not the transmitter: it would print */
			out32(at, 0);
	}
	out8(UART + 3, 3);
	out8(UART + 4, 0x08);
}

void guest(void)
{
	if (option_is("do", "echo")) {
		echo();
	} else if (option_is("do", "flood")) {
		flood();
	} else if (option_is("do", "count")) {
		count_up();
	} else if (option_is("do", "chatter")) {
		chatter();
	} else if (option_is("do", "deaf")) {
		deaf();
	} else if (option_is("do", "line")) {
		line();
	} else if (option_is("do", "uart")) {
		uart();
	} else {
		put("hello from the guest: %s\n", command_line);
	}
	CHECK(true, "came to the end");
}
