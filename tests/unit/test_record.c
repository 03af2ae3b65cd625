/* Streams and records: what is written is read; what is not whole, or not known, is refused by name. */
#include "src/vmm/record.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#define HEAD  16
#define FRAME 32

struct things {
	u64 a;
	u8 b[5];
	u8 list[64];
	u32 list_len;
};

static void table(struct things *t, struct record record[3])
{
	record[0] = (struct record){ .tag = "a", .version = 3, .at = &t->a, .size = sizeof t->a };
	record[1] = (struct record){ .tag = "b", .version = 1, .at = t->b, .size = sizeof t->b };
	record[2] = (struct record){ .tag = "list", .version = 1, .at = t->list,
				     .size = sizeof t->list, .length = &t->list_len };
}

static struct stream saved(void)
{
	struct things t = { .a = 0x1122334455667788, .b = "1234", .list = "abc", .list_len = 3 };
	struct record record[3];
	struct stream s;
	struct err err;

	assert_int_equal(stream_create(&s, &err), 0);
	table(&t, record);
	record_save(&s, record, 3);
	assert_false(s.bad);
	return s;
}

/* The checksum is made right again: what is tested is what comes after it. */
static void seal(struct stream *s)
{
	u64 sum = stream_checksum(s->data, s->len - sizeof sum);

	memcpy(s->data + s->len - sizeof sum, &sum, sizeof sum);
}

static int load(struct stream *s, struct things *t, struct err *err)
{
	struct record record[3];
	u32 format;
	int r;

	err->msg[0] = '\0';
	table(t, record);
	r = record_open(s, &format, err);
	return r < 0 ? r : record_load(s, record, 3, true, err);
}

static void refused(struct stream *s, const char *text)
{
	struct things t = { 0 };
	struct err err;

	assert_true(load(s, &t, &err) < 0);
	if (!strstr(err.msg, text))
		fail_msg("\"%s\" does not say \"%s\"", err.msg, text);
	stream_destroy(s);
}

static void what_is_saved_is_loaded(void **state)
{
	struct stream s = saved();
	struct things t = { 0 };
	struct err err;

	(void)state;
	assert_int_equal(load(&s, &t, &err), 0);
	assert_int_equal(t.a, 0x1122334455667788);
	assert_string_equal((char *)t.b, "1234");
	assert_int_equal(t.list_len, 3);
	assert_memory_equal(t.list, "abc", 3);
	stream_destroy(&s);
}

static void every_truncation_is_refused(void **state)
{
	(void)state;
	for (size_t len = 0; len < 16 + 3 * FRAME + 16 + 8; len++) {
		struct stream s = saved();
		struct things t;
		struct err err;

		assert_true(len < s.len);
		s.len = len;
		assert_true(load(&s, &t, &err) < 0);
		assert_true(err.msg[0]);
		stream_destroy(&s);
		/* And with a checksum that is right for what is left. */
		s = saved();
		s.len = len;
		if (len >= 8)
			seal(&s);
		assert_true(load(&s, &t, &err) < 0);
		assert_true(err.msg[0]);
		stream_destroy(&s);
	}
}

static void every_changed_bit_is_noticed(void **state)
{
	struct stream whole = saved();
	size_t bits = whole.len * 8;

	(void)state;
	stream_destroy(&whole);
	for (size_t bit = 0; bit < bits; bit++) {
		struct stream s = saved();
		struct things t;
		struct err err;

		s.data[bit / 8] ^= (u8)(1u << bit % 8);
		assert_true(load(&s, &t, &err) < 0);
		stream_destroy(&s);
	}
}

/* Writes `value` at `at` of a good stream and seals it again. */
static struct stream with_u32(size_t at, u32 value)
{
	struct stream s = saved();

	memcpy(s.data + at, &value, sizeof value);
	seal(&s);
	return s;
}

static void lengths_and_versions_are_checked(void **state)
{
	static const u32 lengths[] = { 0, 7, 9, 4096, INT32_MAX, UINT32_MAX - 31, UINT32_MAX };
	static const u32 versions[] = { 0, 2, 4, UINT32_MAX };
	struct stream s;

	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(lengths); i++) {
		s = with_u32(HEAD + 28, lengths[i]);
		refused(&s, "record a");
	}
	for (unsigned i = 0; i < ARRAY_SIZE(versions); i++) {
		s = with_u32(HEAD + 24, versions[i]);
		refused(&s, "record a has version");
	}
}

static void the_head_is_checked(void **state)
{
	struct stream s = with_u32(0, 0);

	(void)state;
	refused(&s, "not a snapshot");
	s = with_u32(8, 0);
	refused(&s, "Invalid data version");
	s = with_u32(12, RECORD_FORMAT + 1);
	refused(&s, "Invalid data version");
	s = with_u32(12, UINT32_MAX);
	refused(&s, "Invalid data version");
}

static void a_newer_format_that_we_can_read_is_read(void **state)
{
	struct stream s = with_u32(8, RECORD_FORMAT + 1);
	struct things t;
	struct err err;

	(void)state;
	assert_int_equal(load(&s, &t, &err), 0);
	stream_destroy(&s);
}

static void tags_are_checked(void **state)
{
	struct stream s = saved();

	(void)state;
	s.data[HEAD] = 'z';
	seal(&s);
	refused(&s, "record z is not known");
	s = saved();
	s.data[HEAD] = '\n';
	seal(&s);
	refused(&s, "record ? is not known");
	s = saved();
	memset(s.data + HEAD, 'x', 24);
	seal(&s);
	refused(&s, "too long");
	s = saved();
	strcpy((char *)s.data + HEAD + FRAME + 8, "a"); /* b becomes a */
	seal(&s);
	refused(&s, "record a is there twice");
}

static void a_missing_record_is_named(void **state)
{
	struct things t = { 0 };
	struct record record[3];
	struct stream s;
	struct err err;

	(void)state;
	assert_int_equal(stream_create(&s, &err), 0);
	table(&t, record);
	record_save(&s, record, 2);
	refused(&s, "record list is missing");
}

static void a_list_is_at_most_what_there_is_room_for(void **state)
{
	u8 bytes[65] = { 0 };
	struct record record = { .tag = "list", .version = 1, .at = bytes, .size = sizeof bytes };
	struct stream s;
	struct err err;

	(void)state;
	assert_int_equal(stream_create(&s, &err), 0);
	record_save(&s, &record, 1);
	refused(&s, "record list has 65 bytes, more than 64");
}

static void a_stream_has_a_limit(void **state)
{
	struct stream s;
	struct err err;
	u8 *big = calloc(1, STREAM_MAX);

	(void)state;
	assert_int_equal(stream_create(&s, &err), 0);
	stream_write(&s, big, STREAM_MAX);
	assert_false(s.bad);
	stream_write(&s, big, 1);
	assert_true(s.bad);
	assert_int_equal(s.len, STREAM_MAX);
	assert_null(stream_take(&s, 1));
	stream_destroy(&s);
	free(big);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_saved_is_loaded),
		cmocka_unit_test(every_truncation_is_refused),
		cmocka_unit_test(every_changed_bit_is_noticed),
		cmocka_unit_test(lengths_and_versions_are_checked),
		cmocka_unit_test(the_head_is_checked),
		cmocka_unit_test(a_newer_format_that_we_can_read_is_read),
		cmocka_unit_test(tags_are_checked),
		cmocka_unit_test(a_missing_record_is_named),
		cmocka_unit_test(a_list_is_at_most_what_there_is_room_for),
		cmocka_unit_test(a_stream_has_a_limit),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
