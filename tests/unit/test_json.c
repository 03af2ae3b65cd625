/* json: what is JSON, what is said about what is not, and structs that come and go through tables.
 */
#include "test.h"

#include "src/vmm/json.h"

#include <stdio.h>
#include <stdlib.h>

#define complain(...) (print_error(__VA_ARGS__), print_error("\n"), _fail(__FILE__, __LINE__))

static struct json doc;
static struct err err;

static int parse(const char *text)
{
	return json_parse(&doc, text, strlen(text), &err);
}

static void assert_says(const char *expected)
{
	assert_string_equal(err.msg, expected);
}

/* ---- grammar -------------------------------------------------------------------------------- */

static void accepts_what_rfc_8259_allows(void **state)
{
	static const char *const good[] = {
		"{}",
		"[]",
		" { } ",
		"null",
		"true",
		"false",
		"0",
		"-0",
		"-1",
		"1e9",
		"1E+9",
		"1.5e-3",
		"\"\"",
		"\"\\u00e9\\ud83d\\ude00\\n\\/\\\"\"",
		"\"\xc3\xa9\xf0\x9f\x98\x80\"",
		"[1,[2,[3]],{\"a\":{}}]",
		"\t\r\n[ ]\n",
		"\"\x7f\"",
		"{\"\":1}",
		"123456789012345678901234567890",
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(good); i++)
		if (parse(good[i]) != 0)
			complain("%s: %s", good[i], err.msg);
}

static void words_its_refusals_like_serde_json(void **state)
{
	static const struct {
		const char *text, *says;
	} bad[] = {
		{ "", "EOF while parsing a value at line 1 column 0" },
		{ "  ", "EOF while parsing a value at line 1 column 2" },
		{ "{", "EOF while parsing an object at line 1 column 1" },
		{ "{\"a\"", "EOF while parsing an object at line 1 column 4" },
		{ "{\"a\":1", "EOF while parsing an object at line 1 column 6" },
		{ "{\"a\":", "EOF while parsing a value at line 1 column 5" },
		{ "[", "EOF while parsing a list at line 1 column 1" },
		{ "[1", "EOF while parsing a list at line 1 column 2" },
		{ "\"abc", "EOF while parsing a string at line 1 column 4" },
		{ "\"a\\", "EOF while parsing a string at line 1 column 3" },
		{ "\"\\u12", "EOF while parsing a string at line 1 column 5" },
		{ "{\"a\":1,}", "trailing comma at line 1 column 8" },
		{ "[1,]", "trailing comma at line 1 column 4" },
		{ "{} x", "trailing characters at line 1 column 4" },
		{ "{}{}", "trailing characters at line 1 column 3" },
		{ "{\"a\" 1}", "expected `:` at line 1 column 6" },
		{ "{\"a\":1 \"b\":2}", "expected `,` or `}` at line 1 column 8" },
		{ "[1 2]", "expected `,` or `]` at line 1 column 4" },
		{ "{a:1}", "key must be a string at line 1 column 2" },
		{ "{1:1}", "key must be a string at line 1 column 2" },
		{ "nul", "EOF while parsing a value at line 1 column 3" },
		{ "nulx", "expected ident at line 1 column 4" },
		{ "NaN", "expected value at line 1 column 1" },
		{ "'a'", "expected value at line 1 column 1" },
		{ "+1", "expected value at line 1 column 1" },
		{ ".5", "expected value at line 1 column 1" },
		{ "01", "invalid number at line 1 column 2" },
		{ "-", "EOF while parsing a value at line 1 column 1" },
		{ "1.", "EOF while parsing a value at line 1 column 2" },
		{ "1.x", "invalid number at line 1 column 3" },
		{ "1e", "EOF while parsing a value at line 1 column 2" },
		{ "--1", "invalid number at line 1 column 2" },
		{ "/* */1", "expected value at line 1 column 1" },
		{ "\xef\xbb\xbf{}", "expected value at line 1 column 1" },
		{ "{\n \"a\": x}", "expected value at line 2 column 7" },
		{ "\"\\x\"", "invalid escape at line 1 column 3" },
		{ "\"\\ud800\"", "unexpected end of hex escape at line 1 column 8" },
		{ "\"\\udc00\"", "lone leading surrogate in hex escape at line 1 column 8" },
		{ "\"\\ud800\\u0041\"",
		  "lone leading surrogate in hex escape at line 1 column 14" },
		{ "\"\n\"",
		  "control character (\\u0000-\\u001F) found while parsing a string at line 2 "
		  "column 0" },
		{ "\"\xff\"", "invalid unicode code point at line 1 column 2" },
		{ "\"\xc0\x80\"", "invalid unicode code point at line 1 column 2" },
		{ "\"\xed\xa0\x80\"", "invalid unicode code point at line 1 column 2" },
		{ "\"\xf4\x90\x80\x80\"", "invalid unicode code point at line 1 column 2" },
		{ "\"\xe2\x82\"", "invalid unicode code point at line 1 column 2" },
		{ "{\"a\":1,\"a\":2}", "duplicate field `a` at line 1 column 10" },
		{ "{\"a\":{\"b\":1,\"\\u0062\":2}}",
		  "duplicate field `\\u0062` at line 1 column 20" },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		if (parse(bad[i].text) == 0)
			complain("accepted: %s", bad[i].text);
		if (strcmp(err.msg, bad[i].says) != 0)
			complain("%s: \"%s\", not \"%s\"", bad[i].text, err.msg, bad[i].says);
	}
}

