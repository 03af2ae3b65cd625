/*
 * signals: what each signal does to the monitor (contract 2.1).
 *
 * Asynchronous ones (TERM, INT, QUIT, HUP, PIPE) are blocked in every thread and read by the loop.
 * TERM, INT and QUIT flush and then end the process by that very signal, so that whoever waits for
 * it sees who did it. Faults of our own end it at once with the contract's exit code.
 */
#ifndef SIGNALS_H
#define SIGNALS_H

#include "base.h"
#include "err.h"
#include "loop.h"

struct signals {
	struct loop_source source;
	struct loop *loop;
	int pid;   /* ours */
	int fatal; /* the signal that asked the process to end; 0: none did */
};

/* Before the first thread. A signal that ends the process stops the loop. */
int signals_init(struct signals *signals, struct loop *loop, struct err *err) MUST_CHECK;

/* After the loop: the exit code for `signals->fatal`, or, for those that kill, does not return. */
int signals_finish(const struct signals *signals);

#endif
