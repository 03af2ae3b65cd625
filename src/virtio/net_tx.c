/*
 * net_tx: frames from the guest into the tap. Part of net.c.
 *
 * A chain is a frame with its header, which the kernel checks: what it says of checksums and
 * segments is the guest's affair and the tap's. We check that there is a frame at all.
 */
#include "net_parts.h"

#include "../vmm/io.h"
#include "../vmm/log.h"

#include <sys/uio.h>

static struct vq *queue(const struct net_pair *pair)
{
	return &pair->net->vq[2 * pair->index + 1];
}

/* `len` readable bytes from `off` on, wherever the segments end. There are that many. */
static void peek(const struct chain *chain, u32 off, u8 *to, u32 len)
{
	for (unsigned i = 0; i < chain->n_read && len; i++) {
		const struct iovec *seg = &chain->iov[i];

		for (; off < seg->iov_len && len; off++, len--)
			*to++ = READ_ONCE(((const u8 *)seg->iov_base)[off]);
		off -= (u32)MIN(off, seg->iov_len);
	}
}

static void count_spoofed(struct net *net, const struct chain *chain)
{
	u8 source[NET_MAC_LEN];

	if (!net->mac_given)
		return;
	peek(chain, TAP_HEADER + NET_MAC_LEN, source, sizeof source);
	if (memcmp(source, net->mac, sizeof source) != 0)
		net->metrics.tx_spoofed_mac_count++;
}

enum sent { SENT, DROPPED, AGAIN, GONE };

static enum sent send_frame(struct net_pair *pair, const struct chain *chain)
{
	struct net *net = pair->net;
	SCRATCH struct iovec iov[CHAIN_IOV_MAX];
	int n = chain_read_iov(chain, chain->read_left, iov, CHAIN_IOV_MAX);
	ssize_t wrote = io_writev(pair->tap, iov, n);

	if (wrote >= 0) {
		net->metrics.tx_packets_count++;
		net->metrics.tx_bytes_count += chain->read_left - TAP_HEADER;
		return SENT;
	}
	if (errno == EAGAIN || errno == EINTR)
		return AGAIN;
	if (errno == EBADFD || errno == ENODEV || errno == ENXIO) {
		net_tap_gone(pair, errno);
		return GONE;
	}
	/* EINVAL: a header that makes no sense; EIO: the interface is down; ENOBUFS. */
	net->metrics.tap_write_fails++;
	return DROPPED;
}

static bool is_frame(struct net *net, const struct chain *chain)
{
	if (chain->read_left >= TAP_HEADER + NET_ETHERNET && chain->read_left <= NET_FRAME_MAX)
		return true;
	net->metrics.tx_malformed_frames++;
	log_guest("network device \"%s\": a frame of %u bytes was dropped", net->dev.id,
		  chain->read_left);
	return false;
}

/* A frame that came back from a full tap was counted, and took its tokens, the first time. */
static bool may_go(struct net_pair *pair, const struct chain *chain)
{
	struct net *net = pair->net;

	if (pair->tx_paid == chain->read_left)
		return true;
	if (!throttle_take(&net->tx_throttle, 1, chain->read_left - TAP_HEADER)) {
		net->metrics.tx_rate_limiter_throttled++;
		return false;
	}
	count_spoofed(net, chain);
	return true;
}

/* False: it is back in the ring, and somebody will come for it. */
static bool transmit(struct net_pair *pair, struct chain *chain)
{
	struct net *net = pair->net;

	if (!is_frame(net, chain))
		return true;
	if (!may_go(pair, chain)) {
		vq_unpop(queue(pair), chain);
		return false;
	}
	pair->tx_paid = 0;
	if (pair->tap < 0 || send_frame(pair, chain) != AGAIN)
		return true;
	net->metrics.tx_waits++;
	pair->tx_wants = true;
	pair->tx_paid = chain->read_left;
	vq_unpop(queue(pair), chain);
	return false;
}

void net_transmit(struct net_pair *pair)
{
	struct net *net = pair->net;
	struct chain *chain = &net->chain;
	struct vq *vq = queue(pair);
	unsigned turn = 0;

	pair->tx_wants = false;
	vq_suppress_kicks(vq);
	for (; turn < NET_TURN && vq_pop(vq, chain) > 0; turn++) {
		if (!transmit(pair, chain))
			break;
		vq_push(vq, chain);
	}
	net_watch(pair);
	device_signal_queue(&net->dev, 2 * pair->index + 1);
	if (turn == NET_TURN)
		device_wake(&net->dev, 2 * pair->index + 1);
}
