/*
 * json_table: structs to JSON objects and back, by the tables of json.h.
 *
 * An object is walked twice: once without a destination, which finds every error, then again to
 * store. So a struct is either filled by valid data or not touched, and storing cannot fail.
 */
#include "json.h"

#include <ctype.h>
#include <stdio.h>

#define QUOTED_MAX 128 /* bytes of a client's text that an error line repeats */

/* How error texts call what a field wants; objects and enums have their own. */
static const char *const type_name[JSON_TYPES] = {
	[JSON_BOOL] = "a boolean",  [JSON_U8] = "u8",	      [JSON_U16] = "u16",
	[JSON_U32] = "u32",	    [JSON_U64] = "u64",	      [JSON_USIZE] = "usize",
	[JSON_STRING] = "a string", [JSON_ENUM] = "a string",
};

static const u64 type_max[JSON_TYPES] = {
	[JSON_U8] = UINT8_MAX,	 [JSON_U16] = UINT16_MAX,   [JSON_U32] = UINT32_MAX,
	[JSON_U64] = UINT64_MAX, [JSON_USIZE] = UINT64_MAX,
};

/* ---- reading ------------------------------------------------------------------------------ */

/* One object on its way in. `out` is NULL on the first walk. */
struct decode {
	struct json *doc;
	struct err *err;
};

static const char *start_of(const struct json *doc, int value)
{
	return doc->text + doc->tok[value].start;
}

static int length_of(const struct json *doc, int value)
{
	return doc->tok[value].end - doc->tok[value].start;
}

/* Where a reader that works byte by byte stands after the value; before it, for a container. */
static size_t after(const struct json *doc, int value)
{
	const jsmntok_t *t = &doc->tok[value];

	if (t->type == JSMN_OBJECT || t->type == JSMN_ARRAY)
		return (size_t)t->start;
	return (size_t)t->end + (t->type == JSMN_STRING);
}

static bool is_float(const char *text, int len)
{
	for (int i = 0; i < len; i++)
		if (strchr(".eE", text[i]))
			return true;
	return false;
}

/* False: not an integer that 64 bits hold. */
static bool parse_u64(const char *text, int len, u64 *n)
{
	*n = 0;
	for (int i = 0; i < len; i++)
		if (!isdigit((unsigned char)text[i]) || __builtin_mul_overflow(*n, 10u, n) ||
		    __builtin_add_overflow(*n, (u64)(text[i] - '0'), n))
			return false;
	return true;
}

/* An integer as the texts see it: with an optional sign, not -0, and within 64 bits. */
static bool is_integer(const char *text, int len)
{
	u64 n;

	if (text[0] != '-')
		return parse_u64(text, len, &n);
	return parse_u64(text + 1, len - 1, &n) && n && n <= (u64)INT64_MAX + 1;
}

/* `string "x"`, `integer `5``, `map` ...: what was there instead. */
static void describe(const struct json *doc, int value, char *out, size_t size)
{
	char text[QUOTED_MAX];
	const char *p = start_of(doc, value);
	int len = MIN(length_of(doc, value), QUOTED_MAX - 1);

	if (doc->tok[value].type == JSMN_OBJECT) {
		snprintf(out, size, "map");
	} else if (doc->tok[value].type == JSMN_ARRAY) {
		snprintf(out, size, "sequence");
	} else if (doc->tok[value].type == JSMN_STRING) {
		snprintf(out, size, "string \"%.*s\"", len, p);
	} else if (*p == 'n') {
		snprintf(out, size, "null");
	} else if (*p == 't' || *p == 'f') {
		snprintf(out, size, "boolean `%.*s`", len, p);
	} else {
		snprintf(text, sizeof text, "%.*s", len, p);
		if (is_integer(p, length_of(doc, value)))
			snprintf(out, size, "integer `%s`", text);
		else
			snprintf(out, size, "floating point `%s%s`", text,
				 is_float(p, length_of(doc, value)) ? "" : ".0");
	}
}

static int invalid_type(struct decode *d, int value, const char *expected)
{
	char found[QUOTED_MAX + 32];

	describe(d->doc, value, found, sizeof found);
	return json_fail(d->doc->text, after(d->doc, value), d->err,
			 "invalid type: %s, expected %s", found, expected);
}

