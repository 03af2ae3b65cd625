/*
 * json: strict JSON in, compact JSON out, and tables that say how a C struct and a JSON object map
 * to each other, in both directions.
 *
 * Reading is in two steps. json_parse() accepts exactly RFC 8259 (one value, valid UTF-8, no
 * duplicate keys, at most JSON_DEPTH_MAX levels and JSON_TOKENS_MAX values); json_decode() then
 * moves one object into a struct through its table, checking names, types and ranges, and writes
 * nothing unless all of it is valid. Error texts are those of Rust's serde_json, with line and
 * column, since clients match on them.
 *
 * No allocation: the caller provides struct json (large: make it static or part of something that
 * is allocated at start-up) and the text must stay while the values are used. Any thread.
 */
#ifndef JSON_H
#define JSON_H

#include "base.h"
#include "err.h"

#define JSMN_PARENT_LINKS
#ifndef JSON_WITH_JSMN_BODY /* json.c alone has it */
#define JSMN_HEADER
#endif
#include <jsmn.h>

#define JSON_DEPTH_MAX	32
#define JSON_TOKENS_MAX 2048

/* ---- tables ------------------------------------------------------------------------------- */

/* Names of an enum's values. The first name of a value is the one that is printed. */
struct json_name {
	const char *name;
	int value;
};

struct json_names {
	const struct json_name *name;
	unsigned n;
	bool any_case; /* when reading */
};

enum json_type {
	JSON_BOOL, /* bool */
	JSON_U8,   /* integers: the type is the range; the member may be wider */
	JSON_U16,
	JSON_U32,
	JSON_U64,
	JSON_USIZE,  /* u64 under the name that error texts use for sizes */
	JSON_STRING, /* char[size], always terminated */
	JSON_ENUM,   /* int-sized enum, `names` */
	JSON_OBJECT, /* nested struct, `object` */
	JSON_LIST,   /* array of structs, `object`, at most `max` */
	JSON_TYPES,
};

#define JSON_REQUIRED 1u /* must be there and not null; others may be absent or null */
#define JSON_OMIT     2u /* printing: an empty value is left out, not printed as null */

struct json_field {
	const char *name;
	enum json_type type;
	u32 flags;
	u32 offset, size; /* of the member */
	u32 given;	  /* offset of a bool: was there and not null; 0: nobody asks */
	const struct json_names *names;
	const struct json_object *object;
	u32 max, count; /* of a list: elements there is room for; offset of an unsigned */
};

struct json_object {
	const char *name; /* as error texts call it: "struct BlockDeviceConfig" without "struct" */
	const struct json_field *field;
	unsigned n;
	bool lax; /* unknown fields are ignored */
};

/* { JSON_FIELD("smt", JSON_BOOL, struct machine_config, smt), .flags = ... } */
#define JSON_FIELD(name_, type_, struct_, member)                                                  \
	.name = (name_), .type = (type_), .offset = offsetof(struct_, member),                     \
	.size = sizeof(((struct_ *)0)->member)
#define JSON_GIVEN(struct_, member) .given = offsetof(struct_, member)
#define JSON_NAMES(table)                                                                          \
	{                                                                                          \
		.name = (table), .n = ARRAY_SIZE(table)                                            \
	}

/* ---- reading ------------------------------------------------------------------------------ */

struct json {
	const char *text;
	size_t len;
	int n;
	const char *field; /* after a json_decode() that failed: the field it was about, or NULL */
	jsmntok_t tok[JSON_TOKENS_MAX];
};

/* A value is the index of its token; the whole text is JSON_ROOT. */
#define JSON_ROOT 0

enum json_kind { JSON_IS_OBJECT, JSON_IS_ARRAY, JSON_IS_STRING, JSON_IS_OTHER, JSON_IS_NULL };

/* Whether the text is one valid JSON value; says nothing about duplicate keys. */
int json_check(const char *text, size_t len, struct err *err) MUST_CHECK;

int json_parse(struct json *doc, const char *text, size_t len, struct err *err) MUST_CHECK;

enum json_kind json_kind(const struct json *doc, int value);

/* Whether string `value` is exactly `text`, escapes considered. */
bool json_is(const struct json *doc, int value, const char *text);

/* Decodes a string; -ENAMETOOLONG if it does not fit with its terminator, -EILSEQ if it has a NUL.
 */
int json_text(const struct json *doc, int value, char *out, size_t size) MUST_CHECK;

/*
 * Steps through an object or array: `*at` starts as 0. For an object `*key` is the name's token.
 * Returns the element's value, or -1 after the last.
 */
int json_each(const struct json *doc, int container, int *at, int *key);

/*
 * Moves an object into `out` (which holds the defaults, or what a PATCH changes). Fields that are
 * absent or null leave their member alone. Returns how many fields were given; -EINVAL, `out`
 * untouched and doc->field set otherwise.
 */
int json_decode(struct json *doc, int value, const struct json_object *object, void *out,
		struct err *err) MUST_CHECK;

/*
 * Length of the UTF-8 sequence at `p` (RFC 3629: no overlong forms, no surrogates, nothing above
 * U+10FFFF), 0 if it is not one. `left` > 0.
 */
size_t json_utf8_len(const char *p, size_t left);

/* Four hexadecimal digits as a number, -1 if they are not. */
int json_hex4(const char *p);

/* Fills the line with "... at line L column C" for the first `offset` bytes. Returns -EINVAL. */
int json_fail(const char *text, size_t offset, struct err *err, const char *fmt, ...) PRINTF(4, 5);

/* ---- writing ------------------------------------------------------------------------------ */

/* Appends to a buffer of the caller's; once something did not fit, `overflow` stays set. */
struct json_out {
	char *buf;
	size_t size, len;
	bool overflow;
};

void json_put(struct json_out *out, const char *raw);
void json_put_string(struct json_out *out, const char *text); /* quoted; always valid UTF-8 */
void json_put_u64(struct json_out *out, u64 n);
void json_put_object(struct json_out *out, const struct json_object *object, const void *from);

#endif
