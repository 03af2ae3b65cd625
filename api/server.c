/*
 * server: see server.h. Accepts, keeps time, ends; a connection is conn.c, the socket's name
 * listen.c.
 */
#include "server.h"

#include "../src/vmm/io.h"
#include "../src/vmm/log.h"
#include "conn.h"
#include "listen.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>

#define ACCEPT_BATCH  16
#define FLUSH_MS      1000 /* for all clients together, at the end */
#define PAYLOAD_LIMIT (64u << 20)

struct server {
	struct conn_env env;
	struct loop_source listener;
	struct loop_timer timer;
	u64 timer_ns; /* what the timer is set to; 0: not */
	int spare_fd; /* given up for a moment to turn clients away when there are no descriptors */
	int flush_epoll; /* to wait with for clients that read slowly, at the end */
	char *arena;	 /* every buffer, page aligned */
	struct conn conn[SERVER_CONNECTIONS_MAX];
};

/* ---- deadlines ---------------------------------------------------------------------------- */

static void set_timer(void *owner)
{
	struct server *s = owner;
	u64 first = 0, now;

	for (int i = 0; i < SERVER_CONNECTIONS_MAX; i++) {
		const struct conn *c = &s->conn[i];

		if (c->source.fd >= 0 && c->deadline_ns && (!first || c->deadline_ns < first))
			first = c->deadline_ns;
	}
	if (first == s->timer_ns)
		return;
	s->timer_ns = first;
	now = loop_now_ns();
	loop_timer_set(&s->timer, !first ? 0 : first > now ? first - now : 1, 0);
}

static void on_timer(void *owner)
{
	struct server *s = owner;
	u64 now = loop_now_ns();

	s->timer_ns = 0;
	for (int i = 0; i < SERVER_CONNECTIONS_MAX; i++) {
		struct conn *c = &s->conn[i];

		if (c->source.fd >= 0 && c->deadline_ns && c->deadline_ns <= now)
			conn_close(c);
	}
	set_timer(s);
}

/* ---- accepting ---------------------------------------------------------------------------- */

static struct conn *free_conn(struct server *s)
{
	for (int i = 0; i < SERVER_CONNECTIONS_MAX; i++)
		if (s->conn[i].source.fd < 0)
			return &s->conn[i];
	return NULL;
}

/* A client that has gone may still hold a place, its event being behind ours in the same batch. */
static struct conn *make_room(struct server *s)
{
	struct conn *c = free_conn(s);

	for (int i = 0; !c && i < SERVER_CONNECTIONS_MAX; i++) {
		conn_poke(&s->conn[i]);
		c = free_conn(s);
	}
	return c;
}

static void turn_away(int fd)
{
	static const char full[] =
		"HTTP/1.1 503\r\nServer: Firecracker API\r\nConnection: close\r\n"
		"Content-Length: 40\r\n\r\n{ \"error\": \"Too many open connections\" }";

	io_send(fd, full, sizeof full - 1);
	close(fd);
}

