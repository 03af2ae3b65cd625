/*
 * vsock_conn: one connection between a guest's socket and one of the host's. Part of vsock.c.
 *
 * Bytes from the guest go to the host's socket at once, out of the guest's buffer; only what that
 * socket does not take is kept (to_host), and the guest may send no more than VSOCK_CREDIT beyond
 * what was passed on. A SOCK_SEQPACKET message goes to the host in one piece, so it is gathered,
 * each with its length before it. The other direction is vsock_speak.c.
 *
 * The counters of credit are the guest's word. They wrap, and may say anything: what they allow is
 * computed modulo 2^32, and never more than one packet's worth is done at once.
 *
 * Invariant: the socket is watched only for what can be done with it right now (it is out of the
 * loop when that is nothing), so neither a full buffer nor a closed peer costs processor time.
 */
#include "vsock_parts.h"

#include "../vmm/io.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#define LENGTH sizeof(u32)

void vsock_conn_phase(struct vsock_conn *conn, enum vsock_phase phase)
{
	conn->phase = phase;
	vsock_set_deadline(conn, phase == VSOCK_GREETING || phase == VSOCK_ASKED ||
					 phase == VSOCK_CLOSING);
}

/* ---- what can be done now ---- */

u32 vsock_conn_credit(const struct vsock_conn *conn)
{
	u32 under_way = conn->sent - conn->peer_fwd;

	return under_way < conn->peer_alloc ? conn->peer_alloc - under_way : 0;
}

static bool wants_input(const struct vsock_conn *conn)
{
	if (conn->phase == VSOCK_GREETING)
		return true;
	return conn->phase == VSOCK_ESTABLISHED && !(conn->say & VSOCK_SAY_DATA) &&
	       !(conn->host_done & VSOCK_NO_SEND) && !(conn->guest_done & VSOCK_NO_RECEIVE) &&
	       vsock_conn_credit(conn);
}

static bool wants_output(const struct vsock_conn *conn)
{
	return conn->to_host.len && !(conn->gathering && conn->message == 0);
}

void vsock_conn_watch(struct vsock_conn *conn)
{
	struct loop *loop = conn->vsock->dev.loop;
	u32 events = (wants_input(conn) ? EPOLLIN : 0) | (wants_output(conn) ? EPOLLOUT : 0);
	bool watched = conn->source.fd >= 0;

	if (!events && watched) {
		loop_del(loop, &conn->source);
		conn->source.fd = -1;
	} else if (events && watched && events != conn->source.events) {
		loop_mod(loop, &conn->source, events);
	} else if (events && !watched) {
		conn->source.fd = conn->fd;
		conn->source.events = events;
		if (loop_add(loop, &conn->source) < 0)
			conn->source.fd = -1;
	}
}

void vsock_conn_reset(struct vsock_conn *conn)
{
	if (conn->phase == VSOCK_DEAD)
		return;
	vsock_bytes_clear(&conn->to_host);
	vsock_bytes_clear(&conn->to_guest);
	conn->gathering = false;
	conn->say = 0;
	vsock_conn_phase(conn, VSOCK_DEAD);
	vsock_hang_up(conn);
	vsock_ready(conn, VSOCK_SAY_RST);
}

/* ---- from the guest to the host ---- */

/* Before the guest has to wait for it. */
static void tell_credit(struct vsock_conn *conn)
{
	if (conn->fwd - conn->told_fwd >= VSOCK_CREDIT / 2)
		vsock_ready(conn, VSOCK_SAY_CREDIT);
}

/* The guest sends no more, and everything it sent has gone. */
static void end_output(struct vsock_conn *conn)
{
	if (conn->to_host.len || conn->phase == VSOCK_DEAD)
		return;
	if (conn->guest_done == VSOCK_NEITHER)
		vsock_conn_reset(conn); /* the end of the end: it waits for this */
	else if (conn->guest_done & VSOCK_NO_SEND)
		shutdown(conn->fd, SHUT_WR);
}

