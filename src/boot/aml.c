/*
 * aml: see aml.h. Section numbers are of ACPI 6.4.
 *
 * Invariant: len <= room. A block's length field is put in when the block is closed, moving what
 * came after it; tables are a few KiB.
 */
#include "aml.h"

enum {
	OP_NAME = 0x08,
	OP_BYTE = 0x0a,
	OP_WORD = 0x0b,
	OP_DWORD = 0x0c,
	OP_STRING = 0x0d,
	OP_QWORD = 0x0e,
	OP_EXTENDED = 0x5b,
};

void aml_bytes(struct aml *aml, const void *bytes, size_t len)
{
	if (aml->full || len > aml->room - aml->len) {
		aml->full = true;
		return;
	}
	memcpy(aml->to + aml->len, bytes, len);
	aml->len += len;
}

void aml_byte(struct aml *aml, u8 byte)
{
	aml_bytes(aml, &byte, 1);
}

size_t aml_open(struct aml *aml, enum aml_block block)
{
	if (block & 0x100)
		aml_byte(aml, OP_EXTENDED);
	aml_byte(aml, (u8)block);
	return aml->len;
}

/* 20.2.4, PkgLength: it counts itself; 6 bits in one byte, else 4 bits and 8 per further byte. */
void aml_close(struct aml *aml, size_t position)
{
	size_t body = aml->len - position;
	size_t n = body + 1 < 1 << 6 ? 1 : body + 2 < 1 << 12 ? 2 : 3;
	size_t value = body + n;
	u8 field[3];

	assert(value < 1 << 20);
	field[0] = (u8)(n == 1 ? value : (n - 1) << 6 | (value & 0xf));
	field[1] = (u8)(value >> 4);
	field[2] = (u8)(value >> 12);
	aml_bytes(aml, field, n); /* makes room at the end */
	if (aml->full)
		return;
	memmove(aml->to + position + n, aml->to + position, body);
	memcpy(aml->to + position, field, n);
}

/* 20.2.2: four characters, padded with '_'. */
void aml_segment(struct aml *aml, const char *name)
{
	for (unsigned i = 0; i < 4; i++)
		aml_byte(aml, *name ? (u8)*name++ : '_');
}

/* 20.2.3: 0 and 1 are opcodes, the rest is little-endian in the smallest size. */
void aml_integer(struct aml *aml, u64 value)
{
	static const struct {
		u64 max;
		u8 op, size;
	} forms[] = {
		{ UINT8_MAX, OP_BYTE, 1 },
		{ UINT16_MAX, OP_WORD, 2 },
		{ UINT32_MAX, OP_DWORD, 4 },
		{ UINT64_MAX, OP_QWORD, 8 },
	};
	size_t i = 0;

	if (value <= 1) {
		aml_byte(aml, (u8)value);
		return;
	}
	while (value > forms[i].max)
		i++;
	aml_byte(aml, forms[i].op);
	aml_bytes(aml, &value, forms[i].size);
}

void aml_string(struct aml *aml, const char *text)
{
	aml_byte(aml, OP_STRING);
	aml_bytes(aml, text, strlen(text) + 1);
}

void aml_name(struct aml *aml, const char *name)
{
	aml_byte(aml, OP_NAME);
	aml_segment(aml, name);
}

void aml_name_integer(struct aml *aml, const char *name, u64 value)
{
	aml_name(aml, name);
	aml_integer(aml, value);
}

void aml_name_string(struct aml *aml, const char *name, const char *text)
{
	aml_name(aml, name);
	aml_string(aml, text);
}

static u32 hex(char c)
{
	return (u32)(c <= '9' ? c - '0' : c - 'A' + 10);
}

/* Three letters of 5 bits, four hexadecimal digits, most significant byte first in memory. */
u32 aml_eisa_id(const char *id)
{
	u32 letters = (u32)(id[0] - '@') << 10 | (u32)(id[1] - '@') << 5 | (u32)(id[2] - '@');
	u32 digits = hex(id[3]) << 12 | hex(id[4]) << 8 | hex(id[5]) << 4 | hex(id[6]);

	return __builtin_bswap32(letters << 16 | digits);
}
