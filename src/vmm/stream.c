/* stream: see stream.h. Invariant: at <= len <= room. */
#include "stream.h"

#include "io.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>

#define FIRST_ROOM KIB(256)
#define POLYNOMIAL 0xc96c5795d7870f42ull /* of ECMA-182, bit-reversed */

int stream_create(struct stream *s, struct err *err)
{
	*s = (struct stream){ .data = malloc(FIRST_ROOM), .room = FIRST_ROOM };
	return s->data ? 0 : fail(err, -ENOMEM, "no memory for a saved state");
}

void stream_destroy(struct stream *s)
{
	free(s->data);
	*s = (struct stream){ 0 };
}

static bool make_room(struct stream *s, size_t len)
{
	size_t room = s->room;
	u8 *data;

	if (!range_ok(s->len, len, STREAM_MAX))
		return false;
	while (room < s->len + len)
		room *= 2;
	if (room == s->room)
		return true;
	data = realloc(s->data, room);
	if (!data)
		return false;
	s->data = data;
	s->room = room;
	return true;
}

void stream_write(struct stream *s, const void *from, size_t len)
{
	if (s->bad || !make_room(s, len)) {
		s->bad = true;
		return;
	}
	if (len)
		memcpy(s->data + s->len, from, len);
	s->len += len;
}

const u8 *stream_take(struct stream *s, size_t len)
{
	const u8 *at = s->data + s->at;

	if (s->bad || !range_ok(s->at, len, s->len)) {
		s->bad = true;
		return NULL;
	}
	s->at += len;
	return at;
}

void stream_read(struct stream *s, void *to, size_t len)
{
	const u8 *from = stream_take(s, len);

	if (!from)
		memset(to, 0, len);
	else if (len)
		memcpy(to, from, len);
}

u64 stream_checksum(const void *data, size_t len)
{
	const u8 *p = data;
	u64 table[256], sum = ~0ull;

	for (unsigned i = 0; i < 256; i++) {
		table[i] = i;
		for (unsigned bit = 0; bit < 8; bit++)
			table[i] = table[i] >> 1 ^ (table[i] & 1 ? POLYNOMIAL : 0);
	}
	for (size_t i = 0; i < len; i++)
		sum = sum >> 8 ^ table[(u8)(sum ^ p[i])];
	return ~sum;
}

/* ---- files -------------------------------------------------------------------------------------- */

static int read_all(int fd, u8 *to, size_t len)
{
	size_t at = 0;

	while (at < len) {
		ssize_t n = io_pread(fd, to + at, len - at, at);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -EIO; /* it became shorter under our hands */
		at += (size_t)n;
	}
	return 0;
}

int stream_load_fd(struct stream *s, int fd, struct err *err)
{
	struct stat st;
	int r;

	*s = (struct stream){ 0 };
	if (fstat(fd, &st) < 0)
		return fail(err, -errno, "Failed to open snapshot file: " OS_ERR, OS_ERR_ARGS(errno));
	if (!S_ISREG(st.st_mode))
		return fail(err, -EINVAL, "the snapshot file is not a regular file");
	if (st.st_size > (off_t)STREAM_MAX)
		return fail(err, -EFBIG, "the snapshot file has %lld bytes, at most %llu are allowed",
			    (long long)st.st_size, (unsigned long long)STREAM_MAX);
	s->len = s->room = (size_t)st.st_size;
	s->data = malloc(s->len + 1);
	if (!s->data)
		return fail(err, -ENOMEM, "no memory for the snapshot file");
	r = read_all(fd, s->data, s->len);
	if (r == 0)
		return 0;
	stream_destroy(s);
	return fail(err, r, "the snapshot file cannot be read: " OS_ERR, OS_ERR_ARGS(-r));
}

int stream_load(struct stream *s, const char *path, struct err *err)
{
	CLEANUP_FD int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);

	*s = (struct stream){ 0 };
	if (fd < 0)
		return fail(err, -errno, "Failed to open snapshot file: " OS_ERR, OS_ERR_ARGS(errno));
	return stream_load_fd(s, fd, err);
}

int stream_store(const struct stream *s, int fd)
{
	size_t at = 0;

	while (at < s->len) {
		ssize_t n = write(fd, s->data + at, s->len - at);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		at += (size_t)n;
	}
	return 0;
}
