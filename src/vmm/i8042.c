/*
 * i8042: see i8042.h. Commands: IBM PS/2 technical reference, "Keyboard and Auxiliary Device
 * Controller"; scan codes are set 2, untranslated. There is no second (auxiliary, mouse) port, and
 * the two commands by which a driver looks for one say so at once: a driver that got no answer would
 * wait for one, hundreds of exits long.
 *
 * Invariant: len <= I8042_BUFFER; a byte that finds it full is lost, as on the real thing.
 */
#include "i8042.h"

#include "../boot/layout.h"

#define STATUS_OUTPUT_FULL 0x01
#define STATUS_SYSTEM	   0x04
#define STATUS_COMMAND	   0x08
#define STATUS_UNLOCKED	   0x10

#define AUX_CLOCK_STUCK 0x01

#define CONTROL_KEYBOARD_IRQ 0x01
#define CONTROL_SYSTEM	     0x04

enum {
	CMD_READ_CONTROL = 0x20,
	CMD_WRITE_CONTROL = 0x60,
	CMD_TEST_AUX = 0xa9,
	CMD_TEST = 0xaa,
	CMD_TEST_KEYBOARD = 0xab,
	CMD_READ_OUTPUT = 0xd0,
	CMD_WRITE_OUTPUT = 0xd1,
	CMD_LOOP_AUX = 0xd3,
	CMD_PULSE_RESET = 0xfe,
};

enum {
	KEYBOARD_LEDS = 0xed,
	KEYBOARD_ECHO = 0xee,
	KEYBOARD_SCANCODES = 0xf0,
	KEYBOARD_IDENTIFY = 0xf2,
	KEYBOARD_RATE = 0xf3,
	KEYBOARD_RESET = 0xff,
	KEYBOARD_ACK = 0xfa,
};

static void raise_irq(const struct i8042 *k)
{
	const u64 one = 1;

	if ((k->control & CONTROL_KEYBOARD_IRQ) && write(k->irq_fd, &one, sizeof one) < 0)
		assert(errno == EAGAIN);
}

static void answer(struct i8042 *k, u8 byte)
{
	if (k->len < I8042_BUFFER)
		k->buffer[(k->head + k->len++) % I8042_BUFFER] = byte;
}

static u8 take(struct i8042 *k)
{
	u8 byte = k->buffer[k->head];

	if (!k->len)
		return 0;
	k->head = (k->head + 1) % I8042_BUFFER;
	if (--k->len)
		raise_irq(k);
	return byte;
}

static void on_command(struct i8042 *k, u8 command)
{
	k->command = 0;
	switch (command) {
	case CMD_READ_CONTROL:
		answer(k, k->control);
		break;
	case CMD_TEST:
		answer(k, 0x55);
		break;
	case CMD_TEST_KEYBOARD:
		answer(k, 0x00);
		break;
	case CMD_TEST_AUX:
		answer(k, AUX_CLOCK_STUCK);
		break;
	case CMD_READ_OUTPUT:
		answer(k, k->output_port);
		break;
	case CMD_WRITE_CONTROL:
	case CMD_WRITE_OUTPUT:
	case CMD_LOOP_AUX:
		k->command = command;
		break;
	case CMD_PULSE_RESET:
		k->reset(k->owner);
		break;
	}
}

static void on_keyboard(struct i8042 *k, u8 byte)
{
	if (k->keyboard_argument) {
		k->keyboard_argument = false;
		answer(k, KEYBOARD_ACK);
	} else if (byte == KEYBOARD_ECHO) {
		answer(k, KEYBOARD_ECHO);
	} else {
		k->keyboard_argument = byte == KEYBOARD_LEDS || byte == KEYBOARD_SCANCODES ||
				       byte == KEYBOARD_RATE;
		answer(k, KEYBOARD_ACK);
		if (byte == KEYBOARD_RESET)
			answer(k, 0xaa);
		if (byte == KEYBOARD_IDENTIFY) {
			answer(k, 0xab);
			answer(k, 0x83);
		}
	}
	raise_irq(k);
}

static void on_data(struct i8042 *k, u8 byte)
{
	u8 command = k->command;

	k->command = 0;
	if (command == CMD_WRITE_CONTROL)
		k->control = byte;
	else if (command == CMD_WRITE_OUTPUT)
		k->output_port = byte;
	else if (command == CMD_LOOP_AUX)
		answer(k, byte); /* as the keyboard's: there is no second port for it to come from */
	else
		on_keyboard(k, byte);
}

static void data_read(void *owner, u64 off, void *data, unsigned len)
{
	(void)off;
	if (len == 1)
		*(u8 *)data = take(owner);
}

static void data_write(void *owner, u64 off, const void *data, unsigned len)
{
	(void)off;
	if (len == 1)
		on_data(owner, *(const u8 *)data);
}

static void status_read(void *owner, u64 off, void *data, unsigned len)
{
	const struct i8042 *k = owner;

	(void)off;
	if (len == 1)
		*(u8 *)data = STATUS_SYSTEM | STATUS_UNLOCKED | (k->command ? STATUS_COMMAND : 0) |
			      (k->len ? STATUS_OUTPUT_FULL : 0);
}

static void command_write(void *owner, u64 off, const void *data, unsigned len)
{
	(void)off;
	if (len == 1)
		on_command(owner, *(const u8 *)data);
}

int i8042_init(struct i8042 *k, struct bus *port, int irq_fd, struct err *err)
{
	const struct bus_entry entries[] = {
		{ .base = LAYOUT_PORT_I8042, .len = 1, .read = data_read, .write = data_write },
		{ .base = LAYOUT_PORT_I8042_CMD, .len = 1, .read = status_read,
		  .write = command_write },
	};
	int r = 0;

	k->irq_fd = irq_fd;
	k->control = CONTROL_KEYBOARD_IRQ | CONTROL_SYSTEM;
	for (unsigned i = 0; i < ARRAY_SIZE(entries) && !r; i++) {
		struct bus_entry entry = entries[i];

		entry.owner = k;
		r = bus_add(port, &entry, err);
	}
	return r;
}

int i8042_ctrl_alt_del(struct i8042 *k)
{
	static const u8 keys[] = { 0x14, 0x11, 0xe0, 0x71 }; /* press ctrl, alt, delete */

	if (k->len + sizeof keys > I8042_BUFFER)
		return -ENOSPC;
	for (unsigned i = 0; i < sizeof keys; i++)
		answer(k, keys[i]);
	raise_irq(k);
	return 0;
}
