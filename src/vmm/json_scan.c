/*
 * json_scan: what is JSON and what is not (RFC 8259), in one pass, with the error texts. See
 * json.h.
 *
 * Recursive, but never deeper than JSON_DEPTH_MAX. Looks at bytes only and keeps nothing.
 */
#include "json.h"

#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>

/* ---- errors ------------------------------------------------------------------------------- */

int json_fail(const char *text, size_t offset, struct err *err, const char *fmt, ...)
{
	size_t line = 1, column = 0, n;
	va_list ap;

	for (size_t i = 0; i < offset; i++) {
		column++;
		if (text[i] == '\n') {
			line++;
			column = 0;
		}
	}
	va_start(ap, fmt);
	vsnprintf(err->msg, sizeof err->msg, fmt, ap);
	va_end(ap);
	n = strlen(err->msg);
	snprintf(err->msg + n, sizeof err->msg - n, " at line %zu column %zu", line, column);
	return -EINVAL;
}

/* ---- scanner ------------------------------------------------------------------------------ */

struct scan {
	const char *text;
	size_t len, at;
	unsigned depth;
	struct err *err;
};

static int peek(const struct scan *s)
{
	return s->at < s->len ? (unsigned char)s->text[s->at] : -1;
}

/* Points behind the byte that is wrong, or at the end of the text. */
static int bad(const struct scan *s, const char *what)
{
	return json_fail(s->text, MIN(s->at + 1, s->len), s->err, "%s", what);
}

static int skip_blanks(struct scan *s)
{
	int c = peek(s);

	while (c == ' ' || c == '\t' || c == '\n' || c == '\r') {
		s->at++;
		c = peek(s);
	}
	return c;
}

static int scan_word(struct scan *s, const char *word)
{
	for (; *word; word++, s->at++) {
		int c = peek(s);

		if (c < 0)
			return bad(s, "EOF while parsing a value");
		if (c != *word)
			return bad(s, "expected ident");
	}
	return 0;
}

static int scan_digits(struct scan *s)
{
	if (peek(s) < 0)
		return bad(s, "EOF while parsing a value");
	if (!isdigit(peek(s)))
		return bad(s, "invalid number");
	while (isdigit(peek(s)))
		s->at++;
	return 0;
}

static int scan_number(struct scan *s)
{
	if (peek(s) == '-')
		s->at++;
	if (peek(s) == '0') {
		s->at++;
		if (isdigit(peek(s)))
			return bad(s, "invalid number"); /* leading zero */
	} else if (scan_digits(s) < 0) {
		return -EINVAL;
	}
	if (peek(s) == '.') {
		s->at++;
		if (scan_digits(s) < 0)
			return -EINVAL;
	}
	if (peek(s) == 'e' || peek(s) == 'E') {
		s->at++;
		if (peek(s) == '+' || peek(s) == '-')
			s->at++;
		return scan_digits(s);
	}
	return 0;
}

int json_hex4(const char *p)
{
	int v = 0;

	for (int i = 0; i < 4; i++) {
		int c = tolower((unsigned char)p[i]);

		if (!isxdigit(c))
			return -1;
		v = v << 4 | (isdigit(c) ? c - '0' : c - 'a' + 10);
	}
	return v;
}

static int scan_hex(struct scan *s)
{
	int v;

	if (s->len - s->at < 4) {
		s->at = s->len;
		return bad(s, "EOF while parsing a string");
	}
	v = json_hex4(s->text + s->at);
	if (v < 0)
		return bad(s, "invalid escape");
	s->at += 4;
	return v;
}

/* After the `u`. A surrogate must come as a pair, high before low. */
static int scan_unicode(struct scan *s)
{
	int high = scan_hex(s), low;

	if (high < 0)
		return high;
	if (high >= 0xdc00 && high <= 0xdfff)
		return bad(s, "lone leading surrogate in hex escape");
	if (high < 0xd800 || high > 0xdbff)
		return 0;
	if (peek(s) != '\\')
		return bad(s, "unexpected end of hex escape");
	s->at++;
	if (peek(s) != 'u')
		return bad(s, "unexpected end of hex escape");
	s->at++;
	low = scan_hex(s);
	if (low < 0)
		return low;
	return low < 0xdc00 || low > 0xdfff ? bad(s, "lone leading surrogate in hex escape") : 0;
}

static int scan_escape(struct scan *s)
{
	int c = peek(s);

	if (c < 0)
		return bad(s, "EOF while parsing a string");
	if (!strchr("\"\\/bfnrtu", c) || !c)
		return bad(s, "invalid escape");
	s->at++;
	return c == 'u' ? scan_unicode(s) : 0;
}

