/* serial: bytes out in order and never blocking, bytes in with back-pressure, interrupts as edges. */
#include "test.h"

#include "src/boot/layout.h"
#include "src/vmm/serial.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/eventfd.h>

static struct loop *loop;
static struct serial serial;
static struct bus port;
static int irq, in_pipe[2], out_pipe[2];
static struct loop_work stop_work;
static struct loop_timer deadline;

enum { DATA, IER, IIR, LCR, MCR, LSR, MSR, SCR };

static void stop(void *owner)
{
	(void)owner;
	loop_stop(loop, 0);
}

static int setup(void **state)
{
	struct err err;

	(void)state;
	port = (struct bus){ 0 };
	irq = eventfd(0, EFD_NONBLOCK);
	if (loop_create(&loop, &err) < 0 || pipe2(in_pipe, O_NONBLOCK) < 0 ||
	    pipe2(out_pipe, O_NONBLOCK) < 0)
		return -1;
	deadline = (struct loop_timer){ .expired = stop };
	stop_work = (struct loop_work){ .run = stop };
	if (loop_timer_init(loop, &deadline) < 0 ||
	    serial_init(&serial, loop, &port, irq, in_pipe[0], out_pipe[1], &err) < 0)
		return -1;
	bus_seal(&port);
	serial_resume(&serial);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	serial_destroy(&serial);
	loop_timer_destroy(loop, &deadline);
	loop_destroy(loop);
	close(irq);
	for (int i = 0; i < 2; i++) {
		close(in_pipe[i]);
		close(out_pipe[i]);
	}
	return 0;
}

static u8 in(unsigned reg)
{
	const struct bus_entry *e = bus_find(&port, LAYOUT_PORT_SERIAL, 1);
	u8 value;

	e->read(e->owner, reg, &value, 1);
	return value;
}

static void out(unsigned reg, u8 value)
{
	const struct bus_entry *e = bus_find(&port, LAYOUT_PORT_SERIAL, 1);

	e->write(e->owner, reg, &value, 1);
}

static bool interrupted(void)
{
	u64 count;

	return read(irq, &count, sizeof count) == sizeof count;
}

/* Lets the loop do what is pending, then stops it. */
static void settle(void)
{
	loop_timer_set(&deadline, 20000000, 0);
	loop_run(loop);
}

static void a_line_comes_out_whole(void **state)
{
	char got[16] = "";

	(void)state;
	for (const char *p = "hello\n"; *p; p++)
		out(DATA, (u8)*p);
	settle();
	assert_int_equal(read(out_pipe[0], got, sizeof got), 6);
	assert_string_equal(got, "hello\n");
}

static void a_prompt_without_newline_comes_out_too(void **state)
{
	char got[16] = "";

	(void)state;
	out(DATA, '#');
	settle();
	assert_int_equal(read(out_pipe[0], got, sizeof got), 1);
	assert_int_equal(got[0], '#');
}

static void a_stalled_reader_costs_bytes_and_not_time(void **state)
{
	char got[4096];
	ssize_t n, total = 0;

	(void)state;
	for (u32 i = 0; i < 2 * SERIAL_RING; i++)
		out(DATA, 'x');
	assert_int_equal(serial.dropped, SERIAL_RING);
	/* As much as pipe and ring hold comes out, and then new output flows again. */
	loop_call(loop, &serial.drain);
	loop_call(loop, &stop_work);
	loop_run(loop);
	while ((n = read(out_pipe[0], got, sizeof got)) > 0)
		total += n;
	assert_true(total >= 4096);
}

static void a_closed_output_does_not_stop_the_guest(void **state)
{
	(void)state;
	close(out_pipe[0]);
	out_pipe[0] = dup(irq);
	signal(SIGPIPE, SIG_IGN);
	for (int i = 0; i < 100; i++)
		out(DATA, '\n');
	settle();
	assert_int_equal(serial.ring_len, 0);
	assert_true(in(LSR) & 0x20);
}

static void input_arrives_with_an_interrupt(void **state)
{
	(void)state;
	out(MCR, 0x08);
	out(IER, 0x01);
	assert_int_equal(write(in_pipe[1], "ab", 2), 2);
	settle();
	assert_true(interrupted());
	assert_int_equal(in(IIR) & 0x0f, 0x04);
	assert_true(in(LSR) & 1);
	assert_int_equal(in(DATA), 'a');
	assert_true(interrupted()); /* one is left */
	assert_int_equal(in(DATA), 'b');
	assert_false(in(LSR) & 1);
	assert_int_equal(in(IIR) & 0x0f, 0x01);
}

