/*
 * acpi: the tables that describe the machine to kernels with ACPI.
 */
#ifndef ACPI_H
#define ACPI_H

#include "../vmm/base.h"
#include "../vmm/err.h"
#include "../vmm/mem.h"
#include "boot.h"

/* Writes DSDT, FADT, MADT, XSDT from LAYOUT_ACPI on and the RSDP at LAYOUT_RSDP. */
int acpi_write(const struct mem *mem, const struct boot_machine *machine,
	       struct err *err) MUST_CHECK;

#endif