static void refuses_a_nul_byte_anywhere(void **state)
{
	(void)state;
	assert_int_equal(json_parse(&doc, "{}\0", 3, &err), -EINVAL);
	assert_int_equal(json_parse(&doc, "\"a\0b\"", 5, &err), -EINVAL);
	assert_int_equal(json_parse(&doc, "\0{}", 3, &err), -EINVAL);
}

static void stops_at_the_depth_limit(void **state)
{
	char text[2 * JSON_DEPTH_MAX + 3];

	(void)state;
	memset(text, '[', JSON_DEPTH_MAX);
	memset(text + JSON_DEPTH_MAX, ']', JSON_DEPTH_MAX);
	assert_int_equal(json_parse(&doc, text, 2 * JSON_DEPTH_MAX, &err), 0);
	memset(text, '[', JSON_DEPTH_MAX + 1);
	memset(text + JSON_DEPTH_MAX + 1, ']', JSON_DEPTH_MAX + 1);
	assert_int_equal(json_parse(&doc, text, sizeof text - 1, &err), -EINVAL);
	assert_says("recursion limit exceeded at line 1 column 33");
}

static void survives_a_hundred_thousand_brackets_and_digits(void **state)
{
	size_t n = 100000;
	char *text = malloc(n);

	(void)state;
	memset(text, '[', n);
	assert_int_equal(json_parse(&doc, text, n, &err), -EINVAL);
	memset(text, '9', n);
	assert_int_equal(json_parse(&doc, text, n, &err), 0);
	memset(text, ',', n);
	assert_int_equal(json_parse(&doc, text, n, &err), -EINVAL);
	free(text);
}

static void refuses_more_values_than_it_has_room_for(void **state)
{
	char text[2 * JSON_TOKENS_MAX + 3] = "[";

	(void)state;
	for (int i = 0; i < JSON_TOKENS_MAX; i++)
		strcpy(text + 1 + 2 * i, i ? "0," : "0,");
	text[2 * JSON_TOKENS_MAX] = ']';
	text[2 * JSON_TOKENS_MAX + 1] = '\0';
	assert_int_equal(parse(text), -EINVAL);
	assert_non_null(strstr(err.msg, "too many values"));
	text[2 * JSON_TOKENS_MAX - 2] = ']';
	text[2 * JSON_TOKENS_MAX - 1] = '\0';
	assert_int_equal(parse(text), 0);
}

/* ---- tables --------------------------------------------------------------------------------- */

enum colour { RED, GREEN = 7 };

struct inner {
	u16 n;
	bool n_given;
};

struct thing {
	bool flag;
	u8 small;
	u32 wide; /* a u8 in JSON */
	u64 big;
	enum colour colour;
	char text[8];
	bool text_given;
	struct inner inner;
	bool inner_given;
};

static const struct json_name colour_name[] = { { "Red", RED }, { "Green", GREEN } };
static const struct json_names colours = JSON_NAMES(colour_name);
static const struct json_field inner_field[] = {
	{ JSON_FIELD("n", JSON_U16, struct inner, n), JSON_GIVEN(struct inner, n_given),
	  .flags = JSON_REQUIRED },
};
static const struct json_object inner = { .name = "Inner", inner_field, 1, .lax = true };
static const struct json_field thing_field[] = {
	{ JSON_FIELD("flag", JSON_BOOL, struct thing, flag) },
	{ JSON_FIELD("small", JSON_U8, struct thing, small), .flags = JSON_REQUIRED },
	{ JSON_FIELD("wide", JSON_U8, struct thing, wide) },
	{ JSON_FIELD("big", JSON_U64, struct thing, big), .flags = JSON_OMIT },
	{ JSON_FIELD("colour", JSON_ENUM, struct thing, colour), .names = &colours },
	{ JSON_FIELD("text", JSON_STRING, struct thing, text),
	  JSON_GIVEN(struct thing, text_given) },
	{ JSON_FIELD("inner", JSON_OBJECT, struct thing, inner),
	  JSON_GIVEN(struct thing, inner_given), .object = &inner },
};
static const struct json_object thing = { "Thing", thing_field, ARRAY_SIZE(thing_field), false };

