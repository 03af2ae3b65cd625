/*
 * vsock: see vsock.h. Knows the device: queues, packets in and out, who speaks next.
 *
 * Packets from the guest are dealt with as they come; what they cause is said by the connections,
 * which wait in one list and get one packet each in turn. An answer to what belongs to no
 * connection (an RST) waits in a short list of its own; while that is full, no packet is taken from
 * the guest, so one that floods us waits for itself to read.
 *
 * A reset comes on a vCPU's thread, which may not close sockets: it leaves that to the loop, which
 * looks before it does anything else (purge).
 */
#include "vsock_parts.h"

#include <stdlib.h>

#define TURN	    64 /* packets of one queue in a turn of the loop */
#define FIRST_PORT  (1u << 30)
#define EVENT_RESET 0
#define HEADER	    (u32)sizeof(struct vsock_header)

/* ---- who has something to say
 * -------------------------------------------------------------------- */

static u32 number_of(const struct vsock_conn *conn)
{
	return (u32)(conn - conn->vsock->conn) + 1;
}

static void append_ready(struct vsock_conn *conn)
{
	struct vsock *vsock = conn->vsock;

	conn->ready = true;
	conn->next_ready = 0;
	if (vsock->ready_first)
		vsock->conn[vsock->ready_last - 1].next_ready = number_of(conn);
	else
		vsock->ready_first = number_of(conn);
	vsock->ready_last = number_of(conn);
}

static struct vsock_conn *take_ready(struct vsock *vsock)
{
	struct vsock_conn *conn = &vsock->conn[vsock->ready_first - 1];

	vsock->ready_first = conn->next_ready;
	if (!vsock->ready_first)
		vsock->ready_last = 0;
	conn->ready = false;
	return conn;
}

void vsock_ready(struct vsock_conn *conn, u8 say)
{
	conn->say |= say;
	if (!conn->ready)
		append_ready(conn);
}

/* ---- packets to the guest
 * -------------------------------------------------------------------------- */

static void speak_rst(struct vsock *vsock, struct vsock_header *head)
{
	const struct vsock_rst *rst = &vsock->rst[vsock->rst_first];

	*head = (struct vsock_header){ .src_cid = VSOCK_HOST_CID,
				       .dst_cid = vsock->guest_cid,
				       .src_port = rst->host_port,
				       .dst_port = rst->guest_port,
				       .type = rst->type,
				       .op = VSOCK_OP_RST };
	vsock->rst_first = (vsock->rst_first + 1) % VSOCK_RSTS;
	if (vsock->n_rst-- == VSOCK_RSTS)
		device_wake(&vsock->dev, VSOCK_TX); /* it was held up */
}

/* False: whoever was next has nothing to say after all. */
static bool speak(struct vsock *vsock, struct vsock_header *head, unsigned n)
{
	struct vsock_conn *conn;
	bool spoken;

	if (vsock->n_rst) {
		speak_rst(vsock, head);
		return true;
	}
	conn = take_ready(vsock);
	spoken = vsock_conn_speak(conn, head, vsock->chain, n);
	if (spoken && head->op == VSOCK_OP_RST)
		vsock_remove(conn);
	else if (conn->say && !conn->ready)
		append_ready(conn);
	return spoken;
}

static bool anything_to_say(const struct vsock *vsock)
{
	return vsock->n_rst || vsock->ready_first;
}

/* For whoever is next: one, or as many as a stream of many bytes fills at once. */
static unsigned take_buffers(struct vsock *vsock)
{
	struct vq *vq = &vsock->vq[VSOCK_RX];
	unsigned want = vsock->n_rst ? 1 : MAX(vsock->conn[vsock->ready_first - 1].batch, 1), n = 0;

	for (; n < want && vq_pop(vq, &vsock->chain[n]) > 0; n++)
		if (vsock->chain[n].write_left < HEADER) {
			device_break(&vsock->dev, "a receive buffer that is smaller than a header");
			return 0;
		}
	return n;
}

/* Those from `first` on were not needed. */
static void return_buffers(struct vsock *vsock, unsigned first, unsigned n)
{
	while (n > first)
		vq_unpop(&vsock->vq[VSOCK_RX], &vsock->chain[--n]);
}

