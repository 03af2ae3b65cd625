/*
 * cmdline: the kernel's command line: what the user gave, verbatim, and what the machine adds.
 *
 * A word `--` ends the kernel's part; what follows belongs to init (Linux: parse_args()), so
 * additions go before it.
 */
#ifndef CMDLINE_H
#define CMDLINE_H

#include "../vmm/base.h"
#include "../vmm/err.h"
#include "boot.h"

/* The user's arguments or the default ones. */
const char *cmdline_args(const struct boot_config *cfg);

/* True if `word` is one of the words of the kernel's part. */
bool cmdline_has(const char *args, const char *word);

/* True if they make Linux ignore ACPI; the last of acpi=off and acpi=force counts, as there. */
bool cmdline_acpi_off(const char *args);

/*
 * Writes the terminated line, at most LAYOUT_CMDLINE_MAX bytes, and gives its length without the
 * terminator. `list_devices`: with a virtio_mmio.device= for each.
 */
int cmdline_build(char out[LAYOUT_CMDLINE_MAX], size_t *len, const char *args,
		  const struct boot_machine *machine, bool list_devices,
		 struct err *err) MUST_CHECK;

#endif
