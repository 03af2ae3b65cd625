/*
 * net_rx: frames from the tap into the guest's buffers. Part of net.c.
 *
 * A read from a tap takes one frame whole and cuts off what does not fit, so buffers for the
 * largest frame there can be are gathered first, from as many chains as that takes where buffers
 * are mergeable (5.1.6.3.1), from one where they are not. How large that is depends on what the
 * driver took: with segmentation 64 KiB, else what the MTU allows.
 *
 * Invariant: rx.bytes is the sum of the chains held; a chain held is in flight in its queue.
 */
#include "net_parts.h"

#include "../vmm/io.h"

#include <sys/uio.h>

static struct vq *queue(const struct net_pair *pair)
{
	return &pair->net->vq[2ul * pair->index];
}

static bool mergeable(const struct net *net)
{
	return device_has(&net->dev, NET_F_MRG_RXBUF);
}

/* The largest frame that can come, with its header. */
static u32 frame_max(const struct net *net)
{
	static const u8 large[] = { NET_F_GUEST_TSO4, NET_F_GUEST_TSO6, NET_F_GUEST_UFO,
				    NET_F_GUEST_USO4, NET_F_GUEST_USO6 };
	const u32 vlan = 4;

	for (size_t i = 0; i < ARRAY_SIZE(large); i++)
		if (device_has(&net->dev, large[i]))
			return NET_FRAME_MAX;
	return TAP_HEADER + NET_ETHERNET + vlan + MAX(net->mtu, 1500);
}

/* ---- buffers -------------------------------------------------------------------------------- */

/* Moves what is held to the front, so that there is room behind it. */
static void compact(struct net_rx *rx)
{
	memmove(rx->chain, rx->chain + rx->first, rx->n * sizeof rx->chain[0]);
	memmove(rx->iov, rx->iov + rx->first_iov, rx->n_iov * sizeof rx->iov[0]);
	rx->first = rx->first_iov = 0;
}

/* False: no more room for its segments. */
static bool hold(struct net_rx *rx, const struct chain *chain)
{
	unsigned room = NET_RX_IOV - (rx->first_iov + rx->n_iov);
	int n = chain_write_iov(chain, chain->write_left, rx->iov + rx->first_iov + rx->n_iov,
				(int)room);

	if (n < 0)
		return false;
	rx->chain[rx->first + rx->n].head = chain->head;
	rx->chain[rx->first + rx->n].n_iov = (u16)n;
	rx->chain[rx->first + rx->n].len = chain->write_left;
	rx->n++;
	rx->n_iov += (unsigned)n;
	rx->bytes += chain->write_left;
	return true;
}

/* Whether the next frame can be read, taking what it takes from the ring. */
static bool gather(struct net_pair *pair)
{
	struct net *net = pair->net;
	struct net_rx *rx = &pair->rx;
	struct chain *chain = &net->chain;
	struct vq *vq = queue(pair);
	u32 want = mergeable(net) ? frame_max(net) : 1;

	while (rx->bytes < want && rx->n < NET_RX_CHAINS) {
		if (rx->first + rx->n == NET_RX_CHAINS ||
		    rx->first_iov + rx->n_iov > NET_RX_IOV / 2)
			compact(rx);
		if (vq_pop(vq, chain) <= 0)
			break;
		if (chain->write_left <= TAP_HEADER) {
			device_break(&net->dev,
				     "a receive buffer that is no larger than the header");
			return false;
		}
		if (!hold(rx, chain)) {
			vq_unpop(vq, chain);
			break;
		}
	}
	if (vq->broken)
		return false;
	/* A ring that is smaller than the largest frame: what it has, all of it, has to do. */
	return rx->bytes >= MIN(want, frame_max(net)) || rx->n == vq->size ||
	       (rx->bytes && rx->n_iov >= NET_RX_IOV / 2);
}

void net_rx_forget(struct net_pair *pair)
{
	struct net_rx *rx = &pair->rx;

	rx->first = rx->n = rx->first_iov = rx->n_iov = 0;
	rx->bytes = rx->frame = 0;
}

/* ---- frames --------------------------------------------------------------------------------- */