/* What was said, as a packet for each buffer that it fills. How many those are. */
static unsigned give_packets(struct vsock *vsock, struct vsock_header *head)
{
	struct vq *vq = &vsock->vq[VSOCK_RX];
	u32 left = head->len;
	unsigned n = 0;

	do {
		struct chain *chain = &vsock->chain[n++];

		head->len = MIN(left, vsock_room(chain));
		left -= head->len;
		if (chain_write(chain, head, HEADER) && chain_skip_write(chain, head->len))
			vq_put(vq, chain->head, chain->written);
	} while (left);
	vq_publish(vq);
	vsock->metrics.rx_packets_count += n;
	return n;
}

void vsock_pump(struct vsock *vsock)
{
	struct device *dev = &vsock->dev;
	struct vsock_header head;
	unsigned turn = 0, n;

	if (dev->paused || !device_active(dev) || atomic_load(&vsock->purge))
		return;
	while (turn < TURN && anything_to_say(vsock) && (n = take_buffers(vsock))) {
		unsigned used = speak(vsock, &head, n) ? give_packets(vsock, &head) : 0;

		return_buffers(vsock, used, n);
		turn += MAX(used, 1);
	}
	/* What came from the guest is most often the reason for what it is told: one interrupt. */
	device_signal_queues(dev, 1u << VSOCK_RX | 1u << VSOCK_TX);
	if (turn >= TURN)
		device_wake(dev, VSOCK_RX);
}

/* ---- packets from the guest
 * ------------------------------------------------------------------------- */

static void refuse(struct vsock *vsock, const struct vsock_header *head)
{
	if (head->op == VSOCK_OP_RST)
		return;
	assert(vsock->n_rst < VSOCK_RSTS);
	vsock->rst[(vsock->rst_first + vsock->n_rst++) % VSOCK_RSTS] =
		(struct vsock_rst){ head->dst_port, head->src_port, head->type };
}

static bool type_known(const struct vsock *vsock, u16 type)
{
	return type == VSOCK_STREAM ||
	       (type == VSOCK_SEQPACKET && device_has(&vsock->dev, VSOCK_F_SEQPACKET));
}

static void open_to_host(struct vsock *vsock, const struct vsock_header *head)
{
	struct vsock_conn *conn = NULL;
	int fd = type_known(vsock, head->type) ? vsock_connect(vsock, head->dst_port, head->type)
					       : -EINVAL;

	if (fd >= 0)
		conn = vsock_add(vsock, fd, head->type, VSOCK_ESTABLISHED);
	if (!conn) {
		refuse(vsock, head);
		return;
	}
	vsock_name(conn, head->dst_port, head->src_port);
	conn->peer_alloc = head->buf_alloc;
	conn->peer_fwd = head->fwd_cnt;
	vsock_ready(conn, VSOCK_SAY_RESPONSE);
	vsock_conn_watch(conn);
}

static void packet(struct vsock *vsock, struct chain *chain)
{
	struct vsock_header head;
	struct vsock_conn *conn;

	/* Whoever cannot write a header, or writes another's name into it, hears nothing. */
	if (!chain_read(chain, &head, sizeof head) || head.src_cid != vsock->guest_cid)
		return;
	vsock->metrics.tx_packets_count++;
	if (head.dst_cid != VSOCK_HOST_CID) {
		refuse(vsock, &head);
		return;
	}
	conn = vsock_find(vsock, head.dst_port, head.src_port);
	if (conn && (head.len > VSOCK_PAYLOAD_MAX || head.len > chain->read_left))
		vsock_conn_reset(conn);
	else if (conn)
		vsock_conn_packet(conn, &head, chain);
	else if (head.op == VSOCK_OP_REQUEST)
		open_to_host(vsock, &head);
	else
		refuse(vsock, &head);
}

static void transmit(struct vsock *vsock)
{
	struct vq *vq = &vsock->vq[VSOCK_TX];
	struct chain *chain = &vsock->chain[0];
	unsigned turn = 0;

	vq_suppress_kicks(vq);
	for (; turn < TURN && vsock->n_rst < VSOCK_RSTS && vq_pop(vq, chain) > 0; turn++) {
		packet(vsock, chain);
		vq_push(vq, chain);
	}
	if (turn == TURN)
		device_wake(&vsock->dev, VSOCK_TX);
	vsock_pump(vsock);
}

/* ---- events (5.10.6.7)
 * ------------------------------------------------------------------------------- */

