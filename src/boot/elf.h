/*
 * elf: loads an ELF64 x86-64 vmlinux.
 *
 * Entered by its PVH note if it has one (XEN_ELFNOTE_PHYS32_ENTRY), else at e_entry in long mode.
 */
#ifndef ELF_LOADER_H
#define ELF_LOADER_H

#include "image.h"

/* `head`: the first bytes of the file. */
bool elf_is(const void *head, size_t len);

int elf_load(const struct image_file *file, const struct mem *mem, struct image *image,
	     struct err *err) MUST_CHECK;

#endif
