/*
 * stream: a run of bytes in memory, written or read from front to back, with a sticky error.
 *
 * A saved state is small (tens of KiB): it is gathered here whole before a byte of it reaches a file,
 * and is here whole, its checksum verified, before a byte of it is believed. Reading beyond the end or
 * writing beyond the limit sets `bad`, after which reads give zeros and writes do nothing; so a
 * caller may check once, at the end. Any thread, one at a time.
 */
#ifndef STREAM_H
#define STREAM_H

#include "base.h"
#include "err.h"

#define STREAM_MAX MIB(10) /* no saved state is larger */

struct stream {
	u8 *data; /* owned */
	size_t len, at, room;
	bool bad;
};

/* Nothing in it yet. stream_destroy() accepts a zeroed struct. */
int stream_create(struct stream *stream, struct err *err) MUST_CHECK;
void stream_destroy(struct stream *stream);

void stream_write(struct stream *stream, const void *from, size_t len);
void stream_read(struct stream *stream, void *to, size_t len);

/* The next `len` bytes where they lie, which are skipped; NULL (and bad) if there are not so many. */
const u8 *stream_take(struct stream *stream, size_t len);

static inline size_t stream_left(const struct stream *stream)
{
	return stream->len - stream->at;
}

/* CRC-64 (ECMA-182) of `len` bytes. */
u64 stream_checksum(const void *data, size_t len);

/* The whole of a regular file, at most STREAM_MAX; made by this call. */
int stream_load(struct stream *stream, const char *path, struct err *err) MUST_CHECK;

/* The same of what `fd` refers to, from its beginning. */
int stream_load_fd(struct stream *stream, int fd, struct err *err) MUST_CHECK;

/* All of it into `fd`. 0 or a negative errno. */
int stream_store(const struct stream *stream, int fd) MUST_CHECK;

#endif