static int decode(const char *text, struct thing *t)
{
	int r = parse(text);

	return r < 0 ? r : json_decode(&doc, JSON_ROOT, &thing, t, &err);
}

static void fills_every_member(void **state)
{
	struct thing t = { 0 };

	(void)state;
	assert_int_equal(
		decode("{\"flag\":true,\"small\":255,\"wide\":200,\"big\":18446744073709551615,"
		       "\"colour\":\"Green\",\"text\":\"\\u0061b\\u00e9\",\"inner\":{\"n\":65535,"
		       "\"else\":[]}}",
		       &t),
		7);
	assert_true(t.flag);
	assert_int_equal(t.small, 255);
	assert_int_equal(t.wide, 200);
	assert_true(t.big == UINT64_MAX);
	assert_int_equal(t.colour, GREEN);
	assert_string_equal(t.text, "ab\xc3\xa9");
	assert_true(t.text_given && t.inner_given && t.inner.n_given);
	assert_int_equal(t.inner.n, 65535);
}

static void null_and_absent_leave_a_member_alone(void **state)
{
	struct thing t = { .flag = true, .wide = 9, .text = "old", .colour = GREEN };

	(void)state;
	assert_int_equal(
		decode("{\"small\":1,\"flag\":null,\"text\":null,\"colour\":null,\"inner\":null}",
		       &t),
		1);
	assert_true(t.flag && t.wide == 9 && t.colour == GREEN && !t.text_given && !t.inner_given);
	assert_string_equal(t.text, "old");
}

static void says_what_is_wrong_and_touches_nothing(void **state)
{
	static const struct {
		const char *text, *says, *field;
	} bad[] = {
		{ "[]", "invalid type: sequence, expected struct Thing at line 1 column 0", NULL },
		{ "5", "invalid type: integer `5`, expected struct Thing at line 1 column 1",
		  NULL },
		{ "null", "invalid type: null, expected struct Thing at line 1 column 4", NULL },
		{ "{}", "missing field `small` at line 1 column 2", NULL },
		{ "{\"flag\":true}", "missing field `small` at line 1 column 13", NULL },
		{ "{\"flag\":true\n }\n", "missing field `small` at line 2 column 2", NULL },
		{ "{\"small\":null}", "invalid type: null, expected u8 at line 1 column 13",
		  "small" },
		{ "{\"smal\":1}",
		  "unknown field `smal`, expected one of `flag`, `small`, `wide`, `big`, `colour`, "
		  "`text`, "
		  "`inner` at line 1 column 7",
		  NULL },
		{ "{\"small\":256}",
		  "invalid value: integer `256`, expected u8 at line 1 column 12", "small" },
		{ "{\"small\":-1}", "invalid value: integer `-1`, expected u8 at line 1 column 11",
		  "small" },
		{ "{\"small\":1,\"wide\":256}",
		  "invalid value: integer `256`, expected u8 at line 1 column 21", "wide" },
		{ "{\"small\":1.0}",
		  "invalid type: floating point `1.0`, expected u8 at line 1 column 12", "small" },
		{ "{\"small\":-0}",
		  "invalid type: floating point `-0.0`, expected u8 at line 1 column 11", "small" },
		{ "{\"small\":1e2}",
		  "invalid type: floating point `1e2`, expected u8 at line 1 column 12", "small" },
		{ "{\"small\":1,\"big\":18446744073709551616}",
		  "invalid type: floating point `18446744073709551616.0`, expected u64 at line 1 "
		  "column 37",
		  "big" },
		{ "{\"small\":\"-2\"}",
		  "invalid type: string \"-2\", expected u8 at line 1 column 13", "small" },
		{ "{\"small\":true}",
		  "invalid type: boolean `true`, expected u8 at line 1 column 13", "small" },
		{ "{\"small\":{}}", "invalid type: map, expected u8 at line 1 column 9", "small" },
		{ "{\"small\":1,\"flag\":0}",
		  "invalid type: integer `0`, expected a boolean at line 1 column 19", "flag" },
		{ "{\"small\":1,\"text\":0}",
		  "invalid type: integer `0`, expected a string at line 1 column 19", "text" },
		{ "{\"small\":1,\"colour\":\"Blue\"}",
		  "unknown variant `Blue`, expected `Red` or `Green` at line 1 column 26",
		  "colour" },
		{ "{\"small\":1,\"colour\":\"red\"}",
		  "unknown variant `red`, expected `Red` or `Green` at line 1 column 25",
		  "colour" },
		{ "{\"small\":1,\"colour\":7}", "expected value at line 1 column 21", "colour" },
		{ "{\"small\":1,\"text\":\"12345678\"}",
		  "field `text` is too long, expected at most 7 bytes at line 1 column 28",
		  "text" },
		{ "{\"small\":1,\"text\":\"a\\u0000\"}",
		  "field `text` contains a NUL character at line 1 column 27", "text" },
		{ "{\"small\":1,\"inner\":{\"n\":65536}}",
		  "invalid value: integer `65536`, expected u16 at line 1 column 29", "n" },
		{ "{\"small\":1,\"inner\":{}}", "missing field `n` at line 1 column 21", "inner" },
	};
	struct thing t, before;

	(void)state;
	memset(&t, 0x5a, sizeof t);
	before = t;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		if (decode(bad[i].text, &t) >= 0)
			complain("accepted: %s", bad[i].text);
		if (strcmp(err.msg, bad[i].says) != 0)
			complain("%s: \"%s\", not \"%s\"", bad[i].text, err.msg, bad[i].says);
		assert_memory_equal(&t, &before, sizeof t);
		if (bad[i].field)
			assert_string_equal(doc.field, bad[i].field);
		else
			assert_null(doc.field);
	}
}

