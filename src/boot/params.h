/*
 * params: what a kernel is told at its entry: zero page (Linux boot protocol) or PVH start info,
 * memory map, page tables, descriptor tables, and the processor's registers.
 *
 * The command line is at LAYOUT_CMDLINE already.
 */
#ifndef PARAMS_H
#define PARAMS_H

#include "image.h"

struct params {
	const struct image *image;
	u64 initrd, initrd_size; /* 0, 0: none */
	u64 rsdp;		 /* 0: no ACPI tables */
};

/* Writes all of it for the way that the image is entered. */
int params_write(const struct params *params, const struct mem *mem, struct vcpu_state *state,
		 struct err *err) MUST_CHECK;

#endif
