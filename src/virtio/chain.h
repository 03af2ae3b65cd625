/*
 * chain: one request of the guest, as two byte streams.
 *
 * First all the segments the device may read, then all those it may write (virtio 1.2, 2.7.4.2).
 * A device reads a header with chain_read(), answers with chain_write(), and for bulk data takes an
 * iovec view that points straight into guest memory. No length arithmetic in device code, and no
 * descriptor: how much was used falls out of the write cursor.
 *
 * A chain is a value; it holds host pointers that stay valid for the life of the machine's memory.
 * The bytes behind them may change under us: a header is copied out once, then checked and used.
 */
#ifndef CHAIN_H
#define CHAIN_H

#include "../vmm/base.h"

#include <sys/uio.h>

/* Every descriptor of the largest ring, and one more for each that crosses a region boundary. */
#define CHAIN_IOV_MAX (256 + 2)

struct chain {
	u16 head;		 /* descriptor index: the guest's name for this request */
	u16 n_iov;		 /* segments in iov[] */
	u16 n_read;		 /* the first n_read of them are for reading */
	u16 read_at, write_at;	 /* current segment of each cursor (absolute index in iov[]) */
	u32 read_off, write_off; /* offset in that segment */
	u32 written;		 /* bytes the write cursor has passed: the used length */
	u32 read_left, write_left;
	struct iovec iov[CHAIN_IOV_MAX];
};

/*
 * For vq.c, and for tests that play its part: an empty chain, and one more segment of it. Readable
 * segments come first, none is empty. False: no more segments, or more than 2^32 - 1 bytes in all.
 */
void chain_init(struct chain *chain, u16 head);
bool chain_add(struct chain *chain, void *host, u32 len, bool writable) MUST_CHECK;

/* Copies out the next `len` readable bytes. False, with nothing consumed, if there are fewer. */
bool chain_read(struct chain *chain, void *to, u32 len) MUST_CHECK;

/* Copies into the next `len` writable bytes. False, with nothing written, if there are fewer. */
bool chain_write(struct chain *chain, const void *from, u32 len) MUST_CHECK;

/* Moves a cursor without copying. False, not moved, if there are fewer bytes left. */
bool chain_skip_read(struct chain *chain, u32 len) MUST_CHECK;
bool chain_skip_write(struct chain *chain, u32 len) MUST_CHECK;

/*
 * The next `len` readable / writable bytes as iovecs for readv, writev or io_uring; cursors do not
 * move (skip when the transfer is done). Returns how many entries of `iov` were filled, or -1 if
 * fewer than `len` bytes are left or `max` entries are too few.
 */
int chain_read_iov(const struct chain *chain, u32 len, struct iovec *iov, int max) MUST_CHECK;
int chain_write_iov(const struct chain *chain, u32 len, struct iovec *iov, int max) MUST_CHECK;

/*
 * Writes one byte at the very last writable position (virtio-blk's status), wherever the cursor is,
 * and moves the cursor behind it: the used length is then the whole writable part. False, with
 * nothing changed, if there is no writable byte.
 */
bool chain_write_last(struct chain *chain, u8 byte) MUST_CHECK;

#endif
