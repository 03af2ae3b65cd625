/*
 * net: see net.h. Knows the device: features, config space, control queue, its taps' place in the
 * loop; frames are net_rx.c's and net_tx.c's.
 *
 * Invariant: a tap is watched for what its queues can use right now and for nothing else, so a full
 * ring or a limit costs no processor time.
 */
#include "net_parts.h"

#include "../vmm/log.h"

#include <stdlib.h>
#include <sys/epoll.h>

#define LINK_UP 1

#define CTRL_OK	      0
#define CTRL_ERR      1
#define CTRL_MQ	      4
#define CTRL_MQ_PAIRS 0

struct net_space { /* 5.1.4 */
	u8 mac[NET_MAC_LEN];
	u16 status;
	u16 max_pairs;
	u16 mtu;
};
static_assert(sizeof(struct net_space) == 12, "layout of 5.1.4");

static void set_space(struct net *net)
{
	struct net_space space = { .status = net->state.link_down ? 0 : LINK_UP,
				   .max_pairs = (u16)net->n_pairs,
				   .mtu = net->mtu };

	memcpy(space.mac, net->mac, sizeof space.mac);
	memcpy(net->dev.config, &space, sizeof space);
	net->dev.config_len = sizeof space;
}

/* ---- the tap in the loop ------------------------------------------------------------------- */

static void leave_loop(struct net_pair *pair)
{
	if (pair->in_loop)
		loop_del(pair->net->dev.loop, &pair->source);
	pair->in_loop = false;
}

static void stop_watching(struct net_pair *pair)
{
	pair->rx_wants = pair->tx_wants = false;
	net_watch(pair);
}

static void tap_ready(void *owner, u32 events)
{
	struct net_pair *pair = owner;
	struct net *net = pair->net;

	if (events & (EPOLLERR | EPOLLHUP)) {
		net_tap_gone(pair, ENODEV);
		return;
	}
	/* The driver has reset the device since: nobody wants to know. */
	if (!device_active(&net->dev)) {
		stop_watching(pair);
		return;
	}
	if (events & EPOLLIN && pair->rx_wants)
		device_kick(&net->dev, 2 * pair->index);
	if (events & EPOLLOUT)
		device_kick(&net->dev, 2 * pair->index + 1);
}

void net_watch(struct net_pair *pair)
{
	struct loop *loop = pair->net->dev.loop;
	u32 events = (pair->rx_wants ? EPOLLIN : 0) | (pair->tx_wants ? EPOLLOUT : 0);

	/* Even who wants nothing is to hear once that something happened: the end of a tap is told
	 * as something to read. */
	if (!events)
		events = EPOLLIN | EPOLLET;
	if (pair->in_loop && events != pair->source.events)
		loop_mod(loop, &pair->source, events);
}

void net_tap_gone(struct net_pair *pair, int errnum)
{
	struct net *net = pair->net;

	if (pair->tap < 0)
		return;
	leave_loop(pair);
	pair->tap = -1;
	/* What waited for room in the tap waits no more: it is dropped. */
	device_wake(&net->dev, 2 * pair->index + 1);
	if (net->state.link_down)
		return;
	log_warn("network device \"%s\": its tap is gone (" OS_ERR "): the link is down",
		 net->dev.id, OS_ERR_ARGS(errnum));
	net->state.link_down = true;
	set_space(net);
	device_config_changed(&net->dev);
}

static int enter_loop(struct net *net, struct err *err)
{
	int r = 0;

	for (unsigned i = 0; i < net->n_pairs && !r; i++) {
		struct net_pair *pair = &net->pair[i];

		pair->source = (struct loop_source){ .fd = pair->tap,
						     .events = EPOLLIN | EPOLLET,
						     .ready = tap_ready,
						     .owner = pair };
		r = loop_add(net->dev.loop, &pair->source);
		pair->in_loop = r == 0;
	}
	return r < 0 ? fail(err, r, "cannot watch the tap of \"%s\": " OS_ERR, net->dev.id,
			    OS_ERR_ARGS(-r))
		     : 0;
}

/* ---- the control queue (5.1.6.5) ------------------------------------------------------------- */

static bool set_pairs(struct net *net, u16 pairs)
{
	if (!device_has(&net->dev, NET_F_MQ) || !pairs || pairs > net->n_pairs)
		return false;
	net->state.pairs = pairs;
	/* Frames for a queue that the driver does not use would wait there for ever. */
	for (unsigned i = 0; i < net->n_pairs; i++) {
		if (net->pair[i].tap >= 0)
			tap_attach(net->pair[i].tap, i < pairs);
		if (i < pairs) {
			/* What the driver offered before it asked for the pair: no kick follows. */
			device_wake(&net->dev, 2 * i);
			device_wake(&net->dev, 2 * i + 1);
			continue;
		}
		net_rx_give_back(&net->pair[i]);
		stop_watching(&net->pair[i]);
	}
	return true;
}

