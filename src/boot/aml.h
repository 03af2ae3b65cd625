/*
 * aml: writes ACPI machine language (ACPI 6.4, chapter 20) into a buffer that cannot overflow.
 *
 * Only what a machine without methods of its own needs: names, integers, strings, packages,
 * resource descriptors. Things with a length are opened and closed. Knows nothing about the
 * machine.
 */
#ifndef AML_H
#define AML_H

#include "../vmm/base.h"

struct aml {
	u8 *to;
	size_t len, room;
	bool full; /* sticky: something did not fit, and nothing more was written */
};

/* What has a length; the value is the opcode (0x100: after the extension prefix). */
enum aml_block {
	AML_SCOPE = 0x10,
	AML_BUFFER = 0x11,
	AML_PACKAGE = 0x12,
	AML_METHOD = 0x14,
	AML_DEVICE = 0x182,
};

/* Returns a position for aml_close(), which puts the length there. Blocks nest. */
size_t aml_open(struct aml *aml, enum aml_block block);
void aml_close(struct aml *aml, size_t position);

void aml_bytes(struct aml *aml, const void *bytes, size_t len);
void aml_byte(struct aml *aml, u8 byte);

/* One name of up to four characters, looked for from the scope upwards. */
void aml_segment(struct aml *aml, const char *name);
void aml_integer(struct aml *aml, u64 value);
void aml_string(struct aml *aml, const char *text);

/* Name (name, ...): the object has to follow. */
void aml_name(struct aml *aml, const char *name);
void aml_name_integer(struct aml *aml, const char *name, u64 value);
void aml_name_string(struct aml *aml, const char *name, const char *text);

/* "PNP0501" and the like, packed into 32 bits (ACPI 6.4, 19.3.4). */
u32 aml_eisa_id(const char *id);

#endif
