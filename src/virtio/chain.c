/*
 * chain: see chain.h. Knows segments and cursors, not descriptors, rings or files.
 *
 * Invariant: read_left (write_left) is the sum of what lies behind the read (write) cursor, so a
 * length that was compared with it can be walked without another check.
 */
#include "chain.h"

/* One cursor: where it stands, and how much is left behind it. */
struct cursor {
	u16 at;
	u32 off, left;
};

static struct cursor read_cursor(const struct chain *chain)
{
	return (struct cursor){ chain->read_at, chain->read_off, chain->read_left };
}

static struct cursor write_cursor(const struct chain *chain)
{
	return (struct cursor){ chain->write_at, chain->write_off, chain->write_left };
}

static void set_read_cursor(struct chain *chain, const struct cursor *c)
{
	chain->read_at = c->at;
	chain->read_off = c->off;
	chain->read_left = c->left;
}

static void set_write_cursor(struct chain *chain, const struct cursor *c)
{
	chain->written += chain->write_left - c->left;
	chain->write_at = c->at;
	chain->write_off = c->off;
	chain->write_left = c->left;
}

/* The next piece of at most `len` bytes that is contiguous; moves the cursor behind it. */
static struct iovec take(const struct chain *chain, struct cursor *c, u32 len)
{
	const struct iovec *seg = &chain->iov[c->at];
	u32 n = (u32)MIN(len, seg->iov_len - c->off);
	struct iovec piece = { (u8 *)seg->iov_base + c->off, n };

	c->off += n;
	c->left -= n;
	if (c->off == seg->iov_len) {
		c->at++;
		c->off = 0;
	}
	return piece;
}

static void skip(const struct chain *chain, struct cursor *c, u32 len)
{
	while (len)
		len -= (u32)take(chain, c, len).iov_len;
}

static int view(const struct chain *chain, struct cursor c, u32 len, struct iovec *iov, int max)
{
	int n = 0;

	if (len > c.left)
		return -1;
	while (len) {
		if (n == max)
			return -1;
		iov[n] = take(chain, &c, len);
		len -= (u32)iov[n++].iov_len;
	}
	return n;
}

void chain_init(struct chain *chain, u16 head)
{
	/* Not the segments: they are read only below n_iov, and they are 4 KiB. */
	memset(chain, 0, offsetof(struct chain, iov));
	chain->head = head;
}

bool chain_add(struct chain *chain, void *host, u32 len, bool writable)
{
	u32 total = chain->read_left + chain->write_left;

	assert(len && chain->written == 0);
	assert(writable || chain->n_read == chain->n_iov);
	if (chain->n_iov == CHAIN_IOV_MAX || len > UINT32_MAX - total)
		return false;
	chain->iov[chain->n_iov++] = (struct iovec){ host, len };
	if (writable) {
		chain->write_left += len;
	} else {
		chain->read_left += len;
		chain->n_read = chain->n_iov;
		chain->write_at = chain->n_iov;
	}
	return true;
}

bool chain_read(struct chain *chain, void *to, u32 len)
{
	struct cursor c = read_cursor(chain);
	u8 *out = to;

	if (len > c.left)
		return false;
	while (len) {
		struct iovec piece = take(chain, &c, len);

		memcpy(out, piece.iov_base, piece.iov_len);
		out += piece.iov_len;
		len -= (u32)piece.iov_len;
	}
	set_read_cursor(chain, &c);
	return true;
}

bool chain_write(struct chain *chain, const void *from, u32 len)
{
	struct cursor c = write_cursor(chain);
	const u8 *in = from;

	if (len > c.left)
		return false;
	while (len) {
		struct iovec piece = take(chain, &c, len);

		memcpy(piece.iov_base, in, piece.iov_len);
		in += piece.iov_len;
		len -= (u32)piece.iov_len;
	}
	set_write_cursor(chain, &c);
	return true;
}

bool chain_skip_read(struct chain *chain, u32 len)
{
	struct cursor c = read_cursor(chain);

	if (len > c.left)
		return false;
	skip(chain, &c, len);
	set_read_cursor(chain, &c);
	return true;
}

bool chain_skip_write(struct chain *chain, u32 len)
{
	struct cursor c = write_cursor(chain);

	if (len > c.left)
		return false;
	skip(chain, &c, len);
	set_write_cursor(chain, &c);
	return true;
}

int chain_read_iov(const struct chain *chain, u32 len, struct iovec *iov, int max)
{
	return view(chain, read_cursor(chain), len, iov, max);
}

int chain_write_iov(const struct chain *chain, u32 len, struct iovec *iov, int max)
{
	return view(chain, write_cursor(chain), len, iov, max);
}

bool chain_write_last(struct chain *chain, u8 byte)
{
	struct cursor end = { .at = chain->n_iov };
	const struct iovec *last;

	if (chain->n_iov == chain->n_read)
		return false;
	last = &chain->iov[chain->n_iov - 1];
	((u8 *)last->iov_base)[last->iov_len - 1] = byte;
	set_write_cursor(chain, &end);
	return true;
}
