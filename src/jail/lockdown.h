/*
 * lockdown: what the monitor gives up once it holds what it needs, with or without a jailer.
 *
 * No new privileges, no core files, nobody of the same user may look into the process or attach to
 * it; where the kernel has Landlock, no execution of
 * files, no making of directories, devices, FIFOs or links, no TCP, no abstract sockets and signals
 * of other processes. Which files may be opened is the jail's affair: a client may name any at any
 * time.
 */
#ifndef LOCKDOWN_H
#define LOCKDOWN_H

#include "../vmm/err.h"

/* Before the first client's byte, on the only thread there is. */
int lockdown(struct err *err) MUST_CHECK;

#endif