static int read_bool(struct decode *d, int value, const struct json_field *f, void *out)
{
	char c = *start_of(d->doc, value);

	if (d->doc->tok[value].type != JSMN_PRIMITIVE || (c != 't' && c != 'f'))
		return invalid_type(d, value, type_name[f->type]);
	if (out)
		*(bool *)out = c == 't';
	return 0;
}

static void store_integer(void *out, u32 size, u64 n)
{
	assert(size == 1 || size == 2 || size == 4 || size == 8);
	memcpy(out, &n, size); /* little endian, as the only hosts there are */
}

static int read_integer(struct decode *d, int value, const struct json_field *f, void *out)
{
	const char *p = start_of(d->doc, value);
	int len = length_of(d->doc, value);
	u64 n;

	if (d->doc->tok[value].type != JSMN_PRIMITIVE || !is_integer(p, len))
		return invalid_type(d, value, type_name[f->type]);
	if (!parse_u64(p, len, &n) || n > type_max[f->type])
		return json_fail(d->doc->text, after(d->doc, value), d->err,
				 "invalid value: integer `%.*s`, expected %s", len, p,
				 type_name[f->type]);
	if (out)
		store_integer(out, f->size, n);
	return 0;
}

/*
 * A string that does not fit is refused, never cut; so is one with a NUL inside, which would mean
 * one thing to the client and another to open(2).
 */
static int check_string(struct decode *d, int value, const struct json_field *f)
{
	const jsmntok_t *t = &d->doc->tok[value];
	char scratch[4096];
	int r;

	assert(f->size <= sizeof scratch);
	r = json_text(d->doc, value, scratch, f->size);
	if (r == -ENAMETOOLONG)
		return json_fail(d->doc->text, (size_t)t->end + 1, d->err,
				 "field `%s` is too long, expected at most %u bytes", f->name,
				 f->size - 1);
	if (r < 0)
		return json_fail(d->doc->text, (size_t)t->end + 1, d->err,
				 "field `%s` contains a NUL character", f->name);
	return 0;
}

static int read_string(struct decode *d, int value, const struct json_field *f, void *out)
{
	if (d->doc->tok[value].type != JSMN_STRING)
		return invalid_type(d, value, type_name[f->type]);
	return out ? json_text(d->doc, value, out, f->size) : check_string(d, value, f);
}

/* "`a`", "`a` or `b`", "one of `a`, `b`, `c`"; `name(of, i)` gives the i-th. */
static void list_names(char *out, size_t size, const char *(*name)(const void *of, unsigned i),
		       const void *of, unsigned n)
{
	size_t len = 0;

	out[0] = '\0';
	for (unsigned i = 0; i < n && len < size; i++) {
		const char *before = i == 0 ? (n > 2 ? "one of " : "") : n == 2 ? " or " : ", ";
		int r = snprintf(out + len, size - len, "%s`%s`", before, name(of, i));

		len += (size_t)r;
	}
}

static const char *enum_name(const void *of, unsigned i)
{
	return ((const struct json_names *)of)->name[i].name;
}

static const char *field_name(const void *of, unsigned i)
{
	return ((const struct json_object *)of)->field[i].name;
}

static bool enum_match(const char *text, const struct json_names *names, int *value)
{
	for (unsigned i = 0; i < names->n; i++) {
		const char *name = names->name[i].name;

		if (names->any_case ? strcasecmp(text, name) == 0 : strcmp(text, name) == 0) {
			*value = names->name[i].value;
			return true;
		}
	}
	return false;
}

static int read_enum(struct decode *d, int value, const struct json_field *f, void *out)
{
	const jsmntok_t *t = &d->doc->tok[value];
	char text[QUOTED_MAX], expected[512];
	int n;

	if (t->type != JSMN_STRING)
		return json_fail(d->doc->text, (size_t)t->start + 1, d->err, "expected value");
	if (json_text(d->doc, value, text, sizeof text) == 0 && enum_match(text, f->names, &n)) {
		if (out)
			store_integer(out, f->size, (u64)(i64)n);
		return 0;
	}
	list_names(expected, sizeof expected, enum_name, f->names, f->names->n);
	return json_fail(
		d->doc->text, (size_t)t->end + 1, d->err, "unknown variant `%.*s`, expected %s",
		MIN(length_of(d->doc, value), QUOTED_MAX), start_of(d->doc, value), expected);
}

