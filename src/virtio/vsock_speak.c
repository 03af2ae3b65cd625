/*
 * vsock_speak: what a connection says to the guest, and the host's bytes among it. Part of vsock.c.
 *
 * Bytes are read from the host's socket into the guest's buffers, no more than the guest has said it
 * has room for; so nothing of a stream is ever kept on this side. A SOCK_SEQPACKET message is kept
 * whole, and goes in as many pieces as the guest's buffers take.
 */
#include "vsock_parts.h"

#include "../vmm/io.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#define MESSAGE_MAX KIB(64) /* from the host */

/* The host's side has ended: how far? */
static void on_host_end(struct vsock_conn *conn)
{
	conn->host_done |= VSOCK_NO_SEND;
	if (io_poll(conn->vsock->ask_epoll, conn->fd, 0, 0))
		conn->host_done = VSOCK_NEITHER;
	conn->say &= (u8)~VSOCK_SAY_DATA;
	conn->say |= VSOCK_SAY_SHUTDOWN;
}

/* What a read said, where it was not data. */
static void on_no_data(struct vsock_conn *conn, ssize_t n)
{
	if (n == 0) {
		on_host_end(conn);
	} else if (errno == EAGAIN || errno == EINTR) {
		conn->say &= (u8)~VSOCK_SAY_DATA;
	} else {
		conn->vsock->metrics.rx_read_fails++;
		vsock_conn_reset(conn);
	}
}

/* The view of the chain without the place of the header: both start at the first segment. */
static int payload_view(const struct chain *chain, u32 len, struct iovec *iov, int max)
{
	u32 skip = sizeof(struct vsock_header);
	int n = chain_write_iov(chain, skip + len, iov, max), first = 0;

	if (n < 0)
		return n;
	while (first < n && skip >= iov[first].iov_len)
		skip -= (u32)iov[first++].iov_len;
	if (first < n && skip) {
		iov[first].iov_base = (u8 *)iov[first].iov_base + skip;
		iov[first].iov_len -= skip;
	}
	memmove(iov, iov + first, (size_t)(n - first) * sizeof *iov);
	return n - first;
}

static u32 read_stream(struct vsock_conn *conn, const struct chain *chain, unsigned n_chains,
		       u32 may)
{
	SCRATCH struct iovec iov[CHAIN_IOV_MAX];
	struct msghdr msg = { .msg_iov = iov };
	u32 room = 0;
	ssize_t n;

	for (unsigned i = 0; i < n_chains && room < may; i++) {
		u32 len = MIN(vsock_room(&chain[i]), may - room);
		int more = payload_view(&chain[i], len, iov + msg.msg_iovlen,
					CHAIN_IOV_MAX - (int)msg.msg_iovlen);

		if (more < 0)
			break;
		msg.msg_iovlen += (size_t)more;
		room += len;
	}
	n = recvmsg(conn->fd, &msg, MSG_DONTWAIT);
	conn->batch = n == (ssize_t)room ? (u8)MIN(2 * n_chains, VSOCK_BATCH) : 1;
	if (n <= 0) {
		on_no_data(conn, n);
		return 0;
	}
	/* That was all there is; the loop tells of more, and of the end. */
	if ((u32)n < room)
		conn->say &= (u8)~VSOCK_SAY_DATA;
	return (u32)n;
}

/* The next message of the host is in to_guest. */
static bool fetch_message(struct vsock_conn *conn)
{
	struct vsock_bytes *b = &conn->to_guest;
	u8 *to = vsock_bytes_extend(b, MESSAGE_MAX, MESSAGE_MAX);
	ssize_t n = to ? io_recv(conn->fd, to, MESSAGE_MAX, MSG_TRUNC) : -1;

	if (n > 0 && n <= (ssize_t)MESSAGE_MAX) {
		b->len = (u32)n;
		return true;
	}
	vsock_bytes_clear(b);
	if (n > 0 || !to)
		vsock_conn_reset(conn); /* a message that nobody may cut */
	else
		on_no_data(conn, n);
	return false;
}

