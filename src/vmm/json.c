/*
 * json: text to tokens, tokens to text. See json.h; the grammar is in json_scan.c, the tables in
 * json_table.c.
 *
 * json_check() decides alone what is valid. Only what it has accepted is given to jsmn, which cuts
 * it into tokens; jsmn is lenient about many things, and none of them can reach it.
 *
 * Invariant: after json_parse() every token lies inside the text, strings hold valid UTF-8 and
 * complete escapes, and no object has the same key twice. Code behind it need not check again.
 */
#define JSON_WITH_JSMN_BODY
#include "json.h"

/* ---- tokens ------------------------------------------------------------------------------- */

/* The next character of a string that was accepted, as its code point; steps over it. */
static u32 next_char(const char **p)
{
	static const char plain[] = "\"\\/bfnrt", meaning[] = "\"\\/\b\f\n\r\t";
	unsigned char c = (unsigned char)*(*p)++;
	u32 high;
	int more;

	if (c == '\\') {
		c = (unsigned char)*(*p)++;
		if (c != 'u')
			return (unsigned char)meaning[strchr(plain, c) - plain];
		high = (u32)json_hex4(*p);
		*p += 4;
		if (high < 0xd800 || high > 0xdbff)
			return high;
		*p += 6; /* the low half: backslash, u, four digits */
		return 0x10000 + ((high - 0xd800) << 10) + ((u32)json_hex4(*p - 4) - 0xdc00);
	}
	if (c < 0x80)
		return c;
	more = c < 0xe0 ? 1 : c < 0xf0 ? 2 : 3;
	high = c & (0x3fu >> more);
	while (more--)
		high = high << 6 | ((unsigned char)*(*p)++ & 0x3f);
	return high;
}

static int skip(const struct json *doc, int value)
{
	int end = doc->tok[value].end, i = value + 1;

	while (i < doc->n && doc->tok[i].start < end)
		i++;
	return i;
}

static bool same_string(const struct json *doc, int a, int b)
{
	const char *p = doc->text + doc->tok[a].start, *p_end = doc->text + doc->tok[a].end;
	const char *q = doc->text + doc->tok[b].start, *q_end = doc->text + doc->tok[b].end;

	while (p < p_end && q < q_end)
		if (next_char(&p) != next_char(&q))
			return false;
	return p == p_end && q == q_end;
}

/* At most JSON_TOKENS_MAX / 2 keys, so the square of it is a matter of milliseconds. */
static int check_duplicates(const struct json *doc, int object, struct err *err)
{
	int end = skip(doc, object);

	for (int a = object + 1; a < end; a = skip(doc, a + 1)) {
		for (int b = skip(doc, a + 1); b < end; b = skip(doc, b + 1)) {
			const jsmntok_t *key = &doc->tok[b];

			if (same_string(doc, a, b))
				return json_fail(doc->text, (size_t)key->end + 1, err,
						 "duplicate field `%.*s`",
						 MIN(key->end - key->start, 128),
						 doc->text + key->start);
		}
	}
	return 0;
}

int json_parse(struct json *doc, const char *text, size_t len, struct err *err)
{
	jsmn_parser parser;

	doc->n = 0;
	doc->field = NULL;
	if (len > INT32_MAX / 2)
		return fail(err, -EINVAL, "the JSON text is too long");
	if (json_check(text, len, err) < 0)
		return -EINVAL;
	jsmn_init(&parser);
	doc->text = text;
	doc->len = len;
	doc->n = jsmn_parse(&parser, text, len, doc->tok, JSON_TOKENS_MAX);
	if (doc->n <= 0) {
		doc->n = 0;
		return fail(err, -EINVAL, "too many values: at most %d are allowed",
			    JSON_TOKENS_MAX);
	}
	for (int i = 0; i < doc->n; i++)
		if (doc->tok[i].type == JSMN_OBJECT && check_duplicates(doc, i, err) < 0)
			return -EINVAL;
	return 0;
}

enum json_kind json_kind(const struct json *doc, int value)
{
	switch (doc->tok[value].type) {
	case JSMN_OBJECT:
		return JSON_IS_OBJECT;
	case JSMN_ARRAY:
		return JSON_IS_ARRAY;
	case JSMN_STRING:
		return JSON_IS_STRING;
	default:
		return doc->text[doc->tok[value].start] == 'n' ? JSON_IS_NULL : JSON_IS_OTHER;
	}
}

int json_each(const struct json *doc, int container, int *at, int *key)
{
	bool object = doc->tok[container].type == JSMN_OBJECT;
	int next = *at ? *at : container + 1;

	if (next >= skip(doc, container))
		return -1;
	*key = object ? next : -1;
	if (object)
		next++;
	*at = skip(doc, next);
	return next;
}

/* ---- strings ------------------------------------------------------------------------------ */

/* UTF-8 of a code point that came from a valid string. */
static size_t encode(u32 c, char *out)
{
	static const unsigned char lead[] = { 0, 0, 0xc0, 0xe0, 0xf0 };
	size_t n = c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;

	if (n == 1) {
		out[0] = (char)c;
		return 1;
	}
	for (size_t i = n - 1; i > 0; i--, c >>= 6)
		out[i] = (char)(0x80 | (c & 0x3f));
	out[0] = (char)(lead[n] | c);
	return n;
}

int json_text(const struct json *doc, int value, char *out, size_t size)
{
	const char *p = doc->text + doc->tok[value].start, *end = doc->text + doc->tok[value].end;
	size_t len = 0, n;
	char utf8[4];

	while (p < end) {
		u32 c = next_char(&p);

		if (!c)
			return -EILSEQ;
		n = encode(c, utf8);
		if (len + n >= size) {
			out[len] = '\0';
			return -ENAMETOOLONG;
		}
		memcpy(out + len, utf8, n);
		len += n;
	}
	out[len] = '\0';
	return 0;
}

bool json_is(const struct json *doc, int value, const char *text)
{
	const char *p = doc->text + doc->tok[value].start, *end = doc->text + doc->tok[value].end;
	size_t n;
	char utf8[4];

	while (p < end) {
		n = encode(next_char(&p), utf8);
		if (strncmp(text, utf8, n) != 0 || !utf8[0])
			return false;
		text += n;
	}
	return !*text;
}