static int walk(struct decode *d, int value, const struct json_object *object, void *out);

/* Elements start as zeros. */
static int read_list(struct decode *d, int value, const struct json_field *f, void *out, unsigned *n)
{
	u32 stride = f->size / f->max;
	int at = 0, key, element, r;

	*n = 0;
	if (json_kind(d->doc, value) != JSON_IS_ARRAY)
		return invalid_type(d, value, "a sequence");
	while ((element = json_each(d->doc, value, &at, &key)) >= 0) {
		void *to = out ? (char *)out + (size_t)*n * stride : NULL;

		if (*n == f->max)
			return json_fail(d->doc->text, after(d->doc, value), d->err,
					 "field `%s` has more than %u elements", f->name, f->max);
		if (to)
			memset(to, 0, stride);
		r = walk(d, element, f->object, to);
		if (r < 0)
			return r;
		++*n;
	}
	return 0;
}

static int read_value(struct decode *d, int value, const struct json_field *f, void *out)
{
	switch (f->type) {
	case JSON_BOOL:
		return read_bool(d, value, f, out);
	case JSON_STRING:
		return read_string(d, value, f, out);
	case JSON_ENUM:
		return read_enum(d, value, f, out);
	case JSON_OBJECT:
		return walk(d, value, f->object, out);
	default:
		return read_integer(d, value, f, out);
	}
}

static int find_field(const struct json *doc, int key, const struct json_object *object)
{
	for (unsigned i = 0; i < object->n; i++)
		if (json_is(doc, key, object->field[i].name))
			return (int)i;
	return -1;
}

static int unknown_field(struct decode *d, int key, const struct json_object *object)
{
	char expected[768];

	list_names(expected, sizeof expected, field_name, object, object->n);
	return json_fail(d->doc->text, (size_t)d->doc->tok[key].end + 1, d->err,
			 "unknown field `%.*s`, %s%s", MIN(length_of(d->doc, key), QUOTED_MAX),
			 start_of(d->doc, key), object->n ? "expected " : "there are no fields",
			 expected);
}

static int check_missing(struct decode *d, int value, const struct json_object *object, u64 seen)
{
	for (unsigned i = 0; i < object->n; i++)
		if ((object->field[i].flags & JSON_REQUIRED) && !(seen >> i & 1))
			return json_fail(d->doc->text, (size_t)d->doc->tok[value].end, d->err,
					 "missing field `%s`", object->field[i].name);
	return 0;
}

/* One member of an object; 1 if it was given, 0 if it was null. */
static int walk_member(struct decode *d, int value, const struct json_field *f, void *out)
{
	int r;

	if (json_kind(d->doc, value) == JSON_IS_NULL && !(f->flags & JSON_REQUIRED))
		return 0;
	if (f->type == JSON_LIST) {
		unsigned n;

		r = read_list(d, value, f, out ? (char *)out + f->offset : NULL, &n);
		if (out)
			memcpy((char *)out + f->count, &n, sizeof n);
	} else {
		r = read_value(d, value, f, out ? (char *)out + f->offset : NULL);
	}
	if (r < 0) {
		/* The innermost name: an object's own failures have set theirs already. */
		if (!d->doc->field)
			d->doc->field = f->name;
		return r;
	}
	if (out && f->given)
		*((bool *)out + f->given) = true;
	return 1;
}

/* Returns how many fields were given. */
static int walk(struct decode *d, int value, const struct json_object *object, void *out)
{
	int at = 0, key, member, given = 0, r;
	u64 seen = 0;

	assert(object->n <= 64);
	if (json_kind(d->doc, value) != JSON_IS_OBJECT) {
		char expected[80];

		snprintf(expected, sizeof expected, "struct %s", object->name);
		return invalid_type(d, value, expected);
	}
	while ((member = json_each(d->doc, value, &at, &key)) >= 0) {
		int i = find_field(d->doc, key, object);

		if (i < 0 && object->lax)
			continue;
		if (i < 0)
			return unknown_field(d, key, object);
		seen |= 1ull << i;
		r = walk_member(d, member, &object->field[i], out);
		if (r < 0)
			return r;
		given += r;
	}
	r = check_missing(d, value, object, seen);
	return r < 0 ? r : given;
}

