/*
 * i8042: the keyboard controller, as far as a microVM needs one: the reset pulse, and a keyboard on
 * which the host can type ctrl-alt-del.
 *
 * Registers under the machine lock; i8042_ctrl_alt_del() on the loop thread.
 */
#ifndef I8042_H
#define I8042_H

#include "base.h"
#include "bus.h"
#include "err.h"

#define I8042_BUFFER 16

struct i8042 {
	/* What it is. */
	u8 control;	/* the command byte */
	u8 command;	/* the controller command that waits for its data byte; 0: none */
	u8 output_port;
	bool keyboard_argument; /* the last keyboard command takes one more byte */
	u8 buffer[I8042_BUFFER];
	u32 head, len;

	/* What it holds. */
	int irq_fd;
	void (*reset)(void *owner); /* the guest pulsed the reset line */
	void *owner;
};

/* The caller has set the reset callback and its owner. */
int i8042_init(struct i8042 *i8042, struct bus *port, int irq_fd, struct err *err) MUST_CHECK;

/* -ENOSPC: the guest does not read its keyboard. */
int i8042_ctrl_alt_del(struct i8042 *i8042) MUST_CHECK;

#endif
