/*
 * serial: see serial.h. Register layout: National PC16550D data sheet, section 8.
 *
 * Output is drained at the end of a line, when much has gathered, or after a short lull, and not byte
 * by byte: waking the loop costs more than the exit that brought the byte.
 *
 * Invariants: ring_len <= SERIAL_RING, rx_len <= SERIAL_FIFO; `out` is registered with the loop if
 * and only if `out_waiting`.
 */
#include "serial.h"

#include <stdlib.h>
#include <sys/epoll.h>

#include "../boot/layout.h"

enum { REG_DATA, REG_IER, REG_IIR_FCR, REG_LCR, REG_MCR, REG_LSR, REG_MSR, REG_SCR, REGS };

#define IER_RX	  0x01
#define IER_THR	  0x02
#define IER_MASK  0x0f
#define IIR_NONE  0x01
#define IIR_THR	  0x02
#define IIR_RX	  0x04
#define IIR_FIFO  0xc0
#define FCR_ENABLE   0x01
#define FCR_CLEAR_RX 0x02
#define LCR_DLAB  0x80
#define MCR_OUT2  0x08
#define MCR_LOOP  0x10
#define LSR_DATA  0x01
#define LSR_IDLE  0x60 /* transmitter and holding register empty: the ring takes every byte at once */
#define MSR_READY 0xb0 /* carrier, data set ready, clear to send */

#define DRAIN_AT 1024
#define LULL_NS	 2000000u

static void raise_irq(const struct serial *s)
{
	const u64 one = 1;

	/* OUT2 gates the interrupt line on a PC; a full eventfd counter is a pending edge anyway. */
	if ((s->mcr & MCR_OUT2) && write(s->irq_fd, &one, sizeof one) < 0)
		assert(errno == EAGAIN);
}

static u8 interrupt_id(const struct serial *s)
{
	u8 fifo = s->fcr & FCR_ENABLE ? IIR_FIFO : 0;

	if ((s->ier & IER_RX) && s->rx_len)
		return fifo | IIR_RX;
	if ((s->ier & IER_THR) && s->thr_empty_pending)
		return fifo | IIR_THR;
	return fifo | IIR_NONE;
}

static void raise_if_pending(const struct serial *s)
{
	if ((interrupt_id(s) & 0x0f) != IIR_NONE)
		raise_irq(s);
}

/* ---- output ------------------------------------------------------------------------------------ */

static void wait_for_room(struct serial *s, bool wait)
{
	if (wait == s->out_waiting)
		return;
	if (wait) {
		s->out.events = EPOLLOUT;
		/* A regular file cannot be waited for, and never needs to be. */
		wait = loop_add(s->loop, &s->out) == 0;
	} else {
		loop_del(s->loop, &s->out);
	}
	s->out_waiting = wait;
}

static void drop_all(struct serial *s)
{
	s->dropped += s->ring_len;
	s->ring_len = 0;
}

static void drain(void *owner)
{
	struct serial *s = owner;
	ssize_t n;

	while (s->ring_len) {
		u32 piece = MIN(s->ring_len, (u32)SERIAL_RING - s->ring_head);

		n = write(s->out.fd, s->ring + s->ring_head, piece);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno != EAGAIN)
			drop_all(s); /* the other side is gone: the guest goes on without a console */
		if (n <= 0)
			break;
		s->ring_head = (s->ring_head + (u32)n) % SERIAL_RING;
		s->ring_len -= (u32)n;
	}
	wait_for_room(s, s->ring_len > 0);
}

static void out_ready(void *owner, u32 events)
{
	(void)events;
	drain(owner);
}

static void lull_over(void *owner)
{
	struct serial *s = owner;

	s->armed = false;
	drain(s);
}

static void arm_lull(void *owner)
{
	struct serial *s = owner;

	loop_timer_set(&s->lull, LULL_NS, 0);
}

static void transmit(struct serial *s, u8 byte)
{
	if (!limit_none(&s->limit) && !limit_take(&s->limit, 0, 1, loop_now_ns())) {
		s->over_limit++;
		return;
	}
	if (s->ring_len == SERIAL_RING) {
		s->dropped++;
		return;
	}
	s->ring[(s->ring_head + s->ring_len++) % SERIAL_RING] = (char)byte;
	if (s->out_waiting)
		return;
	if (byte == '\n' || s->ring_len >= DRAIN_AT) {
		loop_call(s->loop, &s->drain);
	} else if (!s->armed) {
		s->armed = true;
		loop_call(s->loop, &s->arm);
	}
}

/* ---- input ------------------------------------------------------------------------------------- */

static void receive(struct serial *s, u8 byte)
{
	s->rx[(s->rx_head + s->rx_len++) % SERIAL_FIFO] = byte;
}

static void stop_input(struct serial *s)
{
	loop_del(s->loop, &s->in);
	s->in_stopped = true;
}

static void in_ready(void *owner, u32 events)
{
	struct serial *s = owner;
	u8 bytes[SERIAL_FIFO];
	ssize_t n;

	(void)events;
	if (s->rx_len == SERIAL_FIFO) {
		stop_input(s);
		return;
	}
	n = read(s->in.fd, bytes, SERIAL_FIFO - s->rx_len);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		/* End of input is final: watching it any longer would only spin. */
		stop_input(s);
		s->in.fd = -1;
		return;
	}
	for (ssize_t i = 0; i < n; i++)
		receive(s, bytes[i]);
	raise_if_pending(s);
}

static void listen_again(void *owner)
{
	struct serial *s = owner;

	if (!s->in_stopped || s->paused || s->in.fd < 0)
		return;
	if (loop_add(s->loop, &s->in) < 0)
		s->in.fd = -1; /* a regular file or /dev/null: there is nothing to wait for */
	else
		s->in_stopped = false;
}