int json_decode(struct json *doc, int value, const struct json_object *object, void *out,
		struct err *err)
{
	struct decode d = { .doc = doc, .err = err };
	int r;

	doc->field = NULL;
	r = walk(&d, value, object, NULL);
	return r < 0 ? r : walk(&d, value, object, out);
}

/* ---- writing ------------------------------------------------------------------------------ */

static void put_bytes(struct json_out *out, const char *bytes, size_t n)
{
	if (out->overflow || n >= out->size - out->len) {
		out->overflow = true;
		return;
	}
	memcpy(out->buf + out->len, bytes, n);
	out->len += n;
	out->buf[out->len] = '\0';
}

void json_put(struct json_out *out, const char *raw)
{
	put_bytes(out, raw, strlen(raw));
}

/* What JSON must escape, in the short form where there is one; else empty. */
static void escape(unsigned char c, char piece[8])
{
	static const char plain[] = "\"\\\b\f\n\r\t", letter[] = "\"\\bfnrt";
	const char *p = c ? strchr(plain, c) : NULL;

	piece[0] = '\0';
	if (p)
		snprintf(piece, 8, "\\%c", letter[p - plain]);
	else if (c < 0x20)
		snprintf(piece, 8, "\\u%04x", c);
}

void json_put_string(struct json_out *out, const char *text)
{
	size_t left = strlen(text), n;
	char piece[8];

	json_put(out, "\"");
	for (; left; text += n, left -= n) {
		n = json_utf8_len(text, left);
		escape((unsigned char)*text, piece);
		if (piece[0])
			json_put(out, piece);
		else if (n)
			put_bytes(out, text, n);
		else
			json_put(
				out,
				"\xef\xbf\xbd"); /* U+FFFD: a path from elsewhere, a clipped line */
		n = n ? n : 1;
	}
	json_put(out, "\"");
}

void json_put_u64(struct json_out *out, u64 n)
{
	char digits[24];

	snprintf(digits, sizeof digits, "%llu", (unsigned long long)n);
	json_put(out, digits);
}

static u64 load_integer(const void *from, u32 size)
{
	u64 n = 0;

	memcpy(&n, from, size);
	return n;
}

static const char *name_of(const struct json_names *names, int value)
{
	for (unsigned i = 0; i < names->n; i++)
		if (names->name[i].value == value)
			return names->name[i].name;
	return "";
}

/* Whether there is nothing to tell: never given, or, where nobody keeps that, zero. */
static bool is_empty(const struct json_field *f, const void *from)
{
	const char *member = (const char *)from + f->offset;

	if (f->given)
		return !*((const bool *)from + f->given);
	if (f->type == JSON_STRING)
		return !(f->flags & JSON_REQUIRED) && !*member;
	return (f->flags & JSON_OMIT) && !load_integer(member, f->size);
}

static void put_value(struct json_out *out, const struct json_field *f, const void *member)
{
	switch (f->type) {
	case JSON_BOOL:
		json_put(out, *(const bool *)member ? "true" : "false");
		break;
	case JSON_STRING:
		json_put_string(out, member);
		break;
	case JSON_ENUM:
		json_put_string(out, name_of(f->names, (int)load_integer(member, f->size)));
		break;
	case JSON_OBJECT:
		json_put_object(out, f->object, member);
		break;
	default:
		json_put_u64(out, load_integer(member, f->size));
	}
}

void json_put_object(struct json_out *out, const struct json_object *object, const void *from)
{
	const char *before = "{";

	for (unsigned i = 0; i < object->n; i++) {
		const struct json_field *f = &object->field[i];
		bool empty = is_empty(f, from);

		if (empty && (f->flags & JSON_OMIT))
			continue;
		json_put(out, before);
		before = ",";
		json_put_string(out, f->name);
		json_put(out, ":");
		if (empty)
			json_put(out, "null");
		else
			put_value(out, f, (const char *)from + f->offset);
	}
	json_put(out, *before == '{' ? "{}" : "}");
}
