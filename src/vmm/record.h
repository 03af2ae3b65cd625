/*
 * record: how the state of a machine becomes bytes, and bytes a state.
 *
 * A record names the half of a thing that is saved: a tag, a version, the place and size of its
 * bytes. One table of them serves both directions. In the stream each is a frame:
 *
 *	char tag[24]	NUL padded
 *	u32 version	of the layout of the bytes; another one is refused
 *	u32 length	of the bytes, which follow
 *
 * and the frames stand between a head and a checksum:
 *
 *	u64 magic  u32 format  u32 oldest	format: of this file; oldest: the oldest reader of it
 *	...
 *	u64 checksum	CRC-64 of everything before it
 *
 * Whatever is read is hostile: the checksum finds damage, not malice. A frame that is missing, twice
 * there, unknown, of another version or size ends the load, by its name. Loading copies bytes and
 * calls no hook; what the bytes mean is checked by those who take them over.
 */
#ifndef RECORD_H
#define RECORD_H

#include "stream.h"

#define RECORD_FORMAT	 1 /* written */
#define RECORD_OLDEST	 1 /* the oldest format that is still read, and the oldest reader */
#define RECORD_TAG_MAX	 23

struct record {
	char tag[RECORD_TAG_MAX + 1];
	u32 version;
	u32 size; /* bytes at `at`; of a record that varies: the most */
	void *at;
	u32 *length; /* NULL: always `size` bytes; else how many there are, in both directions */
	bool seen;   /* while loading */
};

/* Head, frames in the order of the table, checksum. Sticky: ask stream->bad afterwards. */
void record_save(struct stream *stream, const struct record *record, unsigned n);

/* Head and checksum; afterwards the stream stands at the first frame and ends after the last. */
int record_open(struct stream *stream, u32 *format, struct err *err) MUST_CHECK;

/*
 * Fills every record of the table from an opened stream, from its first frame on. `all`: frames that
 * are in no record are an error (else they are skipped). On error some of the places are filled.
 */
int record_load(struct stream *stream, struct record *record, unsigned n, bool all,
		struct err *err) MUST_CHECK;

#endif