static u8 take_received(struct serial *s)
{
	u8 byte;

	if (!s->rx_len)
		return 0;
	byte = s->rx[s->rx_head];
	s->rx_head = (s->rx_head + 1) % SERIAL_FIFO;
	s->rx_len--;
	if (s->in_stopped)
		loop_call(s->loop, &s->listen);
	raise_if_pending(s);
	return byte;
}

/* ---- registers --------------------------------------------------------------------------------- */

static u8 reg_read(struct serial *s, u64 reg)
{
	u8 value;

	switch (reg) {
	case REG_DATA:
		return s->lcr & LCR_DLAB ? s->divisor_lo : take_received(s);
	case REG_IER:
		return s->lcr & LCR_DLAB ? s->divisor_hi : s->ier;
	case REG_IIR_FCR:
		value = interrupt_id(s);
		if ((value & 0x0f) == IIR_THR)
			s->thr_empty_pending = false;
		return value;
	case REG_LCR:
		return s->lcr;
	case REG_MCR:
		return s->mcr;
	case REG_LSR:
		return LSR_IDLE | (s->rx_len ? LSR_DATA : 0);
	case REG_MSR:
		/* In loopback the modem outputs come back as inputs: DTR RTS OUT1 OUT2 -> DSR CTS RI DCD */
		if (s->mcr & MCR_LOOP)
			return (u8)((s->mcr & 1) << 5 | (s->mcr & 2) << 3 | (s->mcr & 0xc) << 4);
		return MSR_READY;
	default:
		return s->scr;
	}
}

static void write_data(struct serial *s, u8 byte)
{
	if (s->mcr & MCR_LOOP) {
		if (s->rx_len < SERIAL_FIFO)
			receive(s, byte);
	} else {
		transmit(s, byte);
	}
	s->thr_empty_pending = true;
	raise_if_pending(s);
}

static void reg_write(struct serial *s, u64 reg, u8 value)
{
	switch (reg) {
	case REG_DATA:
		if (s->lcr & LCR_DLAB)
			s->divisor_lo = value;
		else
			write_data(s, value);
		break;
	case REG_IER:
		if (s->lcr & LCR_DLAB) {
			s->divisor_hi = value;
			break;
		}
		/* Enabling it raises the interrupt: the transmitter is always empty. */
		if ((value & IER_THR) && !(s->ier & IER_THR))
			s->thr_empty_pending = true;
		s->ier = value & IER_MASK;
		raise_if_pending(s);
		break;
	case REG_IIR_FCR:
		s->fcr = value;
		if (value & FCR_CLEAR_RX)
			s->rx_len = 0;
		if (s->in_stopped)
			loop_call(s->loop, &s->listen);
		break;
	case REG_LCR:
		s->lcr = value;
		break;
	case REG_MCR:
		s->mcr = value & 0x1f;
		raise_if_pending(s);
		break;
	case REG_SCR:
		s->scr = value;
		break;
	}
}

/* Registers are bytes; a wider access is that many neighbouring registers. */
static void on_read(void *owner, u64 off, void *data, unsigned len)
{
	for (unsigned i = 0; i < len; i++)
		((u8 *)data)[i] = reg_read(owner, off + i);
}

static void on_write(void *owner, u64 off, const void *data, unsigned len)
{
	for (unsigned i = 0; i < len; i++)
		reg_write(owner, off + i, ((const u8 *)data)[i]);
}

int serial_init(struct serial *s, struct loop *loop, struct bus *port, int irq_fd, int in_fd,
		int out_fd, struct err *err)
{
	struct bus_entry entry = { .base = LAYOUT_PORT_SERIAL,
				   .len = REGS,
				   .read = on_read,
				   .write = on_write,
				   .owner = s };
	int r;

	*s = (struct serial){
		.loop = loop,
		.irq_fd = irq_fd,
		.in = { .fd = in_fd, .events = EPOLLIN, .ready = in_ready, .owner = s },
		.out = { .fd = out_fd, .ready = out_ready, .owner = s },
		.in_stopped = true,
		.paused = true,
		.drain = { .run = drain, .owner = s },
		.arm = { .run = arm_lull, .owner = s },
		.listen = { .run = listen_again, .owner = s },
		.lull = { .expired = lull_over, .owner = s, .source.fd = -1 },
	};
	s->ring = malloc(SERIAL_RING);
	if (!s->ring)
		return fail(err, -ENOMEM, "no memory for the serial console");
	r = loop_timer_init(loop, &s->lull);
	if (r < 0)
		return fail(err, r, "serial console: " OS_ERR, OS_ERR_ARGS(-r));
	return bus_add(port, &entry, err);
}

void serial_destroy(struct serial *s)
{
	if (!s->ring)
		return;
	drain(s);
	wait_for_room(s, false);
	if (s->in.fd >= 0 && !s->in_stopped)
		loop_del(s->loop, &s->in);
	loop_uncall(s->loop, &s->drain);
	loop_uncall(s->loop, &s->arm);
	loop_uncall(s->loop, &s->listen);
	loop_timer_destroy(s->loop, &s->lull);
	free(s->ring);
	s->ring = NULL;
}

void serial_pause(struct serial *s)
{
	drain(s);
	s->paused = true;
	if (!s->in_stopped)
		stop_input(s);
}

void serial_resume(struct serial *s)
{
	s->paused = false;
	listen_again(s);
}

void serial_limit(struct serial *s, const struct limit_bucket *bucket)
{
	limit_set(&s->limit, &(struct limit_config){ .bandwidth = *bucket }, loop_now_ns());
}
