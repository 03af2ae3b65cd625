/*
 * vsock_parts: what the files of the vsock device share.
 *
 *	vsock.c		the device: queues, packets in and out, who may send next
 *	vsock_conn.c	one connection: what a packet means to it, its bytes to the host
 *	vsock_speak.c	what it has to say to the guest, the host's bytes among it
 *	vsock_bytes.c	bytes that wait
 *	vsock_host.c	the host's side: listening, the first line, connecting, the table, deadlines
 */
#ifndef VSOCK_PARTS_H
#define VSOCK_PARTS_H

#include "vsock.h"

#define VSOCK_HOST_CID 2

enum { VSOCK_RX, VSOCK_TX, VSOCK_EVENT, VSOCK_QUEUES };

#define VSOCK_F_SEQPACKET 1

/* 5.10.6 */
enum vsock_op {
	VSOCK_OP_INVALID,
	VSOCK_OP_REQUEST,
	VSOCK_OP_RESPONSE,
	VSOCK_OP_RST,
	VSOCK_OP_SHUTDOWN,
	VSOCK_OP_RW,
	VSOCK_OP_CREDIT_UPDATE,
	VSOCK_OP_CREDIT_REQUEST,
	VSOCK_OPS,
};

enum { VSOCK_STREAM = 1, VSOCK_SEQPACKET = 2 };			     /* type */
enum { VSOCK_NO_RECEIVE = 1, VSOCK_NO_SEND = 2, VSOCK_NEITHER = 3 }; /* flags of SHUTDOWN */
enum { VSOCK_EOM = 1, VSOCK_EOR = 2 };				     /* flags of RW */

struct vsock_header {
	u64 src_cid, dst_cid;
	u32 src_port, dst_port;
	u32 len;
	u16 type, op;
	u32 flags;
	u32 buf_alloc, fwd_cnt;
} __attribute__((packed));
static_assert(sizeof(struct vsock_header) == 44, "layout of 5.10.6");

#define VSOCK_PAYLOAD_MAX (u32)KIB(64)
#define VSOCK_BATCH	  8 /* buffers of the guest that one read fills at most */

enum vsock_phase {
	VSOCK_FREE,
	VSOCK_GREETING, /* from the host: its first line is not complete */
	VSOCK_ASKED,	/* from the host: the guest was asked, and has not answered */
	VSOCK_ESTABLISHED,
	VSOCK_CLOSING, /* both sides are done; the guest's RST is due */
	VSOCK_DEAD,    /* nothing but our RST is left to send, however long the guest takes */
};

/* What a connection has to tell the guest; sent in this order. */
enum {
	VSOCK_SAY_RST = 1,
	VSOCK_SAY_REQUEST = 2,
	VSOCK_SAY_RESPONSE = 4,
	VSOCK_SAY_CREDIT = 8,
	VSOCK_SAY_ASK_CREDIT = 16,
	VSOCK_SAY_DATA = 32, /* the socket may have some */
	VSOCK_SAY_SHUTDOWN = 64,
};

/* Bytes that wait: a stretch of a piece of memory that exists only while there are some. */
struct vsock_bytes {
	u8 *data;
	u32 start, len, room;
};

struct vsock_conn {
	struct vsock *vsock;
	enum vsock_phase phase;
	u16 type;
	u32 host_port, guest_port;
	int fd; /* -1: hung up */
	struct loop_source source;
	u64 deadline_ns; /* of GREETING, ASKED, CLOSING; 0: none */

	u8 say;			  /* set of VSOCK_SAY_* */
	u8 guest_done, host_done; /* shutdown flags of either side */
	bool asked_credit;
	u8 batch; /* buffers for the next read: more each time that all of them were filled */

	/* Credit (5.10.6.3): counters that wrap. */
	u32 sent;		  /* to the guest */
	u32 peer_alloc, peer_fwd; /* as the guest told last */
	u32 fwd, told_fwd;	  /* passed on to the host; what the guest knows of that */

	struct vsock_bytes to_host;  /* what the host does not take yet */
	struct vsock_bytes to_guest; /* SEQPACKET: the rest of the message being sent */
	u32 message;		     /* SEQPACKET: where the message being gathered begins */
	bool gathering;

	u32 next_hash, next_ready; /* index + 1; 0: none */
	bool ready;		   /* in the list of those who have something to say */
};

struct vsock_rst {
	u32 host_port, guest_port;
	u16 type;
};

