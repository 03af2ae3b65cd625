/*
 * net_parts: what the files of the network device share (net.c, net_rx.c, net_tx.c).
 */
#ifndef NET_PARTS_H
#define NET_PARTS_H

#include "net.h"
#include "throttle.h"

/* Feature bits (5.1.3) */
#define NET_F_CSUM	 0
#define NET_F_GUEST_CSUM 1
#define NET_F_MTU	 3
#define NET_F_MAC	 5
#define NET_F_GUEST_TSO4 7
#define NET_F_GUEST_TSO6 8
#define NET_F_GUEST_ECN	 9
#define NET_F_GUEST_UFO	 10
#define NET_F_HOST_TSO4	 11
#define NET_F_HOST_TSO6	 12
#define NET_F_HOST_ECN	 13
#define NET_F_HOST_UFO	 14
#define NET_F_MRG_RXBUF	 15
#define NET_F_STATUS	 16
#define NET_F_CTRL_VQ	 17
#define NET_F_MQ	 22
#define NET_F_GUEST_USO4 54
#define NET_F_GUEST_USO6 55
#define NET_F_HOST_USO	 56

#define NET_QUEUES_MAX (2 * NET_PAIRS_MAX + 1)
static_assert(NET_QUEUES_MAX <= DEVICE_QUEUES_MAX, "every pair and the control queue");

#define NET_ETHERNET 14
#define NET_TURN     64 /* frames of one queue in a turn of the loop */

/*
 * Receive buffers that are taken from the ring and not filled yet, in their order. Enough for the
 * largest frame, so that whatever the tap has can be read in one go; what a frame leaves is the
 * next one's. Host pointers: given back whenever the machine pauses.
 */
#define NET_RX_CHAINS 256
#define NET_RX_IOV    512

struct net_rx {
	struct {
		u16 head;
		u16 n_iov;
		u32 len;
	} chain[NET_RX_CHAINS];
	struct iovec iov[NET_RX_IOV];
	unsigned first, n; /* of chain[] */
	unsigned first_iov, n_iov;
	u32 bytes; /* in all of them */
	u32 frame; /* one of so many bytes lies in them, and waits for the limit; 0: none */
};

struct net_pair {
	struct net *net;
	unsigned index;
	int tap; /* borrowed; -1: vanished */
	struct loop_source source;
	bool in_loop; /* always, while there is a tap: its end is told without being asked for */
	bool rx_wants, tx_wants;
	u32 tx_paid; /* the limit let a chain of so many bytes pass, the tap did not; 0: none */
	struct net_rx rx;
};

struct net {
	struct device dev;
	struct vq vq[NET_QUEUES_MAX];
	struct net_state state;
	struct net_metrics metrics;
	struct throttle rx_throttle, tx_throttle; /* of all pairs together */
	u8 mac[NET_MAC_LEN];
	bool mac_given;
	u16 mtu;
	unsigned n_pairs;
	struct net_pair pair[NET_PAIRS_MAX];
	struct chain chain; /* of whichever queue is being served */
};

static inline struct net *net_of(struct device *dev)
{
	return container_of(dev, struct net, dev);
}

/* net_rx.c: serves the receive queue of a pair; forgets, or gives back, what it took. */
void net_receive(struct net_pair *pair);
void net_rx_forget(struct net_pair *pair);
void net_rx_give_back(struct net_pair *pair);

/* net_tx.c */
void net_transmit(struct net_pair *pair);

/* net.c: what the pair waits for has changed; the tap said that it is gone. */
void net_watch(struct net_pair *pair);
void net_tap_gone(struct net_pair *pair, int errnum);

#endif
