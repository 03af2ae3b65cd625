/*
 * identity: how a guest learns that it has become another machine: a VM generation id (Microsoft's
 * specification "Virtual Machine Generation ID", known to Linux as VM_Gen_Counter) and a VM clock
 * (the uapi-group's specification "VMClock", Linux's vmclock-abi.h). Both are pages in the system
 * area, which ACPI tables name (boot/acpi.c); one interrupt tells of both.
 *
 * The VM clock gives no time, only the two counters: what a guest knew of its clocks is void
 * (disruption marker), and there may be another one like it (generation counter).
 *
 * Loop thread, the machine is paused: no processor sees a page half written.
 */
#ifndef IDENTITY_H
#define IDENTITY_H

#include "base.h"
#include "err.h"
#include "mem.h"

/* A machine that is booted: writes both pages. */
int identity_create(const struct mem *mem, struct err *err) MUST_CHECK;

/*
 * A machine whose memory came from another one: a new id, both counters one further. The caller
 * raises LAYOUT_GSI_IDENTITY afterwards. A guest that has overwritten its clock page gets a whole
 * new one, whatever it held.
 */
int identity_renew(const struct mem *mem, struct err *err) MUST_CHECK;

#endif