static u8 command(struct net *net, struct chain *chain)
{
	struct {
		u8 class, command;
	} head;
	u16 pairs;

	if (!chain_read(chain, &head, sizeof head) || head.class != CTRL_MQ ||
	    head.command != CTRL_MQ_PAIRS || !chain_read(chain, &pairs, sizeof pairs))
		return CTRL_ERR;
	return set_pairs(net, pairs) ? CTRL_OK : CTRL_ERR;
}

static void serve_control(struct net *net, unsigned q)
{
	struct chain *chain = &net->chain;
	unsigned turn = 0;

	for (; turn < NET_TURN && vq_pop(&net->vq[q], chain) > 0; turn++) {
		u8 answer = command(net, chain);

		if (!chain_write(chain, &answer, sizeof answer)) {
			device_break(&net->dev, "a command without room for its answer");
			return;
		}
		vq_push(&net->vq[q], chain);
	}
	device_signal_queue(&net->dev, q);
	if (turn == NET_TURN)
		device_wake(&net->dev, q);
}

/* ---- verbs ------------------------------------------------------------------------------------
 */

/* Pairs come first; a driver without MQ has the control queue third (5.1.2). */
static bool is_control(const struct net *net, unsigned q)
{
	if (!device_has(&net->dev, NET_F_CTRL_VQ))
		return false;
	return q == (device_has(&net->dev, NET_F_MQ) ? 2 * net->n_pairs : 2);
}

static void net_notify(struct device *dev, unsigned q)
{
	struct net *net = net_of(dev);

	if (is_control(net, q))
		serve_control(net, q);
	else if (q / 2 >= net->state.pairs)
		return;
	else if (q % 2)
		net_transmit(&net->pair[q / 2]);
	else
		net_receive(&net->pair[q / 2]);
}

/* Possibly on a vCPU's thread, so the loop's part (whom to watch) is left to the next kick. */
static void net_reset(struct device *dev)
{
	struct net *net = net_of(dev);

	for (unsigned i = 0; i < net->n_pairs; i++)
		net_rx_forget(&net->pair[i]);
	net->state.pairs = 1;
}

static void net_drain(struct device *dev)
{
	struct net *net = net_of(dev);

	for (unsigned i = 0; i < net->n_pairs; i++) {
		net_rx_give_back(&net->pair[i]);
		stop_watching(&net->pair[i]);
	}
}

/* What the driver can take unfinished, the tap may send so. */
static unsigned offloads(const struct device *dev)
{
	static const struct {
		u8 feature;
		enum tap_offload offload;
	} map[] = {
		{ NET_F_GUEST_CSUM, TAP_CHECKSUM }, { NET_F_GUEST_TSO4, TAP_TSO4 },
		{ NET_F_GUEST_TSO6, TAP_TSO6 },	    { NET_F_GUEST_ECN, TAP_ECN },
		{ NET_F_GUEST_UFO, TAP_UFO },	    { NET_F_GUEST_USO4, TAP_USO },
	};
	unsigned set = 0;

	for (size_t i = 0; i < ARRAY_SIZE(map); i++)
		if (device_has(dev, map[i].feature))
			set |= map[i].offload;
	/* The tap knows both families together only. */
	if (!device_has(dev, NET_F_GUEST_USO6))
		set &= ~(unsigned)TAP_USO;
	if (!(set & (TAP_TSO4 | TAP_TSO6)))
		set &= ~(unsigned)TAP_ECN;
	/* Nothing but a checksum can be left out without one (5.1.3.1). */
	return set & TAP_CHECKSUM ? set : 0;
}

static void net_loaded(struct device *dev)
{
	struct net *net = net_of(dev);

	for (unsigned i = 0; i < net->n_pairs; i++) {
		int r;

		if (net->pair[i].tap < 0)
			continue;
		r = tap_offload(net->pair[i].tap, offloads(dev));
		/* As often as the guest likes. */
		if (r < 0)
			log_guest("network device \"%s\": offloads: " OS_ERR, dev->id,
				  OS_ERR_ARGS(-r));
		if (net->n_pairs > 1)
			tap_attach(net->pair[i].tap, i < net->state.pairs);
	}
}

/* The link is what the tap is now. */
static bool net_plausible(struct device *dev, const void *own)
{
	const struct net *net = container_of(dev, struct net, dev);
	u16 pairs;

	memcpy(&pairs, (const u8 *)own + offsetof(struct net_state, pairs), sizeof pairs);
	return pairs && pairs <= net->n_pairs &&
	       ((const u8 *)own)[offsetof(struct net_state, link_down)] <= 1;
}

