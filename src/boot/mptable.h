/*
 * mptable: Intel MultiProcessor Specification 1.4 tables, for kernels that do without ACPI: which
 * processors there are, and which interrupt line is which pin.
 */
#ifndef MPTABLE_H
#define MPTABLE_H

#include "../vmm/base.h"
#include "../vmm/err.h"
#include "../vmm/mem.h"
#include "boot.h"

int mptable_write(const struct mem *mem, const struct boot_machine *machine,
		  struct err *err) MUST_CHECK;

#endif
