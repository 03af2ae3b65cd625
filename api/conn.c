/* conn: see conn.h. */
#include "conn.h"

#include "../src/vmm/io.h"
#include "../src/vmm/log.h"
#include "routes.h"
#include "server.h"

#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>

#define SECOND_NS    1000000000u
#define LINGER_S     1
#define OUT_BUSY     (16u << 10) /* with more than this to write, no further request is looked at */
#define OUT_HEAD_MAX 512

static const u64 stage_ns[CONN_STAGES] = {
	[CONN_HEAD] = SERVER_HEAD_S * (u64)SECOND_NS,
	[CONN_BODY] = SERVER_BODY_S * (u64)SECOND_NS,
	[CONN_WRITE] = SERVER_WRITE_S * (u64)SECOND_NS,
	[CONN_LINGER] = LINGER_S * (u64)SECOND_NS,
};

size_t conn_out_size(void)
{
	return OUT_BUSY + OUT_HEAD_MAX + ROUTES_BODY_MAX;
}

void conn_close(struct conn *c)
{
	const struct conn_env *env = c->env;

	loop_del(env->loop, &c->source);
	close(c->source.fd);
	c->source.fd = -1;
	/* The pages go back: a burst of big requests must not stay in our account. */
	madvise(c->in, env->in_size, MADV_DONTNEED);
	madvise(c->out, env->out_size, MADV_DONTNEED);
}

size_t conn_unwritten(const struct conn *c)
{
	return c->out_end - c->out_at;
}

/* Room for one more answer: there always is, while conn_unwritten() is at most OUT_BUSY. */
static char *out_room(struct conn *c, size_t *room)
{
	if (c->out_at) {
		memmove(c->out, c->out + c->out_at, conn_unwritten(c));
		c->out_end -= c->out_at;
		c->out_at = 0;
	}
	*room = c->env->out_size - c->out_end;
	return c->out + c->out_end;
}

static void answer(struct conn *c)
{
	struct http_reply reply;
	size_t room, n;
	char *out;

	routes_handle(c->env->inst, &c->parser.req, &reply);
	reply.close = c->parser.req.close;
	out = out_room(c, &room);
	n = http_put_reply(out, room, &reply);
	assert(n);
	c->out_end += n;
	c->closing = reply.close;
	c->answered++;
	http_done(&c->parser);
}

static void answer_continue(struct conn *c)
{
	size_t room;
	char *out = out_room(c, &room);

	c->out_end += http_put_continue(out, room, &c->parser);
}

static void answer_bad(struct conn *c)
{
	size_t room;
	char *out = out_room(c, &room);

	log_error("Received Error. Status code: 400 Bad Request. Message: %s", c->parser.error.msg);
	c->out_end += http_put_error(out, room, &c->parser.error);
	c->closing = true;
}

/* Answers requests until one is incomplete, or (true) too much waits to be written. */
static bool answer_all(struct conn *c)
{
	while (!c->closing && conn_unwritten(c) <= OUT_BUSY) {
		switch (http_next(&c->parser)) {
		case HTTP_READY:
			answer(c);
			break;
		case HTTP_CONTINUE:
			answer_continue(c);
			break;
		case HTTP_BAD:
			answer_bad(c);
			break;
		default:
			return false;
		}
	}
	return !c->closing;
}

/* False: the connection is dead. */
bool conn_flush(struct conn *c)
{
	while (conn_unwritten(c)) {
		ssize_t n = io_send(c->source.fd, c->out + c->out_at, conn_unwritten(c));

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return errno == EAGAIN || errno == EWOULDBLOCK;
		c->out_at += (size_t)n;
	}
	c->out_at = c->out_end = 0;
	return true;
}

static bool pump(struct conn *c)
{
	bool held_back;

	do {
		held_back = answer_all(c);
		if (!conn_flush(c))
			return false;
	} while (held_back && conn_unwritten(c) <= OUT_BUSY);
	return true;
}

/*
 * io_recv() takes no control messages, so descriptors that a client attaches are closed by the
 * kernel and never show up in our table.
 */
static bool receive(struct conn *c)
{
	size_t room;
	char *in = http_room(&c->parser, &room);
	ssize_t n;

	if (c->lingering) {
		in = c->in;
		room = c->env->in_size;
	}
	n = room ? io_recv(c->source.fd, in, room, 0) : -1;
	if (!room || (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR)))
		return true;
	if (n < 0)
		return false;
	if (!n)
		c->eof = true;
	else if (!c->lingering)
		http_fed(&c->parser, (size_t)n);
	return true;
}

static enum conn_stage stage_of(const struct conn *c)
{
	if (c->lingering)
		return CONN_LINGER;
	if (conn_unwritten(c))
		return CONN_WRITE;
	switch (c->parser.state) {
	case HTTP_IN_HEAD:
		return CONN_HEAD;
	case HTTP_CONTINUE:
	case HTTP_IN_BODY:
		return CONN_BODY;
	default:
		return CONN_IDLE;
	}
}

/* A stage has its time from when it began; another request begins its stages anew. */
static void set_deadline(struct conn *c)
{
	enum conn_stage stage = stage_of(c);

	if (stage != c->stage || (c->seen != c->answered && stage != CONN_WRITE))
		c->deadline_ns = stage_ns[stage] ? loop_now_ns() + stage_ns[stage] : 0;
	c->stage = stage;
	c->seen = c->answered;
}

/*
 * Everything is said. The client may still be sending, and closing now would make its write fail
 * before it has read why: say that no more comes, and throw away what does, for a moment.
 */
static void linger(struct conn *c)
{
	c->lingering = true;
	shutdown(c->source.fd, SHUT_WR);
}

/* What to wait for, after everything that could be done was done. */
static void settle(struct conn *c)
{
	u32 events;

	if (c->closing && !conn_unwritten(c) && !c->lingering)
		linger(c);
	if (c->eof && !conn_unwritten(c)) {
		conn_close(c);
		return;
	}
	set_deadline(c);
	/* Back-pressure: while answers wait, nothing is read; at end of file nothing is left to. */
	events = conn_unwritten(c) ? EPOLLOUT : EPOLLIN;
	if (events != c->source.events)
		loop_mod(c->env->loop, &c->source, events);
}

static void conn_ready(void *owner, u32 events)
{
	struct conn *c = owner;
	bool alive = true;

	if (!c->eof && !conn_unwritten(c) && (events & (EPOLLIN | EPOLLHUP | EPOLLERR)))
		alive = receive(c);
	/* Both directions are closed: nobody will read what is left. */
	if (conn_unwritten(c) && (events & (EPOLLHUP | EPOLLERR)) && !(events & EPOLLOUT))
		alive = false;
	if (alive && !c->lingering)
		alive = pump(c);
	if (alive)
		settle(c);
	else
		conn_close(c);
	c->env->changed(c->env->owner);
}

void conn_open(struct conn *c, int fd)
{
	c->source = (struct loop_source){
		.fd = fd, .events = EPOLLIN, .ready = conn_ready, .owner = c
	};
	http_init(&c->parser, c->in, c->env->max_payload);
	c->out_at = c->out_end = 0;
	c->eof = c->closing = c->lingering = false;
	c->stage = CONN_IDLE;
	c->deadline_ns = 0;
	if (loop_add(c->env->loop, &c->source) < 0) {
		close(fd);
		c->source.fd = -1;
	}
}

void conn_poke(struct conn *c)
{
	conn_ready(c, EPOLLIN);
}
