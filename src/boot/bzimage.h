/*
 * bzimage: loads a Linux bzImage (boot protocol 2.12 or newer, with the 64-bit entry).
 */
#ifndef BZIMAGE_H
#define BZIMAGE_H

#include "image.h"

/* `head`: the first bytes of the file; 0x206 of them are enough to tell. */
bool bzimage_is(const void *head, size_t len);

int bzimage_load(const struct image_file *file, const struct mem *mem, struct image *image,
		 struct err *err) MUST_CHECK;

#endif