/* Without a free descriptor a connection cannot even be refused, and would wake us for ever. */
static void accept_without_descriptors(struct server *s)
{
	int fd;

	close(s->spare_fd);
	fd = accept4(s->listener.fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	if (fd >= 0)
		turn_away(fd);
	s->spare_fd = fcntl(s->listener.fd, F_DUPFD_CLOEXEC, 0);
	log_guest("No file descriptors left: an API connection was refused.");
}

static bool accept_one(struct server *s)
{
	int fd = accept4(s->listener.fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	struct conn *c;

	if (fd < 0) {
		if (errno == EMFILE || errno == ENFILE)
			accept_without_descriptors(s);
		return false;
	}
	c = make_room(s);
	if (c)
		conn_open(c, fd);
	else
		turn_away(fd);
	return true;
}

/* Some at once, so that a burst passes quickly; not all, so that others are served in between. */
static void on_connection(void *owner, u32 events)
{
	(void)events;
	for (int i = 0; i < ACCEPT_BATCH && accept_one(owner); i++)
		;
}

/* ---- life --------------------------------------------------------------------------------- */

static int create_buffers(struct server *s, struct err *err)
{
	u64 page = (u64)sysconf(_SC_PAGESIZE);
	size_t each;

	s->env.in_size = ALIGN_UP(http_buffer_size(s->env.max_payload), page);
	s->env.out_size = ALIGN_UP(conn_out_size(), page);
	each = s->env.in_size + s->env.out_size;
	s->arena = mmap(NULL, each * SERVER_CONNECTIONS_MAX, PROT_READ | PROT_WRITE,
			MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (s->arena == MAP_FAILED) {
		s->arena = NULL;
		return fail(err, -errno, "no memory for the API server: " OS_ERR,
			    OS_ERR_ARGS(errno));
	}
	for (int i = 0; i < SERVER_CONNECTIONS_MAX; i++) {
		s->conn[i].env = &s->env;
		s->conn[i].in = s->arena + (size_t)i * each;
		s->conn[i].out = s->conn[i].in + s->env.in_size;
	}
	return 0;
}

static int watch(struct server *s, struct err *err)
{
	int r;

	s->spare_fd = fcntl(s->listener.fd, F_DUPFD_CLOEXEC, 0);
	s->flush_epoll = epoll_create1(EPOLL_CLOEXEC);
	r = s->spare_fd < 0 || s->flush_epoll < 0 ? -errno
						  : loop_timer_init(s->env.loop, &s->timer);
	if (!r)
		r = loop_add(s->env.loop, &s->listener);
	return r < 0 ? fail(err, r, "cannot watch the API socket: " OS_ERR, OS_ERR_ARGS(-r)) : 0;
}

int server_create(struct server **out, struct loop *loop, struct instance *inst, const char *path,
		  u64 max_payload, struct err *err)
{
	struct server *s = calloc(1, sizeof *s);
	int r;

	*out = NULL;
	if (!s)
		return fail(err, -ENOMEM, "no memory for the API server");
	s->env = (struct conn_env){ .loop = loop,
				    .inst = inst,
				    .max_payload = (size_t)MIN(max_payload, PAYLOAD_LIMIT),
				    .changed = set_timer,
				    .owner = s };
	s->spare_fd = s->flush_epoll = s->timer.source.fd = s->listener.fd = -1;
	for (int i = 0; i < SERVER_CONNECTIONS_MAX; i++)
		s->conn[i].source.fd = -1;
	s->timer.owner = s;
	s->timer.expired = on_timer;
	s->listener.events = EPOLLIN;
	s->listener.ready = on_connection;
	s->listener.owner = s;
	r = create_buffers(s, err);
	if (!r)
		r = s->listener.fd = listen_open(path, err);
	if (r >= 0)
		r = watch(s, err);
	if (r < 0) {
		server_destroy(s);
		return r;
	}
	log_info("Listening on API socket (\"%s\").", path);
	*out = s;
	return 0;
}

/* The last answers, such as the 204 to the action that ended the machine. */
static void flush_all(struct server *s)
{
	u64 end = loop_now_ns() + FLUSH_MS * 1000000ull, now;

	for (int i = 0; i < SERVER_CONNECTIONS_MAX; i++) {
		struct conn *c = &s->conn[i];

		while (c->source.fd >= 0 && conn_flush(c) && conn_unwritten(c)) {
			now = loop_now_ns();
			if (now >= end || !io_poll(s->flush_epoll, c->source.fd, EPOLLOUT,
						   (int)((end - now) / 1000000 + 1)))
				break;
		}
	}
}

void server_destroy(struct server *s)
{
	if (!s)
		return;
	flush_all(s);
	for (int i = 0; i < SERVER_CONNECTIONS_MAX; i++)
		if (s->conn[i].source.fd >= 0)
			conn_close(&s->conn[i]);
	if (s->listener.fd >= 0) {
		loop_del(s->env.loop, &s->listener);
		close(s->listener.fd);
	}
	if (s->spare_fd >= 0)
		close(s->spare_fd);
	if (s->flush_epoll >= 0)
		close(s->flush_epoll);
	loop_timer_destroy(s->env.loop, &s->timer);
	if (s->arena)
		munmap(s->arena, (s->env.in_size + s->env.out_size) * SERVER_CONNECTIONS_MAX);
	free(s);
}