static u32 read_message(struct vsock_conn *conn, struct vsock_header *head,
			const struct chain *chain, u32 room)
{
	struct vsock_bytes *b = &conn->to_guest;
	SCRATCH struct iovec iov[CHAIN_IOV_MAX];
	u32 len, at = 0;
	int n;

	if (!b->len && !fetch_message(conn))
		return 0;
	len = MIN(room, b->len);
	n = payload_view(chain, len, iov, CHAIN_IOV_MAX);
	for (int i = 0; i < n; i++) {
		memcpy(iov[i].iov_base, b->data + b->start + at, iov[i].iov_len);
		at += (u32)iov[i].iov_len;
	}
	vsock_bytes_consume(b, len);
	head->flags = b->len ? 0 : VSOCK_EOM;
	return len;
}

static bool speak_data(struct vsock_conn *conn, struct vsock_header *head,
		       const struct chain *chain, unsigned n)
{
	u32 may = vsock_conn_credit(conn), room = vsock_room(chain);

	if (!may) {
		conn->say &= (u8)~VSOCK_SAY_DATA;
		if (!conn->asked_credit)
			conn->say |= VSOCK_SAY_ASK_CREDIT;
		conn->asked_credit = true;
		return false;
	}
	if (!room) {
		vsock_conn_reset(conn); /* a buffer that has no place for a single byte */
		return false;
	}
	head->len = conn->type == VSOCK_STREAM ? read_stream(conn, chain, n, may)
					       : read_message(conn, head, chain, MIN(room, may));
	head->op = VSOCK_OP_RW;
	conn->sent += head->len;
	conn->vsock->metrics.rx_bytes_count += head->len;
	return head->len > 0;
}

/* What takes no payload, in the order in which it is said. */
static bool speak_word(struct vsock_conn *conn, struct vsock_header *head, u8 words)
{
	static const struct {
		u8 say;
		enum vsock_op op;
	} table[] = {
		{ VSOCK_SAY_RST, VSOCK_OP_RST },
		{ VSOCK_SAY_REQUEST, VSOCK_OP_REQUEST },
		{ VSOCK_SAY_RESPONSE, VSOCK_OP_RESPONSE },
		{ VSOCK_SAY_ASK_CREDIT, VSOCK_OP_CREDIT_REQUEST },
		{ VSOCK_SAY_CREDIT, VSOCK_OP_CREDIT_UPDATE },
		{ VSOCK_SAY_SHUTDOWN, VSOCK_OP_SHUTDOWN },
	};

	for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
		if (!(conn->say & words & table[i].say))
			continue;
		conn->say &= (u8)~table[i].say;
		head->op = (u16)table[i].op;
		if (table[i].op == VSOCK_OP_SHUTDOWN) {
			head->flags = conn->host_done;
			if (conn->host_done == VSOCK_NEITHER)
				vsock_conn_phase(conn, VSOCK_CLOSING);
		}
		return true;
	}
	return false;
}

bool vsock_conn_speak(struct vsock_conn *conn, struct vsock_header *head,
		      const struct chain *chain, unsigned n)
{
	const u8 first = VSOCK_SAY_RST | VSOCK_SAY_REQUEST | VSOCK_SAY_RESPONSE;
	bool spoken;

	*head = (struct vsock_header){ .src_cid = VSOCK_HOST_CID,
				       .dst_cid = conn->vsock->guest_cid,
				       .src_port = conn->host_port,
				       .dst_port = conn->guest_port,
				       .type = conn->type,
				       .buf_alloc = VSOCK_CREDIT };
	spoken = speak_word(conn, head, first);
	if (!spoken && conn->say & VSOCK_SAY_DATA)
		spoken = speak_data(conn, head, chain, n);
	if (!spoken)
		spoken = speak_word(conn, head, 0xff);
	if (spoken) {
		head->fwd_cnt = conn->told_fwd = conn->fwd;
		conn->say &= (u8)~VSOCK_SAY_CREDIT;
	}
	/* Who has data still is not watched, or will not be when its event is over. */
	if (!(conn->say & VSOCK_SAY_DATA))
		vsock_conn_watch(conn);
	return spoken;
}