static void repeats_little_of_a_long_mistake(void **state)
{
	char text[5000];
	struct thing t;

	(void)state;
	memset(text, 'x', sizeof text);
	memcpy(text, "{\"", 2);
	memcpy(text + sizeof text - 5, "\":1}", 5);
	assert_int_equal(decode(text, &t), -EINVAL);
	assert_true(strlen(err.msg) < 400);
	assert_non_null(strstr(err.msg, "at line 1 column 4996"));
}

/* ---- writing -------------------------------------------------------------------------------- */

static char buffer[512];

static const char *encode(const struct thing *t)
{
	struct json_out out = { .buf = buffer, .size = sizeof buffer };

	json_put_object(&out, &thing, t);
	assert_false(out.overflow);
	return buffer;
}

static void prints_in_the_order_of_the_table(void **state)
{
	struct thing t = { .small = 3, .colour = GREEN };

	(void)state;
	assert_string_equal(encode(&t),
			    "{\"flag\":false,\"small\":3,\"wide\":0,\"colour\":\"Green\","
			    "\"text\":null,\"inner\":null}");
	t.big = UINT64_MAX;
	t.text_given = t.inner_given = t.inner.n_given = true;
	strcpy(t.text, "a\"\n");
	assert_string_equal(encode(&t),
			    "{\"flag\":false,\"small\":3,\"wide\":0,\"big\":18446744073709551615,"
			    "\"colour\":\"Green\",\"text\":\"a\\\"\\n\",\"inner\":{\"n\":0}}");
}

static void what_it_prints_it_reads_again(void **state)
{
	struct thing t = { .flag = true,
			   .small = 1,
			   .wide = 2,
			   .big = 3,
			   .colour = GREEN,
			   .text = "\t\x01",
			   .text_given = true },
		     back = { 0 };

	(void)state;
	assert_int_equal(decode(encode(&t), &back), 6);
	assert_memory_equal(&t, &back, sizeof t);
}

static void broken_utf8_comes_out_as_a_replacement(void **state)
{
	struct json_out out = { .buf = buffer, .size = sizeof buffer };

	(void)state;
	json_put_string(&out, "a\xff\xe2\x82z");
	assert_string_equal(buffer, "\"a\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbdz\"");
	assert_int_equal(json_check(buffer, out.len, &err), 0);
}

static void a_full_buffer_is_noticed_and_not_overrun(void **state)
{
	(void)state;
	for (size_t size = 1; size < 9; size++) {
		char small[16];
		struct json_out out = { .buf = small, .size = size };

		memset(small, '#', sizeof small);
		json_put_string(&out, "abcdef");
		assert_int_equal(out.overflow, size < 9);
		assert_true(out.len < size);
		assert_int_equal(small[size], '#');
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(accepts_what_rfc_8259_allows),
		cmocka_unit_test(words_its_refusals_like_serde_json),
		cmocka_unit_test(refuses_a_nul_byte_anywhere),
		cmocka_unit_test(stops_at_the_depth_limit),
		cmocka_unit_test(survives_a_hundred_thousand_brackets_and_digits),
		cmocka_unit_test(refuses_more_values_than_it_has_room_for),
		cmocka_unit_test(fills_every_member),
		cmocka_unit_test(null_and_absent_leave_a_member_alone),
		cmocka_unit_test(says_what_is_wrong_and_touches_nothing),
		cmocka_unit_test(repeats_little_of_a_long_mistake),
		cmocka_unit_test(prints_in_the_order_of_the_table),
		cmocka_unit_test(what_it_prints_it_reads_again),
		cmocka_unit_test(broken_utf8_comes_out_as_a_replacement),
		cmocka_unit_test(a_full_buffer_is_noticed_and_not_overrun),
	};

	return cmocka_run_group_tests_name("json", tests, NULL, NULL);
}
