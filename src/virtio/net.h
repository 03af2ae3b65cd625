/*
 * net: virtio-net (virtio 1.2, section 5.1) on a tap: checksum and segmentation offloads both ways,
 * mergeable receive buffers, MTU, link status; several queue pairs with a control queue where the
 * configuration asks for them. Contract 1.4, 3.4.
 *
 * Frames go between the tap and the guest's own buffers, without a copy of ours and without memory
 * of ours. What is too short or too long for a frame is counted and dropped; a tap that vanishes
 * takes the link down and nothing else.
 *
 * Loop thread or a dispatcher under the machine lock.
 */
#ifndef NET_H
#define NET_H

#include "device.h"
#include "limit.h"
#include "tap.h"

#define NET_PAIRS_MAX 8
#define NET_MAC_LEN   6
#define NET_MTU_MIN   68
#define NET_FRAME_MAX 65562 /* with its header */

struct net_config {
	char id[DEVICE_ID_MAX + 1];
	char host_dev[TAP_NAME_MAX + 1];
	u8 mac[NET_MAC_LEN];
	bool mac_given;
	u16 mtu; /* 0: not given */
	u8 queue_pairs;
	int fd[NET_PAIRS_MAX]; /* a queue of the tap each, opened when it was configured; the
				* configuration owns them */
	struct limit_config rx_limit, tx_limit;
};

/* What the device is, beside what every device is. */
struct net_state {
	u16 pairs; /* that the driver uses */
	bool link_down;
};

/* Named as the contract's metrics. */
struct net_metrics {
	u64 rx_packets_count, rx_bytes_count, rx_fails, rx_rate_limiter_throttled;
	u64 no_rx_avail_buffer, tap_read_fails;
	u64 tx_packets_count, tx_bytes_count, tx_malformed_frames, tx_spoofed_mac_count;
	u64 tx_rate_limiter_throttled, tap_write_fails, tx_waits;
};

struct net;

/* The device borrows the fds, copies the rest. */
int net_create(struct net **net, const struct net_config *cfg, const struct mem *mem,
	       struct loop *loop, struct err *err) MUST_CHECK;
void net_destroy(struct net *net);
struct device *net_device(struct net *net);

/* Buckets that are given apply from now on, for all pairs together: a frame each, and its bytes. */
void net_limit(struct net *net, const struct limit_config *rx, const struct limit_config *tx);

const struct net_state *net_state(const struct net *net);
const struct net_metrics *net_metrics(const struct net *net);

#endif
