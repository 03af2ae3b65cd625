/*
 * serial: the first serial port, a 16550A at port 0x3f8, line 4.
 *
 * What the guest sends goes into a ring; the loop writes it out, without ever blocking: bytes that
 * the other side does not take are dropped and counted once the ring is full. What is typed comes
 * from stdin through the receive FIFO, and stdin is only read while there is room in it.
 *
 * Registers under the machine lock; everything else on the loop thread.
 */
#ifndef SERIAL_H
#define SERIAL_H

#include "base.h"
#include "bus.h"
#include "err.h"
#include "loop.h"
#include "../virtio/limit.h"

#define SERIAL_FIFO 64
#define SERIAL_RING KIB(64)

struct serial {
	/* What it is. */
	u8 ier, lcr, mcr, lsr, scr, fcr, divisor_lo, divisor_hi;
	bool thr_empty_pending; /* the "transmitter empty" interrupt is asked for and not yet read */
	u8 rx[SERIAL_FIFO];
	u32 rx_head, rx_len;

	/* What it holds. */
	struct loop *loop;
	int irq_fd;
	struct loop_source in;  /* fd -1: no input */
	struct loop_source out; /* in the loop only while the other side does not take more */
	bool out_waiting, in_stopped, paused;
	struct loop_work drain, arm, listen;
	struct loop_timer lull;
	bool armed;
	char *ring;
	u32 ring_head, ring_len;
	struct limit limit;    /* bytes of output; what is over it is dropped */
	u64 dropped;	       /* metrics: uart.missed_write_count */
	u64 over_limit;	       /* metrics: uart.rate_limiter_dropped_bytes */
};

/*
 * `in_fd` may be -1 (no input); `out_fd` must not block on write (serial_open_out). The serial port
 * owns neither. `irq_fd` likewise belongs to the caller.
 */
int serial_init(struct serial *serial, struct loop *loop, struct bus *port, int irq_fd, int in_fd,
		int out_fd, struct err *err) MUST_CHECK;

/*
 * Of a machine that stands still everything is at one place: what it sent has been written, as far as
 * the other side took it, and what is typed waits in stdin for the process that goes on. A machine
 * begins so.
 */
void serial_pause(struct serial *serial);
void serial_resume(struct serial *serial);

/* Before the machine runs. */
void serial_limit(struct serial *serial, const struct limit_bucket *bucket);

void serial_destroy(struct serial *serial); /* writes out what it can; accepts a zeroed struct */

#endif