#define VSOCK_HASH 1024
#define VSOCK_RSTS 64

struct vsock {
	struct device dev;
	struct vq vq[VSOCK_QUEUES];
	struct vsock_state state;
	struct vsock_metrics metrics;
	u64 guest_cid;
	char path[VSOCK_PATH_MAX];

	struct vsock_conn *conn; /* max of them: one mapping, resident where used */
	u32 max, n, n_timed;
	u32 high;	      /* no slot from here on was ever used */
	u32 free;	      /* index + 1 of the first slot that was */
	u32 hash[VSOCK_HASH]; /* index + 1 */
	u32 ready_first, ready_last;

	struct vsock_rst rst[VSOCK_RSTS]; /* for connections that do not exist */
	u32 rst_first, n_rst;

	struct loop_source listener, seq_listener;
	int ask_epoll; /* for io_poll() */
	bool deaf; /* no descriptors to be had: not listening until a connection ends */
	struct loop_timer timer;
	bool ticking;
	_Atomic bool purge; /* the driver has reset the device: connections are to be dropped */
	struct loop_work purge_work;
	struct chain chain[VSOCK_BATCH]; /* resident as far as it was used; most need the first */
};

/* How much fits behind the header of one packet; a buffer has at least room for that. */
static inline u32 vsock_room(const struct chain *chain)
{
	return MIN(chain->write_left - (u32)sizeof(struct vsock_header), VSOCK_PAYLOAD_MAX);
}

/* ---- vsock.c ---- */

/* It has something to say; vsock_pump() will come to it. */
void vsock_ready(struct vsock_conn *conn, u8 say);
void vsock_pump(struct vsock *vsock);

/* ---- vsock_conn.c ---- */

/* A packet for an existing connection, whose payload is what is left to read in `chain`. */
void vsock_conn_packet(struct vsock_conn *conn, const struct vsock_header *head,
		       struct chain *chain);

/* The socket is readable, writable, or gone. */
void vsock_conn_event(void *owner, u32 events);

/* Watches the socket for what can be used right now. */
void vsock_conn_watch(struct vsock_conn *conn);

/* Tells the guest that it is over, and forgets the connection when it was told. */
void vsock_conn_reset(struct vsock_conn *conn);

/* Into that phase, with a deadline where it has one. */
void vsock_conn_phase(struct vsock_conn *conn, enum vsock_phase phase);

/* How many bytes more the guest has room for, by its own counters. */
u32 vsock_conn_credit(const struct vsock_conn *conn);

/* ---- vsock_speak.c ---- */

/*
 * The next thing it has to say: `head` is filled, its `len` bytes of payload lie behind the places
 * for a header in the `n` chains, as much in each as there is room for. False: there is nothing
 * after all.
 */
bool vsock_conn_speak(struct vsock_conn *conn, struct vsock_header *head,
		      const struct chain *chain, unsigned n);

/* ---- vsock_bytes.c ---- */

void vsock_bytes_clear(struct vsock_bytes *b);
void vsock_bytes_consume(struct vsock_bytes *b, u32 n);

/* Place for `n` more behind what there is, in a memory of `room` bytes; NULL: there is none. */
u8 *vsock_bytes_extend(struct vsock_bytes *b, u32 n, u32 room);

/* ---- vsock_host.c ---- */

struct vsock_conn *vsock_find(struct vsock *vsock, u32 host_port, u32 guest_port);

/* NULL: there are as many as there may be. Takes `fd`, also then. */
struct vsock_conn *vsock_add(struct vsock *vsock, int fd, u16 type, enum vsock_phase phase);
void vsock_name(struct vsock_conn *conn, u32 host_port,
		u32 guest_port); /* can be found from now on */
void vsock_remove(struct vsock_conn *conn);

/* The host's peer sees the end now; the connection may still have something to tell the guest. */
void vsock_hang_up(struct vsock_conn *conn);

/* A socket that is connected to whoever serves the guest's wish, or a negative errno. */
int vsock_connect(const struct vsock *vsock, u32 port, u16 type);

void vsock_set_deadline(struct vsock_conn *conn, bool on);
int vsock_host_create(struct vsock *vsock, const struct vsock_config *cfg,
		      struct err *err) MUST_CHECK;
void vsock_host_destroy(struct vsock *vsock);
void vsock_drop_all(struct vsock *vsock);

/* The first line of a connection from the host has come, or a part of it. */
void vsock_greet(struct vsock_conn *conn);

#endif