static void tell_reset(struct vsock *vsock)
{
	struct vq *vq = &vsock->vq[VSOCK_EVENT];
	struct chain *chain = &vsock->chain[0];
	const u32 id = EVENT_RESET;

	if (!vsock->state.reset_pending || vq_pop(vq, chain) <= 0)
		return;
	if (!chain_write(chain, &id, sizeof id)) {
		device_break(&vsock->dev, "an event buffer that is smaller than an event");
		return;
	}
	vq_push(vq, chain);
	vsock->state.reset_pending = false;
	device_signal_queue(&vsock->dev, VSOCK_EVENT);
}

/* ---- verbs
 * ------------------------------------------------------------------------------------------- */

static void purge(void *owner)
{
	struct vsock *vsock = owner;

	if (atomic_exchange(&vsock->purge, false))
		vsock_drop_all(vsock);
}

static void vsock_notify(struct device *dev, unsigned q)
{
	struct vsock *vsock = container_of(dev, struct vsock, dev);

	purge(vsock);
	if (q == VSOCK_RX)
		vsock_pump(vsock);
	else if (q == VSOCK_TX)
		transmit(vsock);
	else
		tell_reset(vsock);
}

static void vsock_reset(struct device *dev)
{
	struct vsock *vsock = container_of(dev, struct vsock, dev);

	atomic_store(&vsock->purge, true);
	vsock->state.reset_pending = false;
	loop_call(dev->loop, &vsock->purge_work);
}

static bool vsock_plausible(struct device *dev, const void *own)
{
	u32 port;

	(void)dev;
	memcpy(&port, (const u8 *)own + offsetof(struct vsock_state, next_port), sizeof port);
	return port >= FIRST_PORT &&
	       ((const u8 *)own)[offsetof(struct vsock_state, reset_pending)] <= 1;
}

static_assert(sizeof(struct vsock_state) <= DEVICE_OWN_MAX, "room for it in a snapshot");

static const struct device_type vsock_type = {
	.name = "vsock",
	.virtio_id = 19,
	.notify = vsock_notify,
	.reset = vsock_reset,
	.plausible = vsock_plausible,
};

int vsock_create(struct vsock **out, const struct vsock_config *cfg, const struct mem *mem,
		 struct loop *loop, struct err *err)
{
	struct vsock *vsock = calloc(1, sizeof *vsock);
	int r;

	*out = NULL;
	if (!vsock)
		return fail(err, -ENOMEM, "no memory for the vsock device");
	vsock->guest_cid = cfg->guest_cid;
	vsock->state.next_port = FIRST_PORT;
	memcpy(vsock->path, cfg->uds_path, sizeof vsock->path);
	vsock->purge_work = (struct loop_work){ .run = purge, .owner = vsock };
	vsock->dev = (struct device){ .type = &vsock_type,
				      .id = "vsock",
				      .features_offered = 1ull << VSOCK_F_SEQPACKET,
				      .config_len = sizeof vsock->guest_cid,
				      .vq = vsock->vq,
				      .n_queues = VSOCK_QUEUES };
	memcpy(vsock->dev.config, &vsock->guest_cid, sizeof vsock->guest_cid);
	for (unsigned q = 0; q < VSOCK_QUEUES; q++)
		vsock->vq[q].size_max = VQ_SIZE_MAX;
	vsock->dev.own = &vsock->state;
	vsock->dev.own_size = sizeof vsock->state;
	r = device_init(&vsock->dev, mem, loop, err);
	if (r < 0) {
		free(vsock);
		return r;
	}
	r = vsock_host_create(vsock, cfg, err);
	if (r < 0) {
		vsock_destroy(vsock);
		return r;
	}
	*out = vsock;
	return 0;
}

void vsock_destroy(struct vsock *vsock)
{
	if (!vsock)
		return;
	loop_uncall(vsock->dev.loop, &vsock->purge_work);
	vsock_host_destroy(vsock);
	device_destroy(&vsock->dev);
	free(vsock);
}

struct device *vsock_device(struct vsock *vsock)
{
	return &vsock->dev;
}

void vsock_restored(struct vsock *vsock)
{
	vsock->state.reset_pending = true;
}

const struct vsock_state *vsock_state(const struct vsock *vsock)
{
	return &vsock->state;
}

const struct vsock_metrics *vsock_metrics(const struct vsock *vsock)
{
	return &vsock->metrics;
}

unsigned vsock_connections(const struct vsock *vsock)
{
	return vsock->n;
}