static_assert(sizeof(struct net_state) <= DEVICE_OWN_MAX, "room for it in a snapshot");

static const struct device_type net_type = {
	.name = "network",
	.virtio_id = 1,
	.notify = net_notify,
	.reset = net_reset,
	.drain = net_drain,
	.loaded = net_loaded,
	.plausible = net_plausible,
};

/* ---- life -------------------------------------------------------------------------------------
 */

static u64 features(const struct net_config *cfg)
{
	static const u8 always[] = { NET_F_CSUM,       NET_F_GUEST_CSUM, NET_F_GUEST_TSO4,
				     NET_F_GUEST_TSO6, NET_F_GUEST_ECN,	 NET_F_HOST_TSO4,
				     NET_F_HOST_TSO6,  NET_F_HOST_ECN,	 NET_F_MRG_RXBUF,
				     NET_F_STATUS };
	const unsigned segments = TAP_CHECKSUM | TAP_TSO4 | TAP_TSO6;
	u64 bits = 0;

	for (size_t i = 0; i < ARRAY_SIZE(always); i++)
		bits |= 1ull << always[i];
	if (tap_offload(cfg->fd[0], segments | TAP_UFO) == 0)
		bits |= 1ull << NET_F_GUEST_UFO | 1ull << NET_F_HOST_UFO;
	if (tap_offload(cfg->fd[0], segments | TAP_USO) == 0)
		bits |= 1ull << NET_F_GUEST_USO4 | 1ull << NET_F_GUEST_USO6 |
			1ull << NET_F_HOST_USO;
	tap_offload(cfg->fd[0], 0);
	if (cfg->mac_given)
		bits |= 1ull << NET_F_MAC;
	if (cfg->mtu)
		bits |= 1ull << NET_F_MTU;
	if (cfg->queue_pairs > 1)
		bits |= 1ull << NET_F_CTRL_VQ | 1ull << NET_F_MQ;
	return bits;
}

static void set_up(struct net *net, const struct net_config *cfg)
{
	net->n_pairs = MAX(cfg->queue_pairs, 1);
	net->state.pairs = 1;
	net->mac_given = cfg->mac_given;
	net->mtu = cfg->mtu;
	memcpy(net->mac, cfg->mac, sizeof net->mac);
	net->dev.type = &net_type;
	net->dev.vq = net->vq;
	net->dev.n_queues = 2 * net->n_pairs + (net->n_pairs > 1);
	net->dev.features_offered = features(cfg);
	memcpy(net->dev.id, cfg->id, sizeof net->dev.id);
	for (unsigned q = 0; q < net->dev.n_queues; q++)
		net->vq[q].size_max = VQ_SIZE_MAX;
	for (unsigned i = 0; i < net->n_pairs; i++) {
		struct net_pair *pair = &net->pair[i];

		pair->net = net;
		pair->index = i;
		pair->tap = cfg->fd[i];
	}
	set_space(net);
}

int net_create(struct net **out, const struct net_config *cfg, const struct mem *mem,
	       struct loop *loop, struct err *err)
{
	struct net *net = calloc(1, sizeof *net);
	int r;

	*out = NULL;
	if (!net)
		return fail(err, -ENOMEM, "no memory for network interface \"%s\"", cfg->id);
	set_up(net, cfg);
	net->dev.own = &net->state;
	net->dev.own_size = sizeof net->state;
	r = device_init(&net->dev, mem, loop, err);
	if (r < 0) {
		free(net);
		return r;
	}
	r = throttle_init(&net->rx_throttle, &net->dev, 0, 2, err);
	if (!r)
		r = throttle_init(&net->tx_throttle, &net->dev, 1, 2, err);
	if (!r)
		r = enter_loop(net, err);
	if (r < 0) {
		net_destroy(net);
		return r;
	}
	net_limit(net, &cfg->rx_limit, &cfg->tx_limit);
	*out = net;
	return 0;
}

void net_destroy(struct net *net)
{
	if (!net)
		return;
	for (unsigned i = 0; i < net->n_pairs; i++)
		leave_loop(&net->pair[i]);
	throttle_destroy(&net->rx_throttle);
	throttle_destroy(&net->tx_throttle);
	device_destroy(&net->dev);
	free(net);
}

struct device *net_device(struct net *net)
{
	return &net->dev;
}

void net_limit(struct net *net, const struct limit_config *rx, const struct limit_config *tx)
{
	throttle_patch(&net->rx_throttle, rx);
	throttle_patch(&net->tx_throttle, tx);
}

const struct net_state *net_state(const struct net *net)
{
	return &net->state;
}

const struct net_metrics *net_metrics(const struct net *net)
{
	return &net->metrics;
}
