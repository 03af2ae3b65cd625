/* record: see record.h. */
#include "record.h"

#include <stdio.h>

#define MAGIC 0x314d535946594d8aull /* a byte that is no text, "MYFYSM1" */

struct head {
	u64 magic;
	u32 format, oldest;
};

struct frame {
	char tag[RECORD_TAG_MAX + 1];
	u32 version, length;
};

static_assert(sizeof(struct head) == 16 && sizeof(struct frame) == 32, "no padding in a file");

static u32 length_of(const struct record *r)
{
	return r->length ? *r->length : r->size;
}

void record_save(struct stream *s, const struct record *record, unsigned n)
{
	const struct head head = { MAGIC, RECORD_FORMAT, RECORD_OLDEST };
	u64 sum;

	stream_write(s, &head, sizeof head);
	for (unsigned i = 0; i < n; i++) {
		const struct record *r = &record[i];
		struct frame frame = { .version = r->version, .length = length_of(r) };

		memcpy(frame.tag, r->tag, sizeof frame.tag);
		stream_write(s, &frame, sizeof frame);
		stream_write(s, r->at, frame.length);
	}
	sum = stream_checksum(s->data, s->len);
	stream_write(s, &sum, sizeof sum);
}

int record_open(struct stream *s, u32 *format, struct err *err)
{
	struct head head;
	u64 sum;

	if (s->len < sizeof head + sizeof sum)
		return fail(err, -EINVAL, "the snapshot file is too short: it has %zu bytes", s->len);
	s->at = 0;
	stream_read(s, &head, sizeof head);
	if (head.magic != MAGIC)
		return fail(err, -EINVAL, "this is not a snapshot of mayfly");
	if (head.format < RECORD_OLDEST || head.oldest > RECORD_FORMAT)
		return fail(err, -ENOTSUP,
			    "Invalid data version: the snapshot has format %u, readable from %u on; "
			    "this monitor reads %u to %u",
			    head.format, head.oldest, RECORD_OLDEST, RECORD_FORMAT);
	s->len -= sizeof sum;
	memcpy(&sum, s->data + s->len, sizeof sum);
	if (sum != stream_checksum(s->data, s->len))
		return fail(err, -EBADMSG, "CRC64 validation failed: the snapshot file is damaged");
	*format = head.format;
	return 0;
}

static struct record *find(struct record *record, unsigned n, const char *tag)
{
	for (unsigned i = 0; i < n; i++)
		if (strcmp(record[i].tag, tag) == 0)
			return &record[i];
	return NULL;
}

/* The tag as it may stand in a line of text. */
static void clean(const char *tag, char out[RECORD_TAG_MAX + 1])
{
	for (unsigned i = 0; i <= RECORD_TAG_MAX; i++)
		out[i] = tag[i] && (tag[i] < ' ' || tag[i] > '~') ? '?' : tag[i];
	out[RECORD_TAG_MAX] = '\0';
}

static int check_frame(const struct frame *f, const struct record *r, struct err *err)
{
	if (r->seen)
		return fail(err, -EINVAL, "record %s is there twice", r->tag);
	if (f->version != r->version)
		return fail(err, -ENOTSUP, "record %s has version %u, not %u", r->tag, f->version,
			    r->version);
	if (r->length ? f->length > r->size : f->length != r->size)
		return fail(err, -EINVAL, "record %s has %u bytes, %s%u", r->tag, f->length,
			    r->length ? "more than " : "not ", r->size);
	return 0;
}

static int load_one(struct stream *s, struct record *record, unsigned n, bool all, struct err *err)
{
	char tag[RECORD_TAG_MAX + 1];
	struct frame f;
	struct record *r;
	const u8 *bytes;

	stream_read(s, &f, sizeof f);
	if (s->bad)
		return fail(err, -EINVAL, "the snapshot ends inside the head of a record");
	clean(f.tag, tag);
	bytes = stream_take(s, f.length);
	if (!bytes)
		return fail(err, -EINVAL, "record %s ends beyond the snapshot", tag);
	if (f.tag[RECORD_TAG_MAX])
		return fail(err, -EINVAL, "record %s has a name that is too long", tag);
	r = find(record, n, f.tag);
	if (!r)
		return all ? fail(err, -EINVAL, "record %s is not known", tag) : 0;
	if (check_frame(&f, r, err) < 0)
		return -EINVAL;
	r->seen = true;
	if (f.length)
		memcpy(r->at, bytes, f.length);
	if (r->length)
		*r->length = f.length;
	return 0;
}

int record_load(struct stream *s, struct record *record, unsigned n, bool all, struct err *err)
{
	s->at = sizeof(struct head);
	for (unsigned i = 0; i < n; i++)
		record[i].seen = false;
	while (stream_left(s)) {
		int r = load_one(s, record, n, all, err);

		if (r < 0)
			return r;
	}
	for (unsigned i = 0; i < n; i++)
		if (!record[i].seen)
			return fail(err, -EINVAL, "record %s is missing", record[i].tag);
	return 0;
}