/* How much the socket took; -1: it will take no more, ever. */
static ssize_t push_out(struct vsock_conn *conn, struct iovec *iov, int n)
{
	struct msghdr msg = { .msg_iov = iov, .msg_iovlen = (size_t)n };
	ssize_t sent = sendmsg(conn->fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);

	if (sent >= 0)
		return sent;
	if (errno == EAGAIN || errno == EINTR || errno == ENOBUFS)
		return 0;
	conn->vsock->metrics.tx_write_fails++;
	return -1;
}

/* The next message or piece of a stream; false: the socket takes no more for now, or ever. */
static bool flush_one(struct vsock_conn *conn)
{
	struct vsock_bytes *b = &conn->to_host;
	struct iovec iov = { b->data + b->start, b->len };
	u32 before = 0;
	ssize_t n;

	if (conn->type == VSOCK_SEQPACKET) {
		u32 len;

		memcpy(&len, b->data + b->start, LENGTH);
		before = LENGTH;
		iov = (struct iovec){ b->data + b->start + LENGTH, len };
	}
	n = push_out(conn, &iov, 1);
	if (n < 0)
		vsock_conn_reset(conn);
	if (n <= 0 && iov.iov_len)
		return false;
	conn->fwd += (u32)n;
	vsock_bytes_consume(b, before + (u32)n);
	if (conn->gathering)
		conn->message -= before + (u32)n;
	return true;
}

static void flush(struct vsock_conn *conn)
{
	while (wants_output(conn) && flush_one(conn))
		;
	if (conn->phase == VSOCK_DEAD)
		return;
	tell_credit(conn);
	end_output(conn);
}

/* Keeps the next `len` readable bytes. False: more than there may be. */
static bool keep(struct vsock_conn *conn, struct chain *chain, u32 len)
{
	u32 room = conn->type == VSOCK_STREAM ? VSOCK_CREDIT : 2 * VSOCK_CREDIT;
	u8 *to = vsock_bytes_extend(&conn->to_host, len, room);

	return to && chain_read(chain, to, len);
}

/* True: `len` bytes of the chain are dealt with. */
static bool take_stream(struct vsock_conn *conn, struct chain *chain, u32 len)
{
	SCRATCH struct iovec iov[CHAIN_IOV_MAX];
	ssize_t n;

	if (len > VSOCK_CREDIT - conn->to_host.len)
		return false;
	if (!conn->to_host.len) {
		n = push_out(conn, iov, chain_read_iov(chain, len, iov, CHAIN_IOV_MAX));
		if (n < 0 || !chain_skip_read(chain, (u32)n))
			return false;
		conn->fwd += (u32)n;
		len -= (u32)n;
	}
	return !len || keep(conn, chain, len);
}

static bool take_message(struct vsock_conn *conn, struct chain *chain, u32 len, bool last)
{
	struct vsock_bytes *b = &conn->to_host;
	u32 total = 0;

	if (!conn->gathering) {
		u8 *place = vsock_bytes_extend(b, LENGTH, 2 * VSOCK_CREDIT);

		if (!place)
			return false;
		conn->gathering = true;
		conn->message = b->len - LENGTH;
		memcpy(place, &total, LENGTH);
	}
	memcpy(&total, b->data + b->start + conn->message, LENGTH);
	if (len > VSOCK_CREDIT - total || !keep(conn, chain, len))
		return false;
	total += len;
	memcpy(b->data + b->start + conn->message, &total, LENGTH);
	if (last)
		conn->gathering = false;
	return true;
}

static void on_data(struct vsock_conn *conn, const struct vsock_header *head, struct chain *chain)
{
	bool good;

	if (conn->phase != VSOCK_ESTABLISHED || conn->guest_done & VSOCK_NO_SEND) {
		vsock_conn_reset(conn);
		return;
	}
	conn->vsock->metrics.tx_bytes_count += head->len;
	if (conn->type == VSOCK_STREAM)
		good = take_stream(conn, chain, head->len);
	else
		good = take_message(conn, chain, head->len, head->flags & VSOCK_EOM);
	if (!good) {
		vsock_conn_reset(conn);
		return;
	}
	if (conn->type == VSOCK_SEQPACKET)
		flush(conn);
	if (conn->phase == VSOCK_DEAD)
		return;
	tell_credit(conn);
	vsock_conn_watch(conn);
}

