/*
 * vsock_bytes: bytes of a connection that wait for whoever takes them. Part of vsock.c.
 */
#include "vsock_parts.h"

#include <stdlib.h>
#include <string.h>

void vsock_bytes_clear(struct vsock_bytes *b)
{
	free(b->data);
	*b = (struct vsock_bytes){ 0 };
}

void vsock_bytes_consume(struct vsock_bytes *b, u32 n)
{
	b->start += n;
	b->len -= n;
	if (!b->len)
		vsock_bytes_clear(b);
}

u8 *vsock_bytes_extend(struct vsock_bytes *b, u32 n, u32 room)
{
	u8 *end;

	if (!b->data) {
		b->data = malloc(room);
		if (!b->data)
			return NULL;
		b->room = room;
	}
	if (n > b->room - b->len)
		return NULL;
	if (n > b->room - b->len - b->start) {
		memmove(b->data, b->data + b->start, b->len);
		b->start = 0;
	}
	end = b->data + b->start + b->len;
	b->len += n;
	return end;
}