/* Where the header says over how many chains the frame goes; it may lie in pieces. */
static void set_num_buffers(struct net_rx *rx, u16 n)
{
	const struct iovec *iov = rx->iov + rx->first_iov;
	u32 at = TAP_HEADER - sizeof n;
	u8 bytes[sizeof n];

	memcpy(bytes, &n, sizeof n);
	for (unsigned i = 0, done = 0; i < rx->n_iov && done < sizeof n; i++) {
		while (at < iov[i].iov_len && done < sizeof n)
			((u8 *)iov[i].iov_base)[at++] = bytes[done++];
		at -= (u32)MIN(at, iov[i].iov_len);
	}
}

/* Hands the first `len` bytes of what is held to the driver, in all of its chains at once. */
static void deliver(struct net_pair *pair, u32 len)
{
	struct net *net = pair->net;
	struct net_rx *rx = &pair->rx;
	u32 left = len;
	u16 used = 0;

	for (u32 sum = 0; sum < len; used++)
		sum += rx->chain[rx->first + used].len;
	set_num_buffers(rx, used);
	for (; used; used--) {
		u32 piece = MIN(left, rx->chain[rx->first].len);

		vq_put(queue(pair), rx->chain[rx->first].head, piece);
		left -= piece;
		rx->bytes -= rx->chain[rx->first].len;
		rx->first_iov += rx->chain[rx->first].n_iov;
		rx->n_iov -= rx->chain[rx->first].n_iov;
		rx->first++;
		rx->n--;
	}
	vq_publish(queue(pair));
	rx->frame = 0;
	net->metrics.rx_packets_count++;
	net->metrics.rx_bytes_count += len - TAP_HEADER;
}

/* A frame that waits for the limit is not lost for it. */
void net_rx_give_back(struct net_pair *pair)
{
	struct net_rx *rx = &pair->rx;

	if (rx->frame) {
		deliver(pair, rx->frame);
		device_signal_queue(&pair->net->dev, 2 * pair->index);
	}
	while (rx->n)
		vq_return(queue(pair), rx->chain[rx->first + --rx->n].head);
	net_rx_forget(pair);
}

/* How many segments a read may fill: all that are held, or the first chain's. */
static int segments(const struct net_pair *pair)
{
	const struct net_rx *rx = &pair->rx;

	return (int)(mergeable(pair->net) ? rx->n_iov : rx->chain[rx->first].n_iov);
}

/* True: a frame lies in the buffers (rx.frame). */
static bool read_frame(struct net_pair *pair)
{
	struct net *net = pair->net;
	struct net_rx *rx = &pair->rx;
	ssize_t n = io_readv(pair->tap, rx->iov + rx->first_iov, segments(pair));

	if (n > TAP_HEADER) {
		rx->frame = (u32)n;
		return true;
	}
	if (n >= 0) {
		net->metrics
			.rx_fails++; /* no frame at all: the buffers are used for the next one */
		return false;
	}
	if (errno == EAGAIN || errno == EINTR)
		return false;
	net->metrics.tap_read_fails++;
	if (errno != EINVAL) /* one frame that the kernel could not describe */
		net_tap_gone(pair, errno);
	return false;
}

void net_receive(struct net_pair *pair)
{
	struct net *net = pair->net;
	struct net_rx *rx = &pair->rx;
	unsigned turn = 0;
	bool ready = false;

	pair->rx_wants = false;
	while (pair->tap >= 0 && turn < NET_TURN && (ready = gather(pair))) {
		if (!rx->frame && !read_frame(pair))
			break;
		if (!throttle_take(&net->rx_throttle, 1, rx->frame - TAP_HEADER)) {
			net->metrics.rx_rate_limiter_throttled++;
			break;
		}
		deliver(pair, rx->frame);
		turn++;
	}
	if (!ready)
		net->metrics.no_rx_avail_buffer++;
	/* The tap is looked at again when it has something, unless we are what is waited for. */
	pair->rx_wants = ready && !rx->frame;
	net_watch(pair);
	device_signal_queue(&net->dev, 2 * pair->index);
}