size_t json_utf8_len(const char *p, size_t left)
{
	const unsigned char *u = (const unsigned char *)p;
	size_t n = u[0] < 0x80 ? 1 : u[0] < 0xc2 ? 0 : u[0] < 0xe0 ? 2 : u[0] < 0xf0 ? 3 : 4;

	if (!n || u[0] > 0xf4 || n > left)
		return 0;
	for (size_t i = 1; i < n; i++)
		if ((u[i] & 0xc0) != 0x80)
			return 0;
	if ((u[0] == 0xe0 && u[1] < 0xa0) || (u[0] == 0xed && u[1] > 0x9f) ||
	    (u[0] == 0xf0 && u[1] < 0x90) || (u[0] == 0xf4 && u[1] > 0x8f))
		return 0;
	return n;
}

static int scan_string(struct scan *s)
{
	s->at++; /* the opening quote */
	for (;;) {
		int c = peek(s);
		size_t n;

		if (c < 0)
			return bad(s, "EOF while parsing a string");
		if (c == '"') {
			s->at++;
			return 0;
		}
		if (c < 0x20)
			return bad(
				s,
				"control character (\\u0000-\\u001F) found while parsing a string");
		if (c == '\\') {
			s->at++;
			if (scan_escape(s) < 0)
				return -EINVAL;
			continue;
		}
		n = json_utf8_len(s->text + s->at, s->len - s->at);
		if (!n)
			return bad(s, "invalid unicode code point");
		s->at += n;
	}
}

static int scan_value(struct scan *s);

static int scan_array(struct scan *s)
{
	s->at++;
	if (skip_blanks(s) == ']') {
		s->at++;
		return 0;
	}
	for (;;) {
		int c;

		if (skip_blanks(s) < 0)
			return bad(s, "EOF while parsing a list");
		if (scan_value(s) < 0)
			return -EINVAL;
		c = skip_blanks(s);
		if (c < 0)
			return bad(s, "EOF while parsing a list");
		if (c != ',' && c != ']')
			return bad(s, "expected `,` or `]`");
		s->at++;
		if (c == ']')
			return 0;
		if (skip_blanks(s) == ']')
			return bad(s, "trailing comma");
	}
}

static int scan_member(struct scan *s)
{
	int c = skip_blanks(s);

	if (c < 0)
		return bad(s, "EOF while parsing an object");
	if (c != '"')
		return bad(s, "key must be a string");
	if (scan_string(s) < 0)
		return -EINVAL;
	c = skip_blanks(s);
	if (c < 0)
		return bad(s, "EOF while parsing an object");
	if (c != ':')
		return bad(s, "expected `:`");
	s->at++;
	return scan_value(s);
}

static int scan_object(struct scan *s)
{
	s->at++;
	if (skip_blanks(s) == '}') {
		s->at++;
		return 0;
	}
	for (;;) {
		int c;

		if (scan_member(s) < 0)
			return -EINVAL;
		c = skip_blanks(s);
		if (c < 0)
			return bad(s, "EOF while parsing an object");
		if (c != ',' && c != '}')
			return bad(s, "expected `,` or `}`");
		s->at++;
		if (c == '}')
			return 0;
		if (skip_blanks(s) == '}')
			return bad(s, "trailing comma");
	}
}

static int scan_nested(struct scan *s, int (*scan)(struct scan *s))
{
	int r;

	if (s->depth == JSON_DEPTH_MAX)
		return bad(s, "recursion limit exceeded");
	s->depth++;
	r = scan(s);
	s->depth--;
	return r;
}

static int scan_value(struct scan *s)
{
	int c = skip_blanks(s);

	switch (c) {
	case -1:
		return bad(s, "EOF while parsing a value");
	case '{':
		return scan_nested(s, scan_object);
	case '[':
		return scan_nested(s, scan_array);
	case '"':
		return scan_string(s);
	case 't':
		return scan_word(s, "true");
	case 'f':
		return scan_word(s, "false");
	case 'n':
		return scan_word(s, "null");
	default:
		return c == '-' || isdigit(c) ? scan_number(s) : bad(s, "expected value");
	}
}

int json_check(const char *text, size_t len, struct err *err)
{
	struct scan s = { .text = text, .len = len, .err = err };

	if (scan_value(&s) < 0)
		return -EINVAL;
	return skip_blanks(&s) >= 0 ? bad(&s, "trailing characters") : 0;
}
