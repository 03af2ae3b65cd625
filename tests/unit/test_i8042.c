/* i8042: the reset pulse, the commands a kernel probes with, and ctrl-alt-del. */
#include "test.h"

#include "src/boot/layout.h"
#include "src/vmm/i8042.h"

#include <sys/eventfd.h>

static struct i8042 k;
static struct bus port;
static int resets;

static void reset(void *owner)
{
	(void)owner;
	resets++;
}

static int setup(void **state)
{
	struct err err;

	(void)state;
	k = (struct i8042){ .reset = reset };
	port = (struct bus){ 0 };
	resets = 0;
	if (i8042_init(&k, &port, eventfd(0, EFD_NONBLOCK), &err) < 0)
		return -1;
	bus_seal(&port);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	return close(k.irq_fd);
}

static u8 in(u16 p)
{
	const struct bus_entry *e = bus_find(&port, p, 1);
	u8 value = 0xff;

	e->read(e->owner, 0, &value, 1);
	return value;
}

static void out(u16 p, u8 value)
{
	const struct bus_entry *e = bus_find(&port, p, 1);

	e->write(e->owner, 0, &value, 1);
}

static bool interrupted(void)
{
	u64 count;

	return read(k.irq_fd, &count, sizeof count) == sizeof count;
}

static void the_reset_pulse_resets(void **state)
{
	(void)state;
	out(0x64, 0xfe);
	assert_int_equal(resets, 1);
	out(0x64, 0xff);
	out(0x60, 0xfe);
	assert_int_equal(resets, 1);
}

static void the_self_test_passes(void **state)
{
	(void)state;
	out(0x64, 0xaa);
	assert_true(in(0x64) & 1);
	assert_int_equal(in(0x60), 0x55);
	assert_false(in(0x64) & 1);
}

static void there_is_no_second_port(void **state)
{
	(void)state;
	out(0x64, 0xd3);
	out(0x60, 0x5a);
	assert_int_equal(in(0x64) & 0x21, 0x01); /* a byte, and not the second port's */
	assert_int_equal(in(0x60), 0x5a);
	out(0x64, 0xa9);
	assert_int_equal(in(0x60), 0x01);
}

static void the_command_byte_is_kept(void **state)
{
	(void)state;
	out(0x64, 0x60);
	assert_true(in(0x64) & 8);
	out(0x60, 0x45);
	out(0x64, 0x20);
	assert_int_equal(in(0x60), 0x45);
}

static void keyboard_commands_are_acknowledged(void **state)
{
	(void)state;
	out(0x60, 0xff);
	assert_int_equal(in(0x60), 0xfa);
	assert_int_equal(in(0x60), 0xaa);
	out(0x60, 0xf2);
	assert_int_equal(in(0x60), 0xfa);
	assert_int_equal(in(0x60), 0xab);
	assert_int_equal(in(0x60), 0x83);
	out(0x60, 0xed); /* takes an argument, which is acknowledged and not interpreted */
	out(0x60, 0xff);
	assert_int_equal(in(0x60), 0xfa);
	assert_int_equal(in(0x60), 0xfa);
	assert_int_equal(in(0x60), 0);
}

static void ctrl_alt_del_interrupts_for_each_byte(void **state)
{
	static const u8 keys[] = { 0x14, 0x11, 0xe0, 0x71 };

	(void)state;
	assert_int_equal(i8042_ctrl_alt_del(&k), 0);
	for (unsigned i = 0; i < sizeof keys; i++) {
		assert_true(interrupted());
		assert_int_equal(in(0x60), keys[i]);
	}
	assert_false(interrupted());
}

static void a_guest_that_does_not_read_fills_its_buffer_and_no_more(void **state)
{
	(void)state;
	for (int i = 0; i < 4; i++)
		assert_int_equal(i8042_ctrl_alt_del(&k), 0);
	assert_int_equal(i8042_ctrl_alt_del(&k), -ENOSPC);
	for (int i = 0; i < 100; i++)
		out(0x64, 0xaa);
	assert_int_equal(k.len, I8042_BUFFER);
}

static void every_command_and_byte_is_survived(void **state)
{
	(void)state;
	for (unsigned c = 0; c < 256; c++)
		for (unsigned d = 0; d < 256; d += 5) {
			out(0x64, (u8)c);
			out(0x60, (u8)d);
			in(0x60);
			assert_true(k.len <= I8042_BUFFER && k.head < I8042_BUFFER);
		}
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(the_reset_pulse_resets),
		TEST(the_self_test_passes),
		TEST(there_is_no_second_port),
		TEST(the_command_byte_is_kept),
		TEST(keyboard_commands_are_acknowledged),
		TEST(ctrl_alt_del_interrupts_for_each_byte),
		TEST(a_guest_that_does_not_read_fills_its_buffer_and_no_more),
		TEST(every_command_and_byte_is_survived),
	};

	return cmocka_run_group_tests_name("i8042", tests, NULL, NULL);
}