static void input_waits_for_room_and_loses_nothing(void **state)
{
	char text[300];
	unsigned got = 0;

	(void)state;
	memset(text, 0, sizeof text);
	for (unsigned i = 0; i < sizeof text; i++)
		text[i] = (char)(i % 251);
	assert_int_equal(write(in_pipe[1], text, sizeof text), sizeof text);
	for (int round = 0; round < 20 && got < sizeof text; round++) {
		settle();
		assert_true(serial.rx_len <= SERIAL_FIFO);
		while (in(LSR) & 1) {
			assert_int_equal(in(DATA), (u8)text[got]);
			got++;
		}
	}
	assert_int_equal(got, sizeof text);
}

static void end_of_input_is_final(void **state)
{
	(void)state;
	close(in_pipe[1]);
	in_pipe[1] = dup(irq);
	settle();
	assert_int_equal(serial.in.fd, -1);
}

static void a_pause_writes_out_what_was_sent(void **state)
{
	char got[16] = "";

	(void)state;
	for (const char *p = "half a li"; *p; p++)
		out(DATA, (u8)*p);
	serial_pause(&serial);
	assert_int_equal(read(out_pipe[0], got, sizeof got), 9);
	assert_string_equal(got, "half a li");
}

static void a_paused_machine_leaves_its_input_where_it_is(void **state)
{
	char got[4] = "";

	(void)state;
	serial_pause(&serial);
	assert_int_equal(write(in_pipe[1], "a", 1), 1);
	in(DATA); /* as a processor does that is just being stopped */
	settle();
	assert_int_equal(read(in_pipe[0], got, sizeof got), 1);
	assert_int_equal(write(in_pipe[1], "b", 1), 1);
	serial_resume(&serial);
	settle();
	assert_int_equal(in(DATA), 'b');
}

static void the_transmitter_interrupt_comes_once_per_question(void **state)
{
	(void)state;
	out(MCR, 0x08);
	out(IER, 0x02);
	assert_true(interrupted());
	assert_int_equal(in(IIR) & 0x0f, 0x02);
	assert_int_equal(in(IIR) & 0x0f, 0x01);
	out(DATA, 'x');
	assert_true(interrupted());
}

static void out2_gates_the_line(void **state)
{
	(void)state;
	out(IER, 0x02);
	assert_false(interrupted());
}

static void loopback_returns_what_was_sent(void **state)
{
	(void)state;
	out(MCR, 0x10);
	out(DATA, 0x5a);
	assert_int_equal(in(DATA), 0x5a);
	out(MCR, 0x1a); /* the kernel's probe: OUT2 and RTS come back as DCD and CTS */
	assert_int_equal(in(MSR) & 0xf0, 0x90);
}

static void registers_hold_what_a_driver_probes(void **state)
{
	(void)state;
	out(SCR, 0xa5);
	assert_int_equal(in(SCR), 0xa5);
	out(LCR, 0x83);
	out(DATA, 0x12);
	out(IER, 0x34);
	assert_int_equal(in(DATA), 0x12);
	assert_int_equal(in(IER), 0x34);
	out(LCR, 0x03);
	assert_int_equal(in(IER), 0);
	out(IIR, 0x01);
	assert_int_equal(in(IIR) & 0xc0, 0xc0);
	assert_int_equal(in(LSR), 0x60);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(a_line_comes_out_whole),
		TEST(a_prompt_without_newline_comes_out_too),
		TEST(a_stalled_reader_costs_bytes_and_not_time),
		TEST(a_closed_output_does_not_stop_the_guest),
		TEST(input_arrives_with_an_interrupt),
		TEST(input_waits_for_room_and_loses_nothing),
		TEST(end_of_input_is_final),
		TEST(a_pause_writes_out_what_was_sent),
		TEST(a_paused_machine_leaves_its_input_where_it_is),
		TEST(the_transmitter_interrupt_comes_once_per_question),
		TEST(out2_gates_the_line),
		TEST(loopback_returns_what_was_sent),
		TEST(registers_hold_what_a_driver_probes),
	};

	return cmocka_run_group_tests_name("serial", tests, NULL, NULL);
}