/* ---- packets ---- */

static void on_response(struct vsock_conn *conn, const struct vsock_header *head,
			struct chain *chain)
{
	char line[32];
	int len = snprintf(line, sizeof line, "OK %u\n", conn->host_port);

	(void)head;
	(void)chain;
	if (conn->phase != VSOCK_ASKED || io_send(conn->fd, line, (size_t)len) != len) {
		vsock_conn_reset(conn);
		return;
	}
	vsock_conn_phase(conn, VSOCK_ESTABLISHED);
	vsock_conn_watch(conn);
}

static void on_rst(struct vsock_conn *conn, const struct vsock_header *head, struct chain *chain)
{
	(void)head;
	(void)chain;
	vsock_remove(conn);
}

static void on_shutdown(struct vsock_conn *conn, const struct vsock_header *head,
			struct chain *chain)
{
	(void)chain;
	conn->guest_done |= head->flags & VSOCK_NEITHER;
	if (conn->guest_done & VSOCK_NO_RECEIVE) {
		shutdown(conn->fd, SHUT_RD);
		conn->say &= (u8)~VSOCK_SAY_DATA;
	}
	/* A host that does not read what is left keeps the guest waiting only so long. */
	if (conn->guest_done == VSOCK_NEITHER && conn->phase == VSOCK_ESTABLISHED)
		vsock_conn_phase(conn, VSOCK_CLOSING);
	end_output(conn);
	if (conn->phase != VSOCK_DEAD)
		vsock_conn_watch(conn);
}

static void on_credit_request(struct vsock_conn *conn, const struct vsock_header *head,
			      struct chain *chain)
{
	(void)head;
	(void)chain;
	vsock_ready(conn, VSOCK_SAY_CREDIT);
}

static void on_credit(struct vsock_conn *conn, const struct vsock_header *head, struct chain *chain)
{
	(void)conn; /* every packet carries it */
	(void)head;
	(void)chain;
}

void vsock_conn_packet(struct vsock_conn *conn, const struct vsock_header *head,
		       struct chain *chain)
{
	static void (*const on[VSOCK_OPS])(struct vsock_conn *, const struct vsock_header *,
					   struct chain *) = {
		[VSOCK_OP_RESPONSE] = on_response,    [VSOCK_OP_RST] = on_rst,
		[VSOCK_OP_SHUTDOWN] = on_shutdown,    [VSOCK_OP_RW] = on_data,
		[VSOCK_OP_CREDIT_UPDATE] = on_credit, [VSOCK_OP_CREDIT_REQUEST] = on_credit_request,
	};

	if (conn->phase == VSOCK_DEAD && head->op != VSOCK_OP_RST)
		return;
	if (head->op >= VSOCK_OPS || !on[head->op] || head->type != conn->type) {
		vsock_conn_reset(conn);
		return;
	}
	conn->peer_alloc = head->buf_alloc;
	conn->peer_fwd = head->fwd_cnt;
	if (vsock_conn_credit(conn) && conn->asked_credit) {
		conn->asked_credit = false;
		vsock_conn_watch(conn);
	}
	on[head->op](conn, head, chain);
}

void vsock_conn_event(void *owner, u32 events)
{
	struct vsock_conn *conn = owner;
	struct vsock *vsock = conn->vsock;

	if (conn->phase == VSOCK_GREETING) {
		vsock_greet(conn);
		return;
	}
	if (events & EPOLLOUT)
		flush(conn);
	if (conn->phase == VSOCK_ESTABLISHED && events & (EPOLLIN | EPOLLHUP | EPOLLERR))
		vsock_ready(conn, VSOCK_SAY_DATA);
	vsock_pump(vsock);
	/* Only now: most often everything was said, and nothing is to be changed. */
	if (conn->phase != VSOCK_FREE)
		vsock_conn_watch(conn);
}
